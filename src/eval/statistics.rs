//! Statistics of an evaluation: quantiles, intervals that respect several samples per problem, bootstrap, pass@k.
//!
//! Everything is a pure function of numbers; random resampling takes its seed as an argument, so that the same responses
//! always give the same report. The unit that is drawn at random is the *problem*: samples of one problem are not
//! independent, and treating them so would print intervals that are too narrow.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The 97.5 % quantile of the standard normal distribution: half-width of a 95 % interval in standard errors.
pub const Z95: f64 = 1.959_963_984_540_054;

/// A confidence interval; its level (95 % everywhere in this crate) is named by whoever made it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What one problem contributed: how many of its samples were correct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Samples graded correct.
    pub correct: usize,
    /// All samples; at least `correct`.
    pub samples: usize,
}

/// Wilson's 95 % score interval of a proportion `share` (in [0, 1]) seen in `count` independent trials.
///
/// `count` need not be whole: [`accuracy_interval`] passes an effective number. No trials give the interval [0, 1].
pub fn wilson(share: f64, count: f64) -> Interval {
    if count <= 0.0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let z2 = Z95 * Z95;
    let scale = 1.0 + z2 / count;
    let centre = (share + z2 / (2.0 * count)) / scale;
    let half = Z95 / scale * (share * (1.0 - share) / count + z2 / (4.0 * count * count)).sqrt();
    // The ends are exactly 0 and 1 at the borders in theory; rounding must not push them past.
    let low = if share <= 0.0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if share >= 1.0 { 1.0 } else { (centre + half).min(1.0) };
    Interval { low, high }
}

/// The share of correct samples over all problems, and its 95 % interval with problems as the sampling unit.
///
/// The interval is Wilson's with the *effective* number of samples n_eff = p (1 - p) / v, where v is the linearised
/// variance of the ratio estimator, v = sum_i (correct_i - p samples_i)^2 / (sum_i samples_i)^2. With one sample a problem
/// that is the plain Wilson interval; when the samples of a problem always agree, n_eff is the number of problems. n_eff
/// is kept between the number of problems and the number of samples, and is the number of problems where p is 0 or 1 (v
/// says nothing there). Unlike a normal interval it stays in [0, 1] and keeps a width when everything was correct.
/// `None` without samples.
pub fn accuracy_interval(tallies: &[Tally]) -> Option<(f64, Interval)> {
    let samples: usize = tallies.iter().map(|tally| tally.samples).sum();
    let problems = tallies.iter().filter(|tally| tally.samples > 0).count();
    if samples == 0 {
        return None;
    }
    let (total, clusters) = (samples as f64, problems as f64);
    let share = tallies.iter().map(|tally| tally.correct as f64).sum::<f64>() / total;
    let squares: f64 = tallies.iter().map(|t| (t.correct as f64 - share * t.samples as f64).powi(2)).sum();
    let variance = squares / (total * total);
    let effective = if share <= 0.0 || share >= 1.0 || samples == problems {
        clusters
    } else if variance <= 0.0 {
        total
    } else {
        (share * (1.0 - share) / variance).clamp(clusters, total)
    };
    Some((share, wilson(share, effective)))
}

/// The difference of two shares of correct samples over the same problems, first less second, and its 95 % interval.
///
/// Newcombe's method 10 (Statistics in Medicine 17, 1998, 2635-2650), a score interval: with shares p, q, their intervals
/// (l, u), (m, v) from [`accuracy_interval`] and the correlation r of the two sides, it is from
/// p - q - sqrt((p-l)^2 - 2 r (p-l)(v-q) + (v-q)^2) to p - q + sqrt((u-p)^2 - 2 r (u-p)(q-m) + (q-m)^2). r is that of the
/// sums of residuals of the problems, a positive covariance less the continuity correction of the paper; with one sample a
/// problem that is the paper's phi exactly. Unlike a bootstrap it keeps a width where both sides agree everywhere.
/// `None` without samples.
pub fn paired_difference(tallies: &[(Tally, Tally)]) -> Option<(f64, Interval)> {
    let (left, right): (Vec<Tally>, Vec<Tally>) = tallies.iter().copied().unzip();
    let sides = accuracy_interval(&left).zip(accuracy_interval(&right))?;
    Some(newcombe(sides, correlation(tallies, (sides.0.0, sides.1.0))))
}

/// The same for sides that answered different problems: Newcombe's method 10 of independent samples, that is with no
/// correlation. `None` when a side has no samples.
pub fn independent_difference(first: &[Tally], second: &[Tally]) -> Option<(f64, Interval)> {
    Some(newcombe(accuracy_interval(first).zip(accuracy_interval(second))?, 0.0))
}

/// The difference of two shares with the interval that their own intervals and their correlation give.
fn newcombe(((p, one), (q, two)): ((f64, Interval), (f64, Interval)), correlation: f64) -> (f64, Interval) {
    let root = |a: f64, b: f64| (a * a - 2.0 * correlation * a * b + b * b).max(0.0).sqrt();
    let (low, high) = (root(p - one.low, two.high - q), root(one.high - p, q - two.low));
    (p - q, Interval { low: (p - q - low).max(-1.0), high: (p - q + high).min(1.0) })
}

/// The correlation of what the problems are to both sides, in [-1, 1]; 0 where a side has no spread.
fn correlation(tallies: &[(Tally, Tally)], (p, q): (f64, f64)) -> f64 {
    let residual = |tally: Tally, share: f64| tally.correct as f64 - share * tally.samples as f64;
    let [cross, left, right, samples] = tallies.iter().fold([0.0; 4], |sum, &(one, two)| {
        let (a, b) = (residual(one, p), residual(two, q));
        [sum[0] + a * b, sum[1] + a * a, sum[2] + b * b, sum[3] + one.samples as f64]
    });
    let scale = (left * right).sqrt();
    if scale <= 0.0 {
        return 0.0;
    }
    // Half a count with one sample a problem; samples that always agree count once here too.
    let unit = samples / tallies.iter().filter(|(one, _)| one.samples > 0).count() as f64;
    let cross = if cross > 0.0 { (cross - unit * unit / 2.0).max(0.0) } else { cross };
    (cross / scale).clamp(-1.0, 1.0)
}

/// The mean over all samples and its 95 % normal interval, with problems as the sampling unit.
///
/// `groups[i]` holds the values of problem i. The standard error is that of the ratio estimator with the factor
/// k / (k - 1) for k problems; with one value a problem it is the usual s / sqrt(n). With fewer than two problems nothing
/// is known about the spread and the interval is `None`; the whole result is `None` without values.
pub fn mean_interval(groups: &[Vec<f64>]) -> Option<(f64, Option<Interval>)> {
    let used: Vec<&Vec<f64>> = groups.iter().filter(|group| !group.is_empty()).collect();
    let count: usize = used.iter().map(|group| group.len()).sum();
    if count == 0 {
        return None;
    }
    let mean = used.iter().map(|group| group.iter().sum::<f64>()).sum::<f64>() / count as f64;
    if used.len() < 2 {
        return Some((mean, None));
    }
    let clusters = used.len() as f64;
    let squares: f64 = used.iter().map(|g| g.iter().map(|value| value - mean).sum::<f64>().powi(2)).sum();
    let error = (squares * clusters / (clusters - 1.0)).sqrt() / count as f64;
    Some((mean, Some(Interval { low: mean - Z95 * error, high: mean + Z95 * error })))
}

/// The 95 % interval of the plain mean of independent estimates, from their own intervals.
///
/// The method of variance estimates recovery: each side is the root of the summed squares of that side's half-widths,
/// divided by the number of estimates. Used for the mean over levels. `None` without estimates.
pub fn mean_of_intervals(estimates: &[(f64, Interval)]) -> Option<(f64, Interval)> {
    if estimates.is_empty() {
        return None;
    }
    let count = estimates.len() as f64;
    let mean = estimates.iter().map(|(value, _)| value).sum::<f64>() / count;
    let below = estimates.iter().map(|(value, interval)| (value - interval.low).powi(2)).sum::<f64>().sqrt() / count;
    let above = estimates.iter().map(|(value, interval)| (interval.high - value).powi(2)).sum::<f64>().sqrt() / count;
    Some((mean, Interval { low: mean - below, high: mean + above }))
}

/// The `q`-quantile (`q` in [0, 1]) of `sorted` ascending values, linear between the two nearest ranks.
///
/// The rank is q (n - 1), the convention of NumPy's default and R's type 7. `None` for an empty slice.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let rank = q.clamp(0.0, 1.0) * last as f64;
    let below = rank.floor() as usize;
    let low = *sorted.get(below)?;
    let high = *sorted.get((below + 1).min(last))?;
    Some(low + (high - low) * (rank - below as f64))
}

/// The unbiased estimate of pass@k from `correct` of `samples` samples: the chance that k drawn without replacement hold
/// a correct one, 1 - C(n - c, k) / C(n, k), computed as a product so that nothing overflows.
///
/// `None` when k is 0, more than `samples`, or `correct` is more than `samples`.
pub fn pass_at_k(tally: Tally, k: usize) -> Option<f64> {
    let Tally { correct, samples } = tally;
    if k == 0 || k > samples || correct > samples {
        return None;
    }
    if samples - correct < k {
        return Some(1.0);
    }
    let miss: f64 = (0..k).map(|drawn| (samples - correct - drawn) as f64 / (samples - drawn) as f64).product();
    Some(1.0 - miss)
}

/// Fewest problems of a side whose [`bootstrap`] is an interval: draws from fewer are so alike that it is much too narrow.
pub const FEWEST: usize = 10;

/// How [`bootstrap`] draws problems for its two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Both sides answered the same problems in the same order: one draw serves both, and what the problems have in
    /// common cancels.
    Paired,
    /// Each side is drawn for itself.
    Independent,
}

/// The 95 % percentile bootstrap interval of `statistic(first, second)`, with `resamples` draws of problems with replacement.
///
/// `first` and `second` say how many problems each side has; `statistic` gets the drawn problem indices of each side and
/// returns `None` where it is undefined (a division by zero), and such draws are left out. [`Pairing::Paired`] needs
/// `first == second`. `None` when a side has fewer than [`FEWEST`] problems, the pairing does not fit or no draw was defined.
pub fn bootstrap(
    (first, second): (usize, usize),
    pairing: Pairing,
    (resamples, seed): (usize, u64),
    statistic: impl Fn(&[usize], &[usize]) -> Option<f64>,
) -> Option<Interval> {
    if first.min(second) < FEWEST || (pairing == Pairing::Paired && first != second) {
        return None;
    }
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |count: usize| -> Vec<usize> { (0..count).map(|_| generator.random_range(0..count)).collect() };
    let mut values: Vec<f64> = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        let left = draw(first);
        let value = match pairing {
            Pairing::Paired => statistic(&left, &left),
            Pairing::Independent => statistic(&left, &draw(second)),
        };
        values.extend(value);
    }
    values.sort_by(f64::total_cmp);
    Some(Interval { low: quantile(&values, 0.025)?, high: quantile(&values, 0.975)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-9, "{left} is not {right}");
    }

    #[test]
    fn wilson_matches_the_formula_worked_by_hand() {
        // p = 0.5, n = 10: z^2 = 3.841459; centre 0.5; half = z/(1+z^2/n) * sqrt(0.025 + z^2/400)
        //   = 1.959964/1.3841459 * sqrt(0.0346036) = 1.4160097 * 0.1860206 = 0.2634069.
        let interval = wilson(0.5, 10.0);
        assert!((interval.low - 0.236_593).abs() < 1e-6 && (interval.high - 0.763_407).abs() < 1e-6, "{interval:?}");
        // All of ten correct: low = 1/(1 + z^2/n) = 0.722467.
        let all = wilson(1.0, 10.0);
        assert!((all.low - 0.722_467).abs() < 1e-6, "{all:?}");
        assert_eq!(all.high, 1.0);
        assert_eq!(wilson(0.0, 7.0).low, 0.0);
        assert_eq!(wilson(0.3, 0.0), Interval { low: 0.0, high: 1.0 });
    }

    #[test]
    fn one_sample_a_problem_is_the_plain_wilson_interval() {
        let tallies: Vec<Tally> = (0..40).map(|i| Tally { correct: usize::from(i % 4 != 0), samples: 1 }).collect();
        let (share, interval) = accuracy_interval(&tallies).unwrap();
        close(share, 0.75);
        assert_eq!(interval, wilson(0.75, 40.0));
    }

    #[test]
    fn samples_that_always_agree_count_once() {
        // 10 problems, 8 samples each, all right or all wrong: worth 10 trials, not 80.
        let tallies: Vec<Tally> = (0..10).map(|i| Tally { correct: 8 * (i % 2), samples: 8 }).collect();
        let (share, interval) = accuracy_interval(&tallies).unwrap();
        close(share, 0.5);
        let expected = wilson(0.5, 10.0);
        close(interval.low, expected.low);
        close(interval.high, expected.high);
    }

    #[test]
    fn samples_as_spread_as_chance_allows_all_count() {
        // Every problem has the same share: no variance between problems, so all 40 samples count.
        let tallies = [Tally { correct: 2, samples: 4 }; 10];
        assert_eq!(accuracy_interval(&tallies).unwrap().1, wilson(0.5, 40.0));
        // Perfect scores still have a width: that of 10 problems.
        let perfect = [Tally { correct: 4, samples: 4 }; 10];
        assert_eq!(accuracy_interval(&perfect).unwrap(), (1.0, wilson(1.0, 10.0)));
        assert_eq!(accuracy_interval(&[]), None);
    }

    /// Problems by what both sides made of them: right on both, on the first only, on the second only, on neither.
    fn marks(counts: [usize; 4], samples: usize) -> Vec<(Tally, Tally)> {
        let mark = |correct: bool| Tally { correct: samples * usize::from(correct), samples };
        let kinds = [(true, true), (true, false), (false, true), (false, false)];
        let problems = kinds.into_iter().zip(counts).flat_map(|(kind, count)| std::iter::repeat_n(kind, count));
        problems.map(|(one, two)| (mark(one), mark(two))).collect()
    }

    #[test]
    fn the_paired_difference_is_newcombes() {
        // Worked from the paper's formula with the four counts alone, where a, b, c, d are right on both, first, second, none.
        for (counts, low, high) in [
            ([15, 1, 3, 1], -0.324874, 0.129473),
            ([36, 12, 2, 0], 0.056930, 0.340428),
            ([20, 0, 0, 0], -0.161125, 0.161125),
            ([10, 0, 0, 10], -0.089757, 0.089757),
            ([14, 2, 2, 2], -0.222772, 0.222772),
        ] {
            let (difference, interval) = paired_difference(&marks(counts, 1)).unwrap();
            let count = counts.iter().sum::<usize>() as f64;
            close(difference, (counts[1] as f64 - counts[2] as f64) / count);
            assert!(
                (interval.low - low).abs() < 1e-5 && (interval.high - high).abs() < 1e-5,
                "{counts:?} {interval:?}"
            );
            // The other way round it is the mirror image, and samples that always agree count once.
            let turned = paired_difference(&marks([counts[0], counts[2], counts[1], counts[3]], 1)).unwrap().1;
            close(turned.low, -interval.high);
            close(turned.high, -interval.low);
            let repeated = paired_difference(&marks(counts, 4)).unwrap().1;
            close(repeated.low, interval.low);
            close(repeated.high, interval.high);
        }
        assert_eq!(paired_difference(&[]), None);
    }

    #[test]
    fn sides_without_common_problems_have_the_interval_of_independent_samples() {
        // Newcombe's example of method 10: 56 of 70 against 48 of 80, 0.2 with 0.0524 to 0.3339.
        let side = |correct: usize, count: usize| -> Vec<Tally> {
            (0..count).map(|index| Tally { correct: usize::from(index < correct), samples: 1 }).collect()
        };
        let (difference, interval) = independent_difference(&side(56, 70), &side(48, 80)).unwrap();
        close(difference, 0.2);
        assert!((interval.low - 0.0524).abs() < 1e-4 && (interval.high - 0.3339).abs() < 1e-4, "{interval:?}");
        assert_eq!(independent_difference(&side(1, 1), &[]), None);
    }

    #[test]
    fn the_paired_difference_covers_the_truth_in_small_samples() {
        let mut generator = ChaCha8Rng::seed_from_u64(4);
        // Twenty problems; the sides agree on most: 0.85 against 0.80.
        let (count, trials) = (20, 2000);
        let mut covered = 0;
        for _ in 0..trials {
            let mut counts = [0; 4];
            for _ in 0..count {
                let draw: f64 = generator.random();
                counts[[0.78, 0.85, 0.87].iter().filter(|&&below| draw >= below).count()] += 1;
            }
            let interval = paired_difference(&marks(counts, 1)).unwrap().1;
            covered += usize::from(interval.low <= 0.05 && 0.05 <= interval.high);
        }
        assert!(covered >= trials * 93 / 100, "{covered} of {trials}");
    }

    #[test]
    fn the_mean_of_single_values_has_the_usual_error() {
        // 2, 4, 6: mean 4, s = 2, error 2/sqrt(3) = 1.154700538.
        let (mean, interval) = mean_interval(&[vec![2.0], vec![4.0], vec![6.0]]).unwrap();
        close(mean, 4.0);
        close(interval.unwrap().high, 4.0 + Z95 * 1.154_700_538_379_251_5);
        assert_eq!(mean_interval(&[vec![3.0, 5.0]]), Some((4.0, None)));
        assert_eq!(mean_interval(&[vec![], vec![]]), None);
    }

    #[test]
    fn repeated_values_of_a_problem_do_not_narrow_the_mean() {
        let single = mean_interval(&[vec![2.0], vec![4.0], vec![6.0]]);
        let repeated = mean_interval(&[vec![2.0; 5], vec![4.0; 5], vec![6.0; 5]]);
        let ((a, left), (b, right)) = (single.unwrap(), repeated.unwrap());
        close(a, b);
        close(left.unwrap().low, right.unwrap().low);
    }

    #[test]
    fn intervals_of_a_mean_add_in_squares() {
        let wide = |value: f64, half: f64| (value, Interval { low: value - half, high: value + half });
        let (mean, interval) = mean_of_intervals(&[wide(0.9, 0.03), wide(0.5, 0.04)]).unwrap();
        close(mean, 0.7);
        close(interval.low, 0.675); // sqrt(9 + 16) / 2 = 2.5 points
        close(interval.high, 0.725);
        assert_eq!(mean_of_intervals(&[]), None);
    }

    #[test]
    fn quantiles_lie_between_ranks() {
        let values = [10.0, 20.0, 40.0, 80.0];
        close(quantile(&values, 0.5).unwrap(), 30.0); // rank 1.5
        close(quantile(&values, 0.95).unwrap(), 74.0); // rank 2.85: 40 + 0.85 * 40
        close(quantile(&values, 0.0).unwrap(), 10.0);
        close(quantile(&values, 1.0).unwrap(), 80.0);
        assert_eq!(quantile(&[7.0], 0.95), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn pass_at_k_is_the_chance_of_a_hit() {
        // 2 of 5 correct, draw 2: 1 - C(3,2)/C(5,2) = 1 - 3/10.
        close(pass_at_k(Tally { correct: 2, samples: 5 }, 2).unwrap(), 0.7);
        close(pass_at_k(Tally { correct: 2, samples: 5 }, 1).unwrap(), 0.4);
        assert_eq!(pass_at_k(Tally { correct: 2, samples: 5 }, 4), Some(1.0));
        assert_eq!(pass_at_k(Tally { correct: 0, samples: 5 }, 5), Some(0.0));
        assert_eq!(pass_at_k(Tally { correct: 1, samples: 3 }, 4), None);
        assert_eq!(pass_at_k(Tally { correct: 1, samples: 3 }, 0), None);
    }

    #[test]
    fn pairing_cancels_what_problems_share() {
        let base: Vec<f64> = (0..200).map(f64::from).collect();
        let other: Vec<f64> = base.iter().map(|value| value - 5.0).collect();
        let mean = |values: &[f64], drawn: &[usize]| drawn.iter().map(|&i| values[i]).sum::<f64>() / drawn.len() as f64;
        let difference = |a: &[usize], b: &[usize]| Some(mean(&other, b) - mean(&base, a));
        let paired = bootstrap((200, 200), Pairing::Paired, (500, 1), difference).unwrap();
        close(paired.low, -5.0);
        close(paired.high, -5.0);
        let loose = bootstrap((200, 200), Pairing::Independent, (500, 1), difference).unwrap();
        assert!(loose.low < -10.0 && loose.high > 0.0, "{loose:?}");
        assert_eq!(
            bootstrap((200, 200), Pairing::Independent, (500, 1), difference),
            Some(loose),
            "same seed, same interval"
        );
        assert_eq!(bootstrap((200, 100), Pairing::Paired, (10, 1), difference), None);
        assert_eq!(bootstrap((0, 30), Pairing::Independent, (10, 1), difference), None);
    }

    #[test]
    fn a_handful_of_problems_has_no_bootstrap() {
        let first = |drawn: &[usize], _: &[usize]| drawn.first().map(|&index| index as f64);
        for (counts, is_enough) in [((9, 10), false), ((10, 9), false), ((10, 10), true)] {
            assert_eq!(bootstrap(counts, Pairing::Independent, (50, 1), first).is_some(), is_enough, "{counts:?}");
        }
    }

    #[test]
    fn the_bootstrap_agrees_with_the_normal_interval() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let share = |drawn: &[usize], _: &[usize]| Some(drawn.iter().map(|&i| values[i]).sum::<f64>() / 400.0);
        let interval = bootstrap((400, 400), Pairing::Paired, (4000, 9), share).unwrap();
        // Standard error 0.025, so about 0.451 to 0.549.
        assert!((interval.low - 0.451).abs() < 0.006 && (interval.high - 0.549).abs() < 0.006, "{interval:?}");
    }
}
