//! Models of every architecture that can be trained, as the trainer writes them.

use brevity_training::model::ops::{Stretch, token_log_probs};
use brevity_training::model::{
    Architecture, Device as TrainingDevice, ModelConfig, Packed, Pretrained, SpecialTokens, Tensor, copy_tokenizer,
};
use brevity_training::rollout::{CpuSampler, RolloutRequest, Sampler, SamplingParams};
use brevity_training::tasks::mini::tokenizer;
use brevity_training::text::Codec;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::engine::Logprobs;

const TOKENS: usize = 60;

/// A random model in which everything that makes its architecture another than the rest has an effect.
fn random(architecture: Architecture) -> Pretrained {
    let stretch =
        Stretch { factor: 4.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position_embeddings: 16 };
    let config = ModelConfig {
        architecture,
        vocab_size: tokenizer::VOCABULARY_SIZE,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: if architecture == Architecture::Qwen3 { 16 } else { 8 },
        max_position_embeddings: 128,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: (architecture == Architecture::Llama).then_some(stretch),
        tie_word_embeddings: false,
    };
    let tokens = SpecialTokens { bos: None, eos: vec![2], pad: Some(0) };
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut model = Pretrained::random(config, tokens, &mut rng, &TrainingDevice::Cpu).unwrap();
    for (name, weight) in &mut model.weights {
        if name.ends_with(".bias") || name.contains("_norm.weight") {
            let values: Vec<f32> = (0..weight.elem_count()).map(|i| 1.2 + (i as f32 * 0.7).sin()).collect();
            *weight = Tensor::from_vec(values, weight.shape(), &TrainingDevice::Cpu).unwrap();
        }
    }
    model
}

#[tokio::test(flavor = "multi_thread")]
async fn each_says_what_the_trainer_says() {
    let (_, spec) = bare();
    let mut texts = Vec::new();
    for architecture in Architecture::ALL {
        let (model, folder) = (random(architecture), tempfile::tempdir().unwrap());
        model.save(folder.path()).unwrap();
        copy_tokenizer(&spec.base, folder.path()).unwrap();
        let codec = Codec::from_folder(folder.path()).unwrap();
        let prompt = codec.encode_bare("What is 12 + 34? It is").unwrap();

        let decoder = model.decoder().unwrap();
        let request = RolloutRequest { prompt: prompt.clone().into(), seed: 0 };
        let greedy = SamplingParams::whole(0.0, TOKENS);
        let rollouts = CpuSampler::new(&decoder, &[], 1).unwrap().generate(&[request], &greedy, &mut |_| true).unwrap();
        let ids = &rollouts[0].ids;
        let whole: Vec<u32> = prompt.iter().chain(ids).copied().collect();
        let rows: Vec<u32> = (prompt.len() as u32 - 1..whole.len() as u32 - 1).collect();
        let logits = decoder.logits_at(&decoder.hidden(&Packed::new([whole.as_slice()])).unwrap(), &rows).unwrap();
        let expected = token_log_probs(&logits, ids).unwrap().to_vec1::<f32>().unwrap();

        let spec = EngineSpec::new(folder.path()).with_tier("base", Weights::Base, None);
        let engine = MistralEngine::load(spec).await.unwrap();
        let mut generation = ask("base", "");
        generation.prompt = Prompt::Text("What is 12 + 34? It is".to_owned());
        (generation.max_tokens, generation.logprobs) = (Some(TOKENS), Some(Logprobs { top: 0 }));
        generation.sampling.ignore_eos = true;
        let answer = answer(&engine, generation).await.unwrap();
        assert_eq!(answer.content, codec.decode(ids).unwrap(), "{architecture:?}");
        assert_eq!(answer.logprobs.len(), expected.len(), "{architecture:?}");
        for (found, expected) in answer.logprobs.iter().zip(&expected) {
            assert!((found.logprob - expected).abs() < 1e-4, "{architecture:?}: {} {expected}", found.logprob);
        }
        texts.push(answer.content);
    }
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), Architecture::ALL.len(), "they are not the same function: {texts:?}");
}
