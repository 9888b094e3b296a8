//! Checks and measures models run layer by layer, with random weights of real shapes, on any device.
//!
//! ```text
//! cargo run --release -p brevity-training --features cuda --example large -- check device=cuda:0
//! … -- learn device=cuda:0 dtype=bf16 shape=1.5b tuning=lora tokens=16384 sequences=1
//! … -- sample device=cuda:0 dtype=bf16 shape=1.5b sequences=256 new=256
//! ```
//!
//! `check` compares values, gradients and samples of the device with the fused operations of the CPU and fails when they
//! differ. `learn` times forward, backward and update; `sample` times decoding. Both print one line of JSON. `layers=N` cuts
//! a shape down, so that everything also runs where there is no GPU.

#![expect(clippy::print_stdout, reason = "a program that prints its results")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use brevity_training::compute::{DeviceName, Precision, free_memory};
use brevity_training::model::layered::Targets;
use brevity_training::model::ops::Stretch;
use brevity_training::model::{
    Architecture, DType, Device, LoraConfig, ModelConfig, Packed, Policy, Pretrained, SpecialTokens, TARGET_MODULES,
    Tensor, Tuning, ops,
};
use brevity_training::optimizer::{AdamW, AdamWConfig, Gradients};
use brevity_training::rollout::{CpuSampler, DeviceSampler, RolloutRequest, Sampler, SamplingParams};
use brevity_training::{Error, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let options = Options::read(arguments)?;
    match mode.as_str() {
        "check" => check(&options),
        "learn" => learn(&options),
        "sample" => sample(&options),
        other => Err(Error::config(format!("`{other}` is none of `check`, `learn`, `sample`"))),
    }
}

/// `KEY=VALUE` arguments.
struct Options(BTreeMap<String, String>);

impl Options {
    fn read(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let pair = |text: String| match text.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Error::config(format!("`{text}` is not KEY=VALUE"))),
        };
        Ok(Self(arguments.map(pair).collect::<Result<_>>()?))
    }

    fn text<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.0.get(key).map_or(default, String::as_str)
    }

    fn number(&self, key: &str, default: usize) -> Result<usize> {
        let Some(text) = self.0.get(key) else {
            return Ok(default);
        };
        text.parse().map_err(|_| Error::config(format!("`{key}={text}` is not a whole number")))
    }

    fn precision(&self) -> Precision {
        if self.text("dtype", "f32") == "bf16" { Precision::Bf16 } else { Precision::F32 }
    }

    fn device(&self) -> Result<Device> {
        let name: DeviceName = self.text("device", "cpu").parse().map_err(Error::Config)?;
        name.open(self.precision())
    }

    fn tuning(&self) -> Tuning {
        if self.text("tuning", "lora") == "full" { Tuning::Full } else { lora(16) }
    }

    /// The shape of a published model, with fewer layers where that is asked for.
    fn config(&self) -> Result<ModelConfig> {
        let qwen2 = ModelConfig {
            architecture: Architecture::Qwen2,
            vocab_size: 151_936,
            hidden_size: 1536,
            intermediate_size: 8960,
            num_hidden_layers: self.number("layers", 28)?,
            num_attention_heads: 12,
            num_key_value_heads: 2,
            head_dim: 128,
            max_position_embeddings: 40_960,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: false,
        };
        match self.text("shape", "1.5b") {
            "1.5b" => Ok(qwen2),
            "7b" => Ok(ModelConfig {
                vocab_size: 152_064,
                hidden_size: 3584,
                intermediate_size: 18_944,
                num_attention_heads: 28,
                num_key_value_heads: 4,
                ..qwen2
            }),
            "qwen3-1.7b" => Ok(ModelConfig {
                architecture: Architecture::Qwen3,
                hidden_size: 2048,
                intermediate_size: 6144,
                num_attention_heads: 16,
                num_key_value_heads: 8,
                tie_word_embeddings: true,
                ..qwen2
            }),
            other => Err(Error::config(format!("`shape={other}` is none of `1.5b`, `7b`, `qwen3-1.7b`"))),
        }
    }
}

fn lora(rank: usize) -> Tuning {
    Tuning::Lora(LoraConfig { rank, alpha: 32.0, target_modules: TARGET_MODULES.map(str::to_owned).to_vec() })
}

/// Random weights made on the device itself: a CPU takes minutes for as many.
fn random(config: ModelConfig, dtype: DType, device: &Device) -> Result<Pretrained> {
    device.set_seed(1).or_else(|error| if device.is_cpu() { Ok(()) } else { Err(error) })?;
    let mut weights = BTreeMap::new();
    for (name, shape) in config.tensors() {
        let tensor = if name.ends_with("norm.weight") {
            Tensor::ones(shape, DType::F32, device)?
        } else if name.ends_with(".bias") {
            Tensor::zeros(shape, DType::F32, device)?
        } else {
            Tensor::randn(0f32, 1.0 / (shape[1] as f32).sqrt(), shape, device)?
        };
        weights.insert(name, tensor.to_dtype(dtype)?);
    }
    Ok(Pretrained { config, tokens: SpecialTokens::default(), weights })
}

/// Sequences of pseudo-random ids that add up to `tokens`.
fn sequences(tokens: usize, count: usize, vocabulary: usize) -> Vec<Vec<u32>> {
    let length = tokens / count.max(1);
    (0..count).map(|s| (0..length).map(|i| ((i * 7919 + s * 104_729) % vocabulary) as u32).collect()).collect()
}

/// The least memory that was free since it was asked for the first time.
struct Watch {
    device: Device,
    before: Option<u64>,
    least: Option<u64>,
}

impl Watch {
    fn new(device: &Device) -> Result<Self> {
        let free = free_memory(device)?;
        Ok(Self { device: device.clone(), before: free, least: free })
    }

    fn look(&mut self) -> Result<()> {
        self.least = self.least.min(free_memory(&self.device)?);
        Ok(())
    }

    fn gib(&self) -> Option<f64> {
        Some((self.before? - self.least?) as f64 / (1u64 << 30) as f64)
    }
}

fn learn(options: &Options) -> Result<()> {
    let (device, config) = (options.device()?, options.config()?);
    let mut watch = Watch::new(&device)?;
    let (tokens, count, repeats) =
        (options.number("tokens", 8192)?, options.number("sequences", 1)?, options.number("repeats", 3)?);
    let base = random(config.clone(), options.precision().dtype(), &device)?;
    let mut policy = Policy::new(base, &options.tuning(), &mut ChaCha8Rng::seed_from_u64(1))?;
    policy.forget_reference();
    let model = policy.layered()?;
    let mut optimizer = AdamW::new(policy.parameters().to_vec(), AdamWConfig::default())?;
    let sequences = sequences(tokens, count, config.vocab_size);
    let batch = Packed::new(sequences.iter().map(Vec::as_slice));
    let rows: Vec<u32> = (0..batch.ids.len() as u32).collect();
    let ids: Vec<u32> = batch.ids.iter().map(|id| (id + 1) % config.vocab_size as u32).collect();
    let targets = Targets { rows: &rows, ids: &ids, temperature: 1.0 };
    let (mut passes, mut updates) = (Vec::new(), Vec::new());
    for _ in 0..=repeats {
        let started = Instant::now();
        let mut gradients = optimizer.gradients();
        let loss = |logprobs: &Tensor| Ok((logprobs.mean_all()?.neg()?, ()));
        model.learn(&batch, targets, loss, &mut |place, gradient| gradients.add(place, &gradient))?;
        device.synchronize()?;
        passes.push(started.elapsed().as_secs_f64());
        watch.look()?;
        let started = Instant::now();
        optimizer.step(&gradients, 1e-6)?;
        device.synchronize()?;
        updates.push(started.elapsed().as_secs_f64());
        watch.look()?;
    }
    // The first is slower: kernels are loaded and memory is taken.
    let (pass, update) = (median(&passes[1..]), median(&updates[1..]));
    let products = in_products(&config) as f64;
    // Forward and backward of every product; frozen weights need no gradient of their own. Of attention, half of its two
    // products forward and of its five backward: queries do not look ahead.
    let heads = (config.num_hidden_layers * config.num_attention_heads * config.head_dim) as f64;
    let attention: f64 = batch.lengths().map(|length| 7.0 * (length as f64).powi(2) * heads).sum();
    let useful = if matches!(options.tuning(), Tuning::Full) { 6.0 } else { 4.0 } * products * batch.ids.len() as f64
        + attention;
    println!(
        "{}",
        json!({
            "measured": "learn", "shape": options.text("shape", "1.5b"), "layers": config.num_hidden_layers,
            "tuning": options.text("tuning", "lora"), "dtype": options.text("dtype", "f32"),
            "tokens": batch.ids.len(), "sequences": count, "seconds": pass, "update_seconds": update,
            "tokens_per_second": batch.ids.len() as f64 / (pass + update),
            "useful_tflops": useful / pass / 1e12, "memory_gib": watch.gib(),
        })
    );
    Ok(())
}

fn sample(options: &Options) -> Result<()> {
    let (device, config) = (options.device()?, options.config()?);
    let mut watch = Watch::new(&device)?;
    let (count, new, prompt) =
        (options.number("sequences", 64)?, options.number("new", 128)?, options.number("prompt", 128)?);
    let base = random(config.clone(), options.precision().dtype(), &device)?;
    let policy = Policy::new(base, &lora(16), &mut ChaCha8Rng::seed_from_u64(1))?;
    let mut sampler = DeviceSampler::new(policy.layered()?, &[], count)?;
    let prompts: Vec<Arc<[u32]>> =
        sequences(prompt * count, count, config.vocab_size).into_iter().map(Into::into).collect();
    let requests: Vec<RolloutRequest> =
        prompts.into_iter().enumerate().map(|(seed, prompt)| RolloutRequest { prompt, seed: seed as u64 }).collect();
    let params = SamplingParams::whole(1.0, new);
    let mut times = vec![Instant::now()];
    sampler.generate(&requests, &params, &mut |_| {
        times.push(Instant::now());
        true
    })?;
    watch.look()?;
    let steps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    let step = median(&steps[1..]);
    // What a step has to read: every weight of a product, and the keys and values so far.
    let weights = in_products(&config);
    let cached =
        count * (prompt + new / 2) * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim;
    let bytes = (weights + cached) * options.precision().dtype().size_in_bytes();
    println!(
        "{}",
        json!({
            "measured": "sample", "shape": options.text("shape", "1.5b"), "layers": config.num_hidden_layers,
            "dtype": options.text("dtype", "f32"), "sequences": count, "prompt": prompt, "new": new,
            "prefill_seconds": steps[0], "step_seconds": step, "tokens_per_second": count as f64 / step,
            "gigabytes_per_second": bytes as f64 / step / 1e9, "memory_gib": watch.gib(),
        })
    );
    Ok(())
}

/// Weights that are multiplied with: all but an embedding that is only looked up.
fn in_products(config: &ModelConfig) -> usize {
    let looked_up = if config.tie_word_embeddings { 0 } else { config.vocab_size * config.hidden_size };
    config.parameters() - looked_up
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Models small enough for the CPU, in f32 there and on the device in the asked-for format.
fn check(options: &Options) -> Result<()> {
    let (device, dtype) = (options.device()?, options.precision().dtype());
    // Half precision has three digits; f32 products on a GPU are summed in another order.
    let tolerance = if dtype == DType::F32 { 2e-3 } else { 8e-2 };
    let mut worst = BTreeMap::new();
    for architecture in Architecture::ALL {
        for (name, tuning) in [("lora", lora(8)), ("full", Tuning::Full)] {
            let name = format!("{} {name}", architecture.model_type());
            check_one(small(architecture)?, &tuning, (dtype, &device), &name, &mut worst)?;
        }
    }
    let mut failed = Vec::new();
    for (what, apart) in &worst {
        println!("{what:<60}{apart:>12.2e}");
        if *apart > tolerance && !what.contains("greedy") || apart.is_nan() {
            failed.push(what.as_str());
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::config(format!("above {tolerance}: {}", failed.join(", ")))) }
}

/// A random model of a few layers on the CPU.
fn small(architecture: Architecture) -> Result<Pretrained> {
    let stretch =
        Stretch { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_position_embeddings: 128 };
    let config = ModelConfig {
        architecture,
        vocab_size: 1000,
        hidden_size: 256,
        intermediate_size: 512,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 64,
        max_position_embeddings: 4096,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: (architecture == Architecture::Llama).then_some(stretch),
        tie_word_embeddings: true,
    };
    Pretrained::random(config, SpecialTokens::default(), &mut ChaCha8Rng::seed_from_u64(3), &Device::Cpu)
}

/// How far the device is from the CPU, by what was compared, into `worst`.
fn check_one(
    base: Pretrained,
    tuning: &Tuning,
    (dtype, device): (DType, &Device),
    name: &str,
    worst: &mut BTreeMap<String, f64>,
) -> Result<()> {
    let here = moved(base.clone(), tuning)?;
    let there = moved(base.to(dtype, device)?, tuning)?;
    let (logprobs, gradients) = on_graph(&here)?;
    let (found, of_device) = in_layers(&there)?;
    worst.insert(format!("{name}: log-probabilities"), apart(&found, &logprobs)?);
    for (index, (parameter, _)) in here.parameters().iter().enumerate() {
        let (Some(one), Some(other)) = (of_device.get(index), gradients.get(index)) else {
            return Err(Error::config(format!("`{parameter}` got no gradient")));
        };
        let kind = parameter.rsplit('.').take(3).collect::<Vec<_>>().join(" of ");
        let entry = worst.entry(format!("{name}: gradient of {kind}")).or_insert(0.0);
        *entry = entry.max(apart(one, other)?);
    }
    worst.insert(format!("{name}: greedy tokens that differ"), differing(&here, &there)?);
    Ok(())
}

/// A policy that has left its start, so that norms are not one and biases not zero; the same on every device.
fn moved(base: Pretrained, tuning: &Tuning) -> Result<Policy> {
    let policy = Policy::new(base, tuning, &mut ChaCha8Rng::seed_from_u64(4))?;
    for (index, (_, var)) in policy.parameters().iter().enumerate() {
        let values: Vec<f32> =
            (0..var.elem_count()).map(|i| ((i * 37 + index * 11) % 101) as f32 / 5000.0 - 0.01).collect();
        let step = Tensor::from_vec(values, var.shape(), &Device::Cpu)?.to_device(var.device())?;
        var.set(&(var.as_tensor() + step.to_dtype(var.dtype())?)?)?;
    }
    Ok(policy)
}

fn batch() -> (Packed, Vec<u32>, Vec<u32>) {
    let sequences: Vec<Vec<u32>> =
        [300, 17, 700].iter().map(|&length| (0..length).map(|i| (i * i + 7 * length) % 1000).collect()).collect();
    let packed = Packed::new(sequences.iter().map(Vec::as_slice));
    let rows: Vec<u32> = (0..packed.ids.len() as u32).filter(|row| row % 4 != 1).collect();
    let ids = rows.iter().map(|row| (row * 13 + 5) % 1000).collect();
    (packed, rows, ids)
}

fn scalar(logprobs: &Tensor) -> Result<Tensor> {
    let weights: Vec<f32> = (0..logprobs.elem_count()).map(|i| (i as f32 * 0.7).sin()).collect();
    Ok((logprobs * Tensor::new(weights, logprobs.device())?)?.sum_all()?)
}

fn on_graph(policy: &Policy) -> Result<(Tensor, Gradients)> {
    let (packed, rows, ids) = batch();
    let decoder = policy.decoder()?;
    let logprobs = ops::token_log_probs(&decoder.logits_at(&decoder.hidden(&packed)?, &rows)?, &ids)?;
    let mut gradients = Gradients::new(policy.parameters().len());
    gradients.accumulate(&scalar(&logprobs)?.backward()?, policy.parameters())?;
    Ok((logprobs.detach(), gradients))
}

fn in_layers(policy: &Policy) -> Result<(Tensor, Gradients)> {
    let (packed, rows, ids) = batch();
    let mut gradients = Gradients::new(policy.parameters().len());
    let loss = |logprobs: &Tensor| Ok((scalar(logprobs)?, logprobs.detach()));
    let targets = Targets { rows: &rows, ids: &ids, temperature: 1.0 };
    let logprobs =
        policy.layered()?.learn(&packed, targets, loss, &mut |place, gradient| gradients.add(place, &gradient))?;
    Ok((logprobs, gradients))
}

/// Norm of the difference over the norm of what is expected.
fn apart(found: &Tensor, expected: &Tensor) -> Result<f64> {
    let host = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all();
    let (found, expected) = (host(found)?, host(expected)?);
    let norm = |tensor: Tensor| Ok::<f64, Error>(f64::from(tensor.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt());
    Ok(norm((found - &expected)?)? / norm(expected)?.max(1e-12))
}

/// Share of greedy tokens that differ; the first difference of a response brings more.
fn differing(here: &Policy, there: &Policy) -> Result<f64> {
    let prompts: Vec<Arc<[u32]>> = sequences(12 * 40, 12, 1000).into_iter().map(Into::into).collect();
    let requests: Vec<RolloutRequest> = prompts.into_iter().map(|prompt| RolloutRequest { prompt, seed: 1 }).collect();
    let params = SamplingParams::whole(0.0, 32);
    let one = CpuSampler::new(&here.frozen()?, &[], 12)?.generate(&requests, &params, &mut |_| true)?;
    let other = DeviceSampler::new(there.layered()?, &[], 5)?.generate(&requests, &params, &mut |_| true)?;
    let tokens = one.iter().flat_map(|rollout| &rollout.ids).zip(other.iter().flat_map(|rollout| &rollout.ids));
    let differing = tokens.filter(|(one, other)| one != other).count();
    Ok(differing as f64 / (12 * 32) as f64)
}
