//! The sampler of this crate: continuous batching on the CPU.

use std::collections::VecDeque;
use std::sync::Arc;

use rayon::prelude::*;

use super::cache::{BlockPool, SequenceCache};
use super::draw::draw;
use super::forward::{PlainDecoder, StepInput};
use super::response::{Response, check};
use super::{Rollout, RolloutProgress, RolloutRequest, Sampler, SamplingParams};
use crate::model::Decoder;
use crate::{Error, Result};

/// Samples many sequences of different lengths at once.
///
/// Sequences that end leave the batch at once and waiting prompts take their place; prompts that share an allocation are
/// prefilled once. The random numbers of a response come from its own seed alone, so its text does not depend on what
/// else is in the batch.
pub struct CpuSampler {
    model: PlainDecoder,
    end_of_sequence: Vec<u32>,
    concurrent_sequences: usize,
    pool: BlockPool,
}

/// A response being sampled.
struct Active {
    response: Response,
    cache: SequenceCache,
    /// Tokens whose keys and values are stored.
    stored: usize,
}

impl CpuSampler {
    /// A sampler of `decoder`'s weights as they are now; a response ends at any id of `end_of_sequence`, and at most
    /// `concurrent_sequences` are in the batch at a time.
    ///
    /// # Errors
    /// [`Error::Config`] when `concurrent_sequences` is 0.
    pub fn new(decoder: &Decoder, end_of_sequence: &[u32], concurrent_sequences: usize) -> Result<Self> {
        if concurrent_sequences == 0 {
            return Err(Error::config("the sampler needs room for at least one sequence"));
        }
        Ok(Self {
            model: PlainDecoder::new(decoder)?,
            end_of_sequence: end_of_sequence.to_vec(),
            concurrent_sequences,
            pool: BlockPool::default(),
        })
    }

    /// Samples from these weights from now on. The memory of finished sequences is kept for the next ones.
    ///
    /// # Errors
    /// [`Error::Config`] when the new weights are of another shape than the old ones.
    pub fn set_weights(&mut self, decoder: &Decoder) -> Result<()> {
        if *decoder.config() != self.model.config {
            return Err(Error::config("the new weights of a sampler have another shape than its old ones"));
        }
        self.model = PlainDecoder::new(decoder)?;
        Ok(())
    }

    /// Takes waiting requests into the batch while there is room.
    fn admit(
        &self,
        active: &mut Vec<Active>,
        waiting: &mut VecDeque<(usize, &RolloutRequest)>,
        params: &SamplingParams,
    ) {
        while active.len() < self.concurrent_sequences
            && let Some((index, request)) = waiting.pop_front()
        {
            active.push(Active {
                response: Response::new(index, request, params, &self.model.config),
                cache: SequenceCache::new(self.model.block_layout()),
                stored: 0,
            });
        }
    }

    /// Runs the model once; returns logits and, for each active sequence, the row of its own.
    fn forward(&mut self, active: &mut [Active]) -> (Vec<f32>, Vec<usize>) {
        // A new sequence whose left neighbour has the same prompt takes over what that one computes.
        let mut rows = Vec::with_capacity(active.len());
        let mut leaders = 0;
        for i in 0..active.len() {
            let shares = i > 0
                && active[i].stored == 0
                && active[i - 1].stored == 0
                && Arc::ptr_eq(&active[i].response.prompt, &active[i - 1].response.prompt);
            leaders += usize::from(!shares);
            rows.push(leaders - 1);
        }
        let mut inputs = Vec::with_capacity(leaders);
        for (i, sequence) in active.iter_mut().enumerate() {
            if inputs.len() > rows[i] {
                continue;
            }
            let tokens = sequence.response.pending();
            sequence.cache.reserve(sequence.stored + tokens.len(), &mut self.pool);
            inputs.push(StepInput { tokens, position: sequence.stored, cache: &mut sequence.cache });
        }
        let logits = self.model.step(&mut inputs);
        for i in 0..active.len() {
            let added = active[i].response.pending().len();
            active[i].stored += added;
            if i > 0 && rows[i] == rows[i - 1] {
                active[i].cache = active[i - 1].cache.fork(&mut self.pool);
            }
        }
        (logits, rows)
    }

    /// Draws the next token of every sequence and notes which have ended.
    fn extend(&self, active: &mut [Active], logits: &[f32], rows: &[usize], params: &SamplingParams) {
        let vocabulary = self.model.config.vocab_size;
        active.par_iter_mut().zip(rows).with_min_len(8).for_each_init(
            || vec![0f32; vocabulary],
            |scratch, (sequence, &row)| {
                scratch.copy_from_slice(&logits[row * vocabulary..(row + 1) * vocabulary]);
                let drawn = draw(scratch, params, &mut sequence.response.rng);
                sequence.response.push(drawn, &self.end_of_sequence);
            },
        );
    }
}

impl Sampler for CpuSampler {
    fn generate(
        &mut self,
        requests: &[RolloutRequest],
        params: &SamplingParams,
        progress: &mut dyn FnMut(RolloutProgress) -> bool,
    ) -> Result<Vec<Rollout>> {
        check(requests, params, &self.model.config)?;
        let mut waiting: VecDeque<_> = requests.iter().enumerate().collect();
        let mut active: Vec<Active> = Vec::new();
        let mut results: Vec<Option<Rollout>> = requests.iter().map(|_| None).collect();
        let mut report = RolloutProgress { finished: 0, tokens: 0 };
        loop {
            self.admit(&mut active, &mut waiting, params);
            if active.is_empty() {
                break;
            }
            let (logits, rows) = self.forward(&mut active);
            self.extend(&mut active, &logits, &rows, params);
            report.tokens += active.len();
            let mut going_on = Vec::with_capacity(active.len());
            for sequence in active {
                if !sequence.response.is_finished() {
                    going_on.push(sequence);
                    continue;
                }
                report.finished += 1;
                self.pool.release(sequence.cache);
                let request = sequence.response.request;
                results[request] = sequence.response.into_rollout();
            }
            active = going_on;
            if !progress(report) {
                return Err(Error::Interrupted);
            }
        }
        Ok(results.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::FinishReason;
    use super::super::test_support::{END, PARAMS, model, model_of, requests};
    use super::*;
    use crate::model::ops::token_log_probs;
    use crate::model::{Architecture, Packed};

    fn decoder() -> Decoder {
        model().decoder().unwrap()
    }

    fn generate(concurrent: usize, requests: &[RolloutRequest]) -> Vec<Rollout> {
        let mut sampler = CpuSampler::new(&decoder(), &[END], concurrent).unwrap();
        sampler.generate(requests, &PARAMS, &mut |_| true).unwrap()
    }

    #[test]
    fn a_response_does_not_depend_on_the_batch() {
        let requests = requests(40);
        let together = generate(64, &requests);
        assert!(together == generate(5, &requests), "compaction and refilling");
        for i in [0, 7, 39] {
            assert!(together[i..=i] == generate(64, &requests[i..=i]), "request {i} alone");
        }
        let lengths: Vec<usize> = together.iter().map(|r| r.ids.len()).collect();
        assert!(lengths.iter().min() < lengths.iter().max(), "lengths differ: {lengths:?}");
        assert!(together.iter().all(|r| (r.finish == FinishReason::Stop) == (r.ids.last() == Some(&END))));
    }

    #[test]
    fn log_probabilities_are_those_of_the_training_forward() {
        for architecture in Architecture::ALL {
            assert_same_log_probabilities(&model_of(architecture, 6).decoder().unwrap());
        }
    }

    fn assert_same_log_probabilities(decoder: &Decoder) {
        let requests = requests(20);
        let mut sampler = CpuSampler::new(decoder, &[END], 8).unwrap();
        for (request, rollout) in requests.iter().zip(sampler.generate(&requests, &PARAMS, &mut |_| true).unwrap()) {
            let sequence: Vec<u32> = request.prompt.iter().chain(&rollout.ids).copied().collect();
            let hidden = decoder.hidden(&Packed::new([&sequence[..sequence.len() - 1]])).unwrap();
            let first = request.prompt.len() as u32 - 1;
            let rows: Vec<u32> = (first..first + rollout.ids.len() as u32).collect();
            let logits = decoder.logits_at(&hidden, &rows).unwrap();
            let expected = token_log_probs(&logits, &rollout.ids).unwrap().to_vec1::<f32>().unwrap();
            for (a, b) in rollout.logprobs.iter().zip(expected) {
                assert!((a - b).abs() < 2e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn the_context_bounds_a_response() {
        let prompt: Arc<[u32]> = vec![5; 150].into();
        let mut sampler = CpuSampler::new(&decoder(), &[], 2).unwrap();
        let request = RolloutRequest { prompt, seed: 1 };
        let rollouts = sampler.generate(&[request], &PARAMS, &mut |_| true).unwrap();
        assert_eq!((rollouts[0].ids.len(), rollouts[0].finish), (10, FinishReason::Length));
    }

    #[test]
    fn bad_requests_are_refused_and_a_stop_is_obeyed() {
        let mut sampler = CpuSampler::new(&decoder(), &[END], 2).unwrap();
        let mut refused = |prompt: Vec<u32>, params: SamplingParams| {
            let request = RolloutRequest { prompt: prompt.into(), seed: 1 };
            sampler.generate(&[request], &params, &mut |_| true).unwrap_err().to_string()
        };
        assert!(refused(vec![], PARAMS).contains("prompt 0 has 0 tokens"));
        assert!(refused(vec![99], PARAMS).contains("token id 99"));
        assert!(refused(vec![1], SamplingParams { top_p: 0.0, ..PARAMS }).contains("top_p"));
        assert!(refused(vec![1], SamplingParams { top_k: Some(0), ..PARAMS }).contains("top_k"));
        assert!(refused(vec![1], SamplingParams { min_p: 1.5, ..PARAMS }).contains("min_p"));
        assert!(refused(vec![1], SamplingParams { temperature: -1.0, ..PARAMS }).contains("temperature"));
        assert!(refused(vec![1], SamplingParams { max_new_tokens: 0, ..PARAMS }).contains("max_new_tokens"));
        assert!(matches!(sampler.generate(&requests(1), &PARAMS, &mut |_| false), Err(Error::Interrupted)));
    }
}
