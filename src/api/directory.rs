//! The family as the API sees it: who answers what, what there is, how fast it is.
//!
//! Holds routing's [`Catalogue`] and [`Speeds`] behind locks that are taken for moments only, and the cards that clients are
//! shown. A tier that is loaded or lost while the server runs is told by [`Directory::update`].

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use super::ApiError;
use crate::family::{Effort, Manifest, Tier, TierCard};
use crate::routing::{
    Catalogue, EffortWish, ModelName, Route, Sample, Speeds, Wish, model_ids, resolve_model, route, tier_id,
};

/// Who answers what.
#[derive(Debug)]
pub struct Directory {
    catalogue: RwLock<Catalogue>,
    speeds: Mutex<Speeds>,
    /// Where the clock of the speeds begins.
    started: Instant,
    description: String,
    /// The cards, and whether they are of other weights than those that answer.
    cards: BTreeMap<String, (TierCard, bool)>,
}

/// Whose speed was measured.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    /// The tier.
    pub tier: &'a str,
    /// How many choices its request has; together they count as one measurement.
    pub choices: usize,
}

/// The family as clients see it.
#[derive(Debug, Clone, PartialEq)]
pub struct FamilyView {
    /// Its name.
    pub name: String,
    /// Its model name.
    pub id: String,
    /// The effort of requests that name none.
    pub default_effort: EffortWish,
    /// The tier that each effort stands for.
    pub efforts: BTreeMap<Effort, String>,
    /// Tokens that may be thought at most, by effort.
    pub budgets: BTreeMap<Effort, usize>,
    /// One sentence.
    pub description: String,
    /// The tiers, from the tersest to the longest thinker.
    pub tiers: Vec<TierView>,
}

/// One tier as clients see it.
#[derive(Debug, Clone, PartialEq)]
pub struct TierView {
    /// Its name in the family.
    pub name: String,
    /// Its model name.
    pub id: String,
    /// Weight of its length penalty.
    pub alpha: f64,
    /// Why it is not loaded; `None` when it is.
    pub problem: Option<String>,
    /// What was measured of it, or of other weights of that name.
    pub card: Option<TierCard>,
    /// Whether the card is of other weights.
    pub is_card_stale: bool,
    /// Tokens a second of one stream, as measured here; `None` before the first.
    pub tokens_per_second: Option<f64>,
}

impl Directory {
    /// The family of `manifest` in the state that `catalogue` tells.
    pub fn new(catalogue: Catalogue, manifest: &Manifest) -> Self {
        let card = |tier: &Tier| Some((tier.name.clone(), (tier.card.clone()?, manifest.is_card_stale(tier))));
        let cards = manifest.tiers.iter().filter_map(card).collect();
        Self {
            catalogue: RwLock::new(catalogue),
            speeds: Mutex::default(),
            started: Instant::now(),
            description: manifest.description.clone(),
            cards,
        }
    }

    /// A family without cards and description.
    pub fn bare(catalogue: Catalogue) -> Self {
        Self {
            catalogue: RwLock::new(catalogue),
            speeds: Mutex::default(),
            started: Instant::now(),
            description: String::new(),
            cards: BTreeMap::new(),
        }
    }

    /// From now on the family is in this state.
    pub fn update(&self, catalogue: Catalogue) {
        *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = catalogue;
    }

    /// Who answers `wish`, and why.
    ///
    /// # Errors
    /// 404 for a model that does not exist or is not loaded, 400 for wishes that contradict each other, 503 without any tier.
    pub fn route(&self, wish: &Wish) -> Result<Route, ApiError> {
        let catalogue = self.catalogue.read().unwrap_or_else(PoisonError::into_inner);
        let speeds = self.speeds.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(route(&catalogue, wish, speeds.at(self.started.elapsed()))?)
    }

    /// Notes at `at` that a request had waited for its turn.
    pub fn queued(&self, waited: Duration, at: Instant) {
        let mut speeds = self.speeds.lock().unwrap_or_else(PoisonError::into_inner);
        speeds.queued(waited, at.duration_since(self.started));
    }

    /// Notes a first token at `at`, which came `first` after the turn of its request.
    pub fn first_token(&self, of: Measured<'_>, first: Duration, at: Instant) {
        self.measure(of, at, |speeds, sample| speeds.first_token(sample, first));
    }

    /// Notes an answer that was finished at `at` and took `generation` from its first of so many tokens to its last.
    pub fn generated(&self, of: Measured<'_>, generation: Duration, tokens: usize, at: Instant) {
        self.measure(of, at, |speeds, sample| speeds.generated(sample, generation, tokens));
    }

    fn measure(&self, of: Measured<'_>, at: Instant, note: impl FnOnce(&mut Speeds, Sample<'_>)) {
        let catalogue = self.catalogue.read().unwrap_or_else(PoisonError::into_inner);
        let place = catalogue.tier(of.tier).map_or("", |tier| tier.place.as_str());
        let at = at.duration_since(self.started);
        let mut speeds = self.speeds.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut speeds, Sample { tier: of.tier, place, weight: 1.0 / of.choices.max(1) as f64, at });
    }

    /// Whether `model` names the family itself, whose tier the effort decides.
    pub fn is_family(&self, model: &str) -> bool {
        let catalogue = self.catalogue.read().unwrap_or_else(PoisonError::into_inner);
        matches!(resolve_model(&catalogue, model), Ok(ModelName::Family))
    }

    /// The model name of a tier.
    pub fn model_id(&self, tier: &str) -> String {
        tier_id(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner), tier)
    }

    /// The tier that answers a request which names nothing but the family.
    ///
    /// # Errors
    /// 503 without any tier.
    pub fn default_tier(&self) -> Result<String, ApiError> {
        let model = self.catalogue.read().unwrap_or_else(PoisonError::into_inner).family.clone();
        Ok(self.route(&Wish { model, ..Wish::default() })?.tier)
    }

    /// What there is, at this moment.
    pub fn family(&self) -> FamilyView {
        let catalogue = self.catalogue.read().unwrap_or_else(PoisonError::into_inner);
        let speeds = self.speeds.lock().unwrap_or_else(PoisonError::into_inner);
        let mut id = catalogue.family.clone();
        let mut tiers = Vec::new();
        for (name, tier) in model_ids(&catalogue) {
            match tier {
                None => id = name,
                Some(tier) => tiers.push(TierView {
                    name: tier.name.clone(),
                    id: name,
                    alpha: tier.alpha,
                    problem: tier.missing.clone(),
                    card: self.cards.get(&tier.name).map(|(card, _)| card.clone()),
                    is_card_stale: self.cards.get(&tier.name).is_some_and(|(_, stale)| *stale),
                    tokens_per_second: speeds.tokens_per_second(&tier.name),
                }),
            }
        }
        FamilyView {
            name: catalogue.family.clone(),
            id,
            default_effort: catalogue.default_effort,
            efforts: catalogue.efforts().clone(),
            budgets: catalogue.budgets.clone(),
            description: self.description.clone(),
            tiers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::test_support::catalogue;
    use crate::routing::Expectation;

    #[test]
    fn speeds_are_shown_once_measured() {
        let directory = Directory::bare(catalogue());
        assert!(directory.family().tiers.iter().all(|tier| tier.tokens_per_second.is_none()));
        let of = Measured { tier: "terse", choices: 1 };
        directory.generated(of, Duration::from_secs(1), 101, Instant::now());
        let family = directory.family();
        let terse = family.tiers.iter().find(|tier| tier.name == "terse").unwrap();
        assert!((terse.tokens_per_second.unwrap() - 100.0).abs() < 1e-6);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_makes_a_queue_be_forgotten() {
        let mut tiers = catalogue().tiers().to_vec();
        let (accuracy, tokens) = (0.9, 11.0);
        for tier in &mut tiers {
            let (accuracy_low, accuracy_high, tokens_p95) = (accuracy, accuracy, tokens);
            tier.expected = Some(Expectation { accuracy, accuracy_low, accuracy_high, tokens, tokens_p95 });
        }
        let directory = Directory::bare(Catalogue::new("mini", tiers, catalogue().efforts().clone()));
        let budget = Some(Duration::from_secs(2));
        let wish = Wish { model: "mini".to_owned(), latency_budget: budget, ..Wish::default() };
        let is_fast =
            || directory.route(&wish).unwrap().reason.contains("expected to answer within about 2000 ms that");
        assert!(is_fast());
        directory.queued(Duration::from_secs(60), Instant::now());
        let of = Measured { tier: "base", choices: 2 };
        directory.first_token(of, Duration::from_millis(100), Instant::now());
        assert!(!is_fast());
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(is_fast(), "{}", directory.route(&wish).unwrap().reason);
    }

    #[test]
    fn a_lost_tier_is_lost_at_once() {
        let directory = Directory::bare(catalogue());
        let wish = Wish { model: directory.model_id("terse"), ..Wish::default() };
        assert_eq!(directory.route(&wish).unwrap().tier, "terse");
        let mut tiers = catalogue().tiers().to_vec();
        tiers.iter_mut().for_each(|tier| tier.missing = Some("unplugged".to_owned()));
        directory.update(Catalogue::new("mini", tiers, catalogue().efforts().clone()));
        assert!(directory.route(&wish).unwrap_err().status.as_u16() >= 400);
    }
}
