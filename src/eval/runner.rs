//! From problems to graded responses: prompts, sampling, grading, counting.
//!
//! The random numbers of a response come from the seed, the problem and the number of the sample alone, so every tier
//! answers under the same draws and a smaller evaluation is part of a larger one. Numbers about many responses are made
//! in the neighbouring files; nothing is printed or written here.

use std::sync::Arc;

use brevity_training::methods::prompt_ids;
use brevity_training::recipe::DataSection;
use brevity_training::rollout::{FinishReason, Rollout, RolloutProgress, RolloutRequest, Sampler, SamplingParams};
use brevity_training::tasks::grader::{Grade, GraderMode};
use brevity_training::tasks::{Grader, Problem};
use brevity_training::text::Codec;
use brevity_training::thoughts::Thoughts;
use brevity_training::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Behaviours, Response};

/// How responses are made and judged, the same for every tier of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Temperature, nucleus and length limit.
    pub sampling: SamplingParams,
    /// Responses to each problem.
    pub samples: usize,
    /// Seed of the sampling.
    pub seed: u64,
    /// What counts as right.
    pub grader: GraderMode,
    /// Whether only what follows the thoughts is judged.
    pub after_thoughts: bool,
    /// Phrases that are counted.
    pub behaviours: Behaviours,
    /// How a prompt is made of a problem: template, chat template or not, system message.
    pub data: DataSection,
}

/// One response with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Graded {
    /// The problem's own name in its data set.
    pub id: String,
    /// Which of the responses to the problem, from 0.
    pub sample: usize,
    /// Seed of its random numbers.
    pub seed: u64,
    /// What was asked, before any template.
    pub question: String,
    /// The reference answer.
    pub answer: String,
    /// The answer found in the response, normalised.
    pub extracted: Option<String>,
    /// The grader could not decide; the response counts as incorrect.
    pub undecided: bool,
    /// What summaries are made of.
    #[serde(flatten)]
    pub response: Response,
    /// The response as text, special tokens left out.
    pub text: String,
}

/// An evaluation that is ready to run on any model with this tokenizer.
pub struct Evaluation<'a> {
    codec: &'a Codec,
    problems: &'a [Problem],
    prompts: Vec<Arc<[u32]>>,
    thoughts: Thoughts,
    settings: &'a Settings,
}

impl<'a> Evaluation<'a> {
    /// Makes the prompts of `problems` with the tokenizer and chat template of `codec`.
    ///
    /// # Errors
    /// [`Error::Config`] without problems or samples, or when a prompt cannot be made.
    pub fn new(codec: &'a Codec, problems: &'a [Problem], settings: &'a Settings) -> Result<Self> {
        if problems.is_empty() || settings.samples == 0 {
            return Err(Error::config("an evaluation needs at least one problem and one sample"));
        }
        let prompts = problems.iter().map(|problem| Ok(prompt_ids(&settings.data, codec, &problem.question)?.into()));
        let prompts = prompts.collect::<Result<_>>()?;
        Ok(Self { codec, problems, prompts, thoughts: Thoughts::of(codec), settings })
    }

    /// Tokens of the longest prompt.
    pub fn longest_prompt(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0)
    }

    /// Responses that a run samples.
    pub fn responses(&self) -> usize {
        self.problems.len() * self.settings.samples
    }

    /// Samples, with `sampler`, and grades every response, in the order of the problems; a response that was cut off is incorrect.
    ///
    /// # Errors
    /// As [`Sampler::generate`]: among others [`Error::Interrupted`] when `progress` returns false.
    pub fn run(
        &self,
        sampler: &mut dyn Sampler,
        progress: &mut dyn FnMut(RolloutProgress) -> bool,
    ) -> Result<Vec<Graded>> {
        let samples = self.settings.samples;
        let requests: Vec<RolloutRequest> = self
            .problems
            .iter()
            .zip(&self.prompts)
            .flat_map(|(problem, prompt)| {
                let seed = |sample| response_seed(self.settings.seed, &problem.id, sample);
                (0..samples).map(move |sample| RolloutRequest { prompt: prompt.clone(), seed: seed(sample) })
            })
            .collect();
        let rollouts = sampler.generate(&requests, &self.settings.sampling, progress)?;
        let place = |index: usize| (index / samples, index % samples);
        let graded = rollouts.par_iter().zip(&requests).enumerate().map(|(index, (rollout, request))| {
            let (problem, sample) = place(index);
            self.grade(problem, sample, request, rollout)
        });
        graded.collect()
    }

    fn grade(&self, index: usize, sample: usize, request: &RolloutRequest, rollout: &Rollout) -> Result<Graded> {
        let problem = self.problems.get(index).ok_or_else(|| Error::config("a response to no problem"))?;
        let text = self.codec.decode(&rollout.ids)?;
        let thoughts = self.thoughts;
        let grader = Grader::new(self.settings.grader);
        let Grade { correct, extracted, undecided } = if self.settings.after_thoughts {
            grader.grade(&self.codec.decode(thoughts.answer(&request.prompt, &rollout.ids))?, &problem.answer)
        } else {
            grader.grade(&text, &problem.answer)
        };
        let truncated = rollout.finish == FinishReason::Length;
        Ok(Graded {
            id: problem.id.clone(),
            sample,
            seed: request.seed,
            question: problem.question.clone(),
            answer: problem.answer.clone(),
            extracted,
            undecided,
            response: Response {
                problem: index,
                level: problem.level.clone().unwrap_or_default(),
                correct: correct && !truncated,
                truncated,
                tokens: rollout.ids.len(),
                reasoning_tokens: thoughts.within(&request.prompt, &rollout.ids).len(),
                behaviours: self.settings.behaviours.count(&text),
            },
            text,
        })
    }
}

/// The seed of one response.
pub(crate) fn response_seed(seed: u64, problem: &str, sample: usize) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update((sample as u64).to_le_bytes());
    hash.update(problem.as_bytes());
    hash.finalize().iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use brevity_training::model::{Architecture, Decoder, Device, ModelConfig, Pretrained, SpecialTokens};
    use brevity_training::rollout::CpuSampler;
    use brevity_training::tasks::mini::tokenizer;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::eval::suite::Suite;

    fn settings(samples: usize) -> Settings {
        Settings {
            sampling: SamplingParams::whole(1.0, 12),
            samples,
            seed: 3,
            grader: GraderMode::Strict,
            after_thoughts: false,
            behaviours: Behaviours::default(),
            data: DataSection { system: Some("Be brief.".to_owned()), ..DataSection::default() },
        }
    }

    fn model(codec: &Codec) -> (Decoder, Vec<u32>) {
        let config = ModelConfig {
            architecture: Architecture::Qwen2,
            vocab_size: codec.vocabulary_size(),
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 8,
            max_position_embeddings: 256,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: true,
        };
        let end = codec.token_id(tokenizer::TURN_END).unwrap();
        let tokens = SpecialTokens { bos: None, eos: vec![end], pad: None };
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        (Pretrained::random(config, tokens, &mut rng, &Device::Cpu).unwrap().decoder().unwrap(), vec![end])
    }

    #[test]
    fn a_smaller_evaluation_is_part_of_a_larger_one() {
        let folder = tempfile::tempdir().unwrap();
        tokenizer::write(folder.path(), 0).unwrap();
        let codec = Codec::from_folder(folder.path()).unwrap();
        let (decoder, end) = model(&codec);
        let run = |per_level: usize, samples: usize| {
            let (problems, settings) = (Suite::MINI.problems(per_level).unwrap(), settings(samples));
            let evaluation = Evaluation::new(&codec, &problems, &settings).unwrap();
            let mut sampler = CpuSampler::new(&decoder, &end, 4).unwrap();
            let graded = evaluation.run(&mut sampler, &mut |_| true).unwrap();
            assert_eq!(graded.len(), evaluation.responses());
            graded
        };
        let (small, large) = (run(1, 1), run(2, 3));
        for one in &small {
            let twin = large.iter().find(|other| other.id == one.id && other.sample == one.sample).unwrap();
            assert_eq!((&one.text, one.response.tokens), (&twin.text, twin.response.tokens));
        }
        assert!(large.iter().any(|graded| graded.text != large[0].text), "samples differ");
        assert!(large.iter().all(|graded| !(graded.response.truncated && graded.response.correct)));
    }

    #[test]
    fn every_response_has_a_seed_of_its_own() {
        let seeds = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)].map(|(s, p, n)| response_seed(s, p, n));
        for (index, seed) in seeds.iter().enumerate() {
            assert!(!seeds[..index].contains(seed));
        }
        assert_eq!(response_seed(0, "a", 0), seeds[0]);
    }
}
