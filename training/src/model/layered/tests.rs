use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::super::{Architecture, LoraConfig, Policy, Pretrained, SpecialTokens, TARGET_MODULES, Tuning, ops};
use super::test_support::{Collected, near};
use super::*;
use crate::model::ops::Stretch;
use crate::model::ops::test_support::wave;

fn config(architecture: Architecture, tied: bool) -> ModelConfig {
    let stretch =
        Stretch { factor: 4.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position_embeddings: 16 };
    ModelConfig {
        architecture,
        vocab_size: 37,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: (architecture == Architecture::Llama).then_some(stretch),
        tie_word_embeddings: tied,
    }
}

fn lora() -> Tuning {
    Tuning::Lora(LoraConfig { rank: 3, alpha: 6.0, target_modules: TARGET_MODULES.map(str::to_owned).to_vec() })
}

fn base(tied: bool) -> Pretrained {
    base_of(Architecture::Qwen2, tied)
}

fn base_of(architecture: Architecture, tied: bool) -> Pretrained {
    let tokens = SpecialTokens { bos: None, eos: vec![3], pad: None };
    Pretrained::random(config(architecture, tied), tokens, &mut ChaCha8Rng::seed_from_u64(1), &Device::Cpu).unwrap()
}

/// A policy that has moved away from its start, so that no gradient of an adapter is zero.
fn policy(base: Pretrained, tuning: &Tuning) -> Policy {
    let policy = Policy::new(base, tuning, &mut ChaCha8Rng::seed_from_u64(2)).unwrap();
    for (index, (_, var)) in policy.parameters().iter().enumerate() {
        let move_by = (wave(var.dims(), index as f32) * 0.05).unwrap().to_dtype(var.dtype()).unwrap();
        var.set(&(var.as_tensor() + move_by).unwrap()).unwrap();
    }
    policy
}

/// Three sequences of which one is short, the rows that are asked about, and their next tokens.
fn batch() -> (Packed, Vec<u32>, Vec<u32>) {
    let sequences: [Vec<u32>; 3] = [19, 1, 40].map(|length| (0..length).map(|i| (i * i + length) % 37).collect());
    let packed = Packed::new(sequences.iter().map(Vec::as_slice));
    let rows: Vec<u32> = (0..60).filter(|row| row % 3 != 1).collect();
    let ids = rows.iter().map(|row| (row * 5 + 1) % 37).collect();
    (packed, rows, ids)
}

/// Log-probabilities, gradients by place and loss of the graph of fused operations.
fn graph(policy: &Policy, temperature: f64) -> (Tensor, Vec<Tensor>, f32) {
    let (packed, rows, ids) = batch();
    let decoder = policy.decoder().unwrap();
    let logits = decoder.logits_at(&decoder.hidden(&packed).unwrap(), &rows).unwrap();
    let logprobs = ops::token_log_probs(&(logits / temperature).unwrap(), &ids).unwrap();
    let loss = loss(&logprobs).unwrap();
    let store = loss.backward().unwrap();
    let gradients = policy.parameters().iter().map(|(_, var)| store.get(var).unwrap().detach()).collect();
    (logprobs.detach(), gradients, loss.to_scalar().unwrap())
}

fn loss(logprobs: &Tensor) -> Result<Tensor> {
    Ok((logprobs.exp()? * wave(logprobs.dims(), 0.3).to_device(logprobs.device())?)?.sum_all()?)
}

fn layered(policy: &Policy, temperature: f64) -> (TokenScores, Collected, f32) {
    let (packed, rows, ids) = batch();
    let targets = Targets { rows: &rows, ids: &ids, temperature };
    let model = policy.layered().unwrap();
    let mut found = Collected::default();
    let value = model
        .learn(
            &packed,
            targets,
            |logprobs| {
                let loss = loss(logprobs)?;
                let value = loss.to_scalar::<f32>()?;
                Ok((loss, value))
            },
            &mut found.sink(),
        )
        .unwrap();
    (model.score(&packed, targets).unwrap(), found, value)
}

#[test]
fn values_and_gradients_are_those_of_the_graph() {
    let tunings = [Tuning::Full, lora()];
    let cases = Architecture::ALL.into_iter().flat_map(|architecture| tunings.iter().map(move |t| (architecture, t)));
    for (architecture, tuning) in cases {
        for (tied, temperature) in [(false, 1.0), (true, 0.8)] {
            let policy = policy(base_of(architecture, tied), tuning);
            let (logprobs, gradients, loss) = graph(&policy, temperature);
            let (scores, found, value) = layered(&policy, temperature);
            near(&scores.logprobs, &logprobs, 2e-6);
            assert!((value - loss).abs() < 1e-5);
            assert_eq!(found.places(), (0..gradients.len()).collect::<Vec<_>>(), "a gradient for every parameter");
            for (place, gradient) in gradients.iter().enumerate() {
                assert!(gradient.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 0.0);
                near(found.of(place), gradient, 2e-5);
            }
        }
    }
}

#[test]
fn half_precision_is_close_and_keeps_adapters_in_full() {
    let policy_f32 = policy(base(false), &lora());
    let (scores, found, _) = layered(&policy_f32, 1.0);
    let policy_f16 = policy(base(false).to(DType::F16, &Device::Cpu).unwrap(), &lora());
    assert!(policy_f16.parameters().iter().all(|(_, var)| var.dtype() == DType::F32));
    assert_eq!(policy_f16.layered().unwrap().dtype(), DType::F16);
    let (scores_f16, found_f16, _) = layered(&policy_f16, 1.0);
    near(&scores_f16.logprobs, &scores.logprobs, 1e-2);
    for place in found.places() {
        near(found_f16.of(place), found.of(place), 3e-2);
    }
}

#[test]
fn an_update_of_the_policy_is_seen_and_the_reference_stays() {
    let (packed, rows, ids) = batch();
    let targets = Targets { rows: &rows, ids: &ids, temperature: 1.0 };
    for tuning in [Tuning::Full, lora()] {
        let policy = policy(base(false), &tuning);
        let (model, reference) = (policy.layered().unwrap(), policy.base().layered().unwrap());
        let bits = |model: &Layered| {
            let values = model.score(&packed, targets).unwrap().logprobs.to_vec1::<f32>().unwrap();
            values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let (before, of_reference) = (bits(&model), bits(&reference));
        for (_, var) in policy.parameters() {
            var.set(&(var.as_tensor() * 1.01).unwrap()).unwrap();
        }
        assert_ne!(bits(&model), before);
        assert_eq!(bits(&model), bits(&policy.layered().unwrap()));
        assert_eq!(bits(&reference), of_reference);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = base(false).layered().unwrap();
    let targets = Targets { rows: &[0], ids: &[1], temperature: 1.0 };
    let error = model.score(&Packed::new([[37u32].as_slice()]), targets).unwrap_err().to_string();
    assert!(error.contains("token id 37 outside the vocabulary of 37"), "{error}");
    let error = model.score(&Packed::new([[0u32; 65].as_slice()]), targets).unwrap_err().to_string();
    assert!(error.contains("sequence of 65 tokens in a context of 64"), "{error}");
    let loss = |_: &Tensor| Ok((Tensor::new(1f32, &Device::Cpu)?, ()));
    let error = model.learn(&Packed::new([[0u32; 5].as_slice()]), targets, loss, &mut |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("does not depend"), "{error}");
}
