//! The kinds of decoder that are known here, and in what they differ: all are pre-norm transformers with rotary positions,
//! grouped heads and a gated feed-forward block.

use serde::{Deserialize, Serialize};

/// What `model_type` of a `config.json` says beyond sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Qwen2 and Qwen2.5, and so DeepSeek-R1-Distill-Qwen: queries, keys and values have biases.
    #[default]
    Qwen2,
    /// Qwen3: no biases, but a norm over every query head and every key head (arXiv 2505.09388).
    Qwen3,
    /// Llama 2 and 3, and so DeepSeek-R1-Distill-Llama: neither; Llama 3.1 stretches its rotary frequencies.
    Llama,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Qwen2, Self::Qwen3, Self::Llama];

    /// `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Llama => "llama",
        }
    }

    /// The entry of `architectures` in `config.json`.
    pub fn class(self) -> &'static str {
        match self {
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Llama => "LlamaForCausalLM",
        }
    }

    /// Whether queries, keys and values have a bias.
    pub fn has_biases(self) -> bool {
        self == Self::Qwen2
    }

    /// Whether every head of queries and keys goes through a norm before its position is turned in.
    pub fn has_head_norms(self) -> bool {
        self == Self::Qwen3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_names_an_architecture_as_config_json_does() {
        for architecture in Architecture::ALL {
            assert_eq!(serde_json::to_value(architecture).unwrap(), architecture.model_type());
        }
    }
}
