//! The same seed gives the same bytes, however many threads work on it.

use std::sync::Arc;

use brevity_training::model::{
    Architecture, LoraConfig, ModelConfig, Packed, Policy, Pretrained, SpecialTokens, Tuning, ops,
};
use brevity_training::optimizer::{AdamW, AdamWConfig};
use brevity_training::rollout::{CpuSampler, Rollout, RolloutRequest, Sampler, SamplingParams};
use brevity_training::{Result, loss};
use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const END: u32 = 3;

/// Large enough that every parallel operation has more than one piece of work.
fn model() -> Result<Pretrained> {
    let config = ModelConfig {
        architecture: Architecture::Qwen2,
        vocab_size: 300,
        hidden_size: 64,
        intermediate_size: 160,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        max_position_embeddings: 256,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tie_word_embeddings: true,
    };
    let tokens = SpecialTokens { bos: None, eos: vec![END], pad: None };
    Pretrained::random(config, tokens, &mut ChaCha8Rng::seed_from_u64(11), &Device::Cpu)
}

/// The result of `work` in a pool of so many threads.
fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| brevity_training::Error::config(error.to_string()))?;
    pool.install(work)
}

fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}

/// Everything that three updates leave behind: losses, gradient norms, weights and moments.
fn updates(tuning: &Tuning) -> Result<Vec<(String, Vec<u32>)>> {
    let policy = Policy::new(model()?, tuning, &mut ChaCha8Rng::seed_from_u64(5))?;
    let config = AdamWConfig { weight_decay: 0.01, grad_clip: Some(0.5), ..AdamWConfig::default() };
    let mut optimizer = AdamW::new(policy.parameters().to_vec(), config)?;
    let sequences: Vec<Vec<u32>> =
        (0..6u32).map(|s| (0..40 + 17 * s).map(|t| (t * t + 7 * s) % 300).collect()).collect();
    let mut trace = Vec::new();
    for _ in 0..3 {
        let mut gradients = optimizer.gradients();
        for micro in sequences.chunks(3) {
            let packed = Packed::new(micro.iter().map(|ids| &ids[..ids.len() - 1]));
            let targets: Vec<u32> = micro.iter().flat_map(|ids| ids[1..].to_vec()).collect();
            let decoder = policy.decoder()?;
            let logits = decoder.logits(&decoder.hidden(&packed)?)?;
            let logprobs = ops::token_log_probs(&logits, &targets)?;
            let weights = Tensor::full(1e-3f32, targets.len(), &Device::Cpu)?;
            let loss = loss::negative_log_likelihood(&logprobs, &weights)?;
            trace.push(("loss".into(), bits(&loss)?));
            gradients.accumulate(&loss.backward()?, policy.parameters())?;
        }
        let norm = optimizer.step(&gradients, 1e-3)?.grad_norm.to_bits();
        trace.push(("norm".into(), vec![(norm >> 32) as u32, norm as u32]));
    }
    for (name, tensor) in optimizer.state()? {
        trace.push((name, bits(&tensor)?));
    }
    for (name, var) in policy.parameters() {
        trace.push((name.clone(), bits(var)?));
    }
    Ok(trace)
}

fn assert_same_updates(tuning: &Tuning) -> Result<()> {
    let one = with_threads(1, || updates(tuning))?;
    assert!(one[0] != one[6], "losses of different updates differ");
    for (one, two) in one.iter().zip(with_threads(2, || updates(tuning))?) {
        assert!(one == &two, "`{}` depends on the number of threads", two.0);
    }
    Ok(())
}

#[test]
fn full_updates_do_not_depend_on_the_number_of_threads() {
    assert_same_updates(&Tuning::Full).unwrap();
}

#[test]
fn adapter_updates_do_not_depend_on_the_number_of_threads() {
    let target_modules = vec!["q_proj".into(), "v_proj".into(), "down_proj".into()];
    assert_same_updates(&Tuning::Lora(LoraConfig { rank: 8, alpha: 16.0, target_modules })).unwrap();
}

fn rollouts() -> Result<Vec<Rollout>> {
    let mut sampler = CpuSampler::new(&model()?.decoder()?, &[END], 24)?;
    let prompts: Vec<Arc<[u32]>> =
        (0..5u32).map(|p| (0..30 + 13 * p).map(|t| (t * 5 + p) % 300).collect::<Vec<_>>().into()).collect();
    let requests: Vec<RolloutRequest> =
        (0..40).map(|i| RolloutRequest { prompt: prompts[i % 5].clone(), seed: 900 + i as u64 }).collect();
    let params = SamplingParams { top_p: 0.95, ..SamplingParams::whole(0.8, 60) };
    sampler.generate(&requests, &params, &mut |_| true)
}

#[test]
fn sampling_does_not_depend_on_the_number_of_threads() {
    let one = with_threads(1, rollouts).unwrap();
    assert!(one == with_threads(1, rollouts).unwrap(), "the same seeds again");
    let two = with_threads(2, rollouts).unwrap();
    for (index, (one, two)) in one.iter().zip(&two).enumerate() {
        let probabilities = |r: &Rollout| r.logprobs.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!((&one.ids, one.finish), (&two.ids, two.finish), "response {index}");
        assert!(probabilities(one) == probabilities(two), "log-probabilities of response {index}");
    }
    assert!(one.iter().any(|r| r.ids != one[0].ids), "different seeds give different responses");
}
