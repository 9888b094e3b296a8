//! One effort against the reference: ratios with intervals, and the difference in accuracy.
//!
//! Only prompts that both efforts answered under the same seed are compared, and prompts are what is drawn at random in
//! the bootstrap: what a prompt has of its own cancels. Every ratio is (this effort) / (reference), so 0.5 is half. Right and
//! wrong answers have a score interval instead, because a bootstrap of marks that all agree has no width.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metric::{Metric, Statistic};
use super::record::Record;
use super::split::Split;
use crate::eval::Interval;
use crate::eval::statistics::{Pairing, Tally, bootstrap, paired_difference};

/// Draws of the bootstrap.
pub(super) const DRAWS: usize = 2000;

/// A value with its 95 % interval; a ratio has none with fewer prompts than a bootstrap needs
/// ([`crate::eval::statistics::FEWEST`]).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Where it lies with 95 % confidence.
    pub interval: Option<Interval>,
}

/// The ratio of a figure of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Of what.
    pub metric: Metric,
    /// Which figure.
    pub statistic: Statistic,
    /// This effort over the reference.
    #[serde(flatten)]
    pub ratio: Estimate,
}

/// One effort against the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The effort.
    pub effort: String,
    /// What it is compared with.
    pub reference: String,
    /// Pairs of requests that both ended well.
    pub pairs: usize,
    /// Prompts that these are from.
    pub prompts: usize,
    /// Ratios of what was measured.
    pub ratios: Vec<Ratio>,
    /// Where the saving in time comes from.
    pub split: Option<Split>,
    /// Share of correct answers less that of the reference, in [-1, 1], with the interval of
    /// [`paired_difference`].
    pub accuracy_difference: Option<Estimate>,
}

/// The figures whose ratios are reported.
const RATIOS: [(Metric, Statistic); 10] = [
    (Metric::EndToEnd, Statistic::Mean),
    (Metric::EndToEnd, Statistic::P50),
    (Metric::EndToEnd, Statistic::P95),
    (Metric::TimeToFirstToken, Statistic::Mean),
    (Metric::TimeToFirstToken, Statistic::P50),
    (Metric::TimeToFirstToken, Statistic::P95),
    (Metric::TimeToFirstAnswerToken, Statistic::P50),
    (Metric::Tokens, Statistic::Mean),
    (Metric::Tokens, Statistic::P50),
    (Metric::Cost, Statistic::Mean),
];

/// Pairs of requests by prompt.
pub struct Pairs<'a> {
    groups: Vec<Vec<(&'a Record, &'a Record)>>,
}

impl<'a> Pairs<'a> {
    /// The pairs among `records` (left) and `reference` (right): the same prompt, repetition and seed, both ended well.
    pub fn of(records: &[&'a Record], reference: &[&'a Record]) -> Self {
        let key = |record: &Record| (record.prompt.clone(), record.repetition, record.seed);
        let mut right = BTreeMap::new();
        for record in reference.iter().filter(|record| record.succeeded()) {
            right.entry(key(record)).or_insert(*record);
        }
        let mut groups: BTreeMap<&str, Vec<(&Record, &Record)>> = BTreeMap::new();
        for record in records.iter().filter(|record| record.succeeded()) {
            if let Some(twin) = right.remove(&key(record)) {
                groups.entry(&record.prompt).or_default().push((*record, twin));
            }
        }
        for group in groups.values_mut() {
            group.sort_by_key(|(record, _)| record.repetition);
        }
        Self { groups: groups.into_values().collect() }
    }

    /// How many pairs there are.
    pub fn count(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// A statistic of two sides' values with its bootstrap interval. `value` picks both sides' values of a pair; pairs
    /// without are left out.
    fn estimate(
        &self,
        seed: u64,
        value: impl Fn(&Record, &Record) -> Option<(f64, f64)>,
        statistic: impl Fn(&mut [f64], &mut [f64]) -> Option<f64>,
    ) -> Option<Estimate> {
        let groups: Vec<Vec<(f64, f64)>> = self
            .groups
            .iter()
            .map(|group| group.iter().filter_map(|(left, right)| value(left, right)).collect::<Vec<_>>())
            .filter(|group| !group.is_empty())
            .collect();
        let of = |drawn: &[usize]| {
            let (mut left, mut right): (Vec<f64>, Vec<f64>) =
                drawn.iter().filter_map(|&index| groups.get(index)).flatten().copied().unzip();
            statistic(&mut left, &mut right).filter(|value| value.is_finite())
        };
        let all: Vec<usize> = (0..groups.len()).collect();
        let value = of(&all)?;
        let count = groups.len();
        let interval = bootstrap((count, count), Pairing::Paired, (DRAWS, seed), |drawn, _| of(drawn));
        Some(Estimate { value, interval })
    }

    /// The ratio of a figure, left over right.
    pub fn ratio(&self, metric: Metric, statistic: Statistic, seed: u64) -> Option<Estimate> {
        let value = |left: &Record, right: &Record| left.value(metric).zip(right.value(metric));
        self.estimate(seed, value, |left, right| {
            let below = statistic.of(right).filter(|&below| below > 0.0)?;
            Some(statistic.of(left)? / below)
        })
    }

    /// Pairs by prompt.
    pub(super) fn groups(&self) -> &[Vec<(&'a Record, &'a Record)>] {
        &self.groups
    }

    /// Left less right, over pairs of which both were graded.
    fn accuracy_difference(&self) -> Option<Estimate> {
        let add = |tally: Tally, correct: bool| Tally {
            correct: tally.correct + usize::from(correct),
            samples: tally.samples + 1,
        };
        let none = Tally { correct: 0, samples: 0 };
        let tallies: Vec<(Tally, Tally)> = self
            .groups
            .iter()
            .map(|group| {
                let graded = group.iter().filter_map(|(left, right)| left.correct.zip(right.correct));
                graded.fold((none, none), |(left, right), (one, two)| (add(left, one), add(right, two)))
            })
            .collect();
        let (value, interval) = paired_difference(&tallies)?;
        Some(Estimate { value, interval: Some(interval) })
    }
}

impl Comparison {
    /// Compares the records of an effort with those of the reference; `seed` decides the draws of the bootstrap.
    pub fn of((effort, records): (&str, &[&Record]), (reference, others): (&str, &[&Record]), seed: u64) -> Self {
        let pairs = Pairs::of(records, others);
        let ratio = |&(metric, statistic): &(Metric, Statistic)| {
            let ratio = pairs.ratio(metric, statistic, seed)?;
            Some(Ratio { metric, statistic, ratio })
        };
        Self {
            effort: effort.to_owned(),
            reference: reference.to_owned(),
            pairs: pairs.count(),
            prompts: pairs.groups.len(),
            ratios: RATIOS.iter().filter_map(ratio).collect(),
            split: Split::of(&pairs, seed),
            accuracy_difference: pairs.accuracy_difference(),
        }
    }

    /// One of its ratios.
    pub fn ratio(&self, metric: Metric, statistic: Statistic) -> Option<Estimate> {
        self.ratios.iter().find(|ratio| (ratio.metric, ratio.statistic) == (metric, statistic)).map(|ratio| ratio.ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty prompts: `low` takes half the tokens and, per token, four fifths of the time of `high`.
    fn records() -> Vec<Record> {
        let one = |index: u64, effort: &str, tokens: u64, per_token: f64| Record {
            tokens: Some(tokens),
            end_to_end: tokens as f64 * per_token,
            time_to_first_token: Some(per_token),
            correct: Some(!index.is_multiple_of(10) || effort == "high"),
            ..Record::sample(&format!("p{index}"), effort)
        };
        let both = |index| [one(index, "high", 100 + 10 * index, 0.01), one(index, "low", 50 + 5 * index, 0.008)];
        (0..20).flat_map(both).collect()
    }

    fn compare(records: &[Record], seed: u64) -> Comparison {
        let of = |effort: &str| records.iter().filter(|record| record.effort == effort).collect::<Vec<_>>();
        Comparison::of(("low", &of("low")), ("high", &of("high")), seed)
    }

    #[test]
    fn exact_proportions_give_exact_ratios_and_no_width() {
        let comparison = compare(&records(), 1);
        assert_eq!((comparison.pairs, comparison.prompts), (20, 20));
        let ratio = comparison.ratio(Metric::EndToEnd, Statistic::P95).unwrap();
        let interval = ratio.interval.unwrap();
        assert!((ratio.value - 0.4).abs() < 1e-12);
        assert!((interval.low - 0.4).abs() < 1e-12 && (interval.high - 0.4).abs() < 1e-12, "{interval:?}");
        assert!((comparison.ratio(Metric::Tokens, Statistic::Mean).unwrap().value - 0.5).abs() < 1e-12);
        assert!((comparison.ratio(Metric::TimeToFirstToken, Statistic::P50).unwrap().value - 0.8).abs() < 1e-12);
        assert_eq!(comparison.ratio(Metric::Cost, Statistic::Mean), None);
        let accuracy = comparison.accuracy_difference.unwrap();
        assert!((accuracy.value + 0.1).abs() < 1e-12);
        // Two of twenty lost and none won: the interval reaches past 0.
        assert!(accuracy.interval.unwrap().low < -0.1 && accuracy.interval.unwrap().high > 0.0);
    }

    #[test]
    fn accuracy_that_agrees_everywhere_is_not_certain() {
        let mut records = records();
        records.iter_mut().for_each(|record| record.correct = Some(true));
        let Estimate { value, interval } = compare(&records, 1).accuracy_difference.unwrap();
        let interval = interval.unwrap();
        // z^2 / (n + z^2) for twenty prompts.
        assert!(
            value == 0.0 && (interval.high - 0.161_125).abs() < 1e-6 && interval.low == -interval.high,
            "{interval:?}"
        );
        records.iter_mut().for_each(|record| record.correct = None);
        assert_eq!(compare(&records, 1).accuracy_difference, None);
    }

    #[test]
    fn the_same_seed_gives_the_same_intervals() {
        let mut records = records();
        for (index, record) in records.iter_mut().enumerate() {
            record.end_to_end += 0.1 * (index % 7) as f64;
        }
        assert_eq!(compare(&records, 7), compare(&records, 7));
        assert_ne!(compare(&records, 7).ratios, compare(&records, 8).ratios);
        records.reverse();
        assert_eq!(compare(&records, 7).ratios.len(), 9);
    }

    #[test]
    fn only_whole_pairs_that_ended_well_count() {
        let mut records = records();
        records[0].error = Some("timeout".to_owned());
        records[3].seed = 99;
        records.pop();
        assert_eq!(compare(&records, 1).pairs, 17);
        let lonely = [Record::sample("p", "low"), Record::sample("p", "high")];
        let comparison = compare(&lonely, 1);
        assert_eq!(comparison.ratio(Metric::EndToEnd, Statistic::Mean), Some(Estimate { value: 1.0, interval: None }));
        assert_eq!(comparison.split.unwrap().pairs, 1);
        assert_eq!(compare(&[], 1).pairs, 0);
    }
}
