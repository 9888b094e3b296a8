//! The updates of one step: PPO on the step's experience, split into as many parts as there are updates.

use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::super::passes::Passes;
use super::super::sequence::{Sequence, micro_batches};
use super::experience::{Experience, Response};
use crate::compute::shrinking;
use crate::loss::{LossConfig, LossStats, MicroBatch, policy_loss, token_weights};
use crate::model::Policy;
use crate::optimizer::{AdamW, Gradients};
use crate::recipe::{OptimizerSection, Recipe};
use crate::schedule::Schedule;
use crate::trainer::{Observer, Phase};
use crate::{Error, Result};

/// What the updates of a step report.
#[derive(Debug, Clone, Default)]
pub(super) struct UpdateSummary {
    /// Mean over the updates.
    pub(super) loss: f64,
    /// Mean over the updates, before clipping.
    pub(super) grad_norm: f64,
    /// Of the last update.
    pub(super) learning_rate: f64,
    /// Sums over all tokens of all updates.
    pub(super) stats: LossStats,
}

/// The optimizer and how it is used.
pub(super) struct Updater {
    pub(super) optimizer: AdamW,
    section: OptimizerSection,
    loss: LossConfig,
    temperature: f64,
    schedule: Schedule,
}

impl Updater {
    pub(super) fn new(recipe: &Recipe, policy: &Policy) -> Result<Self> {
        let algorithm = &recipe.algorithm;
        let loss = LossConfig {
            clip: algorithm.clip,
            aggregation: algorithm.loss_aggregation,
            kl: algorithm.kl,
            kl_coefficient: algorithm.kl_coefficient,
            max_new_tokens: recipe.rollout.max_new_tokens,
        };
        loss.validate()?;
        if recipe.rollout.temperature == 0.0 {
            return Err(Error::config("`rollout.temperature` is 0: all responses of a group would be the same"));
        }
        Ok(Self {
            optimizer: AdamW::new(policy.parameters().to_vec(), recipe.optimizer.adamw())?,
            section: recipe.optimizer.clone(),
            loss,
            temperature: recipe.rollout.temperature,
            schedule: Schedule::ConstantWithWarmup { warmup_updates: recipe.optimizer.warmup_updates as u64 },
        })
    }

    /// Runs the updates of the step after `done` steps. The responses are shuffled over the updates, so that the first
    /// update is on-policy for its part and the last is a few updates stale for its own.
    pub(super) fn update(
        &mut self,
        policy: &Policy,
        passes: &Passes,
        experience: &Experience,
        done: u64,
        rng: &mut ChaCha8Rng,
        observer: &mut dyn Observer,
    ) -> Result<UpdateSummary> {
        let mut order: Vec<&Response> = experience.responses.iter().collect();
        order.shuffle(rng);
        let total = self.section.updates_per_step;
        let mut summary = UpdateSummary::default();
        for (index, part) in order.chunks(order.len().div_ceil(total)).enumerate() {
            observer.on_phase(Phase::Update { done: index, total });
            let lengths: Vec<usize> = part.iter().map(|response| response.tokens()).collect();
            let weights = token_weights(&lengths, self.loss.aggregation, self.loss.max_new_tokens);
            let weighted: Vec<(&Response, f32)> = part.iter().copied().zip(weights).collect();
            let size = |(response, _): &(&Response, f32)| response.sequence.ids.len();
            let longest = weighted.iter().map(size).max().unwrap_or(0);
            let mut limit = self.section.microbatch_tokens;
            let (gradients, stats) = shrinking(
                "`optimizer.microbatch_tokens`",
                &mut limit,
                longest,
                |tokens| self.gradients(policy, passes, micro_batches(&weighted, tokens, size)),
                |warning| observer.on_warning(warning),
            )?;
            self.section.microbatch_tokens = limit;
            let update = done * total as u64 + index as u64;
            summary.learning_rate = self.schedule.learning_rate(update, self.section.learning_rate);
            let outcome = self.optimizer.step(&gradients, summary.learning_rate)?;
            summary.loss += stats.loss / total as f64;
            summary.grad_norm += outcome.grad_norm / total as f64;
            summary.stats.merge(&stats);
        }
        Ok(summary)
    }

    /// The gradients of one update and what its loss says; nothing has changed when it fails.
    fn gradients<'a>(
        &self,
        policy: &Policy,
        passes: &Passes,
        micro_batches: impl Iterator<Item = &'a [(&'a Response, f32)]>,
    ) -> Result<(Gradients, LossStats)> {
        let mut gradients = self.optimizer.gradients();
        let mut stats = LossStats::default();
        for micro in micro_batches {
            let sequences: Vec<&Sequence> = micro.iter().map(|(response, _)| &response.sequence).collect();
            let loss = |logprobs: &Tensor| policy_loss(logprobs, &constants(micro, logprobs.device())?, &self.loss);
            stats.merge(&passes.learn(policy, &sequences, self.temperature, loss, &mut gradients)?);
        }
        Ok((gradients, stats))
    }
}

/// What the loss of a micro-batch needs besides log-probabilities.
fn constants(micro: &[(&Response, f32)], device: &Device) -> Result<MicroBatch> {
    let join = |values: &dyn Fn(&Response) -> Vec<f32>| join(micro, values, device);
    let has_reference = micro.iter().all(|(response, _)| response.reference_logprobs.is_some());
    let reference_logprobs = if has_reference {
        Some(join(&|response| response.reference_logprobs.clone().unwrap_or_default())?)
    } else {
        None
    };
    let weights: Vec<f32> =
        micro.iter().flat_map(|(response, weight)| std::iter::repeat_n(*weight, response.tokens())).collect();
    Ok(MicroBatch {
        old_logprobs: join(&|response| response.old_logprobs.clone())?,
        reference_logprobs,
        advantages: join(&|response| response.advantages.clone())?,
        weights: Tensor::new(weights, device)?,
    })
}

/// Values of all responses of a micro-batch end to end, `[response tokens]`.
fn join(micro: &[(&Response, f32)], values: &dyn Fn(&Response) -> Vec<f32>, device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = micro.iter().flat_map(|(response, _)| values(response)).collect();
    Ok(Tensor::new(values, device)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use rand::SeedableRng;

    use super::*;
    use crate::model::{Architecture, ModelConfig, Pretrained, SpecialTokens};
    use crate::trainer::{StepMetrics, StepTimings};

    #[derive(Default)]
    struct Warned(Vec<String>);

    impl Observer for Warned {
        fn on_step(&mut self, _: &StepMetrics, _: &StepTimings) {}

        fn on_phase(&mut self, _: Phase) {}

        fn on_warning(&mut self, message: &str) {
            self.0.push(message.to_owned());
        }

        fn should_stop(&self) -> bool {
            false
        }
    }

    fn recipe(path: &str) -> Recipe {
        let text = format!(
            "name = 't'\nstage = 'rl'\nbase = 'b'\ncompute.path = '{path}'\ndata.source = 'mini'\n\
             [tuning]\nmode = 'lora'\nrank = 2\n[rollout]\nprompts_per_step = 2\nsamples_per_prompt = 4\n\
             [optimizer]\nupdates_per_step = 1\nwarmup_updates = 0\nlearning_rate = 1e-2\nmicrobatch_tokens = 64\n"
        );
        Recipe::parse(&text, &[]).unwrap()
    }

    fn policy(recipe: &Recipe) -> Policy {
        let config = ModelConfig {
            architecture: Architecture::Qwen2,
            vocab_size: 19,
            hidden_size: 8,
            intermediate_size: 12,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 4,
            max_position_embeddings: 32,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: true,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let base = Pretrained::random(config, SpecialTokens::default(), &mut rng, &Device::Cpu).unwrap();
        Policy::new(base, &recipe.tuning.tuning(), &mut rng).unwrap()
    }

    /// Eight responses of 5 to 12 tokens to prompts of 3.
    fn experience(policy: &Policy, passes: &Passes) -> Experience {
        let response = |number: u32| {
            let ids: Vec<u32> = (0..5 + number).map(|i| (i * i + 3 * number) % 19).collect();
            let sequence = Sequence::response(&[1, 2, 3], &ids);
            let old = passes.policy(policy).unwrap().score(&[&sequence], 1.0).unwrap().logprobs;
            Response {
                prompt_tokens: 3,
                correct: true,
                truncated: false,
                undecided: false,
                extracted: None,
                level: None,
                reward: 0.0,
                sampler_logprobs: old.clone(),
                advantages: vec![if number.is_multiple_of(2) { 1.0 } else { -0.5 }; ids.len()],
                old_logprobs: old,
                reference_logprobs: None,
                sequence,
            }
        };
        let responses = (0..8).map(response).collect();
        Experience { responses, group_size: 4, logged: Vec::new(), entropy: 0.0, rollout_time: 0.0, score_time: 0.0 }
    }

    /// What one update left behind.
    struct Updated {
        tensors: Vec<Vec<f32>>,
        summary: UpdateSummary,
        warnings: Vec<String>,
        microbatch_tokens: usize,
    }

    /// One update on a device with `room`.
    fn updated(path: &str, room: Option<usize>) -> Result<Updated> {
        let recipe = recipe(path);
        let policy = policy(&recipe);
        let mut passes = Passes::new(&recipe.compute, &policy)?;
        let experience = experience(&policy, &passes);
        passes.room = room;
        let mut updater = Updater::new(&recipe, &policy)?;
        let mut warned = Warned::default();
        let rng = &mut ChaCha8Rng::seed_from_u64(5);
        let summary = updater.update(&policy, &passes, &experience, 0, rng, &mut warned)?;
        let flat = |(_, var): &(String, candle_core::Var)| var.flatten_all().unwrap().to_vec1().unwrap();
        let tensors = policy.parameters().iter().map(flat).collect();
        let microbatch_tokens = updater.section.microbatch_tokens;
        Ok(Updated { tensors, summary, warnings: warned.0, microbatch_tokens })
    }

    #[test]
    fn an_update_that_ran_out_of_memory_is_made_with_smaller_micro_batches() {
        for path in ["fused", "layered"] {
            let whole = updated(path, None).unwrap();
            assert!(whole.warnings.is_empty() && whole.microbatch_tokens == 64);
            assert!(whole.summary.grad_norm > 1e-3, "{:?}", whole.summary);
            let cut = updated(path, Some(20)).unwrap();
            assert_eq!((cut.warnings.len(), cut.microbatch_tokens), (2, 16), "{:?}", cut.warnings);
            let warning = &cut.warnings[0];
            assert!(warning.contains("`optimizer.microbatch_tokens` = 64; going on with 32"), "{warning}");
            let apart = (whole.summary.grad_norm - cut.summary.grad_norm).abs();
            assert!(apart < 1e-5 * whole.summary.grad_norm, "{apart}");
            assert!((whole.summary.loss - cut.summary.loss).abs() < 1e-6);
            for (one, other) in whole.tensors.iter().flatten().zip(cut.tensors.iter().flatten()) {
                assert!((one - other).abs() < 1e-4, "{one} {other}");
            }
        }
    }

    #[test]
    fn a_sequence_that_does_not_fit_ends_the_run_with_advice() {
        let error = updated("layered", Some(10)).err().unwrap().to_string();
        assert!(error.contains("cannot be less than 15") && error.contains("rollout.max_new_tokens"), "{error}");
    }
}
