//! The named choices of a recipe: words in the file, enums in the code.
//!
//! A choice that belongs to another room (how advantages are normalised, how a loss is averaged) is defined there and
//! only used here; what stays in this file has meaning for the recipe alone.

use serde::{Deserialize, Serialize};

/// What a recipe trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Length-penalised reinforcement learning from a base model; one run for each value of `objective.alpha`.
    Rl,
    /// Supervised learning of traces, from random weights or from a base model.
    Sft,
}

/// Which weights move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TuningMode {
    /// A low-rank adapter beside frozen weights.
    Lora,
    /// Every weight.
    Full,
}

/// A projection of a decoder layer that an adapter may be put on, by its name in Hugging Face weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetModule {
    /// Query projection, `[heads * head_dim, hidden]`.
    QProj,
    /// Key projection, `[kv_heads * head_dim, hidden]`.
    KProj,
    /// Value projection, `[kv_heads * head_dim, hidden]`.
    VProj,
    /// Output projection of attention, `[hidden, heads * head_dim]`.
    OProj,
    /// Gate of the feed-forward block, `[intermediate, hidden]`.
    GateProj,
    /// Up projection of the feed-forward block, `[intermediate, hidden]`.
    UpProj,
    /// Down projection of the feed-forward block, `[hidden, intermediate]`.
    DownProj,
}

impl TargetModule {
    /// All seven, in the order in which a layer uses them.
    pub const ALL: [Self; 7] =
        [Self::QProj, Self::KProj, Self::VProj, Self::OProj, Self::GateProj, Self::UpProj, Self::DownProj];

    /// The name in Hugging Face weights and in PEFT's `target_modules`.
    pub fn name(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
        }
    }
}

/// Where problems come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataSource {
    /// The generator of the mini suite: arithmetic of three levels, without any file.
    Mini,
    /// A JSONL, Parquet or Arrow file.
    File,
}

/// Which tokenizer a model trained from random weights gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vocabulary {
    /// The tokenizer built from the traces of the mini suite.
    Mini,
}

/// What a response that was cut off is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truncated {
    /// Nothing, whatever it contains: an incomplete response is not an answer (paper, section 4).
    Zero,
    /// It is paid as if it were complete, but is not among those whose lengths it is compared with: the released code.
    Grade,
}

/// Which tokens the length of a response counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LengthOf {
    /// The response, its end-of-sequence token included.
    Response,
    /// Prompt and response, as in the released code; the objective of the paper centres lengths per prompt and cannot
    /// tell.
    PromptAndResponse,
}

/// How the learning rate of supervised learning falls after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SftSchedule {
    /// It stays.
    Constant,
    /// Half a cosine, down to `sft.final_ratio` of the peak.
    Cosine,
}
