//! A model small enough to check by hand, for the tests of this folder.

use candle_core::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Architecture, Decoder, ModelConfig, Packed, Pretrained, SpecialTokens};

/// One layer, hidden 8, two heads, one key and value head, vocabulary 11, untied.
pub(super) fn tiny_config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen2,
        vocab_size: 11,
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 4,
        max_position_embeddings: 16,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tie_word_embeddings: false,
    }
}

/// A random model of [`tiny_config`].
pub(super) fn tiny() -> Pretrained {
    let tokens = SpecialTokens { bos: None, eos: vec![2, 3], pad: Some(0) };
    Pretrained::random(tiny_config(), tokens, &mut ChaCha8Rng::seed_from_u64(1), &Device::Cpu).unwrap()
}

/// The bits of a decoder's logits for a fixed input.
pub(super) fn logit_bits(decoder: &Decoder) -> Vec<u32> {
    let hidden = decoder.hidden(&Packed::new([[1, 5, 9, 2].as_slice(), [7, 0, 3].as_slice()])).unwrap();
    let logits = decoder.logits(&hidden).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    logits.into_iter().map(f32::to_bits).collect()
}
