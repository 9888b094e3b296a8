//! One engine made of several: each tier is asked of the engine that has it.
//!
//! So a family may have some tiers on this machine and some behind other servers, and nobody above can tell. Holds no
//! state of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Engine, EngineError, Events, Generation};

/// Engines by the tiers they have.
#[derive(Default)]
pub struct ByTier {
    engines: BTreeMap<String, Arc<dyn Engine>>,
}

impl ByTier {
    /// The same with these tiers of `engine`; a name that is there already changes hands.
    #[must_use]
    pub fn with(mut self, tiers: impl IntoIterator<Item = impl Into<String>>, engine: Arc<dyn Engine>) -> Self {
        self.engines.extend(tiers.into_iter().map(|tier| (tier.into(), Arc::clone(&engine))));
        self
    }

    fn engine(&self, tier: &str) -> Result<&Arc<dyn Engine>, EngineError> {
        self.engines.get(tier).ok_or_else(|| EngineError::UnknownTier(tier.to_owned()))
    }
}

#[async_trait]
impl Engine for ByTier {
    /// The kind of its engines; `mixed` where they differ.
    fn kind(&self) -> &'static str {
        let mut kinds = self.engines.values().map(|engine| engine.kind());
        match kinds.next() {
            Some(kind) if kinds.all(|other| other == kind) => kind,
            _ => "mixed",
        }
    }

    fn context_length(&self, tier: &str) -> Option<usize> {
        self.engines.get(tier)?.context_length(tier)
    }

    async fn generate(&self, generation: Generation) -> Result<Events, EngineError> {
        self.engine(&generation.tier)?.generate(generation).await
    }

    async fn probe(&self, tier: &str) -> Result<(), EngineError> {
        self.engine(tier)?.probe(tier).await
    }
}

impl fmt::Debug for ByTier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.engines.iter().map(|(tier, engine)| (tier, engine.kind()));
        formatter.debug_map().entries(kinds).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::scripted::Scripted;

    #[tokio::test]
    async fn every_tier_is_asked_of_its_own_engine() {
        let engine =
            |tier: &str, length| Arc::new(Scripted::builder().tier(tier).context_length(length).build().unwrap());
        let (short, long) = (engine("short", 100), engine("long", 200));
        let both = ByTier::default().with(["short"], short.clone()).with(["long"], long);
        assert_eq!((both.context_length("short"), both.context_length("long")), (Some(100), Some(200)));
        assert_eq!((both.context_length("other"), both.kind()), (None, "scripted"));
        short.set_unavailable(Some(EngineError::failed("unplugged")));
        assert!(both.probe("short").await.is_err());
        both.probe("long").await.unwrap();
        assert!(matches!(both.probe("other").await, Err(EngineError::UnknownTier(tier)) if tier == "other"));
    }

    #[tokio::test]
    async fn engines_of_several_kinds_are_mixed() {
        let scripted = Arc::new(Scripted::builder().tier("short").build().unwrap());
        let both = ByTier::default().with(["short"], scripted).with(["inner"], Arc::new(ByTier::default()));
        assert_eq!((both.kind(), ByTier::default().kind()), ("mixed", "mixed"));
    }
}
