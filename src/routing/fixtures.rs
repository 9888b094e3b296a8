//! Families for the tests of this room.

use proptest::prelude::*;

use super::{Catalogue, CatalogueTier, Expectation};
use crate::family::{Base, LevelCard, Manifest, Tier, TierCard, default_effort_map};

/// The weights of every [`card`] and of the tiers of every [`family`].
pub const CARD_SHA256: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// What a card says that knows the accuracy exactly.
pub fn expected(accuracy: f64, tokens: f64) -> Option<Expectation> {
    Some(Expectation { accuracy, accuracy_low: accuracy, accuracy_high: accuracy, tokens, tokens_p95: tokens })
}

/// A card whose levels are all alike.
pub fn card(dataset: &str, levels: &[&str], accuracy: f64, tokens: f64) -> TierCard {
    let text = format!(
        "dataset = \"{dataset}\"\ndate = \"2026-11-23\"\nseed = 0\ntemperature = 0.6\ntop_p = 1.0\nsamples = 1\n\
         weights_sha256 = \"{CARD_SHA256}\"\n"
    );
    let level = |name: &&str| LevelCard {
        level: (*name).to_owned(),
        problems: 500,
        responses: 500,
        accuracy,
        accuracy_low: accuracy,
        accuracy_high: accuracy,
        tokens_mean: tokens,
        tokens_p50: tokens,
        tokens_p95: tokens,
        truncated: 0.0,
        verification: 0.0,
        backtracking: 0.0,
        exploration: 0.0,
    };
    // From text, so that fields that cards may leave out need not be named here.
    let card: TierCard = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}"));
    TierCard { levels: levels.iter().map(level).collect(), ..card }
}

/// A manifest of these tiers and cards; the one called `base` is the base, the others are adapters.
pub fn family<const N: usize>(tiers: [(&str, Option<TierCard>); N]) -> Manifest {
    let sha256 = Some(CARD_SHA256.to_owned());
    let base = Base { path: Some("base".into()), sha256, ..Base::default() };
    let mut manifest = Manifest::new("family.toml", "mini", base);
    for (place, (name, card)) in tiers.into_iter().enumerate() {
        let tier = match name {
            "base" => Tier::new(name, 0.0),
            _ => Tier::new(name, (place + 1) as f64 / 10.0).with_adapter(name, CARD_SHA256),
        };
        manifest.tiers.push(Tier { card, ..tier });
    }
    manifest
}

/// The family `mini` with a base and tiers of these alphas, all loaded, no cards, efforts spread by default.
pub fn catalogue(alphas: &[f64]) -> Catalogue {
    let names = alphas.iter().map(|alpha| format!("alpha-{alpha}"));
    build(alphas.iter().copied().zip(names).map(|(alpha, name)| (name, alpha, None, None)).collect())
}

/// A family with cards: name, alpha, accuracy and tokens; a base without a card.
pub fn measured(tiers: &[(&str, f64, f64, f64)]) -> Catalogue {
    let tier = |&(name, alpha, accuracy, tokens): &(&str, f64, f64, f64)| {
        (name.to_owned(), alpha, None, expected(accuracy, tokens))
    };
    build(tiers.iter().map(tier).collect())
}

type Parts = (String, f64, Option<String>, Option<Expectation>);

fn build(parts: Vec<Parts>) -> Catalogue {
    let mut tiers: Vec<Tier> =
        parts.iter().map(|(name, alpha, ..)| Tier::new(name, *alpha).with_adapter("folder", "00")).collect();
    tiers.push(Tier::new("base", 0.0));
    let efforts = default_effort_map(&tiers);
    let mut entries: Vec<CatalogueTier> = parts
        .into_iter()
        .map(|(name, alpha, missing, expected)| CatalogueTier {
            name,
            alpha,
            is_base: false,
            place: String::new(),
            missing,
            expected,
        })
        .collect();
    entries.push(CatalogueTier {
        name: "base".to_owned(),
        alpha: 0.0,
        is_base: true,
        place: String::new(),
        missing: None,
        expected: None,
    });
    Catalogue::new("mini", entries, efforts)
}

/// Families of 1 to 7 tiers with and without cards, any of them loaded or not.
pub fn any_catalogue() -> impl Strategy<Value = Catalogue> {
    let card =
        prop_oneof![Just(None), (0..=100u8, 1..5000u32).prop_map(|(a, t)| expected(f64::from(a) / 100.0, t.into()))];
    let tier = (0..99u8, any::<bool>(), card.clone());
    (proptest::collection::vec(tier, 0..7), any::<bool>(), card).prop_map(|(tiers, base_loaded, base_card)| {
        let missing = |loaded: bool| (!loaded).then(|| "its file is damaged".to_owned());
        let parts = tiers.into_iter().enumerate();
        let parts =
            parts.map(|(i, (alpha, loaded, card))| (format!("t{i}"), f64::from(alpha) / 100.0, missing(loaded), card));
        let catalogue = build(parts.collect());
        let mut entries = catalogue.tiers().to_vec();
        if let Some(base) = entries.last_mut() {
            (base.missing, base.expected) = (missing(base_loaded), base_card);
        }
        Catalogue::new("mini", entries, catalogue.efforts().clone())
    })
}
