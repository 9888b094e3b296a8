//! Families for the tests of this room.

use proptest::prelude::*;

use super::{Catalogue, CatalogueTier, Expectation};
use crate::family::{Tier, default_effort_map};

/// What a card says.
pub fn expected(accuracy: f64, tokens: f64) -> Option<Expectation> {
    Some(Expectation { accuracy, tokens })
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
        .map(|(name, alpha, missing, expected)| CatalogueTier { name, alpha, is_base: false, missing, expected })
        .collect();
    entries.push(CatalogueTier { name: "base".to_owned(), alpha: 0.0, is_base: true, missing: None, expected: None });
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
