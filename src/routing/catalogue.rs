//! The family as routing sees it: which tiers there are, which are loaded, what is expected of each.

use std::collections::BTreeMap;

use super::EffortWish;
use crate::family::{Effort, Manifest, TierCard};

/// A family with the load state of its tiers. Make a new one when a tier is loaded, lost or measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    /// The family's name, with or without the prefix `brevity-`; both are accepted in requests.
    pub family: String,
    /// What a request without `reasoning_effort` gets.
    pub default_effort: EffortWish,
    /// Tokens to think at most by effort; efforts not named think freely.
    pub budgets: BTreeMap<Effort, usize>,
    pub(super) efforts: BTreeMap<Effort, String>,
    pub(super) tiers: Vec<CatalogueTier>,
}

/// One tier of a [`Catalogue`].
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogueTier {
    /// Its name.
    pub name: String,
    /// Weight of the length penalty it was trained with; 0 for the base.
    pub alpha: f64,
    /// Whether it is the base itself, which was never penalised and thinks longest.
    pub is_base: bool,
    /// Why it cannot answer; `None` when it is loaded.
    pub missing: Option<String>,
    /// What its card lets expect; `None` without a card, or with one of other weights.
    pub expected: Option<Expectation>,
}

/// What a card lets expect of one answer: plain means over the card's levels, each level counted alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expectation {
    /// Share of correct answers, in [0, 1].
    pub accuracy: f64,
    /// Mean completion tokens of an answer, thoughts included. The mean and not a high quantile: `auto` minimises
    /// waiting over many requests, it does not promise a bound for one (a deadline and `max_reasoning_tokens` do).
    pub tokens: f64,
}

impl Expectation {
    /// The means of `card`; `None` when it has no levels.
    pub fn of(card: &TierCard) -> Option<Self> {
        let count = card.levels.len() as f64;
        let mean = |total: f64| total / count;
        (count > 0.0).then(|| Self {
            accuracy: mean(card.levels.iter().map(|level| level.accuracy).sum()),
            tokens: mean(card.levels.iter().map(|level| level.tokens_mean).sum()),
        })
    }
}

impl CatalogueTier {
    /// Whether it can answer.
    pub fn is_loaded(&self) -> bool {
        self.missing.is_none()
    }
}

impl Catalogue {
    /// A family with these tiers and this map from effort to tier; `medium` by default, no budgets. The tiers are put
    /// in the order of [`Catalogue::tiers`].
    pub fn new(family: &str, mut tiers: Vec<CatalogueTier>, efforts: BTreeMap<Effort, String>) -> Self {
        tiers.sort_by(|a, b| a.is_base.cmp(&b.is_base).then(b.alpha.total_cmp(&a.alpha)).then(a.name.cmp(&b.name)));
        Self {
            family: family.to_owned(),
            default_effort: EffortWish::Named(Effort::Medium),
            budgets: BTreeMap::new(),
            efforts,
            tiers,
        }
    }

    /// The family of `manifest`; `missing` says of a tier's name why it is not loaded, or nothing when it is.
    pub fn from_manifest(manifest: &Manifest, missing: impl Fn(&str) -> Option<String>) -> Self {
        let tier = |tier: &crate::family::Tier| CatalogueTier {
            name: tier.name.clone(),
            alpha: tier.alpha,
            is_base: tier.is_base(),
            missing: missing(&tier.name),
            expected: manifest.card(tier).and_then(Expectation::of),
        };
        Self {
            default_effort: EffortWish::Named(manifest.default_effort),
            budgets: manifest.budget.clone(),
            ..Self::new(&manifest.name, manifest.tiers.iter().map(tier).collect(), manifest.effort.clone())
        }
    }

    /// The tiers from the tersest (largest alpha) to the longest thinker, the base last.
    pub fn tiers(&self) -> &[CatalogueTier] {
        &self.tiers
    }

    /// The tier of every effort.
    pub fn efforts(&self) -> &BTreeMap<Effort, String> {
        &self.efforts
    }

    /// The tier called `name`.
    pub fn tier(&self, name: &str) -> Option<&CatalogueTier> {
        self.tiers.iter().find(|tier| tier.name == name)
    }

    /// The tiers that can answer, from the tersest to the longest thinker.
    pub fn loaded(&self) -> impl Iterator<Item = &CatalogueTier> {
        self.tiers.iter().filter(|tier| tier.is_loaded())
    }

    /// The loaded tier nearest to the one called `name` in the order of [`Catalogue::tiers`]: itself when it is loaded;
    /// of two equally near the terser.
    pub fn nearest_loaded(&self, name: &str) -> Option<&CatalogueTier> {
        let meant = self.tiers.iter().position(|tier| tier.name == name)?;
        let loaded = self.tiers.iter().enumerate().filter(|(_, tier)| tier.is_loaded());
        // The first of equals is kept, and the tersest comes first.
        loaded.min_by_key(|(place, _)| place.abs_diff(meant)).map(|(_, tier)| tier)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{catalogue, expected};
    use super::*;
    use std::path::Path;

    #[test]
    fn tiers_stand_from_tersest_to_longest_thinker() {
        let catalogue = catalogue(&[0.05, 0.4, 0.1]);
        let names: Vec<&str> = catalogue.tiers().iter().map(|tier| tier.name.as_str()).collect();
        assert_eq!(names, ["alpha-0.4", "alpha-0.1", "alpha-0.05", "base"]);
    }

    #[test]
    fn the_nearest_loaded_tier_is_counted_in_places_and_ties_are_terse() {
        let mut catalogue = catalogue(&[0.4, 0.2, 0.1, 0.05]);
        let nearest = |catalogue: &Catalogue, name: &str| catalogue.nearest_loaded(name).map(|tier| tier.name.clone());
        assert_eq!(nearest(&catalogue, "alpha-0.1").as_deref(), Some("alpha-0.1"));
        catalogue.tiers[2].missing = Some("gone".to_owned());
        assert_eq!(nearest(&catalogue, "alpha-0.1").as_deref(), Some("alpha-0.2"), "not the nearer alpha 0.05");
        catalogue.tiers[1].missing = Some("gone".to_owned());
        assert_eq!(nearest(&catalogue, "alpha-0.1").as_deref(), Some("alpha-0.05"));
        assert_eq!(nearest(&catalogue, "alpha-9"), None);
    }

    #[test]
    fn a_card_is_its_levels_means() {
        let text = r#"
            name = "mini"
            default_effort = "high"
            [base]
            path = "base"
            sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            [budget]
            low = 100
            [effort]
            none = "base"
            minimal = "base"
            low = "base"
            medium = "base"
            high = "base"
            xhigh = "base"
            max = "base"
            [[tier]]
            name = "base"
            alpha = 0.0
            [tier.card]
            dataset = "mini:test"
            date = "2026-11-23"
            seed = 0
            temperature = 0.6
            top_p = 1.0
            samples = 1
            weights_sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "#;
        let level = |name: &str, accuracy: f64, tokens: f64| {
            format!(
                "[[tier.card.level]]\nlevel = \"{name}\"\nproblems = 2\nresponses = 2\naccuracy = {accuracy}\n\
                 accuracy_low = 0.0\naccuracy_high = 1.0\ntokens_mean = {tokens}\ntokens_p50 = 1\ntokens_p95 = 1\n\
                 truncated = 0\nverification = 0\nbacktracking = 0\nexploration = 0\n"
            )
        };
        let text = format!("{text}\n{}{}", level("easy", 1.0, 100.0), level("hard", 0.5, 300.0));
        let manifest = Manifest::parse(&text, Path::new("family.toml")).unwrap();
        let catalogue = Catalogue::from_manifest(&manifest, |name| Some(format!("{name} is gone")));
        assert_eq!(catalogue.tiers()[0].expected, expected(0.75, 200.0));
        assert_eq!(catalogue.tiers()[0].missing.as_deref(), Some("base is gone"));
        assert_eq!(catalogue.default_effort, EffortWish::Named(Effort::High));
        assert_eq!(catalogue.budgets, BTreeMap::from([(Effort::Low, 100)]));
        let mut card = manifest.tiers[0].card.clone().unwrap();
        let mut stale = manifest.clone();
        stale.base.sha256 = Some("b".repeat(64));
        assert_eq!(Catalogue::from_manifest(&stale, |_| None).tiers()[0].expected, None, "a card of other weights");
        card.levels.clear();
        assert_eq!(Expectation::of(&card), None);
    }
}
