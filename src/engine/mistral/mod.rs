//! The engine in this process: mistral.rs, with sampling, budgets and text of our own.
//!
//! All adapter tiers of a device share one model and one batch; a checkpoint tier is a model of its own. The engine computes logits;
//! a logits processor on its thread draws every token with our sampler, and the other side makes text of the ids. No type of
//! mistral.rs leaves this folder, and nothing in it opens a connection: all folders are local.
//!
//! On a processor the environment must say `MISTRALRS_CPU_KV_F32=1` before the first load: with its 16-bit cache the same
//! request can give another text in another batch.

mod config;
mod host;
mod one_core;
mod processor;
mod room;
mod running;
mod spec;
mod stream;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use futures::StreamExt;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::unbounded_channel;

use self::host::Host;
use self::processor::Processor;
use self::room::{Room, Scores};
use self::running::{Ask, Source};
pub use self::spec::{DType, Device, EngineSpec, TierSpec, Weights};
use super::sequence::{LocalModel, Prepared, Sequence};
use super::{Constraint, Engine, EngineError, Event, Events, Generation, Prompt, Shared, Thinking};

/// What the trait calls this engine.
const KIND: &str = "mistral";

/// mistral.rs in this process.
pub struct MistralEngine {
    spec: EngineSpec,
    tiers: RwLock<BTreeMap<String, Tier>>,
    /// The base's model on every device that a tier needs it on. Tiers change one at a time.
    bases: tokio::sync::Mutex<BTreeMap<Device, Loaded>>,
    /// Bytes for keys and values of each model, on devices that have several.
    shares: BTreeMap<Device, usize>,
    /// A place on a core for each prompt that is being prepared.
    preparing: Arc<Semaphore>,
}

/// A model in memory and what our side knows of it.
#[derive(Clone)]
struct Loaded {
    host: Arc<Host>,
    model: Arc<LocalModel>,
    /// Memory for prompts that are read, on a processor.
    scores: Option<Scores>,
}

/// A tier that answers.
#[derive(Clone)]
struct Tier {
    loaded: Loaded,
    /// Alias of its adapter.
    adapter: Option<String>,
    /// Hash of its weights, where the caller knew it.
    fingerprint: Option<String>,
}

impl MistralEngine {
    /// Loads the models and adapters of `spec`. Call it inside the tokio runtime that will poll the events: that runtime
    /// also restarts what dies.
    ///
    /// # Errors
    /// [`EngineError::Failed`] with tier or folder when one does not load.
    pub async fn load(spec: EngineSpec) -> Result<Self, EngineError> {
        let (tiers, shares) = (spec.tiers.clone(), room::shares(&spec)?);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let engine = Self {
            spec,
            tiers: RwLock::default(),
            bases: tokio::sync::Mutex::default(),
            shares,
            preparing: Arc::new(Semaphore::new(cores)),
        };
        for tier in tiers {
            engine.load_tier(tier).await?;
        }
        Ok(engine)
    }

    /// Adds a tier to the running engine, or replaces the tier of that name. Generations that have begun end with the old
    /// weights; those that begin after the return have the new ones. A checkpoint needs room of its own: on a GPU that began
    /// with one model, and without [`EngineSpec::kv_cache`], there is none.
    ///
    /// # Errors
    /// [`EngineError::Failed`] when it does not load (an old tier of that name then stays), [`EngineError::Unavailable`]
    /// while the engine restarts.
    pub async fn load_tier(&self, tier: TierSpec) -> Result<(), EngineError> {
        let mut bases = self.bases.lock().await;
        let TierSpec { name, weights, fingerprint, device } = tier;
        let device = device.unwrap_or(self.spec.device);
        let (loaded, adapter) = match &weights {
            Weights::Base => (self.base(&mut bases, device).await?, None),
            Weights::Adapter(folder) => {
                let loaded = self.base(&mut bases, device).await?;
                loaded.host.load_adapter(&name, folder).await?;
                (loaded, Some(name.clone()))
            }
            Weights::Checkpoint(folder) => (self.load_model(folder, device, false).await?, None),
        };
        let tier = Tier { loaded, adapter, fingerprint };
        let forget_adapter = tier.adapter.is_none();
        let old = self.tiers.write().unwrap_or_else(PoisonError::into_inner).insert(name, tier);
        if let Some(old) = old.filter(|_| forget_adapter) {
            old.unload().await;
        }
        Ok(())
    }

    /// Takes a tier away; generations that have begun end as if it were still there.
    ///
    /// # Errors
    /// [`EngineError::UnknownTier`].
    pub async fn remove_tier(&self, name: &str) -> Result<(), EngineError> {
        let _changes = self.bases.lock().await;
        let old = self.tiers.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        old.ok_or_else(|| EngineError::UnknownTier(name.to_owned()))?.unload().await;
        Ok(())
    }

    /// Names of the tiers, sorted.
    pub fn tiers(&self) -> Vec<String> {
        self.tiers.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    async fn base(&self, bases: &mut BTreeMap<Device, Loaded>, device: Device) -> Result<Loaded, EngineError> {
        if let Some(loaded) = bases.get(&device) {
            return Ok(loaded.clone());
        }
        let loaded = self.load_model(&self.spec.base, device, true).await?;
        bases.insert(device, loaded.clone());
        Ok(loaded)
    }

    async fn load_model(&self, folder: &Path, device: Device, takes_adapters: bool) -> Result<Loaded, EngineError> {
        let failed = |cause: String| EngineError::failed(format!("loading `{}`: {cause}", folder.display()));
        let place = folder.to_owned();
        let model = tokio::task::spawn_blocking(move || LocalModel::load(&place)).await;
        let model = model.map_err(|panic| failed(panic.to_string()))?.map_err(|error| failed(error.to_string()))?;
        let source = Source::new(&self.spec, folder, device, takes_adapters);
        let host = Host::load(source.with_share(self.shares.get(&device).copied())).await?;
        let room = host.context_length().unwrap_or(usize::MAX).min(model.context_length());
        let scores = match device {
            Device::Cpu => Scores::of(folder),
            Device::Cuda(_) => None,
        };
        let longest = scores.as_ref().map_or(usize::MAX, Scores::longest_prompt);
        if longest < room {
            tracing::info!(folder = %folder.display(), tokens = longest, "longer prompts are refused: they need more memory than there is");
        }
        let model = Arc::new(model.with_context_length(room).with_longest_prompt(longest));
        Ok(Loaded { host, model, scores })
    }

    /// Prepares a generation off the asynchronous threads: a long prompt or a grammar can take long. What has begun goes on
    /// when nobody waits for it any longer, and keeps its core until it is done.
    async fn prepare(&self, model: Arc<LocalModel>, generation: Arc<Generation>) -> Result<Prepared, EngineError> {
        let failed = |cause: &dyn std::fmt::Display| EngineError::failed(format!("preparing the request: {cause}"));
        let core = self.preparing.clone().acquire_owned().await.map_err(|closed| failed(&closed))?;
        let prepared = tokio::task::spawn_blocking(move || {
            let _core = core;
            model.prepare(&generation)
        });
        prepared.await.map_err(|panic| failed(&panic))?
    }

    fn tier(&self, name: &str) -> Result<Tier, EngineError> {
        let tiers = self.tiers.read().unwrap_or_else(PoisonError::into_inner);
        tiers.get(name).cloned().ok_or_else(|| EngineError::UnknownTier(name.to_owned()))
    }
}

impl Tier {
    async fn unload(self) {
        if let Some(alias) = &self.adapter {
            self.loaded.host.unload_adapter(alias).await;
        }
    }
}

#[async_trait]
impl Engine for MistralEngine {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn context_length(&self, tier: &str) -> Option<usize> {
        Some(self.tier(tier).ok()?.loaded.model.context_length())
    }

    async fn generate(&self, generation: Generation) -> Result<Events, EngineError> {
        let Tier { loaded: Loaded { host, model, scores }, adapter, fingerprint } = self.tier(&generation.tier)?;
        let ignore_eos = generation.sampling.ignore_eos;
        let end = model.end_ids().first().copied().unwrap_or_default();
        let shared = generation.shared.clone();
        let generation = Arc::new(generation);
        let prepared = shared.once(self.prepare(model.clone(), generation.clone())).await?;
        let Sequence { prompt, max_tokens, sampler, assembler } = model.begin(&generation, &prepared)?;
        let (steps, chosen) = unbounded_channel();
        let room = match &scores {
            Some(scores) => scores.room_for(prompt.len()).await,
            None => Room::default(),
        };
        let processor = Arc::new(Processor::new(sampler, steps, end).reading_in(room.clone()));
        let room = room.until_dropped();
        let admitted = host.send(&Ask { prompt, max_tokens, ignore_eos, processor, adapter }).await?;
        let assembler = assembler.with_fingerprint(admitted.generation.clone().or(fingerprint));
        Ok(stream::events(host, admitted, chosen, assembler, room))
    }

    async fn probe(&self, tier: &str) -> Result<(), EngineError> {
        let mut events = self.generate(probe(tier)).await?;
        while let Some(event) = events.next().await {
            if matches!(event?, Event::Finished(_)) {
                return Ok(());
            }
        }
        Err(EngineError::failed("the engine gave no end"))
    }
}

/// The smallest thing a tier can be asked.
fn probe(tier: &str) -> Generation {
    Generation {
        tier: tier.to_owned(),
        prompt: Prompt::Text("1".to_owned()),
        sampling: super::Sampling { temperature: 0.0, ..Default::default() },
        thinking: Thinking::Free,
        max_tokens: Some(1),
        stop: Vec::new(),
        logprobs: None,
        constraint: Constraint::Free,
        shared: Shared::default(),
    }
}

#[cfg(test)]
mod tests;
