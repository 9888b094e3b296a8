//! An engine without a model: deterministic, fast, and failing only when told to, for tests and load generators.
//!
//! It says what a [`Script`] says, through the sampler and the assembler of real engines: each step it offers logits that
//! point at the script's next token. So budgets, stop strings, biases, grammars and log-probabilities behave as they do
//! with a model. No weights, no randomness of its own.

mod builder;
mod running;
mod script;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::sequence::LocalModel;
use super::{Engine, EngineError, Events, Generation};

pub use builder::Builder;
pub use script::{Fault, Script};

/// Where scripts come from.
type Source = Arc<dyn Fn(&Generation) -> Script + Send + Sync>;

/// The engine.
pub struct Scripted {
    model: Arc<LocalModel>,
    tiers: Vec<String>,
    scripts: HashMap<String, Source>,
    running: Arc<AtomicUsize>,
    /// Permits to start, where a gate was asked for.
    gate: Option<Arc<Semaphore>>,
    unavailable: Mutex<Option<EngineError>>,
}

impl Scripted {
    /// A new engine, to be described.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Tokenizer, template and limits that all tiers share.
    pub fn model(&self) -> &Arc<LocalModel> {
        &self.model
    }

    /// Names of the tiers.
    pub fn tiers(&self) -> &[String] {
        &self.tiers
    }

    /// Generations whose stream is not finished and not dropped, those at the gate included.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Lets `count` generations through the gate, now or when they come. Without a gate it does nothing.
    pub fn release(&self, count: usize) {
        if let Some(gate) = &self.gate {
            gate.add_permits(count.min(Semaphore::MAX_PERMITS - gate.available_permits()));
        }
    }

    /// Refuses everything, probes included, with `error`, until called with `None`.
    pub fn set_unavailable(&self, error: Option<EngineError>) {
        *lock(&self.unavailable) = error;
    }

    fn check(&self, tier: &str) -> Result<(), EngineError> {
        if let Some(error) = lock(&self.unavailable).clone() {
            return Err(error);
        }
        let known = self.tiers.iter().any(|known| known == tier);
        if known { Ok(()) } else { Err(EngineError::UnknownTier(tier.to_owned())) }
    }
}

#[async_trait]
impl Engine for Scripted {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn context_length(&self, tier: &str) -> Option<usize> {
        self.tiers.iter().any(|known| known == tier).then(|| self.model.context_length())
    }

    async fn generate(&self, generation: Generation) -> Result<Events, EngineError> {
        self.check(&generation.tier)?;
        let script = match self.scripts.get(&generation.tier) {
            Some(source) => source(&generation),
            None => Script::derived(&generation),
        };
        if let Some(Fault::Refused(error)) = script.fault {
            return Err(error);
        }
        let sequence = self.model.start(&generation)?;
        let fingerprint = format!("scripted-{}", generation.tier);
        let running = running::Running::new(&self.model, sequence, script, fingerprint, &self.running)?;
        Ok(running.events(self.gate.clone()))
    }

    async fn probe(&self, tier: &str) -> Result<(), EngineError> {
        self.check(tier)
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Scripted").field("tiers", &self.tiers).field("running", &self.running()).finish()
    }
}

/// A lock that a panicking test cannot poison.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
