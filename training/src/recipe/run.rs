//! `[run]`, `[sft]` and `[eval]`: how long a run is, supervised learning, and how the result is measured.

use serde::{Deserialize, Serialize};

use super::choices::SftSchedule;

/// `[run]`: how long, and how often its state goes to disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSection {
    /// Reinforcement-learning steps. Default 100 (paper). Not part of the fingerprint: a finished run may be continued.
    pub steps: usize,
    /// Steps (of supervised learning: updates) from checkpoint to checkpoint. Default 10 (script: `save_steps`).
    pub checkpoint_every: usize,
    /// Reinforcement-learning steps from tier to tier: what the run would end with after so many is kept in its folder, as
    /// `tier-000050`, so that the best may be chosen. Default only the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier_every: Option<usize>,
    /// Responses of every reinforcement-learning step that are kept as text, in `rollouts.jsonl`: those to its first
    /// prompts. Default 8, a group of the paper's.
    pub log_rollouts: usize,
    /// Reinforcement-learning steps from one look at the problems of `data.held_out` to the next, beside one before the first
    /// step and one after the last: accuracy and lengths in `held_out.jsonl`, sampled as `[eval]` says. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_every: Option<usize>,
}

impl Default for RunSection {
    fn default() -> Self {
        Self { steps: 100, checkpoint_every: 10, tier_every: None, log_rollouts: 8, eval_every: None }
    }
}

/// `[sft]`: supervised learning.
///
/// The paper uses it only for its baseline (shortest correct of 8 responses, learning rate 5e-6); the other defaults
/// are those under which the mini base is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SftSection {
    /// Tokens to train on, those of prompts included: as many updates as these are of `batch_tokens`, each of which may go on
    /// beyond it by a part of a sequence. Default 20 million.
    pub tokens: usize,
    /// Tokens of one update: whole sequences until there are as many. Default 8192.
    pub batch_tokens: usize,
    /// Learning rate after the warm-up. Default 5e-6 (paper's SFT baseline).
    pub learning_rate: f64,
    /// Updates over which the learning rate rises linearly from 0. Default 20.
    pub warmup_updates: usize,
    /// What follows the warm-up. Default `cosine`.
    pub schedule: SftSchedule,
    /// The learning rate at the end, as a share of `learning_rate`, with `schedule = "cosine"`. Default 0.1.
    pub final_ratio: f64,
    /// Share of sequences that are drills (single operations) instead of traces, with the mini suite: before and after
    /// `drill_switch`. Default 0.75, 0.3.
    pub drill_share: [f64; 2],
    /// Share of the run after which the second of `drill_share` holds. Default 0.6.
    pub drill_switch: f64,
    /// Share of traces without thinking, so that a prompt may ask for none. Default 0.03.
    pub no_thinking_share: f64,
}

impl Default for SftSection {
    fn default() -> Self {
        Self {
            tokens: 20_000_000,
            batch_tokens: 8192,
            learning_rate: 5e-6,
            warmup_updates: 20,
            schedule: SftSchedule::Cosine,
            final_ratio: 0.1,
            drill_share: [0.75, 0.3],
            drill_switch: 0.6,
            no_thinking_share: 0.03,
        }
    }
}

impl SftSection {
    /// Updates of the whole run.
    pub fn updates(&self) -> usize {
        self.tokens.div_ceil(self.batch_tokens.max(1))
    }
}

/// `[eval]`: how accuracy and tokens are measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalSection {
    /// Softmax temperature. Default what the model's `generation_config.json` says (released `evaluate_model.py`: 0.6).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus mass in (0, 1]. Default what the model's `generation_config.json` says (released code: 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// The k most likely tokens only, 0 for all. Default what the model's `generation_config.json` says (released code: all).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Only tokens at least this share as likely as the most likely one, in [0, 1]. Default what the model's
    /// `generation_config.json` says (released code: 0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// Responses to each problem. Default what suits the problems (paper: 1 on GSM8K, 3 on MATH500, 10 on AIME).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// Most problems of one level. Default what suits the problems: 500 of the mini suite, all of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problems_per_level: Option<usize>,
    /// Most tokens of a response. Default what suits the problems: 640 on the mini suite, else 32768 (released code).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<usize>,
    /// Seed of the sampling. Default 0 (released code).
    pub seed: u64,
}
