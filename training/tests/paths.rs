//! The two ways of running a model train the same model: as a graph of fused operations, and layer by layer.
//!
//! Everything that a GPU does differently from the CPU goes through the layered way, so this comparison is what stands
//! for it where there is none.

use std::path::{Path, PathBuf};

use brevity_training::methods::sft::{SftMetrics, SftObserver};
use brevity_training::methods::{rl, sft};
use brevity_training::model::{DType, Device, read_safetensors};
use brevity_training::recipe::Recipe;
use brevity_training::trainer::{Observer, Phase, StepMetrics, StepTimings};
use brevity_training::{Error, Result};

/// Keeps the numbers of a run.
#[derive(Default)]
struct Kept {
    steps: Vec<StepMetrics>,
    updates: Vec<SftMetrics>,
}

impl Observer for Kept {
    fn on_step(&mut self, metrics: &StepMetrics, _: &StepTimings) {
        self.steps.push(metrics.clone());
    }

    fn on_phase(&mut self, _: Phase) {}

    fn on_warning(&mut self, message: &str) {
        // The limit is short, so that the test is.
        assert!(message.contains("were cut off"), "{message}");
    }

    fn should_stop(&self) -> bool {
        false
    }
}

impl SftObserver for Kept {
    fn on_metrics(&mut self, metrics: &SftMetrics, _: u64, _: f64) {
        self.updates.push(metrics.clone());
    }

    fn on_warning(&mut self, message: &str) {
        panic!("{message}");
    }

    fn should_stop(&self) -> bool {
        false
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn recipe(name: &str, path: &str, more: &[(&str, &str)]) -> Result<Recipe> {
    let mut pairs = vec![("compute.path".to_owned(), path.to_owned())];
    if name != "mini-sft.toml" {
        pairs.push(("base".to_owned(), root().join("models/mini/base").display().to_string()));
    }
    pairs.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    Recipe::load(&root().join("training/recipes").join(name), &pairs)
}

fn near(one: f64, other: f64, relative: f64, what: &str) {
    let scale = one.abs().max(other.abs()).max(1e-3);
    assert!((one - other).abs() <= relative * scale, "{what}: {one} and {other}");
}

/// Tensors by name, as plain numbers.
type Tensors = Vec<(String, Vec<f32>)>;

/// Trains the bundled base for three steps and returns its numbers and the trained tensors.
fn reinforced(path: &str, more: &[(&str, &str)]) -> Result<(Vec<StepMetrics>, Tensors)> {
    let small = [
        ("rollout.prompts_per_step", "4"),
        ("rollout.max_new_tokens", "200"),
        ("rollout.max_prompt_tokens", "128"),
        ("optimizer.microbatch_tokens", "1500"),
        ("run.steps", "3"),
        ("optimizer.warmup_updates", "2"),
    ];
    let recipe = recipe("mini.toml", path, &[&small[..], more].concat())?;
    let folder = tempfile::tempdir().map_err(Error::io("create", "a temporary folder"))?;
    let mut kept = Kept::default();
    rl::train(&recipe, 0.2, &folder.path().join("run"), &folder.path().join("tier"), &mut kept)?;
    let name = if more.contains(&("tuning.mode", "full")) { "model" } else { "adapter_model" };
    let file = folder.path().join("tier").join(format!("{name}.safetensors"));
    let tensors = read_safetensors(&file, DType::F32, &Device::Cpu)?;
    let flat = tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.flatten_all()?.to_vec1::<f32>()?)));
    Ok((kept.steps, flat.collect::<Result<_>>()?))
}

fn assert_same_curve(more: &[(&str, &str)]) -> Result<()> {
    let (fused, of_fused) = reinforced("fused", more)?;
    let (layered, of_layered) = reinforced("layered", more)?;
    assert!(fused[1].grad_norm > 1e-3 && fused[0].reward != fused[2].reward, "something is learnt: {fused:?}");
    for (one, other) in fused.iter().zip(&layered) {
        let step = one.step;
        assert_eq!((one.mean_length, one.accuracy), (other.mean_length, other.accuracy), "texts of step {step}");
        near(one.reward, other.reward, 1e-9, "reward");
        near(one.entropy.unwrap_or(-1.0), other.entropy.unwrap_or(-2.0), 1e-4, "entropy");
        near(one.kl.unwrap_or(f64::NAN), other.kl.unwrap_or(f64::NAN), 1e-2, "kl");
        near(one.grad_norm, other.grad_norm, 1e-3, "norm of the gradient");
        near(one.loss, other.loss, 1e-2, "loss");
        for metrics in [one, other] {
            let apart = metrics.sampler_difference_max;
            assert!(apart.is_some_and(|apart| apart < 1e-3), "sampler and trainer agree: {apart:?}");
        }
    }
    for ((name, one), (_, other)) in of_fused.iter().zip(&of_layered) {
        let scale = one.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let apart = one.iter().zip(other).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        // Adam moves a weight by about its rate whatever the gradient's size, so noise around zero shows.
        assert!(apart <= 0.05 * scale, "{name}: {apart} of {scale}");
    }
    Ok(())
}

#[test]
fn an_adapter_is_trained_alike() {
    assert_same_curve(&[]).unwrap();
}

#[test]
fn all_weights_are_trained_alike() {
    let full = [("tuning.mode", "full"), ("optimizer.learning_rate", "1e-5"), ("algorithm.truncated_is", "2")];
    assert_same_curve(&full).unwrap();
}

/// The last report of eight updates from random weights.
fn supervised(path: &str) -> Result<Option<SftMetrics>> {
    let small = [
        ("sft.tokens", "4096"),
        ("sft.batch_tokens", "512"),
        ("sft.warmup_updates", "2"),
        ("optimizer.microbatch_tokens", "300"),
        ("model.layers", "2"),
        ("model.hidden_size", "32"),
        ("model.heads", "2"),
        ("model.kv_heads", "1"),
        ("model.intermediate_size", "48"),
    ];
    let folder = tempfile::tempdir().map_err(Error::io("create", "a temporary folder"))?;
    let mut kept = Kept::default();
    let recipe = recipe("mini-sft.toml", path, &small)?;
    sft::train(&recipe, &folder.path().join("run"), &folder.path().join("model"), &mut kept)?;
    Ok(kept.updates.pop())
}

#[test]
fn supervised_learning_is_alike() {
    let (fused, layered) = (supervised("fused").unwrap().unwrap(), supervised("layered").unwrap().unwrap());
    assert_eq!((fused.step, layered.step), (8, 8));
    near(fused.loss, layered.loss, 1e-5, "loss");
    near(fused.grad_norm, layered.grad_norm, 1e-3, "norm of the gradient");
}
