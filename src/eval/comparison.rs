//! What a tier saves and what it costs, against the base on the same problems.

use serde::{Deserialize, Serialize};

use super::statistics::{Interval, Pairing, Tally, bootstrap, independent_difference, paired_difference};
use super::{Response, by_problem, level_names};

/// Bootstrap draws of [`compare`]: enough for two stable digits of a percentile.
const RESAMPLES: usize = 2_000;

/// A tier against the base on one level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The level; `all` for all levels together.
    pub level: String,
    /// Both sides answered exactly the same problems, so that what the problems have in common cancels in the intervals.
    pub paired: bool,
    /// Mean tokens of the tier over those of the base, minus one: -0.6 is 60 % fewer.
    pub tokens_change: f64,
    /// Its 95 % interval, by a bootstrap over problems; `null` with fewer problems than a bootstrap needs
    /// ([`super::statistics::FEWEST`]).
    pub tokens_change_interval: Option<Interval>,
    /// Accuracy of the tier minus that of the base, in [-1, 1].
    pub accuracy_difference: f64,
    /// Its 95 % interval: Newcombe's, paired where the problems are ([`paired_difference`]). Unlike a bootstrap it keeps a width
    /// where both sides agree everywhere.
    pub accuracy_difference_interval: Interval,
}

/// Compares `tier` with `base` on every level that both have, in the order of `base`, then over `all` of them when there are
/// several. Levels without a base token are left out, because a relative change needs one. `seed` fixes the bootstrap.
pub fn compare(base: &[Response], tier: &[Response], seed: u64) -> Vec<Comparison> {
    let there = level_names(tier);
    let levels: Vec<&str> = level_names(base).into_iter().filter(|level| there.contains(level)).collect();
    let of = |responses: &[Response], wanted: &[&str]| {
        sums(responses.iter().filter(|response| wanted.contains(&response.level.as_str())))
    };
    let mut results: Vec<Comparison> =
        levels.iter().filter_map(|&level| one(level, &of(base, &[level]), &of(tier, &[level]), seed)).collect();
    if levels.len() > 1 {
        results.extend(one("all", &of(base, &levels), &of(tier, &levels), seed));
    }
    results
}

/// What one problem adds to the means.
struct Sum {
    problem: usize,
    tally: Tally,
    tokens: f64,
}

fn sums<'a>(responses: impl IntoIterator<Item = &'a Response>) -> Vec<Sum> {
    by_problem(responses)
        .into_iter()
        .map(|(problem, group)| Sum {
            problem,
            tally: Tally { correct: group.iter().filter(|response| response.correct).count(), samples: group.len() },
            tokens: group.iter().map(|response| response.tokens as f64).sum(),
        })
        .collect()
}

fn one(level: &str, base: &[Sum], tier: &[Sum], seed: u64) -> Option<Comparison> {
    let paired = base.iter().map(|sum| sum.problem).eq(tier.iter().map(|sum| sum.problem));
    let pairing = if paired { Pairing::Paired } else { Pairing::Independent };
    let tokens = |b: &[usize], t: &[usize]| {
        let before = mean_tokens(base, b);
        (before > 0.0).then(|| mean_tokens(tier, t) / before - 1.0)
    };
    let tallies = |sums: &[Sum]| -> Vec<Tally> { sums.iter().map(|sum| sum.tally).collect() };
    let (before, after) = (tallies(base), tallies(tier));
    let (accuracy_difference, accuracy_difference_interval) = match pairing {
        Pairing::Paired => paired_difference(&after.into_iter().zip(before).collect::<Vec<_>>())?,
        Pairing::Independent => independent_difference(&after, &before)?,
    };
    let (all_base, all_tier): (Vec<usize>, Vec<usize>) = ((0..base.len()).collect(), (0..tier.len()).collect());
    Some(Comparison {
        level: if level.is_empty() { "all".to_owned() } else { level.to_owned() },
        paired,
        tokens_change: tokens(&all_base, &all_tier)?,
        tokens_change_interval: bootstrap((base.len(), tier.len()), pairing, (RESAMPLES, seed), tokens),
        accuracy_difference,
        accuracy_difference_interval,
    })
}

/// The mean tokens of a sample of the drawn problems.
fn mean_tokens(sums: &[Sum], drawn: &[usize]) -> f64 {
    let (mut total, mut samples) = (0.0, 0.0);
    for sum in drawn.iter().filter_map(|&index| sums.get(index)) {
        total += sum.tokens;
        samples += sum.tally.samples as f64;
    }
    total / samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::sample::response;

    #[test]
    fn halving_every_response_is_certain_in_tokens_when_paired() {
        let base: Vec<Response> = (0..50).map(|i| response(i, "easy", i % 5 != 0, 100 + 40 * (i % 7))).collect();
        let tier: Vec<Response> = base.iter().map(|r| Response { tokens: r.tokens / 2, ..r.clone() }).collect();
        let results = compare(&base, &tier, 3);
        assert_eq!(results.len(), 1, "one level needs no total");
        let result = &results[0];
        assert!(result.paired);
        assert!((result.tokens_change + 0.5).abs() < 1e-12);
        let interval = result.tokens_change_interval.unwrap();
        assert!((interval.low + 0.5).abs() < 1e-12 && (interval.high + 0.5).abs() < 1e-12);
        assert_eq!(result.accuracy_difference, 0.0);
        let interval = result.accuracy_difference_interval;
        assert!(interval.low < -0.01 && interval.high > 0.01, "fifty that agree are not certainty: {interval:?}");
    }

    #[test]
    fn few_problems_that_agree_everywhere_are_not_certain() {
        for count in [1, 2, 10] {
            let all: Vec<Response> = (0..count).map(|i| response(i, "", true, 100)).collect();
            let result = &compare(&all, &all, 3)[0];
            // z^2 / (n + z^2), as of one side alone: nobody knows what the next problem does.
            let width = 3.841_459 / (count as f64 + 3.841_459);
            let interval = result.accuracy_difference_interval;
            assert!((interval.high - width).abs() < 1e-6 && interval.low == -interval.high, "{count}: {interval:?}");
            assert_eq!(result.tokens_change_interval.is_some(), count == 10, "{count}");
        }
    }

    #[test]
    fn levels_are_compared_apart_and_together() {
        let base: Vec<Response> = (0..10)
            .map(|i| response(i, "easy", true, 100))
            .chain((10..20).map(|i| response(i, "hard", i % 2 == 0, 300)))
            .collect();
        let tier: Vec<Response> = (0..10)
            .map(|i| response(i, "easy", true, 25))
            .chain((10..20).map(|i| response(i, "hard", true, 225)))
            .chain((20..25).map(|i| response(i, "new", true, 1)))
            .collect();
        let results = compare(&base, &tier, 3);
        let names: Vec<&str> = results.iter().map(|result| result.level.as_str()).collect();
        assert_eq!(names, ["easy", "hard", "all"]);
        let changes: Vec<f64> = results.iter().map(|result| result.tokens_change).collect();
        assert!((changes[0] + 0.75).abs() < 1e-12 && (changes[1] + 0.25).abs() < 1e-12, "{changes:?}");
        assert!((changes[2] - (125.0 / 200.0 - 1.0)).abs() < 1e-12);
        assert!((results[1].accuracy_difference - 0.5).abs() < 1e-12);
        let interval = results[1].accuracy_difference_interval;
        assert!(
            interval.low > 0.0 && interval.low < 0.5 && interval.high > 0.5 && interval.high <= 1.0,
            "{interval:?}"
        );
    }

    #[test]
    fn other_problems_are_not_paired() {
        let base: Vec<Response> = (0..30).map(|i| response(i, "", true, 100)).collect();
        let tier: Vec<Response> = (5..40).map(|i| response(i, "", i % 3 != 0, 80)).collect();
        let results = compare(&base, &tier, 3);
        assert!(!results[0].paired);
        assert!((results[0].tokens_change + 0.2).abs() < 1e-12);
        assert_eq!(compare(&base, &tier, 3), results, "same seed, same result");
    }
}
