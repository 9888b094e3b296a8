//! The family that is served: what routing knows of it, what clients are told of it, and how fast its tiers answer.
//!
//! Joins a [`Catalogue`] with the measured [`Speeds`] behind the door [`Directory`]. Speeds are measured where events pass,
//! in [`Measured`]: that works for every engine and every endpoint alike.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use futures::StreamExt;

use super::ApiError;
use super::state::{Directory, FamilyView, TierView};
use crate::engine::{Engine, EngineError, Event, Events, Generation};
use crate::family::{Effort, Manifest};
use crate::routing::{self, Catalogue, EffortWish, Route, RouteError, Speeds, Wish};

/// A family whose tiers are loaded.
#[derive(Debug)]
pub struct ServedFamily {
    manifest: Manifest,
    catalogue: Catalogue,
    speeds: Mutex<Speeds>,
}

impl ServedFamily {
    /// The family of `manifest`; `missing` says why a tier is not loaded, or nothing when it is.
    pub fn new(manifest: Manifest, missing: impl Fn(&str) -> Option<String>) -> Self {
        let catalogue = Catalogue::from_manifest(&manifest, missing);
        Self { manifest, catalogue, speeds: Mutex::default() }
    }

    /// The same with another effort for requests that name none.
    #[must_use]
    pub fn with_default_effort(mut self, effort: EffortWish) -> Self {
        self.catalogue.default_effort = effort;
        self
    }

    /// The same with these thinking budgets besides those of the manifest, and in their place where both have one.
    #[must_use]
    pub fn with_budgets(mut self, budgets: BTreeMap<Effort, usize>) -> Self {
        self.catalogue.budgets.extend(budgets);
        self
    }

    /// The family as routing sees it.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    fn speeds(&self) -> std::sync::MutexGuard<'_, Speeds> {
        self.speeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory for ServedFamily {
    fn route(&self, wish: &Wish) -> Result<Route, ApiError> {
        Ok(routing::route(&self.catalogue, wish, &self.speeds())?)
    }

    fn family(&self) -> FamilyView {
        let ids = routing::model_ids(&self.catalogue);
        let id = |name: &str| ids.iter().find(|(_, tier)| tier.is_some_and(|tier| tier.name == name));
        let speeds = self.speeds();
        let tier = |tier: &crate::family::Tier| TierView {
            name: tier.name.clone(),
            id: id(&tier.name).map_or_else(|| tier.name.clone(), |(id, _)| id.clone()),
            alpha: tier.alpha,
            problem: self.catalogue.tier(&tier.name).and_then(|tier| tier.missing.clone()),
            card: tier.card.clone(),
            tokens_per_second: speeds.is_measured(&tier.name).then(|| speeds.of(&tier.name).tokens_per_second()),
        };
        let family = ids.iter().find(|(_, tier)| tier.is_none());
        FamilyView {
            name: family.map_or_else(|| self.manifest.name.clone(), |(id, _)| id.clone()),
            description: self.manifest.description.clone(),
            default_effort: match self.catalogue.default_effort {
                EffortWish::Named(effort) => effort,
                EffortWish::Auto => self.manifest.default_effort,
            },
            efforts: self.manifest.effort.clone(),
            tiers: self.manifest.tiers.iter().map(tier).collect(),
        }
    }
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> Self {
        let message = error.to_string();
        match (&error, error.param()) {
            (RouteError::UnknownModel { .. } | RouteError::NotLoaded { .. }, _) => Self::model_not_found(message),
            (RouteError::Empty { .. }, _) => Self::unavailable(message, None),
            (_, Some(param)) => Self::invalid(param, message),
            (_, None) => Self::bad_request(message),
        }
    }
}

/// An engine whose generations teach a family the speeds of its tiers.
pub struct Measured {
    engine: Arc<dyn Engine>,
    family: Arc<ServedFamily>,
}

impl Measured {
    /// `engine`, measured for `family`.
    pub fn new(engine: Arc<dyn Engine>, family: Arc<ServedFamily>) -> Self {
        Self { engine, family }
    }
}

impl fmt::Debug for Measured {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Measured").field("engine", &self.engine.kind()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Engine for Measured {
    fn kind(&self) -> &'static str {
        self.engine.kind()
    }

    fn context_length(&self, tier: &str) -> Option<usize> {
        self.engine.context_length(tier)
    }

    async fn generate(&self, generation: Generation) -> Result<Events, EngineError> {
        let (tier, family, begun) = (generation.tier.clone(), self.family.clone(), Instant::now());
        let mut first = None;
        let events = self.engine.generate(generation).await?;
        let events = events.inspect(move |event| match event {
            Ok(Event::Token(_)) if first.is_none() => first = Some(Instant::now()),
            Ok(Event::Finished(finish)) => {
                let first = first.unwrap_or_else(Instant::now);
                family.speeds().observe(&tier, first - begun, first.elapsed(), finish.usage.completion_tokens);
            }
            _ => {}
        });
        Ok(Box::pin(events))
    }

    fn count_tokens(&self, tier: &str, text: &str) -> Result<usize, EngineError> {
        self.engine.count_tokens(tier, text)
    }

    async fn probe(&self, tier: &str) -> Result<(), EngineError> {
        self.engine.probe(tier).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::scripted::{Script, Scripted};
    use crate::engine::{Constraint, Conversation, Message, Prompt, Sampling, Thinking};
    use crate::family::{Base, Tier};

    fn family() -> ServedFamily {
        let mut manifest = Manifest::new("family.toml", "two", Base::default());
        manifest.upsert_tier(Tier::new("base", 0.0));
        manifest.upsert_tier(Tier::new("terse", 0.4).with_adapter("terse", "0"));
        ServedFamily::new(manifest, |name| (name == "base").then(|| "its file is gone".to_owned()))
    }

    #[test]
    fn clients_see_ids_and_what_is_missing() {
        let view = family().with_default_effort(EffortWish::Named(Effort::Low)).family();
        assert_eq!((view.name.as_str(), view.default_effort), ("brevity-two", Effort::Low));
        let tiers: Vec<_> = view.tiers.iter().map(|tier| (tier.id.as_str(), tier.problem.is_some())).collect();
        assert_eq!(tiers, [("brevity-two:base", true), ("brevity-two:terse", false)]);
    }

    #[test]
    fn wishes_without_a_route_have_the_status_of_their_fault() {
        let family = family();
        let ask = |model: &str| family.route(&Wish { model: model.into(), ..Wish::default() });
        assert_eq!(ask("two").unwrap().tier, "terse");
        assert_eq!(ask("three").unwrap_err().status.as_u16(), 404);
        assert_eq!(ask("two:base").unwrap_err().status.as_u16(), 404);
        let effort = Some(EffortWish::Named(Effort::High));
        let error = family.route(&Wish { model: "two:low".into(), effort, ..Wish::default() }).unwrap_err();
        assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some("reasoning_effort")));
    }

    #[tokio::test]
    async fn speeds_are_learned_from_what_passes() {
        let family = Arc::new(family());
        let engine = Arc::new(Scripted::builder().script("terse", Script::new("hm", "42")).build().unwrap());
        let engine = Measured::new(engine, family.clone());
        assert_eq!(family.family().tiers[1].tokens_per_second, None);
        let message = Message { role: "user".into(), content: "6 * 7 = ?".into(), ..Message::default() };
        let generation = Generation {
            tier: "terse".into(),
            prompt: Prompt::Chat(Conversation { messages: vec![message], tools: None }),
            sampling: Sampling::default(),
            thinking: Thinking::Free,
            max_tokens: None,
            stop: Vec::new(),
            logprobs: None,
            constraint: Constraint::Free,
        };
        let events: Vec<_> = engine.generate(generation).await.unwrap().collect().await;
        assert!(matches!(events.last(), Some(Ok(Event::Finished(_)))));
        assert!(family.family().tiers[1].tokens_per_second.is_some_and(|speed| speed > 0.0));
    }
}
