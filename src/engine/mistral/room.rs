//! Memory: a GPU's among the models that share it, and a processor's for long prompts.
//!
//! The engine gives a model's keys and values what is free when it is loaded, so that a second model finds no room. Where
//! several are to be loaded on one GPU, each is therefore told its share before. On a processor it reads a prompt at once,
//! however much memory that takes. Nothing is loaded here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use brevity_training::files;
use brevity_training::model::weight_files;
use mistralrs::core::MemoryUsage;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::spec::{DType, Device, EngineSpec, Weights};
use crate::engine::EngineError;

/// Bytes for keys and values below which a model is not worth loading: nine thousand tokens at 1.5 billion parameters.
const LEAST: u64 = 256 << 20;

/// Bytes for keys and values of each model on the GPUs that get more than one, unless the specification says how many.
///
/// # Errors
/// [`EngineError::Failed`] when their weights alone do not fit, with the numbers and what to do.
pub fn shares(spec: &EngineSpec) -> Result<BTreeMap<Device, usize>, EngineError> {
    let mut shares = BTreeMap::new();
    if spec.kv_cache.is_some() {
        return Ok(shares);
    }
    for (device, folders) in models(spec) {
        let Device::Cuda(index) = device else { continue };
        if folders.len() < 2 {
            continue;
        }
        // A GPU that cannot be opened is explained where the first model is loaded.
        let Ok(opened) = mistralrs::Device::new_cuda(index) else { continue };
        let Ok(memory) = MemoryUsage.query(&opened) else { continue };
        let weights: Vec<u64> =
            folders.iter().map(|folder| size(folder, spec.dtype, spec.quantization.as_deref())).collect();
        let share = share(memory.available() as u64, &weights).map_err(|told| {
            EngineError::failed(format!(
                "{told} on `cuda:{index}`: let tiers be adapters, which share one model, list fewer of them, give some a \
                 `device` of their own in family.toml, or quantise (`--isq`); `--kv-cache` says how much room the keys and \
                 values of each get, and is not checked"
            ))
        })?;
        let (count, told) = (folders.len(), share >> 20);
        tracing::info!(device = index, models = count, mebibytes = told, "each model's share for keys and values");
        shares.insert(device, share);
    }
    Ok(shares)
}

/// Memory on a processor for prompts while they are read: the engine holds the scores of a layer all at once, f32 `[prompts,
/// heads, prompt, prompt]` of all prompts of one length. Without a bound a few requests could take all memory, and the process
/// with it.
#[derive(Debug, Clone)]
pub struct Scores {
    heads: u64,
    /// Bytes for all that are read at a time.
    bytes: u64,
    mebibytes: Arc<Semaphore>,
}

impl Scores {
    /// Half of the memory that is available, for the model in `folder`; `None` where that cannot be told.
    pub fn of(folder: &Path) -> Option<Self> {
        let config: Value = files::read_json(&folder.join("config.json")).ok()?;
        let heads = config["num_attention_heads"].as_u64().filter(|&heads| heads > 0)?;
        let available = MemoryUsage.query(&mistralrs::Device::Cpu).ok()?.available() as u64;
        Some(Self::within(available / 2, heads))
    }

    fn within(bytes: u64, heads: u64) -> Self {
        let mebibytes = Arc::new(Semaphore::new(Self::mebibytes_of(bytes) as usize));
        Self { heads, bytes, mebibytes }
    }

    /// At least one, and as many as one permit can have.
    fn mebibytes_of(bytes: u64) -> u32 {
        bytes.div_ceil(1 << 20).clamp(1, u64::from(u32::MAX >> 3)) as u32
    }

    /// Tokens of the longest prompt that can be read.
    pub fn longest_prompt(&self) -> usize {
        (self.bytes / (self.heads * 4)).isqrt() as usize
    }

    /// Waits until there is room for a prompt of so many tokens beside those that are read. One that is too long for all of
    /// it has all of it.
    pub async fn room_for(&self, tokens: usize) -> Room {
        let bytes = self.heads * 4 * (tokens as u64).pow(2);
        let wanted = Self::mebibytes_of(bytes.min(self.bytes));
        // The semaphore is never closed.
        let permit = self.mebibytes.clone().acquire_many_owned(wanted).await.ok();
        Room(Arc::new(Mutex::new(permit)))
    }
}

/// What a prompt takes while it is read. Clones are the same room.
#[derive(Debug, Clone, Default)]
pub struct Room(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Room {
    /// The prompt is read, or nobody wants it read any longer.
    pub fn give_back(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Gives the room back when it is dropped.
    pub fn until_dropped(self) -> HeldRoom {
        HeldRoom(self)
    }
}

/// See [`Room::until_dropped`].
#[derive(Debug)]
pub struct HeldRoom(Room);

impl Drop for HeldRoom {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// The folders that are loaded as models of their own, by device: adapters share their base.
fn models(spec: &EngineSpec) -> BTreeMap<Device, Vec<&Path>> {
    let mut models: BTreeMap<Device, Vec<&Path>> = BTreeMap::new();
    let mut has_base = BTreeSet::new();
    for tier in &spec.tiers {
        let device = tier.device.unwrap_or(spec.device);
        let folder = match &tier.weights {
            Weights::Checkpoint(folder) => folder,
            Weights::Base | Weights::Adapter(_) if !has_base.insert(device) => continue,
            Weights::Base | Weights::Adapter(_) => &spec.base,
        };
        models.entry(device).or_default().push(folder);
    }
    models
}

/// Half of what the weights leave, in equal parts: the other half is for activations and recorded steps.
fn share(free: u64, weights: &[u64]) -> Result<usize, String> {
    let (all, count) = (weights.iter().sum::<u64>(), weights.len().max(1) as u64);
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    match free.saturating_sub(all) / 2 / count {
        share if share >= LEAST => Ok(share as usize),
        _ => Err(format!(
            "the {count} models of these tiers take {:.1} GiB, and {:.1} GiB are free, which leaves no room for their keys and \
             values",
            gib(all),
            gib(free)
        )),
    }
}

/// Bytes that the model in `folder` takes in memory, about. What cannot be read counts nothing: its load says why.
fn size(folder: &Path, dtype: DType, quantization: Option<&str>) -> u64 {
    let on_disk: u64 = weight_files(folder)
        .unwrap_or_default()
        .iter()
        .filter_map(|file| std::fs::metadata(file).ok())
        .map(|file| file.len())
        .sum();
    let config: Value = files::read_json(&folder.join("config.json")).unwrap_or_default();
    let is_wide = ["torch_dtype", "dtype"].iter().any(|key| config[key] == "float32");
    let values = on_disk / if is_wide { 4 } else { 2 };
    match quantization.and_then(|wanted| wanted.chars().find_map(|letter| letter.to_digit(10))) {
        // A bit more for scales, and for what stays as it is.
        Some(bits) => values * u64::from(bits + 1) / 8,
        None => values * if dtype == DType::F32 { 4 } else { 2 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scores_of_the_longest_prompt_fit() {
        // 12 heads of 15,811 by 15,811 scores of 4 bytes are 12.0 GB.
        assert_eq!(Scores::within(12_000_000_000, 12).longest_prompt(), 15_811);
        assert_eq!(Scores::within(0, 12).longest_prompt(), 0);
        let mini = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini/base");
        assert!(Scores::of(&mini).is_some_and(|scores| scores.longest_prompt() > 100));
        assert!(Scores::of(Path::new("nowhere")).is_none());
    }

    #[tokio::test]
    async fn prompts_that_are_read_together_have_room_together() {
        // Scores of 16 heads, 1,024 by 1,024, are 64 MiB.
        let scores = Scores::within(200 << 20, 16);
        let (one, two, three) = (scores.room_for(1024).await, scores.room_for(1024).await, scores.room_for(1024).await);
        let fourth = scores.room_for(1024);
        tokio::pin!(fourth);
        assert!(futures::poll!(&mut fourth).is_pending());
        // The engine's side may hold on to it, as a dead one does.
        let engine = two.clone();
        drop(two.until_dropped());
        fourth.await.give_back();
        engine.give_back();
        one.give_back();
        three.give_back();
        scores.room_for(1 << 20).await.give_back();
        Scores::within(0, 16).room_for(5).await.give_back();
    }

    #[test]
    fn adapters_share_the_base_of_their_device() {
        let mut spec = EngineSpec::new("base")
            .with_tier("base", Weights::Base, None)
            .with_tier("a", Weights::Adapter("a".into()), None)
            .with_tier("b", Weights::Checkpoint("b".into()), None)
            .with_tier("c", Weights::Adapter("c".into()), None)
            .on(Some(Device::Cuda(1)));
        spec.device = Device::Cuda(0);
        let models = models(&spec);
        assert_eq!(models[&Device::Cuda(0)], [Path::new("base"), Path::new("b")]);
        assert_eq!(models[&Device::Cuda(1)], [Path::new("base")]);
    }

    #[test]
    fn what_the_weights_leave_is_shared() {
        let gib = 1 << 30;
        assert_eq!(share(100 * gib, &[10 * gib, 10 * gib]), Ok(20 << 30));
        assert!(share(5 * gib, &[gib, gib, gib, gib]).is_err(), "128 MiB each");
        assert_eq!(share(6 * gib, &[gib, gib, gib, gib]), Ok(256 << 20), "the least");
        let told = share(24 * gib, &[15 * gib, 15 * gib]).unwrap_err();
        assert!(told.starts_with("the 2 models of these tiers take 30.0 GiB, and 24.0 GiB are free"), "{told}");
    }

    #[test]
    fn weights_are_counted_in_the_format_they_are_loaded_in() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini/base");
        // Of f32.
        let values = std::fs::metadata(base.join("model.safetensors")).unwrap().len() / 4;
        for (dtype, bytes) in [(DType::F32, 4), (DType::BF16, 2), (DType::Auto, 2)] {
            assert_eq!(size(&base, dtype, None), values * bytes);
        }
        for (quantization, bits) in [("8", 9), ("q4k", 5), ("q8_0", 9)] {
            assert_eq!(size(&base, DType::Auto, Some(quantization)), values * bits / 8);
        }
        assert_eq!(size(Path::new("nowhere"), DType::Auto, None), 0);
    }

    #[test]
    fn nothing_is_shared_on_a_processor_or_when_it_is_said() {
        let mut spec = EngineSpec::new("base").with_tier("base", Weights::Base, None).with_tier(
            "b",
            Weights::Checkpoint("b".into()),
            None,
        );
        assert!(shares(&spec).unwrap().is_empty());
        (spec.device, spec.kv_cache) = (Device::Cuda(0), Some(1 << 30));
        assert!(shares(&spec).unwrap().is_empty());
    }
}
