//! The family as routing sees it: which tiers there are, which are loaded, what is expected of each.

use std::collections::BTreeMap;

use super::EffortWish;
use super::comparable::comparable;
use crate::family::{Effort, LevelCard, Manifest, Tier, TierCard};

/// Accuracy that may be given up for fewer tokens, however well it was measured: two percentage points.
const ACCURACY_FLOOR: f64 = 0.02;

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
    /// Where it is computed: another server's URL, a device of this machine, empty for the device of `serve --device`. Tiers
    /// of one place wait for each other.
    pub place: String,
    /// Why it cannot answer; `None` when it is loaded.
    pub missing: Option<String>,
    /// What its card lets expect; `None` without a card, or with one of other weights or one that cannot be compared
    /// with those of the other tiers ([`super::ignored_cards`]).
    pub expected: Option<Expectation>,
}

/// What a card lets expect of one answer: plain means over the card's levels, each level counted alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expectation {
    /// Share of correct answers, in [0, 1].
    pub accuracy: f64,
    /// Lower end of its 95 % interval, as far as the levels' own intervals tell.
    pub accuracy_low: f64,
    /// Upper end of its 95 % interval.
    pub accuracy_high: f64,
    /// Mean completion tokens of an answer, thoughts included. The mean and not a high quantile: `auto` minimises
    /// waiting over many requests, it does not promise a bound for one (a deadline and `max_reasoning_tokens` do).
    pub tokens: f64,
    /// Tokens that 95 % of the answers keep within on every level, for requests that cut longer ones off.
    pub tokens_p95: f64,
}

impl Expectation {
    /// The means of `card`; `None` when it has no levels.
    pub fn of(card: &TierCard) -> Option<Self> {
        if card.levels.is_empty() {
            return None;
        }
        let count = card.levels.len() as f64;
        let mean = |of: fn(&LevelCard) -> f64| card.levels.iter().map(of).sum::<f64>() / count;
        // Errors of levels are independent, so their squares add up.
        let error =
            |of: fn(&LevelCard) -> f64| card.levels.iter().map(|level| of(level).powi(2)).sum::<f64>().sqrt() / count;
        let accuracy = mean(|level| level.accuracy);
        let tokens = mean(|level| level.tokens_mean);
        Some(Self {
            accuracy,
            accuracy_low: accuracy - error(|level| (level.accuracy - level.accuracy_low).max(0.0)),
            accuracy_high: accuracy + error(|level| (level.accuracy_high - level.accuracy).max(0.0)),
            tokens,
            tokens_p95: card.levels.iter().map(|level| level.tokens_p95).fold(tokens, f64::max),
        })
    }

    /// Whether the accuracy is higher than that of `other` by more than two points and by more than the intervals of both
    /// explain (Newcombe's interval of the difference is above 0).
    pub fn is_measurably_better_than(&self, other: &Self) -> bool {
        let noise = (self.accuracy - self.accuracy_low).hypot(other.accuracy_high - other.accuracy);
        // A difference of exactly two points is none, however the numbers were rounded.
        self.accuracy - other.accuracy > noise.max(ACCURACY_FLOOR) + 1e-9
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
        let compared = comparable(manifest);
        let tier = |tier: &Tier| CatalogueTier {
            name: tier.name.clone(),
            alpha: tier.alpha,
            is_base: tier.is_base(),
            place: place(tier),
            missing: missing(&tier.name),
            expected: compared
                .iter()
                .any(|compared| compared.name == tier.name)
                .then(|| manifest.card(tier).and_then(Expectation::of))
                .flatten(),
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

/// Where `tier` is computed.
fn place(tier: &Tier) -> String {
    match (&tier.upstream, &tier.device) {
        (Some(upstream), _) => upstream.url.clone(),
        (None, Some(device)) => device.to_string(),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{CARD_SHA256, card, catalogue, family};
    use super::*;
    use crate::family::Upstream;

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
        let mut measured = card("mini:test", &["easy", "hard"], 1.0, 100.0);
        let hard = &mut measured.levels[1];
        (hard.accuracy, hard.accuracy_low, hard.accuracy_high) = (0.5, 0.1, 0.8);
        (hard.tokens_mean, hard.tokens_p95) = (300.0, 700.0);
        let expected = Expectation::of(&measured).unwrap();
        assert_eq!((expected.accuracy, expected.tokens, expected.tokens_p95), (0.75, 200.0, 700.0));
        assert!((expected.accuracy_low - 0.55).abs() < 1e-9 && (expected.accuracy_high - 0.9).abs() < 1e-9);
        measured.levels.clear();
        assert_eq!(Expectation::of(&measured), None);
    }

    #[test]
    fn a_difference_counts_beyond_two_points_and_beyond_its_noise() {
        let precise = |accuracy: f64| Expectation {
            accuracy,
            accuracy_low: accuracy,
            accuracy_high: accuracy,
            tokens: 1.0,
            tokens_p95: 1.0,
        };
        assert!(!precise(0.90).is_measurably_better_than(&precise(0.88)));
        assert!(precise(0.90).is_measurably_better_than(&precise(0.879)));
        let six_of_six = Expectation { accuracy_low: 0.61, ..precise(1.0) };
        assert!(!six_of_six.is_measurably_better_than(&precise(0.7)));
        assert!(six_of_six.is_measurably_better_than(&precise(0.6)));
    }

    #[test]
    fn a_family_is_read_as_its_manifest_says() {
        let alike = || Some(card("mini:test", &["easy", "hard"], 0.9, 100.0));
        let mut manifest = family([("base", alike()), ("alpha-0.2", alike()), ("alpha-0.4", alike())]);
        manifest.default_effort = Effort::High;
        manifest.budget = [(Effort::Low, 100)].into();
        manifest.tiers[2].upstream = Some(Upstream { url: "http://gpu/v1".to_owned(), ..Upstream::default() });
        let catalogue = Catalogue::from_manifest(&manifest, |name| Some(format!("{name} is gone")));
        assert_eq!(catalogue.default_effort, EffortWish::Named(Effort::High));
        assert_eq!(catalogue.budgets, manifest.budget);
        let base = catalogue.tier("base").unwrap();
        assert_eq!((base.missing.as_deref(), base.place.as_str()), (Some("base is gone"), ""));
        assert_eq!(catalogue.tier("alpha-0.4").unwrap().place, "http://gpu/v1");
        assert!(catalogue.tiers().iter().all(|tier| tier.expected == alike().as_ref().and_then(Expectation::of)));
        manifest.base.sha256 = Some("b".repeat(64));
        manifest.tiers[1].card = Some(card("mini:easy", &["easy"], 0.9, 100.0));
        manifest.tiers.push(Tier { card: alike(), ..Tier::new("alpha-0.5", 0.5).with_adapter("a", CARD_SHA256) });
        let catalogue = Catalogue::from_manifest(&manifest, |_| None);
        assert_eq!(catalogue.tier("base").unwrap().expected, None, "a card of other weights");
        assert_eq!(catalogue.tier("alpha-0.2").unwrap().expected, None, "a card of easier problems");
        assert!(catalogue.tier("alpha-0.4").unwrap().expected.is_some());
    }
}
