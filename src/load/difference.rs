//! Two runs against each other: two builds, two engines, two machines; and whether the second is worse than allowed.
//!
//! Figures come from the summaries. Where both runs kept their requests, ratios get bootstrap intervals: over pairs where
//! the same prompts were asked under the same seeds, else over each run's prompts on their own.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use brevity_training::{Error, Result};

use super::comparison::{DRAWS, Estimate, Pairs};
use super::metric::{Metric, Statistic};
use super::record::{Record, by_prompt, compared};
use super::summary::Summary;
use super::table;
use crate::eval::statistics::{Pairing, bootstrap};
use crate::report::{Align, Table, number};

/// What stands in place of an effort for what all of a mixed run got done together.
const TOGETHER: &str = "(all efforts)";

/// What two runs are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// A figure of a metric.
    Figure(Metric, Statistic),
    /// Requests that ended well, a second: of all efforts together, or in a sweep of each at its peak.
    RequestsPerSecond,
    /// Completion tokens a second, of the same.
    TokensPerSecond,
    /// The share of requests that failed. Its change is a difference, not a ratio: it is often 0.
    Failed,
    /// The share of correct answers. Its change is a difference, not a ratio.
    Accuracy,
}

impl Quantity {
    /// Its value for an effort, or for [`TOGETHER`].
    fn of(self, summary: &Summary, name: &str) -> Option<f64> {
        let effort = summary.efforts.iter().find(|effort| effort.effort == name);
        // In a sweep, what the server gave at most; else it is that of the whole run.
        let peak = summary.saturation.iter().find(|saturation| saturation.effort == name).map(|s| s.peak);
        let total = summary.total.filter(|_| name == TOGETHER);
        match self {
            Self::Figure(metric, statistic) => effort?.metrics.get(&metric).map(|figures| figures.get(statistic)),
            Self::RequestsPerSecond => {
                peak.map(|peak| peak.requests_per_second).or(total.map(|total| total.requests_per_second))
            }
            Self::TokensPerSecond => {
                peak.map(|peak| peak.tokens_per_second).or(total.map(|total| total.tokens_per_second))
            }
            Self::Failed => effort
                .filter(|effort| effort.requests > 0)
                .map(|effort| 1.0 - effort.succeeded as f64 / effort.requests as f64),
            Self::Accuracy => effort?.accuracy.map(|accuracy| accuracy.value),
        }
    }

    /// Whether it is a share, whose changes are differences.
    fn is_share(self) -> bool {
        matches!(self, Self::Failed | Self::Accuracy)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Figure(metric, statistic) => write!(formatter, "{}.{}", metric.names().1, statistic.name()),
            Self::RequestsPerSecond => formatter.write_str("requests_per_second"),
            Self::TokensPerSecond => formatter.write_str("tokens_per_second"),
            Self::Failed => formatter.write_str("failed"),
            Self::Accuracy => formatter.write_str("accuracy"),
        }
    }
}

impl FromStr for Quantity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "requests_per_second" => Ok(Self::RequestsPerSecond),
            "tokens_per_second" => Ok(Self::TokensPerSecond),
            "failed" => Ok(Self::Failed),
            "accuracy" => Ok(Self::Accuracy),
            _ => match text.split_once('.') {
                Some((metric, statistic)) => Ok(Self::Figure(metric.parse()?, statistic.parse()?)),
                // The short form is about the whole of a request.
                None => Ok(Self::Figure(Metric::EndToEnd, text.parse()?)),
            },
        }
    }
}

/// A change that is too much, such as `e2e.p95:+10%`: with `+`, more than so much more; with `-`, more than so much less.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Of what.
    pub quantity: Quantity,
    /// The change, as a share, with its sign.
    pub change: f64,
}

impl Threshold {
    /// Whether `change` is beyond it.
    pub fn is_exceeded(&self, change: f64) -> bool {
        if self.change.is_sign_negative() { change < self.change } else { change > self.change }
    }
}

impl FromStr for Threshold {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let message = "write QUANTITY:+N% or QUANTITY:-N%, such as e2e.p95:+10% or requests_per_second:-5%";
            Error::config(format!("`{text}` is no threshold; {message}"))
        };
        let (quantity, change) = text.split_once(':').ok_or_else(wrong)?;
        let percent = change.trim().strip_suffix('%').ok_or_else(wrong)?;
        if !percent.starts_with(['+', '-']) {
            return Err(wrong());
        }
        let change = percent.parse::<f64>().ok().filter(|change| change.is_finite()).ok_or_else(wrong)?;
        Ok(Self { quantity: quantity.trim().parse()?, change: change / 100.0 })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.change.is_sign_negative() { '-' } else { '+' };
        write!(formatter, "{}:{sign}{}%", self.quantity, (self.change.abs() * 1e4).round() / 1e2)
    }
}

/// How a quantity of an effort changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The effort, or that it is about all efforts together.
    pub effort: String,
    /// What changed.
    pub quantity: Quantity,
    /// Its value in the first run.
    pub before: Option<f64>,
    /// Its value in the second.
    pub after: Option<f64>,
    /// After over before, less one; for shares, after less before.
    pub change: Option<f64>,
    /// After over before with its interval, for figures of requests that both runs kept.
    pub ratio: Option<Estimate>,
}

/// A run with its requests, if they were kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// `summary.json`.
    pub summary: Summary,
    /// `requests.jsonl`.
    pub records: Option<Vec<Record>>,
}

/// Two runs against each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Every quantity of every effort that either run has.
    pub changes: Vec<Change>,
}

/// What is always shown.
const SHOWN: [Quantity; 9] = [
    Quantity::Figure(Metric::EndToEnd, Statistic::Mean),
    Quantity::Figure(Metric::EndToEnd, Statistic::P50),
    Quantity::Figure(Metric::EndToEnd, Statistic::P95),
    Quantity::Figure(Metric::TimeToFirstToken, Statistic::P50),
    Quantity::Figure(Metric::TimeToFirstToken, Statistic::P95),
    Quantity::Figure(Metric::Tokens, Statistic::Mean),
    Quantity::RequestsPerSecond,
    Quantity::Accuracy,
    Quantity::Failed,
];

impl Difference {
    /// Compares `after` with `before`; what `thresholds` are about is compared too.
    pub fn of(before: &Run, after: &Run, thresholds: &[Threshold]) -> Self {
        let mut quantities = SHOWN.to_vec();
        for threshold in thresholds {
            if !quantities.contains(&threshold.quantity) {
                quantities.push(threshold.quantity);
            }
        }
        let mut efforts: Vec<&str> = Vec::new();
        for effort in before.summary.efforts.iter().chain(&after.summary.efforts) {
            if !efforts.contains(&effort.effort.as_str()) {
                efforts.push(&effort.effort);
            }
        }
        efforts.push(TOGETHER);
        let change = |effort: &str, quantity: Quantity| {
            let of = |run: &Run| quantity.of(&run.summary, effort);
            let (old, new) = (of(before), of(after));
            let change = old.zip(new).map(|(old, new)| match quantity.is_share() {
                true => new - old,
                // From nothing to something is beyond every limit.
                false if new == old => 0.0,
                false => new / old - 1.0,
            });
            let ratio = match quantity {
                // Gaps are not in the file of requests.
                Quantity::Figure(metric, statistic) if metric != Metric::InterToken => {
                    ratio(before, after, effort, (metric, statistic))
                }
                _ => None,
            };
            Change { effort: effort.to_owned(), quantity, before: old, after: new, change, ratio }
        };
        let all = efforts.into_iter().flat_map(|effort| quantities.iter().map(move |&quantity| (effort, quantity)));
        Self { changes: all.map(|(effort, quantity)| change(effort, quantity)).collect() }
    }

    /// Thresholds that were exceeded, one sentence each. A quantity that the first run had and the second has not counts
    /// as exceeded: a server that answers nothing is not faster.
    pub fn exceeded(&self, thresholds: &[Threshold]) -> Vec<String> {
        let check = |threshold: &Threshold, change: &Change| match (change.before, change.after, change.change) {
            (Some(_), None, _) => Some(format!("{}: {} is gone", change.effort, change.quantity)),
            (_, _, Some(by)) if threshold.is_exceeded(by) => {
                let by = if by.is_finite() { number::signed_percent(by, 1) } else { "+∞ %".to_owned() };
                Some(format!("{}: {} changed by {by}, beyond {threshold}", change.effort, change.quantity))
            }
            _ => None,
        };
        thresholds
            .iter()
            .flat_map(|threshold| {
                let about = self.changes.iter().filter(move |change| change.quantity == threshold.quantity);
                about.filter_map(move |change| check(threshold, change))
            })
            .collect()
    }

    /// Whether two runs measured the same efforts, in whatever order. Where not, what all efforts together got done differs by
    /// that alone.
    pub fn has_same_efforts(before: &Run, after: &Run) -> bool {
        let efforts =
            |run: &Run| run.summary.efforts.iter().map(|effort| effort.effort.clone()).collect::<BTreeSet<String>>();
        efforts(before) == efforts(after)
    }

    /// Whether the first run has what `threshold` is about, for some effort.
    pub fn covers(&self, threshold: &Threshold) -> bool {
        self.changes.iter().any(|change| change.quantity == threshold.quantity && change.before.is_some())
    }

    /// The comparison as a table.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            ("effort", Align::Left),
            ("quantity", Align::Left),
            ("first", Align::Right),
            ("second", Align::Right),
            ("change", Align::Left),
        ]);
        for change in self.changes.iter().filter(|change| change.before.is_some() || change.after.is_some()) {
            let shown = |value: Option<f64>| {
                value.map_or_else(
                    || "–".to_owned(),
                    |value| match change.quantity {
                        Quantity::Figure(metric, _) => table::value(metric, value),
                        Quantity::Failed | Quantity::Accuracy => number::percent(value, 1),
                        Quantity::RequestsPerSecond | Quantity::TokensPerSecond => table::rate(value),
                    },
                )
            };
            let by = match (change.ratio, change.change) {
                (Some(ratio), _) => table::change(Some(ratio)),
                (None, Some(by)) if change.quantity.is_share() => format!("{} points", number::signed(by * 100.0, 1)),
                (None, by) => by.map_or_else(|| "–".to_owned(), |by| number::signed_percent(by, 1)),
            };
            table.push([
                change.effort.clone(),
                change.quantity.to_string(),
                shown(change.before),
                shown(change.after),
                by,
            ]);
        }
        table
    }
}

/// After over before with its interval.
fn ratio<'a>(
    before: &'a Run,
    after: &'a Run,
    effort: &str,
    (metric, statistic): (Metric, Statistic),
) -> Option<Estimate> {
    let seed = after.summary.head.seed;
    let of = |run: &'a Run| -> Option<Vec<&'a Record>> {
        let records = compared(run.records.as_ref()?, effort).into_iter();
        Some(records.filter(|record| record.succeeded()).collect())
    };
    let (old, new) = (of(before)?, of(after)?);
    let pairs = Pairs::of(&new, &old);
    if pairs.count() == old.len() && pairs.count() == new.len() {
        return pairs.ratio(metric, statistic, seed);
    }
    let (old, new) = (by_prompt(&old, metric), by_prompt(&new, metric));
    let figure = |groups: &[Vec<f64>], drawn: &[usize]| {
        let picked = drawn.iter().filter_map(|&index| groups.get(index)).flatten().copied();
        statistic.of(&mut picked.collect::<Vec<f64>>())
    };
    let over = |left: &[usize], right: &[usize]| {
        let below = figure(&old, right).filter(|&below| below > 0.0)?;
        Some(figure(&new, left)? / below)
    };
    let all = |groups: &[Vec<f64>]| (0..groups.len()).collect::<Vec<_>>();
    let value = over(&all(&new), &all(&old))?;
    // One prompt varies with nothing: no interval.
    let counts = (new.len(), old.len());
    let is_enough = counts.0 > 1 && counts.1 > 1;
    let interval = is_enough.then(|| bootstrap(counts, Pairing::Independent, (DRAWS, seed), over)).flatten();
    Some(Estimate { value, interval })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::summary::tests::{head, summary};

    fn run(records: Vec<Record>, keep: bool) -> Run {
        let summary = summary(head(), &["low"], &records);
        Run { summary, records: keep.then_some(records) }
    }

    fn records(scale: f64) -> Vec<Record> {
        let one = |index: u32| Record {
            end_to_end: scale * f64::from(index + 1),
            ..Record::sample(&format!("p{index}"), "low")
        };
        (0..20).map(one).collect()
    }

    #[test]
    fn thresholds_are_read_and_written() {
        let threshold: Threshold = "p95:+10%".parse().unwrap();
        assert_eq!(threshold, "e2e.p95:+10%".parse().unwrap());
        assert_eq!(threshold.to_string(), "e2e.p95:+10%");
        assert!(threshold.is_exceeded(0.11) && !threshold.is_exceeded(0.1) && !threshold.is_exceeded(-0.5));
        let threshold: Threshold = "requests_per_second:-5%".parse().unwrap();
        assert!(threshold.is_exceeded(-0.06) && !threshold.is_exceeded(0.5));
        assert_eq!("ttft.mean:+2.5%".parse::<Threshold>().unwrap().to_string(), "ttft.mean:+2.5%");
        for wrong in ["p95", "p95:10%", "p95:+10", "p42:+1%", "speed.p50:+1%", "p95:+x%", ""] {
            assert!(wrong.parse::<Threshold>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_slower_run_exceeds_and_an_equal_one_does_not() {
        let thresholds = ["p95:+10%".parse().unwrap(), "failed:+1%".parse().unwrap()];
        let before = run(records(1.0), true);
        let same = Difference::of(&before, &before, &thresholds);
        assert_eq!(same.exceeded(&thresholds), Vec::<String>::new());
        let slower = Difference::of(&before, &run(records(1.2), true), &thresholds);
        assert_eq!(slower.exceeded(&thresholds), ["low: e2e.p95 changed by +20.0 %, beyond e2e.p95:+10%"]);
        let change = slower.changes.iter().find(|change| change.quantity == thresholds[0].quantity).unwrap();
        let ratio = change.ratio.unwrap();
        assert!((ratio.value - 1.2).abs() < 1e-9 && (ratio.interval.unwrap().low - 1.2).abs() < 1e-9, "{ratio:?}");
        assert!(slower.table().to_terminal().contains("+20.0 % (+20.0 … +20.0)"));
    }

    #[test]
    fn a_run_that_answers_nothing_is_not_faster() {
        let threshold = ["p95:+10%".parse().unwrap()];
        let mut failed = records(1.0);
        failed.iter_mut().for_each(|record| record.error = Some("timeout".to_owned()));
        let gone = Difference::of(&run(records(1.0), false), &run(failed, false), &threshold);
        assert_eq!(gone.exceeded(&threshold), ["low: e2e.p95 is gone"]);
        let never = ["cost.mean:+1%".parse().unwrap()];
        let difference = Difference::of(&run(records(1.0), false), &run(records(1.0), false), &never);
        assert!(!difference.covers(&never[0]) && difference.exceeded(&never).is_empty());
    }

    #[test]
    fn throughput_is_compared_for_the_whole_run() {
        let threshold = ["requests_per_second:-5%".parse().unwrap()];
        let (before, after) = (run(records(1.0), false), run(records(1.0)[..10].to_vec(), false));
        let difference = Difference::of(&before, &after, &threshold);
        assert!(difference.covers(&threshold[0]) && Difference::has_same_efforts(&before, &after));
        let said = difference.exceeded(&threshold);
        assert_eq!(said, ["(all efforts): requests_per_second changed by −50.0 %, beyond requests_per_second:-5%"]);
        let other = Run { summary: summary(head(), &["low", "high"], &records(1.0)), records: None };
        assert!(!Difference::has_same_efforts(&before, &other));
    }

    #[test]
    fn runs_with_other_prompts_are_compared_on_their_own() {
        let mut others = records(1.0);
        others.iter_mut().for_each(|record| record.prompt.push('x'));
        let difference = Difference::of(&run(records(1.0), true), &run(others, true), &[]);
        let change = &difference.changes[0];
        let interval = change.ratio.unwrap().interval.unwrap();
        assert!(interval.low < 0.8 && interval.high > 1.2, "{interval:?}");
    }
}
