//! One effort against the reference: ratios with intervals, and where the saving comes from.
//!
//! Only prompts that both efforts answered under the same seed are compared, and prompts are what is drawn at random in
//! the bootstrap: what a prompt has of its own cancels. Every ratio is (this effort) / (reference), so 0.5 is half.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metric::{Metric, Statistic};
use super::record::Record;
use crate::eval::Interval;
use crate::eval::statistics::{Pairing, bootstrap};

/// Draws of the bootstrap.
pub(super) const DRAWS: usize = 2000;

/// A value with its 95 % interval; there is none with fewer than two prompts.
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

/// The saving in time, taken apart.
///
/// Mean time is mean tokens times time per token, so ln(time ratio) = ln(tokens ratio) + ln(time per token ratio), exactly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// Ratio of mean times end to end.
    pub end_to_end: Estimate,
    /// Ratio of mean tokens: what fewer tokens alone would give.
    pub tokens: Estimate,
    /// Ratio of time per token, (sum of times) / (sum of tokens): what faster tokens alone would give.
    pub time_per_token: Estimate,
    /// ln(tokens ratio) / ln(time ratio): the part of the saving that fewer tokens made. Absent where times differ by less
    /// than a percent.
    pub fewer_tokens_share: Option<f64>,
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
    /// Share of correct answers less that of the reference, in [-1, 1].
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
        let interval = (count > 1)
            .then(|| bootstrap((count, count), Pairing::Paired, (DRAWS, seed), |drawn, _| of(drawn)))
            .flatten();
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

    fn split(&self, seed: u64) -> Option<Split> {
        let has_tokens = |record: &Record| record.tokens.filter(|&tokens| tokens > 0).map(|tokens| tokens as f64);
        let times = |left: &Record, right: &Record| {
            has_tokens(left).zip(has_tokens(right)).map(|_| (left.end_to_end, right.end_to_end))
        };
        let tokens = |left: &Record, right: &Record| has_tokens(left).zip(has_tokens(right));
        let sums = |left: &mut [f64], right: &mut [f64]| {
            let below = right.iter().sum::<f64>();
            (below > 0.0).then(|| left.iter().sum::<f64>() / below)
        };
        let end_to_end = self.estimate(seed, times, sums)?;
        let tokens = self.estimate(seed, tokens, sums)?;
        let time_per_token = self.time_per_token(seed, (end_to_end.value, tokens.value));
        let logarithm = end_to_end.value.ln();
        let fewer_tokens_share = (logarithm.abs() > 0.01).then(|| tokens.value.ln() / logarithm);
        Some(Split { end_to_end, tokens, time_per_token, fewer_tokens_share })
    }

    /// The ratio of time per token; its value is the quotient of the other two, so that their logarithms add up exactly.
    fn time_per_token(&self, seed: u64, (end_to_end, tokens): (f64, f64)) -> Estimate {
        let groups: Vec<[f64; 4]> = self
            .groups
            .iter()
            .map(|group| {
                let pairs = group.iter().filter_map(|(left, right)| {
                    let tokens = left.tokens.filter(|&t| t > 0).zip(right.tokens.filter(|&t| t > 0))?;
                    Some([left.end_to_end, tokens.0 as f64, right.end_to_end, tokens.1 as f64])
                });
                pairs.fold([0.0; 4], |sum, pair| std::array::from_fn(|i| sum[i] + pair[i]))
            })
            .filter(|sums| sums[1] > 0.0)
            .collect();
        let of = |drawn: &[usize], _: &[usize]| {
            let [left_time, left_tokens, right_time, right_tokens] = drawn
                .iter()
                .filter_map(|&index| groups.get(index))
                .fold([0.0; 4], |sum: [f64; 4], group| std::array::from_fn(|i| sum[i] + group[i]));
            let ratio = (left_time / left_tokens) / (right_time / right_tokens);
            Some(ratio).filter(|ratio| ratio.is_finite())
        };
        let count = groups.len();
        let interval = (count > 1).then(|| bootstrap((count, count), Pairing::Paired, (DRAWS, seed), of)).flatten();
        Estimate { value: end_to_end / tokens, interval }
    }

    fn accuracy_difference(&self, seed: u64) -> Option<Estimate> {
        let mark = |correct: Option<bool>| correct.map(|correct| f64::from(u8::from(correct)));
        let value = |left: &Record, right: &Record| mark(left.correct).zip(mark(right.correct));
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        self.estimate(seed, value, |left, right| Some(mean(left) - mean(right)))
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
            split: pairs.split(seed),
            accuracy_difference: pairs.accuracy_difference(seed),
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
        assert!(accuracy.interval.unwrap().low < -0.1 && accuracy.interval.unwrap().high <= 0.0);
    }

    #[test]
    fn the_parts_of_a_saving_add_up() {
        let mut records = records();
        for (index, record) in records.iter_mut().enumerate() {
            record.end_to_end += 0.1 * (index % 7) as f64;
            record.tokens = record.tokens.map(|tokens| tokens + index as u64 % 5);
        }
        let split = compare(&records, 1).split.unwrap();
        let parts = split.tokens.value.ln() + split.time_per_token.value.ln();
        assert!((parts - split.end_to_end.value.ln()).abs() < 1e-12);
        let share = split.fewer_tokens_share.unwrap();
        assert!((share - split.tokens.value.ln() / split.end_to_end.value.ln()).abs() < 1e-12);
        for estimate in [split.end_to_end, split.tokens, split.time_per_token] {
            let interval = estimate.interval.unwrap();
            assert!(interval.low <= estimate.value && estimate.value <= interval.high, "{estimate:?}");
        }
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
        assert_eq!(comparison.split.unwrap().fewer_tokens_share, None);
        assert_eq!(compare(&[], 1).pairs, 0);
    }
}
