//! A small model and requests to it, for the tests of the samplers.

use std::sync::Arc;

use candle_core::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{RolloutRequest, SamplingParams};
use crate::model::ops::Stretch;
use crate::model::ops::test_support::wave;
use crate::model::{Architecture, ModelConfig, Pretrained, SpecialTokens};

pub(super) const END: u32 = 3;

pub(super) const PARAMS: SamplingParams = SamplingParams::whole(1.0, 90);

pub(super) fn model() -> Pretrained {
    random(Architecture::Qwen2, 6)
}

/// A model with heads of `head_dim`, in which everything that makes its architecture another than the rest has an effect.
pub(super) fn model_of(architecture: Architecture, head_dim: usize) -> Pretrained {
    let mut model = random(architecture, head_dim);
    for (name, weight) in &mut model.weights {
        let wave = wave(weight.dims(), 0.2);
        if name.ends_with(".bias") {
            *weight = wave;
        } else if name.ends_with("q_norm.weight") || name.ends_with("k_norm.weight") {
            *weight = (wave + 1.2).unwrap();
        }
    }
    model
}

fn random(architecture: Architecture, head_dim: usize) -> Pretrained {
    let stretch =
        Stretch { factor: 4.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position_embeddings: 32 };
    let config = ModelConfig {
        architecture,
        vocab_size: 37,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim,
        max_position_embeddings: 160,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: (architecture == Architecture::Llama).then_some(stretch),
        tie_word_embeddings: false,
    };
    let tokens = SpecialTokens { bos: None, eos: vec![END], pad: None };
    Pretrained::random(config, tokens, &mut ChaCha8Rng::seed_from_u64(1), &Device::Cpu).unwrap()
}

/// Three requests for each of seven prompts of different lengths, over and over.
pub(super) fn requests(count: usize) -> Vec<RolloutRequest> {
    let prompts: Vec<Arc<[u32]>> =
        (0..7u32).map(|p| (0..5 + 11 * p).map(|i| (i * 5 + p) % 37).collect::<Vec<_>>().into()).collect();
    (0..count)
        .map(|i| RolloutRequest { prompt: prompts[i / 3 % prompts.len()].clone(), seed: 100 + i as u64 })
        .collect()
}
