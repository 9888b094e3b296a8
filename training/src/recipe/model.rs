//! `[model]` and `[tuning]`: the decoder's shape and which of its weights are trained.

use serde::{Deserialize, Serialize};

use super::choices::{TargetModule, TuningMode, Vocabulary};
use crate::model::{Architecture, LoraConfig, ModelConfig, Tuning};

/// `[model]`: the shape of a decoder.
///
/// It makes a new model where the recipe has no base, and lets a plan be made before the base is on disk where it has
/// one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// What kind of decoder it is: `qwen2` (the default), `qwen3` or `llama`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; `hidden_size / heads` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Most tokens of prompt and response together. Default 131072, as R1-Distill-Qwen.
    #[serde(default = "max_position_embeddings")]
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies. Default 10000, as R1-Distill-Qwen.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    /// Added to the mean square in RMSNorm. Default 1e-6, as Qwen2.
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Whether the output projection is the embedding. Default false, as R1-Distill-Qwen.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Rows of the embedding; the size of the tokenizer when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// The tokenizer of a model made from nothing; absent when there is a base, which brings its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<Vocabulary>,
}

fn is_default(architecture: &Architecture) -> bool {
    *architecture == Architecture::default()
}

fn max_position_embeddings() -> usize {
    131_072
}

fn rope_theta() -> f64 {
    10_000.0
}

fn rms_norm_eps() -> f64 {
    1e-6
}

impl ModelSection {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.heads.max(1))
    }

    /// The configuration of such a model with an embedding of `vocab_size` rows.
    pub fn config(&self, vocab_size: usize) -> ModelConfig {
        ModelConfig {
            architecture: self.architecture,
            vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            num_key_value_heads: self.kv_heads,
            head_dim: self.head_dim(),
            max_position_embeddings: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta: self.rope_theta,
            rope_scaling: None,
            tie_word_embeddings: self.tie_word_embeddings,
        }
    }
}

/// `[tuning]`: which weights move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TuningSection {
    /// Adapter or all weights. Default `full`, as the paper's script.
    pub mode: TuningMode,
    /// Rank of the adapter. Default 16 (the paper has no adapter).
    pub rank: usize,
    /// The adapter's output is scaled by `lora_alpha / rank`. Default 32.
    pub lora_alpha: f64,
    /// Projections that get an adapter. Default: all seven.
    pub target_modules: Vec<TargetModule>,
}

impl Default for TuningSection {
    fn default() -> Self {
        Self { mode: TuningMode::Full, rank: 16, lora_alpha: 32.0, target_modules: TargetModule::ALL.to_vec() }
    }
}

impl TuningSection {
    /// What this section asks a policy to train.
    pub fn tuning(&self) -> Tuning {
        match self.mode {
            TuningMode::Full => Tuning::Full,
            TuningMode::Lora => Tuning::Lora(LoraConfig {
                rank: self.rank,
                alpha: self.lora_alpha,
                target_modules: self.target_modules.iter().map(|module| module.name().to_owned()).collect(),
            }),
        }
    }
}
