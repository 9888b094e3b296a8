//! Which cards `auto` may compare: those that were measured alike.
//!
//! A tier measured on easy problems only, or with another sampling, has figures beside which those of the others look bad,
//! whatever the tiers are worth. So the largest group of cards that were measured alike is used, and no other.

use std::collections::BTreeSet;

use crate::family::{Manifest, Tier, TierCard};

/// The tiers of `manifest` whose cards can be compared: the largest group that was measured alike, of equal ones that of the
/// base, then of the first. A card that is alone among others is beside nothing, so then there are none.
pub(super) fn comparable(manifest: &Manifest) -> Vec<&Tier> {
    let mut groups: Vec<Vec<(&Tier, &TierCard)>> = Vec::new();
    for tier in &manifest.tiers {
        let Some(card) = manifest.card(tier).filter(|card| !card.levels.is_empty()) else { continue };
        match groups.iter_mut().find(|group| group.iter().any(|(_, other)| alike(other, card))) {
            Some(group) => group.push((tier, card)),
            None => groups.push(vec![(tier, card)]),
        }
    }
    let is_only = groups.len() == 1;
    let size = |group: &[(&Tier, &TierCard)]| (group.len(), group.iter().any(|(tier, _)| tier.is_base()));
    let largest = groups.into_iter().reduce(|best, group| if size(&group) > size(&best) { group } else { best });
    let largest = largest.filter(|group| is_only || group.len() > 1).unwrap_or_default();
    largest.into_iter().map(|(tier, _)| tier).collect()
}

/// A sentence on every card that [`super::Catalogue::from_manifest`] leaves out because it cannot be compared, and what to do
/// about it. Stale cards are not meant.
pub fn ignored_cards(manifest: &Manifest) -> Vec<String> {
    let used = comparable(manifest);
    let others = match used.first().and_then(|tier| manifest.card(tier)) {
        Some(card) => format!("cards of other tiers are {}", measured(card)),
        None => "no other card is alike".to_owned(),
    };
    let ignored = manifest.tiers.iter().filter(|tier| !used.iter().any(|used| used.name == tier.name));
    let told = |tier: &Tier| {
        let card = manifest.card(tier)?;
        Some(format!(
            "tier `{}`: effort `auto` ignores its card, which is {}, while {others}; measure all tiers on one suite with \
             `serve eval --write-cards`",
            tier.name,
            measured(card)
        ))
    };
    ignored.filter_map(told).collect()
}

/// Whether two cards tell of the same thing.
fn alike(a: &TierCard, b: &TierCard) -> bool {
    dataset(a) == dataset(b) && levels(a) == levels(b) && sampling(a) == sampling(b)
}

/// A card with nothing but how was sampled: whatever else a card may say some day counts until it is taken out here.
fn sampling(card: &TierCard) -> TierCard {
    TierCard {
        dataset: String::new(),
        date: String::new(),
        seed: 0,
        samples: 1,
        weights_sha256: String::new(),
        levels: Vec::new(),
        ..card.clone()
    }
}

/// The suite and what was taken of it, in whatever order that was named.
fn dataset(card: &TierCard) -> (&str, BTreeSet<&str>) {
    let (suite, parts) = card.dataset.split_once(':').unwrap_or((&card.dataset, ""));
    (suite, parts.split(',').map(str::trim).collect())
}

fn levels(card: &TierCard) -> BTreeSet<&str> {
    card.levels.iter().map(|level| level.level.as_str()).collect()
}

fn measured(card: &TierCard) -> String {
    let levels: Vec<&str> = card.levels.iter().map(|level| level.level.as_str()).collect();
    format!("of {} ({}) at {}", card.dataset, levels.join(", "), card.sampling())
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{card, family};
    use super::*;

    fn names(manifest: &Manifest) -> Vec<&str> {
        comparable(manifest).into_iter().map(|tier| tier.name.as_str()).collect()
    }

    #[test]
    fn the_largest_group_counts_and_the_others_are_told() {
        let all = card("mini:test", &["easy", "hard"], 0.9, 100.0);
        let easy = card("mini:easy", &["easy"], 1.0, 20.0);
        let again = TierCard { date: "2026-12-24".to_owned(), seed: 7, samples: 4, ..all.clone() };
        let warm = TierCard { temperature: 1.0, ..all.clone() };
        let narrow = TierCard { top_p: 0.9, ..all.clone() };
        let half = card("mini:test", &["easy"], 1.0, 20.0);
        let manifest = family([
            ("base", Some(all)),
            ("alpha-0.1", Some(easy)),
            ("alpha-0.2", Some(again)),
            ("alpha-0.3", Some(warm)),
            ("alpha-0.4", Some(narrow)),
            ("alpha-0.5", Some(half)),
            ("alpha-0.6", None),
        ]);
        assert_eq!(names(&manifest), ["base", "alpha-0.2"]);
        let told = ignored_cards(&manifest);
        assert_eq!(told.len(), 4, "{told:?}");
        assert_eq!(
            told[0],
            "tier `alpha-0.1`: effort `auto` ignores its card, which is of mini:easy (easy) at temperature 0.6, top-p 1, \
             while cards of other tiers are of mini:test (easy, hard) at temperature 0.6, top-p 1; measure all tiers on \
             one suite with `serve eval --write-cards`"
        );
    }

    #[test]
    fn of_equal_groups_that_of_the_base_and_a_card_alone_is_none() {
        let (one, other) = (card("one", &["all"], 0.9, 10.0), card("other", &["all"], 0.9, 10.0));
        let tied = [
            ("a", Some(one.clone())),
            ("b", Some(one.clone())),
            ("base", Some(other.clone())),
            ("c", Some(other.clone())),
        ];
        assert_eq!(names(&family(tied)), ["base", "c"]);
        let alone = family([("base", Some(one.clone())), ("a", Some(other))]);
        assert!(names(&alone).is_empty());
        assert!(ignored_cards(&alone)[0].contains("no other card is alike"), "{:?}", ignored_cards(&alone));
        let only = family([("base", None), ("a", Some(one))]);
        assert_eq!(names(&only), ["a"], "there is nothing else to choose by");
        assert!(ignored_cards(&only).is_empty());
    }

    #[test]
    fn levels_may_be_named_in_any_order() {
        let one = card("mini:easy,hard", &["easy", "hard"], 0.9, 10.0);
        let other = card("mini:hard,easy", &["hard", "easy"], 0.9, 10.0);
        assert_eq!(names(&family([("base", Some(one)), ("a", Some(other))])), ["base", "a"]);
    }
}
