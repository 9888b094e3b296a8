//! A small model and requests to it, for the tests of the samplers.

use std::sync::Arc;

use candle_core::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{RolloutRequest, SamplingParams};
use crate::model::{ModelConfig, Pretrained, SpecialTokens};

pub(super) const END: u32 = 3;

pub(super) const PARAMS: SamplingParams = SamplingParams { temperature: 1.0, top_p: 1.0, max_new_tokens: 90 };

pub(super) fn model() -> Pretrained {
    model_with_heads_of(6)
}

pub(super) fn model_with_heads_of(head_dim: usize) -> Pretrained {
    let config = ModelConfig {
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
