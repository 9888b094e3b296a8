use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::super::fixtures::{any_catalogue, catalogue, expected, measured};
use super::super::{Sample, Speeds};
use super::*;
use crate::family::Manifest;

const NOW: Duration = Duration::ZERO;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn within(milliseconds: u64) -> Wish {
    Wish { latency_budget: Some(ms(milliseconds)), ..Wish::default() }
}

fn sample(tier: &str, at: Duration) -> Sample<'_> {
    Sample { tier, place: "", weight: 1.0, at }
}

/// Half a second and 20 ms a token: 2.48 s, 4.48 s and 10.48 s.
fn three() -> Catalogue {
    measured(&[("short", 0.4, 0.80, 100.0), ("middle", 0.2, 0.90, 200.0), ("long", 0.05, 0.95, 500.0)])
}

/// The family that is in this repository.
fn bundled() -> Catalogue {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini/family.toml");
    Catalogue::from_manifest(&Manifest::load(&path).unwrap(), |_| None)
}

fn picked(family: &Catalogue, speeds: &Speeds, now: Duration, wish: &Wish) -> (String, String) {
    let (tier, why) = pick(family, speeds.at(now), wish).unwrap();
    (tier.name.clone(), why)
}

/// What is picked before anything was measured.
fn assumed(family: &Catalogue, wish: &Wish) -> String {
    picked(family, &Speeds::default(), NOW, wish).0
}

#[test]
fn a_budget_buys_accuracy() {
    let family = three();
    for (budget, tier) in [(2000, "short"), (2480, "short"), (4479, "short"), (4480, "middle"), (60_000, "long")] {
        assert_eq!(assumed(&family, &within(budget)), tier, "{budget}");
    }
    let (_, why) = picked(&family, &Speeds::default(), NOW, &within(2000));
    assert_eq!(
        why,
        "auto picked tier `short` (alpha 0.4, about 100 tokens in 2480 ms): no tier is expected to answer within 2000 ms; the most accuracy per token (80.0 %) of the fastest tiers that are not measurably worse than the best (80.0 %)"
    );
    let (_, why) = picked(&family, &Speeds::default(), NOW, &within(5000));
    assert_eq!(
        why,
        "auto picked tier `middle` (alpha 0.2, about 200 tokens in 4480 ms): the most accuracy per token (90.0 %) of the tiers expected to answer within about 5000 ms that are not measurably worse than the best (90.0 %)"
    );
}

#[test]
fn a_budget_buys_no_noise() {
    // One problem in 1,500 is no reason for three times the tokens.
    let family = bundled();
    for wish in [Wish::default(), within(5000), within(3_600_000)] {
        assert_eq!(assumed(&family, &wish), "alpha-0.15", "{wish:?}");
    }
}

#[test]
fn a_card_of_few_problems_neither_wins_nor_rules_others_out() {
    let mut family = measured(&[("good", 0.4, 0.96, 40.0), ("bad", 0.2, 0.85, 30.0), ("few", 0.05, 1.0, 200.0)]);
    let few = family.tiers.iter_mut().find(|tier| tier.name == "few").unwrap();
    few.expected = few.expected.map(|six_of_six| Expectation { accuracy_low: 0.61, ..six_of_six });
    // `bad` is not measurably worse than six of six, and yet it is than `good`.
    assert_eq!(assumed(&family, &Wish::default()), "good");
    assert_eq!(assumed(&family, &within(60_000)), "good");
}

#[test]
fn measured_speed_counts() {
    let family = three();
    let mut speeds = Speeds::default();
    speeds.first_token(sample("long", NOW), ms(100));
    speeds.generated(sample("long", NOW), ms(100), 101);
    assert_eq!(picked(&family, &speeds, NOW, &within(1000)).0, "long");
    speeds.generated(sample("middle", NOW), ms(100_000), 101);
    speeds.generated(sample("short", NOW), ms(100_000), 101);
    assert_eq!(picked(&family, &speeds, NOW, &within(500)).0, "long", "the fastest, though it has the most tokens");
}

#[test]
fn a_slow_moment_is_forgotten() {
    fn used(speeds: &mut Speeds, tier: &str, at: Duration, wait: Duration, tokens: usize) {
        speeds.queued(wait, at);
        speeds.first_token(sample(tier, at), ms(5));
        speeds.generated(sample(tier, at), ms(300), tokens);
    }
    let (family, mut speeds) = (three(), Speeds::default());
    used(&mut speeds, "long", ms(0), ms(0), 301);
    assert_eq!(picked(&family, &speeds, ms(0), &within(600)).0, "long");
    for _ in 0..120 {
        used(&mut speeds, "long", ms(1000), ms(5000), 31);
    }
    assert_eq!(picked(&family, &speeds, ms(1000), &within(600)).0, "short", "nothing is fast now");
    // Nobody measures `long` again, because nobody is sent there.
    for second in 6..200 {
        let (tier, _) = picked(&family, &speeds, ms(1000 * second), &within(600));
        if tier == "long" {
            return;
        }
        used(&mut speeds, &tier, ms(1000 * second), ms(0), 301);
    }
    panic!("`long` was never tried again");
}

#[test]
fn a_queue_makes_every_tier_wait() {
    let (family, mut speeds) = (three(), Speeds::default());
    for tier in ["short", "middle", "long"] {
        speeds.first_token(sample(tier, ms(0)), ms(1));
        speeds.generated(sample(tier, ms(0)), ms(50), 501);
    }
    assert_eq!(picked(&family, &speeds, ms(0), &within(300)).0, "long");
    // Many users of `short`, and of nothing else.
    speeds.queued(ms(20_000), ms(1000));
    let (tier, why) = picked(&family, &speeds, ms(1000), &within(300));
    assert_eq!(tier, "short", "{why}");
    assert!(why.contains("tokens in 20011 ms): no tier is expected to answer within 300 ms;"), "{why}");
}

#[test]
fn without_a_budget_tokens_count_within_two_points() {
    let family = measured(&[("short", 0.4, 0.80, 100.0), ("middle", 0.2, 0.90, 200.0), ("long", 0.05, 0.92, 500.0)]);
    let (tier, why) = picked(&family, &Speeds::default(), NOW, &Wish::default());
    assert_eq!(tier, "middle");
    assert_eq!(
        why,
        "auto picked tier `middle` (alpha 0.2, about 200 tokens in 4480 ms): the most accuracy per token (90.0 %) of the tiers that are not measurably worse than the best (92.0 %)"
    );
}

#[test]
fn answers_that_would_be_cut_off_are_avoided() {
    let mut family = three();
    // The mean is 100, and one answer in twenty has more than 180.
    let short = family.tiers.iter_mut().find(|tier| tier.name == "short").unwrap();
    short.expected = short.expected.map(|expected| Expectation { tokens_p95: 180.0, ..expected });
    let most = |max_completion_tokens| Wish { max_completion_tokens: Some(max_completion_tokens), ..within(60_000) };
    for (limit, tier) in [(500, "long"), (499, "middle"), (199, "short"), (120, "short"), (9, "short")] {
        assert_eq!(assumed(&family, &most(limit)), tier, "{limit}");
        assert_eq!(assumed(&family, &Wish { latency_budget: None, ..most(limit) }), tier, "{limit}");
    }
    let (_, why) = picked(&family, &Speeds::default(), NOW, &most(300));
    assert!(
        why.ends_with("; 1 of 3 tiers are left out because longer answers than about 300 tokens would be cut off"),
        "{why}"
    );
    let thoughts = |limit| Wish { max_reasoning_tokens: Some(limit), ..within(60_000) };
    for (limit, tier) in [(500, "long"), (300, "middle"), (0, "short")] {
        assert_eq!(assumed(&family, &thoughts(limit)), tier, "{limit}");
    }
}

#[test]
fn what_is_cut_off_takes_no_time() {
    let family = measured(&[("long", 0.05, 0.91, 500.0)]);
    let wish = Wish { max_completion_tokens: Some(26), ..within(1000) };
    let (_, why) = picked(&family, &Speeds::default(), NOW, &wish);
    assert!(why.starts_with("auto picked tier `long` (alpha 0.05, about 26 tokens in 1000 ms): the most"), "{why}");
}

#[test]
fn the_bundled_family_keeps_within_sixty_tokens() {
    for wish in [within(300), within(5000), Wish::default()] {
        let wish = Wish { max_completion_tokens: Some(60), ..wish };
        assert_eq!(assumed(&bundled(), &wish), "alpha-0.15", "{wish:?}");
    }
}

#[test]
fn a_hair_of_time_is_no_reason_for_less_accuracy() {
    let family = measured(&[("quick", 0.4, 0.80, 100.0), ("good", 0.2, 0.95, 101.0), ("slow", 0.1, 0.99, 200.0)]);
    for budget in [100, 2480, 2499, 2500] {
        assert_eq!(assumed(&family, &within(budget)), "good", "{budget}");
    }
}

#[test]
fn equal_tiers_go_to_the_terser_and_cards_are_needed() {
    let equal = measured(&[("b", 0.2, 0.9, 100.0), ("a", 0.4, 0.9, 100.0), ("c", 0.6, 0.9, 101.0)]);
    assert_eq!(assumed(&equal, &Wish::default()), "a");
    assert_eq!(assumed(&equal, &within(60_000)), "a");
    assert!(pick(&catalogue(&[0.4]), Speeds::default().at(NOW), &Wish::default()).is_none());
    assert_eq!(expected(0.9, 100.0), equal.tier("a").unwrap().expected);
}

fn any_limits() -> impl Strategy<Value = Wish> {
    let tokens = || proptest::option::of(0..6000usize);
    (tokens(), tokens()).prop_map(|(max_completion_tokens, max_reasoning_tokens)| Wish {
        max_completion_tokens,
        max_reasoning_tokens,
        ..Wish::default()
    })
}

proptest! {
    #[test]
    fn a_larger_budget_never_costs_accuracy(
        catalogue in any_catalogue(),
        limits in any_limits(),
        first in 0..200_000u64,
        more in 0..200_000u64,
        measured in proptest::collection::vec((0..7usize, 0..3000u64, 0..9000u64, 0..60_000u64), 0..5),
    ) {
        let mut speeds = Speeds::default();
        for (tier, first, rest, at) in measured {
            let tier = format!("t{tier}");
            speeds.queued(ms(first), ms(at));
            speeds.first_token(sample(&tier, ms(at)), ms(first));
            speeds.generated(sample(&tier, ms(at)), ms(rest), 100);
        }
        let expected = |budget| {
            let wish = Wish { latency_budget: Some(ms(budget)), ..limits.clone() };
            let picked = pick(&catalogue, speeds.at(ms(60_000)), &wish);
            assert_eq!(picked, pick(&catalogue.clone(), speeds.clone().at(ms(60_000)), &wish), "deterministic");
            picked.and_then(|(tier, _)| tier.expected)
        };
        let (small, large) = (expected(first), expected(first + more));
        prop_assert_eq!(small.is_some(), large.is_some());
        if let (Some(small), Some(large)) = (small, large) {
            prop_assert!(!small.is_measurably_better_than(&large), "{:?} {:?}", small, large);
        }
    }

    #[test]
    fn only_loaded_tiers_with_cards_are_picked(
        catalogue in any_catalogue(),
        limits in any_limits(),
        budget in proptest::option::of(0..100_000u64),
    ) {
        let wish = Wish { latency_budget: budget.map(ms), ..limits };
        match pick(&catalogue, Speeds::default().at(NOW), &wish) {
            Some((tier, _)) => prop_assert!(tier.is_loaded() && tier.expected.is_some()),
            None => prop_assert!(catalogue.loaded().all(|tier| tier.expected.is_none())),
        }
    }
}
