//! Keeps one model answering: notices the death of its engine, restarts it, loads it again where that is not enough.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use mistralrs::Response;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

use super::running::{Ask, Refused, Running, Source};
use crate::engine::EngineError;

/// When to come back while the engine restarts.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest pause between two attempts to load a model that does not load.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often an adapter that was replaced in the same moment is looked up again.
const LOOKUPS: usize = 4;

/// A model that is kept in memory, with its adapters.
pub struct Host {
    source: Source,
    runtime: Handle,
    /// Who answers; `None` while it restarts.
    current: watch::Sender<Option<Arc<Running>>>,
    /// What must be loaded again with the model; also makes changes wait for each other.
    adapters: tokio::sync::Mutex<BTreeMap<String, PathBuf>>,
}

/// A sequence that the engine has taken.
pub struct Admitted {
    /// The engine's signals: one a token, the last with a reason, or an error.
    pub responses: Receiver<Response>,
    /// Which generation of the adapter answers.
    pub generation: Option<String>,
    /// Who answers.
    pub running: Arc<Running>,
}

impl Host {
    /// Loads the model. The runtime of the caller must live as long as the host does: restarts happen there.
    ///
    /// # Errors
    /// As [`Running::load`].
    pub async fn load(source: Source) -> Result<Arc<Self>, EngineError> {
        let current = watch::Sender::new(Some(Arc::new(Running::load(&source).await?)));
        Ok(Arc::new(Self { source, runtime: Handle::current(), current, adapters: Default::default() }))
    }

    /// Loads or replaces an adapter.
    ///
    /// # Errors
    /// As [`Running::load_adapter`]; [`EngineError::Unavailable`] while the engine restarts.
    pub async fn load_adapter(&self, alias: &str, folder: &Path) -> Result<(), EngineError> {
        let mut adapters = self.adapters.lock().await;
        self.running()?.load_adapter(alias, folder).await?;
        adapters.insert(alias.to_owned(), folder.to_owned());
        Ok(())
    }

    /// Takes an adapter away.
    pub async fn unload_adapter(&self, alias: &str) {
        let mut adapters = self.adapters.lock().await;
        if adapters.remove(alias).is_some()
            && let Ok(running) = self.running()
        {
            running.unload_adapter(alias).await;
        }
    }

    /// Tokens that fit into the model's context; `None` while it restarts.
    pub fn context_length(&self) -> Option<usize> {
        self.running().ok()?.context_length()
    }

    /// Hands a sequence to the engine.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] while the engine restarts, [`EngineError::UnknownTier`] when the adapter is gone.
    pub async fn send(self: &Arc<Self>, ask: &Ask) -> Result<Admitted, EngineError> {
        for _ in 0..LOOKUPS {
            let running = self.running()?;
            match running.send(ask).await {
                Ok((responses, generation)) => return Ok(Admitted { responses, generation, running }),
                Err(Refused::Adapter) => {}
                Err(Refused::Dead) => {
                    self.died(&running);
                    return Err(restarting());
                }
            }
        }
        Err(EngineError::UnknownTier(ask.adapter.clone().unwrap_or_default()))
    }

    /// Says that `running` has stopped answering; the first to say so starts its restart.
    pub fn died(self: &Arc<Self>, running: &Arc<Running>) {
        let was_current = self.current.send_if_modified(|current| {
            let is_current = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, running));
            if is_current {
                *current = None;
            }
            is_current
        });
        if was_current {
            tracing::error!(folder = %self.source.folder().display(), "the engine died; it is restarted");
            self.runtime.spawn(recover(Arc::downgrade(self), running.clone()));
        }
    }

    /// Who answers now.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] while nobody does.
    pub fn running(&self) -> Result<Arc<Running>, EngineError> {
        self.current.borrow().clone().ok_or_else(restarting)
    }

    /// Follows who answers.
    #[cfg(test)]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Running>>> {
        self.current.subscribe()
    }

    fn set(&self, running: Running) {
        tracing::info!(folder = %self.source.folder().display(), "the engine answers again");
        self.current.send_replace(Some(Arc::new(running)));
    }

    /// The model and its adapters, from their folders. An adapter that does not load any more leaves the others alone.
    ///
    /// # Errors
    /// As [`Running::load`].
    pub async fn reload(&self) -> Result<(), EngineError> {
        let adapters = self.adapters.lock().await;
        let running = Running::load(&self.source).await?;
        for (alias, folder) in adapters.iter() {
            if let Err(error) = running.load_adapter(alias, folder).await {
                tracing::error!(%error, "a tier is missing after the restart");
            }
        }
        self.set(running);
        Ok(())
    }
}

fn restarting() -> EngineError {
    EngineError::Unavailable { message: "the engine is restarting".to_owned(), retry_after: Some(RETRY_AFTER) }
}

async fn recover(host: Weak<Host>, dead: Arc<Running>) {
    match dead.reboot().await {
        Ok(running) => {
            if let Some(host) = host.upgrade() {
                host.set(running);
            }
            return;
        }
        Err(cause) => tracing::error!(cause, "the engine's restart failed; its model is loaded again"),
    }
    drop(dead);
    let mut pause = RETRY_AFTER;
    while let Some(host) = host.upgrade() {
        match host.reload().await {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, "the model does not load"),
        }
        drop(host);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
