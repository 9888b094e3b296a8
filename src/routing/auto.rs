//! `reasoning_effort: "auto"`: the tier that the cards and the measured speed speak for.

use std::time::Duration;

use super::{Catalogue, CatalogueTier, Expectation, Speeds};

/// Without a latency budget, accuracy that may be given up for fewer tokens: two percentage points below the best tier.
const ACCURACY_FLOOR: f64 = 0.02;

/// A tier that has a card.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    tier: &'a CatalogueTier,
    expected: Expectation,
    seconds: f64,
}

/// The tier that `auto` picks among the loaded ones that have a card, and why; `None` when none has one.
///
/// With a budget: the highest accuracy among the tiers whose expected time (mean tokens of the card at the measured
/// speed) is within it; when there is none, the fastest. Without: the most accuracy per token among the tiers within
/// [`ACCURACY_FLOOR`] of the best. Ties go to fewer tokens, then to the terser tier. A larger budget never picks a tier
/// of lower accuracy.
pub(super) fn pick<'a>(
    catalogue: &'a Catalogue,
    speeds: &Speeds,
    budget: Option<Duration>,
) -> Option<(&'a CatalogueTier, String)> {
    let candidates: Vec<Candidate<'a>> = catalogue
        .loaded()
        .filter_map(|tier| {
            let expected = tier.expected?;
            Some(Candidate { tier, expected, seconds: speeds.of(&tier.name).seconds(expected.tokens) })
        })
        .collect();
    let (choice, why) = match budget {
        Some(budget) => within(&candidates, budget)?,
        None => efficient(&candidates)?,
    };
    Some((choice.tier, why))
}

fn within<'a>(candidates: &[Candidate<'a>], budget: Duration) -> Option<(Candidate<'a>, String)> {
    let milliseconds = budget.as_millis();
    let fitting = candidates.iter().filter(|candidate| candidate.seconds <= budget.as_secs_f64());
    if let Some(&best) = first_best(fitting, |candidate| [candidate.expected.accuracy, -candidate.expected.tokens]) {
        let why = format!(
            "auto picked tier {}: the highest accuracy on its card ({}) of the tiers expected to answer within {milliseconds} ms",
            about(&best),
            percent(best.expected.accuracy),
        );
        return Some((best, why));
    }
    let rank = |candidate: &Candidate<'_>| [-candidate.seconds, candidate.expected.accuracy];
    let &fastest = first_best(candidates.iter(), rank)?;
    let why = format!(
        "auto picked tier {}: no tier is expected to answer within {milliseconds} ms, and this one is the fastest",
        about(&fastest)
    );
    Some((fastest, why))
}

fn efficient<'a>(candidates: &[Candidate<'a>]) -> Option<(Candidate<'a>, String)> {
    let accuracy = |candidate: &Candidate<'_>| candidate.expected.accuracy;
    let best = candidates.iter().map(accuracy).max_by(f64::total_cmp)?;
    let good = candidates.iter().filter(|candidate| candidate.expected.accuracy >= best - ACCURACY_FLOOR);
    let per_token = |candidate: &Candidate<'_>| candidate.expected.accuracy / candidate.expected.tokens.max(1.0);
    let &choice = first_best(good, |candidate| [per_token(candidate), -candidate.expected.tokens])?;
    let why = format!(
        "auto picked tier {}: the most accuracy per token ({}) of the tiers within {} points of the best accuracy ({})",
        about(&choice),
        percent(choice.expected.accuracy),
        ACCURACY_FLOOR * 100.0,
        percent(best),
    );
    Some((choice, why))
}

/// The item whose rank is greatest, compared from the left; the first of equals, which is the terser tier.
fn first_best<'s, 'a: 's>(
    items: impl Iterator<Item = &'s Candidate<'a>>,
    rank: impl Fn(&Candidate<'a>) -> [f64; 2],
) -> Option<&'s Candidate<'a>> {
    let greater = |a: [f64; 2], b: [f64; 2]| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])).is_gt();
    items.reduce(|best, item| if greater(rank(item), rank(best)) { item } else { best })
}

fn about(candidate: &Candidate<'_>) -> String {
    let Candidate { tier, expected, seconds } = candidate;
    format!("`{}` (alpha {}, about {:.0} tokens in {:.0} ms)", tier.name, tier.alpha, expected.tokens, seconds * 1000.0)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixtures::{any_catalogue, catalogue, measured};
    use super::*;

    fn ms(milliseconds: u64) -> Option<Duration> {
        Some(Duration::from_millis(milliseconds))
    }

    /// Half a second and 20 ms a token: 2.48 s, 4.48 s and 10.48 s.
    fn three() -> Catalogue {
        measured(&[("short", 0.4, 0.80, 100.0), ("middle", 0.2, 0.90, 200.0), ("long", 0.05, 0.91, 500.0)])
    }

    fn name<'a>(picked: &'a Option<(&CatalogueTier, String)>) -> &'a str {
        picked.as_ref().map_or("none", |(tier, _)| tier.name.as_str())
    }

    #[test]
    fn a_budget_buys_accuracy() {
        let family = three();
        let speeds = Speeds::default();
        for (budget, tier) in [(2000, "short"), (2480, "short"), (4479, "short"), (4480, "middle"), (60_000, "long")] {
            assert_eq!(name(&pick(&family, &speeds, ms(budget))), tier, "{budget}");
        }
        let (_, why) = pick(&family, &speeds, ms(2000)).unwrap();
        assert_eq!(
            why,
            "auto picked tier `short` (alpha 0.4, about 100 tokens in 2480 ms): no tier is expected to answer within 2000 ms, and this one is the fastest"
        );
        let (_, why) = pick(&family, &speeds, ms(5000)).unwrap();
        assert_eq!(
            why,
            "auto picked tier `middle` (alpha 0.2, about 200 tokens in 4480 ms): the highest accuracy on its card (90.0 %) of the tiers expected to answer within 5000 ms"
        );
    }

    #[test]
    fn measured_speed_counts() {
        let family = three();
        let mut speeds = Speeds::default();
        speeds.observe("long", Duration::from_millis(100), Duration::from_millis(100), 101);
        assert_eq!(name(&pick(&family, &speeds, ms(1000))), "long");
        speeds.observe("middle", Duration::from_secs(30), Duration::from_secs(100), 101);
        assert_eq!(name(&pick(&family, &speeds, ms(500))), "long", "the fastest, though it has the most tokens");
    }

    #[test]
    fn without_a_budget_tokens_count_within_two_points() {
        let (tier, why) = pick(&three(), &Speeds::default(), None).map(|(tier, why)| (tier.name.clone(), why)).unwrap();
        assert_eq!(tier, "middle");
        assert_eq!(
            why,
            "auto picked tier `middle` (alpha 0.2, about 200 tokens in 4480 ms): the most accuracy per token (90.0 %) of the tiers within 2 points of the best accuracy (91.0 %)"
        );
    }

    #[test]
    fn equal_tiers_go_to_the_terser_and_cards_are_needed() {
        let equal = measured(&[("b", 0.2, 0.9, 100.0), ("a", 0.4, 0.9, 100.0), ("c", 0.6, 0.9, 101.0)]);
        assert_eq!(name(&pick(&equal, &Speeds::default(), None)), "a");
        assert_eq!(name(&pick(&equal, &Speeds::default(), ms(60_000))), "a");
        assert!(pick(&catalogue(&[0.4]), &Speeds::default(), None).is_none());
    }

    proptest! {
        #[test]
        fn a_larger_budget_never_costs_accuracy(
            catalogue in any_catalogue(),
            first in 0..200_000u64,
            more in 0..200_000u64,
            seconds in proptest::collection::vec((0..7usize, 0..3000u64, 0..9000u64), 0..5),
        ) {
            let mut speeds = Speeds::default();
            for (tier, first, rest) in seconds {
                speeds.observe(&format!("t{tier}"), Duration::from_millis(first), Duration::from_millis(rest), 100);
            }
            let accuracy = |budget| {
                let picked = pick(&catalogue, &speeds, ms(budget));
                assert_eq!(picked, pick(&catalogue.clone(), &speeds.clone(), ms(budget)), "deterministic");
                picked.and_then(|(tier, _)| tier.expected).map(|expected| expected.accuracy)
            };
            let (small, large) = (accuracy(first), accuracy(first + more));
            prop_assert_eq!(small.is_some(), large.is_some());
            prop_assert!(small <= large, "{:?} {:?}", small, large);
        }

        #[test]
        fn only_loaded_tiers_with_cards_are_picked(catalogue in any_catalogue(), budget in proptest::option::of(0..100_000u64)) {
            match pick(&catalogue, &Speeds::default(), budget.and_then(ms)) {
                Some((tier, _)) => prop_assert!(tier.is_loaded() && tier.expected.is_some()),
                None => prop_assert!(catalogue.loaded().all(|tier| tier.expected.is_none())),
            }
        }
    }
}
