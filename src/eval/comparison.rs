//! What a tier saves and what it costs, against the base on the same problems.

use serde::{Deserialize, Serialize};

use super::statistics::{Interval, Pairing, bootstrap};
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
    /// Its 95 % interval, by a bootstrap over problems.
    pub tokens_change_interval: Interval,
    /// Accuracy of the tier minus that of the base, in [-1, 1].
    pub accuracy_difference: f64,
    /// Its 95 % interval, by a bootstrap over problems.
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
    samples: f64,
    correct: f64,
    tokens: f64,
}

fn sums<'a>(responses: impl IntoIterator<Item = &'a Response>) -> Vec<Sum> {
    by_problem(responses)
        .into_iter()
        .map(|(problem, group)| Sum {
            problem,
            samples: group.len() as f64,
            correct: group.iter().filter(|response| response.correct).count() as f64,
            tokens: group.iter().map(|response| response.tokens as f64).sum(),
        })
        .collect()
}

fn one(level: &str, base: &[Sum], tier: &[Sum], seed: u64) -> Option<Comparison> {
    let paired = base.iter().map(|sum| sum.problem).eq(tier.iter().map(|sum| sum.problem));
    let pairing = if paired { Pairing::Paired } else { Pairing::Independent };
    let tokens = |b: &[usize], t: &[usize]| {
        let before = mean(base, b, |sum| sum.tokens);
        (before > 0.0).then(|| mean(tier, t, |sum| sum.tokens) / before - 1.0)
    };
    let accuracy = |b: &[usize], t: &[usize]| Some(mean(tier, t, |sum| sum.correct) - mean(base, b, |sum| sum.correct));
    let (all_base, all_tier): (Vec<usize>, Vec<usize>) = ((0..base.len()).collect(), (0..tier.len()).collect());
    let draws = (RESAMPLES, seed);
    Some(Comparison {
        level: if level.is_empty() { "all".to_owned() } else { level.to_owned() },
        paired,
        tokens_change: tokens(&all_base, &all_tier)?,
        tokens_change_interval: bootstrap((base.len(), tier.len()), pairing, draws, tokens)?,
        accuracy_difference: accuracy(&all_base, &all_tier)?,
        accuracy_difference_interval: bootstrap((base.len(), tier.len()), pairing, draws, accuracy)?,
    })
}

/// The mean per sample of what `value` takes from the drawn problems.
fn mean(sums: &[Sum], drawn: &[usize], value: impl Fn(&Sum) -> f64) -> f64 {
    let (mut total, mut samples) = (0.0, 0.0);
    for sum in drawn.iter().filter_map(|&index| sums.get(index)) {
        total += value(sum);
        samples += sum.samples;
    }
    total / samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::sample::response;

    #[test]
    fn halving_every_response_is_certain_when_paired() {
        let base: Vec<Response> = (0..50).map(|i| response(i, "easy", i % 5 != 0, 100 + 40 * (i % 7))).collect();
        let tier: Vec<Response> = base.iter().map(|r| Response { tokens: r.tokens / 2, ..r.clone() }).collect();
        let results = compare(&base, &tier, 3);
        assert_eq!(results.len(), 1, "one level needs no total");
        let result = &results[0];
        assert!(result.paired);
        assert!((result.tokens_change + 0.5).abs() < 1e-12);
        assert!((result.tokens_change_interval.low + 0.5).abs() < 1e-12);
        assert!((result.tokens_change_interval.high + 0.5).abs() < 1e-12);
        assert_eq!(result.accuracy_difference, 0.0);
        assert_eq!(result.accuracy_difference_interval, Interval { low: 0.0, high: 0.0 });
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
