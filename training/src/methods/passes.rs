//! How a policy is run over sequences, with and without gradients: as one graph or layer by layer.
//!
//! Methods ask for scores, gradients and samples; which form of the model answers is decided here, once, by the recipe's
//! `[compute]`. Both forms are the same mathematics and differ in memory, speed and rounding.

use candle_core::Tensor;

use super::sequence::Sequence;
use crate::Result;
use crate::model::layered::Targets;
use crate::model::ops::kernels::UNIFORM_ABOVE;
use crate::model::{Decoder, Layered, ModelConfig, Packed, Policy, ops};
use crate::optimizer::Gradients;
use crate::recipe::ComputeSection;
use crate::rollout::{CpuSampler, DeviceSampler, Rollout, RolloutProgress, RolloutRequest, Sampler, SamplingParams};

/// The way of running that a recipe asks for.
pub(super) struct Passes {
    /// The policy layer by layer; none where it is run as a graph.
    layered: Option<Layered>,
    /// Tokens of a batch for which the device of a test has room.
    #[cfg(test)]
    pub(super) room: Option<usize>,
}

/// Weights that are run without gradients.
pub(super) enum Model {
    Graph(Decoder),
    Layered(Layered),
}

/// What a model says of the targets of some sequences, in their order.
pub(super) struct Scores {
    /// Natural logarithms, `[targets]`.
    pub(super) logprobs: Vec<f32>,
    /// In nats, summed over targets.
    pub(super) entropy: f64,
}

/// Sequences packed, with the rows that predict their targets.
struct Batch {
    packed: Packed,
    rows: Vec<u32>,
    ids: Vec<u32>,
    temperature: f64,
}

/// A sequence that only makes a batch larger.
const FILLING: &[u32] = &[0];

/// Rows from which on every product of a decoder is summed in one and the same order.
fn fewest_rows(config: &ModelConfig) -> usize {
    let narrowest =
        [config.hidden_size, config.head_shape().qkv_width(), 2 * config.intermediate_size, config.vocab_size];
    UNIFORM_ABOVE / narrowest.into_iter().min().unwrap_or(1) + 2
}

impl Batch {
    fn new(sequences: &[&Sequence], temperature: f64) -> Self {
        let packed = Packed::new(sequences.iter().map(|sequence| &sequence.ids[..sequence.ids.len() - 1]));
        let (mut rows, mut ids) = (Vec::new(), Vec::new());
        for (sequence, &offset) in sequences.iter().zip(&packed.offsets) {
            rows.extend(sequence.targets.iter().map(|target| (offset + target - 1) as u32));
            ids.extend(sequence.targets.iter().map(|&target| sequence.ids[target]));
        }
        Self { packed, rows, ids, temperature }
    }

    fn targets(&self) -> Targets<'_> {
        Targets { rows: &self.rows, ids: &self.ids, temperature: self.temperature }
    }

    /// Logits that predict the targets, divided by the temperature, `[targets, vocabulary]`.
    ///
    /// A sequence's logits are the same to the bit in whatever company it passes through the model: where there are so few
    /// rows that a product would be summed in another order, rows are added whose results nobody sees.
    fn logits(&self, decoder: &Decoder) -> Result<Tensor> {
        let (fewest, wanted) = (fewest_rows(decoder.config()), self.rows.len());
        let sequences = self.packed.offsets.windows(2).map(|ends| &self.packed.ids[ends[0]..ends[1]]);
        let missing = fewest.saturating_sub(self.packed.ids.len());
        let filled = (missing > 0).then(|| Packed::new(sequences.chain(std::iter::repeat_n(FILLING, missing))));
        let hidden = decoder.hidden(filled.as_ref().unwrap_or(&self.packed))?;
        let mut rows = self.rows.clone();
        rows.resize(wanted.max(fewest), 0);
        let logits = decoder.logits_at(&hidden, &rows)?;
        let logits = if rows.len() > wanted { logits.narrow(0, 0, wanted)?.contiguous()? } else { logits };
        if self.temperature == 1.0 { Ok(logits) } else { Ok((logits / self.temperature)?) }
    }
}

impl Passes {
    pub(super) fn new(compute: &ComputeSection, policy: &Policy) -> Result<Self> {
        Ok(Self {
            layered: if compute.is_layered() { Some(policy.layered()?) } else { None },
            #[cfg(test)]
            room: None,
        })
    }

    /// The policy as it is now.
    pub(super) fn policy(&self, policy: &Policy) -> Result<Model> {
        Ok(match &self.layered {
            Some(layered) => Model::Layered(layered.clone()),
            None => Model::Graph(policy.frozen()?),
        })
    }

    /// The policy before training; beside an adapter it takes no memory of its own.
    pub(super) fn reference(&self, policy: &Policy) -> Result<Model> {
        Ok(match &self.layered {
            Some(_) => Model::Layered(policy.base().layered()?),
            None => Model::Graph(policy.reference()?),
        })
    }

    /// Adds to `gradients` those of what `loss` makes of the targets' log-probabilities (`[targets]`, divided by the
    /// temperature as when sampling); returns what `loss` returns beside the scalar.
    pub(super) fn learn<S>(
        &self,
        policy: &Policy,
        sequences: &[&Sequence],
        temperature: f64,
        loss: impl FnOnce(&Tensor) -> Result<(Tensor, S)>,
        gradients: &mut Gradients,
    ) -> Result<S> {
        let batch = Batch::new(sequences, temperature);
        #[cfg(test)]
        if self.room.is_some_and(|room| batch.packed.ids.len() > room) {
            return Err(candle_core::Error::Msg("CUDA_ERROR_OUT_OF_MEMORY".into()).into());
        }
        if let Some(layered) = &self.layered {
            let sink = &mut |place, gradient: Tensor| gradients.add(place, &gradient);
            return layered.learn(&batch.packed, batch.targets(), loss, sink);
        }
        let logprobs = ops::token_log_probs(&batch.logits(&policy.decoder()?)?, &batch.ids)?;
        let (loss, result) = loss(&logprobs)?;
        gradients.accumulate(&loss.backward()?, policy.parameters())?;
        Ok(result)
    }
}

impl Model {
    /// Log-probabilities and entropy of the targets of `sequences`.
    pub(super) fn score(&self, sequences: &[&Sequence], temperature: f64) -> Result<Scores> {
        let batch = Batch::new(sequences, temperature);
        match self {
            Self::Graph(decoder) => {
                let logits = batch.logits(decoder)?;
                let entropy = f64::from(ops::entropy(&logits)?.sum_all()?.to_scalar::<f32>()?);
                Ok(Scores { logprobs: ops::token_log_probs(&logits, &batch.ids)?.to_vec1()?, entropy })
            }
            Self::Layered(layered) => {
                let scores = layered.score(&batch.packed, batch.targets())?;
                Ok(Scores { logprobs: scores.logprobs.to_vec1()?, entropy: scores.entropy })
            }
        }
    }

    /// A sampler of these weights.
    pub(super) fn sampler(&self, end_of_sequence: &[u32], concurrent_sequences: usize) -> Result<PolicySampler> {
        Ok(match self {
            Self::Graph(decoder) => {
                PolicySampler::Slices(CpuSampler::new(decoder, end_of_sequence, concurrent_sequences)?)
            }
            Self::Layered(layered) => {
                PolicySampler::Device(DeviceSampler::new(layered.clone(), end_of_sequence, concurrent_sequences)?)
            }
        })
    }
}

/// A sampler that follows the policy.
pub(super) enum PolicySampler {
    Slices(CpuSampler),
    Device(DeviceSampler),
}

impl PolicySampler {
    /// Samples from `model` from now on.
    pub(super) fn follow(&mut self, model: &Model) -> Result<()> {
        match (self, model) {
            (Self::Slices(sampler), Model::Graph(decoder)) => sampler.set_weights(decoder),
            // It looks at the policy's own tensors.
            _ => Ok(()),
        }
    }

    /// Continues every request; on a device, with keys and values of at most `cache_tokens` at a time from now on.
    pub(super) fn generate(
        &mut self,
        requests: &[RolloutRequest],
        params: &SamplingParams,
        cache_tokens: usize,
        progress: &mut dyn FnMut(RolloutProgress) -> bool,
    ) -> Result<Vec<Rollout>> {
        match self {
            Self::Slices(sampler) => sampler.generate(requests, params, progress),
            Self::Device(sampler) => {
                sampler.set_cache_tokens(cache_tokens);
                sampler.generate(requests, params, progress)
            }
        }
    }
}
