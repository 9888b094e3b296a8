//! The updates of one step: PPO on the step's experience, split into as many parts as there are updates.

use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::super::sequence::{Sequence, micro_batches, target_logits};
use super::experience::{Experience, Response};
use crate::loss::{LossConfig, LossStats, MicroBatch, policy_loss, token_weights};
use crate::model::{Policy, ops};
use crate::optimizer::AdamW;
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
            let mut gradients = self.optimizer.gradients();
            let mut stats = LossStats::default();
            for micro in micro_batches(&weighted, self.section.microbatch_tokens, |(r, _)| r.sequence.ids.len()) {
                let (loss, micro_stats) = self.micro_loss(policy, micro)?;
                gradients.accumulate(&loss.backward()?, policy.parameters())?;
                stats.merge(&micro_stats);
            }
            let update = done * total as u64 + index as u64;
            summary.learning_rate = self.schedule.learning_rate(update, self.section.learning_rate);
            let outcome = self.optimizer.step(&gradients, summary.learning_rate)?;
            summary.loss += stats.loss / total as f64;
            summary.grad_norm += outcome.grad_norm / total as f64;
            summary.stats.merge(&stats);
        }
        Ok(summary)
    }

    fn micro_loss(&self, policy: &Policy, micro: &[(&Response, f32)]) -> Result<(Tensor, LossStats)> {
        let sequences: Vec<&Sequence> = micro.iter().map(|(response, _)| &response.sequence).collect();
        let (logits, targets) = target_logits(&policy.decoder()?, &sequences)?;
        let logprobs = ops::token_log_probs(&(logits / self.temperature)?, &targets)?;
        let device = logprobs.device().clone();
        let join = |values: &dyn Fn(&Response) -> Vec<f32>| join(micro, values, &device);
        let has_reference = micro.iter().all(|(response, _)| response.reference_logprobs.is_some());
        let reference_logprobs = if has_reference {
            Some(join(&|response| response.reference_logprobs.clone().unwrap_or_default())?)
        } else {
            None
        };
        let weights: Vec<f32> =
            micro.iter().flat_map(|(response, weight)| std::iter::repeat_n(*weight, response.tokens())).collect();
        let batch = MicroBatch {
            old_logprobs: join(&|response| response.old_logprobs.clone())?,
            reference_logprobs,
            advantages: join(&|response| response.advantages.clone())?,
            weights: Tensor::new(weights, &device)?,
        };
        policy_loss(&logprobs, &batch, &self.loss)
    }
}

/// Values of all responses of a micro-batch end to end, `[response tokens]`.
fn join(micro: &[(&Response, f32)], values: &dyn Fn(&Response) -> Vec<f32>, device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = micro.iter().flat_map(|(response, _)| values(response)).collect();
    Ok(Tensor::new(values, device)?)
}
