//! `[objective]`, `[rollout]`, `[optimizer]` and `[algorithm]`: reinforcement learning.
//!
//! Defaults are the numbers of the paper (arXiv 2502.04463, section 5.1) or, where it is silent, of the script released
//! with it (`run_rloo_1.5B.sh` and the defaults of its trainer).

use serde::{Deserialize, Deserializer, Serialize};

use super::choices::{LengthOf, Truncated};
use crate::advantage::{AdvantageNorm, KlPlacement};
use crate::loss::LossAggregation;
use crate::optimizer::AdamWConfig;

/// `[objective]`: what a response is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveSection {
    /// Name of the reward function. Default `sigmoid-length`, the paper's.
    pub name: String,
    /// Strengths of the length penalty, each in [0, 1): every one is a run and becomes a tier. A single number is a
    /// list of one. Default 0.05, 0.1, 0.2, 0.4 (paper, section 5.1).
    #[serde(deserialize_with = "one_or_many")]
    pub alpha: Vec<f64>,
}

impl Default for ObjectiveSection {
    fn default() -> Self {
        Self { name: "sigmoid-length".to_owned(), alpha: vec![0.05, 0.1, 0.2, 0.4] }
    }
}

/// A list of numbers, or one number for a list of one.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    struct OneOrMany;

    impl<'de> serde::de::Visitor<'de> for OneOrMany {
        type Value = Vec<f64>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a number or a list of numbers")
        }

        fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
            Ok(vec![value])
        }

        fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
            Ok(vec![value as f64])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut numbers = Vec::new();
            while let Some(number) = items.next_element()? {
                numbers.push(number);
            }
            Ok(numbers)
        }
    }

    deserializer.deserialize_any(OneOrMany)
}

/// `[rollout]`: how responses are sampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutSection {
    /// Problems of one step. Default 32 (script: `rollout_batch_size`).
    pub prompts_per_step: usize,
    /// Responses to each. Default 8 (script: `n_samples_per_prompt`).
    pub samples_per_prompt: usize,
    /// Softmax temperature. Default 1 (script).
    pub temperature: f64,
    /// Nucleus mass in (0, 1]. Default 1 (script). Below 1 responses are of another distribution than the one whose
    /// log-probabilities the loss takes, and no correction sees it, so it is told at the start.
    pub top_p: f64,
    /// Most tokens of a response. Default 32000 (script: `generate_max_len`).
    pub max_new_tokens: usize,
    /// Most responses decoded at the same time. Default 256, a whole step.
    pub concurrent_sequences: usize,
    /// Most tokens whose keys and values are held at a time, of all responses decoded together, where the model runs layer by
    /// layer; responses that need more wait for the others. Default what the device's memory leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_tokens: Option<usize>,
    /// Problems of a file with longer prompts are left out, and counted; of the generator none may be longer. Default 512
    /// (script: `prompt_max_len`).
    pub max_prompt_tokens: usize,
}

impl RolloutSection {
    /// Tokens of the longest possible sequence, prompt and response.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.max_prompt_tokens + self.max_new_tokens
    }

    /// Responses decoded at the same time.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.concurrent_sequences.min(self.prompts_per_step * self.samples_per_prompt)
    }

    /// `cache_tokens`, or enough for all responses at full length.
    #[must_use]
    pub fn cache_tokens_at_most(&self) -> usize {
        let all = self.sequences() * self.longest();
        self.cache_tokens.map_or(all, |tokens| tokens.min(all))
    }
}

impl Default for RolloutSection {
    fn default() -> Self {
        Self {
            prompts_per_step: 32,
            samples_per_prompt: 8,
            temperature: 1.0,
            top_p: 1.0,
            max_new_tokens: 32_000,
            concurrent_sequences: 256,
            cache_tokens: None,
            max_prompt_tokens: 512,
        }
    }
}

/// `[optimizer]`: AdamW. Supervised learning takes its learning rate and warm-up from `[sft]` and the rest from here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerSection {
    /// Learning rate after the warm-up. Default 5e-6 (paper, 1.5B; 2e-6 for 7B).
    pub learning_rate: f64,
    /// Decay of the first and second moment. Default 0.9, 0.95 (script).
    pub betas: [f64; 2],
    /// Added to the root of the second moment. Default 1e-8 (script).
    pub epsilon: f64,
    /// Decoupled weight decay. Default 0 (script).
    pub weight_decay: f64,
    /// Largest norm of the gradient; longer ones are scaled down to it. Default 1 (script).
    pub grad_clip: f64,
    /// Updates over which the learning rate rises linearly from 0. Default 6 (script: 3 % of 200 updates).
    pub warmup_updates: usize,
    /// Updates that the responses of one step are split into. Default 2 (script: `train_batch_size` 128 of 256).
    pub updates_per_step: usize,
    /// Most tokens that go through the model at once; changes memory and rounding, not the mathematics. Default 8192.
    pub microbatch_tokens: usize,
}

impl OptimizerSection {
    /// The optimizer's part of this section.
    pub fn adamw(&self) -> AdamWConfig {
        AdamWConfig {
            beta1: self.betas[0],
            beta2: self.betas[1],
            eps: self.epsilon,
            weight_decay: self.weight_decay,
            grad_clip: Some(self.grad_clip),
        }
    }
}

impl Default for OptimizerSection {
    fn default() -> Self {
        Self {
            learning_rate: 5e-6,
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 0.0,
            grad_clip: 1.0,
            warmup_updates: 6,
            updates_per_step: 2,
            microbatch_tokens: 8192,
        }
    }
}

/// `[algorithm]`: PPO with a leave-one-out baseline, and the switches that change its results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlgorithmSection {
    /// The probability ratio is clipped to [1 - clip, 1 + clip]. Default 0.2 (script).
    pub clip: f64,
    /// Where the KL penalty enters. Default `reward` (paper, and script).
    pub kl: KlPlacement,
    /// Its coefficient. Default 1e-3 (paper).
    pub kl_coefficient: f64,
    /// What advantages are divided by. Default `none` (paper's text; its code whitens: `batch-token`).
    pub advantage_norm: AdvantageNorm,
    /// How token losses are averaged. Default `sequence-mean` (script).
    pub loss_aggregation: LossAggregation,
    /// What a response that was cut off is worth. Default `zero` (paper's text; its code grades it).
    pub truncated: Truncated,
    /// What a length counts. Default `response` (paper's text; its code counts the prompt too).
    pub length: LengthOf,
    /// Corrects for a sampler whose probabilities are not quite the trainer's: every token's advantage is multiplied by
    /// the trainer's probability over the sampler's, at most this number; 2 is usual. Off when absent, as in the paper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated_is: Option<f64>,
}

impl Default for AlgorithmSection {
    fn default() -> Self {
        Self {
            clip: 0.2,
            kl: KlPlacement::Reward,
            kl_coefficient: 1e-3,
            advantage_norm: AdvantageNorm::None,
            loss_aggregation: LossAggregation::SequenceMean,
            truncated: Truncated::Zero,
            length: LengthOf::Response,
            truncated_is: None,
        }
    }
}
