//! Two runs against each other: two builds, two engines, two machines; and whether the second is worse than allowed.
//!
//! Figures come from the summaries. Where both runs kept their requests, ratios get bootstrap intervals: over pairs where
//! the same prompts were asked under the same seeds, else over each run's prompts on their own. Of two sweeps, the lightest
//! load, the peak and the failures under all loads are compared, and every load that both had.

use std::collections::BTreeSet;

use super::comparison::{DRAWS, Estimate, Pairs};
use super::metric::{Metric, Statistic};
use super::quantity::{Quantity, TOGETHER, Threshold};
use super::record::{Record, by_prompt, compared};
use super::summary::{StageSummary, Summary};
use super::table;
use crate::eval::statistics::{Pairing, bootstrap};
use crate::report::{Align, Table, number};

/// How a quantity of an effort changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The effort, or that it is about all efforts together.
    pub effort: String,
    /// Of which load of a sweep; absent without a sweep.
    pub load: Option<String>,
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
        let mut changes: Vec<Change> = Vec::new();
        for effort in efforts {
            changes.extend(quantities.iter().map(|&quantity| Change::of(before, after, effort, quantity)));
            for pair in stages(before, after, effort) {
                let under = quantities.iter().filter_map(|&quantity| Change::of_stage(before, after, pair, quantity));
                let new: Vec<Change> = under.filter(|change| !changes.iter().any(|old| old.is_about(change))).collect();
                changes.extend(new);
            }
        }
        Self { changes }
    }

    /// Loads of the first sweep that the second did not have.
    pub fn unmatched(before: &Run, after: &Run) -> usize {
        let has_twin = |stage: &&StageSummary| after.summary.stages.iter().any(|other| is_twin(stage, other));
        before.summary.stages.len() - before.summary.stages.iter().filter(has_twin).count()
    }

    /// Thresholds that were exceeded, one sentence each. A quantity that the first run had and the second has not counts
    /// as exceeded: a server that answers nothing is not faster.
    pub fn exceeded(&self, thresholds: &[Threshold]) -> Vec<String> {
        let check = |threshold: &Threshold, change: &Change| match (change.before, change.after, change.change) {
            (Some(_), None, _) => Some(format!("{}: {} is gone", change.about(), change.quantity)),
            (_, _, Some(by)) if threshold.is_exceeded(by) => {
                let by = if by.is_finite() { number::signed_percent(by, 1) } else { "+∞ %".to_owned() };
                Some(format!("{}: {} changed by {by}, beyond {threshold}", change.about(), change.quantity))
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

    /// Whether both runs are sweeps or neither: what one load got done is not what a server can do at most.
    pub fn is_same_kind(before: &Run, after: &Run) -> bool {
        before.summary.stages.is_empty() == after.summary.stages.is_empty()
    }

    /// Whether the first run has what `threshold` is about, for some effort.
    pub fn covers(&self, threshold: &Threshold) -> bool {
        self.changes.iter().any(|change| change.quantity == threshold.quantity && change.before.is_some())
    }

    /// The comparison as a table.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            ("effort", Align::Left),
            ("load", Align::Left),
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
                change.load.clone().unwrap_or_default(),
                change.quantity.to_string(),
                shown(change.before),
                shown(change.after),
                by,
            ]);
        }
        table.without_empty("")
    }
}

/// A stage of each of two sweeps: its place in the run, and what it found.
type Twins<'a> = [(usize, &'a StageSummary); 2];

/// The stages of an effort under loads that both sweeps had, each with its twin.
fn stages<'a>(before: &'a Run, after: &'a Run, effort: &str) -> Vec<Twins<'a>> {
    let own = before.summary.stages.iter().enumerate().filter(|(_, stage)| stage.effort == effort);
    let twins = own.filter_map(|one| {
        let other = after.summary.stages.iter().enumerate().find(|(_, other)| is_twin(one.1, other))?;
        Some([one, other])
    });
    twins.collect()
}

/// Whether two stages are of the same effort under the same load.
fn is_twin(one: &StageSummary, other: &StageSummary) -> bool {
    (&one.effort, one.users, one.offered) == (&other.effort, other.users, other.offered)
}

impl Change {
    /// Of an effort: in sweeps, of its lightest load, its peak, or all of its loads.
    fn of(before: &Run, after: &Run, effort: &str, quantity: Quantity) -> Self {
        let of = |run: &Run| quantity.of(&run.summary, effort);
        let records = |run| answered(run, |records| compared(records, effort));
        let lightest = |run: &Run| Some(run.summary.stages.iter().find(|stage| stage.effort == effort)?.load());
        let load = lightest(before).zip(lightest(after)).map(|(one, other)| match one == other {
            true => quantity.load(&one),
            false => quantity.load(&format!("{one} and {other}")),
        });
        Self { effort: effort.to_owned(), load, ..Self::from(quantity, [of(before), of(after)]) }
            .with_ratio(after.summary.head.seed, || Some((records(before)?, records(after)?)))
    }

    /// Under a load that both sweeps had. `None` where that load was too much for the first already and the times are those
    /// of a queue, which only tell how long it was let grow.
    fn of_stage(before: &Run, after: &Run, [old, new]: Twins<'_>, quantity: Quantity) -> Option<Self> {
        if old.1.saturated && matches!(quantity, Quantity::Figure(..)) {
            return None;
        }
        let (effort, load) = (old.1.effort.clone(), Some(old.1.load()));
        let change =
            Self { effort, load, ..Self::from(quantity, [old, new].map(|(_, stage)| quantity.of_stage(stage))) };
        let records = |run, index| {
            answered(run, |records: &[Record]| records.iter().filter(|record| record.stage == index).collect())
        };
        let both = || Some((records(before, old.0)?, records(after, new.0)?));
        (change.before.is_some() || change.after.is_some()).then(|| change.with_ratio(after.summary.head.seed, both))
    }

    fn from(quantity: Quantity, [before, after]: [Option<f64>; 2]) -> Self {
        let change = before.zip(after).map(|(old, new)| quantity.change(old, new));
        Self { effort: String::new(), load: None, quantity, before, after, change, ratio: None }
    }

    /// With the interval that the requests of both runs give, where there are such.
    fn with_ratio<'a>(self, seed: u64, records: impl FnOnce() -> Option<(Vec<&'a Record>, Vec<&'a Record>)>) -> Self {
        let ratio = match self.quantity {
            // Gaps are not in the file of requests.
            Quantity::Figure(metric, statistic) if metric != Metric::InterToken => {
                records().and_then(|(old, new)| ratio(&old, &new, (metric, statistic), seed))
            }
            _ => None,
        };
        Self { ratio, ..self }
    }

    /// Whether it is about the same as another.
    fn is_about(&self, other: &Self) -> bool {
        (&self.effort, &self.load, self.quantity) == (&other.effort, &other.load, other.quantity)
    }

    /// The effort with the load, if there is one: `low, 8 users`.
    fn about(&self) -> String {
        self.load.as_ref().map_or_else(|| self.effort.clone(), |load| format!("{}, {load}", self.effort))
    }
}

/// Those of a run's requests that `of` picks and that ended well, if they were kept.
fn answered(run: &Run, of: impl FnOnce(&[Record]) -> Vec<&Record>) -> Option<Vec<&Record>> {
    let mut records = of(run.records.as_ref()?);
    records.retain(|record| record.succeeded());
    Some(records)
}

/// After over before with its interval.
fn ratio(old: &[&Record], new: &[&Record], (metric, statistic): (Metric, Statistic), seed: u64) -> Option<Estimate> {
    let pairs = Pairs::of(new, old);
    if pairs.count() == old.len() && pairs.count() == new.len() {
        return pairs.ratio(metric, statistic, seed);
    }
    let (old, new) = (by_prompt(old, metric), by_prompt(new, metric));
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
    let interval = bootstrap((new.len(), old.len()), Pairing::Independent, (DRAWS, seed), over);
    Some(Estimate { value, interval })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::drive::Pace;
    use crate::load::run::{Finished, Peak, StageRun};
    use crate::load::summary::Aims;
    use crate::load::summary::tests::{head, judged, summary};
    use crate::load::throughput::Throughput;

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

    /// A sweep over 1 and 8 users that ended with so many failures under 8, every answer taking `scale` times the usual.
    fn sweep(failed: usize, scale: f64, saturated: bool) -> Run {
        let efforts = ["low".to_owned()];
        let stage = |users: usize, saturated: bool| StageRun {
            effort: Some(0),
            pace: Pace::Concurrency(users),
            began: 0.0,
            seconds: 10.0,
            throughput: Throughput { requests_per_second: users as f64, ..Throughput::default() },
            saturated,
        };
        let run = Finished {
            stages: vec![stage(1, false), stage(8, saturated)],
            peaks: vec![Peak { requests_per_second: 8.0, saturated }],
            seconds: 20.0,
            warm_up: 0,
            cpu_seconds: None,
            abandoned: 0,
            interrupted: false,
        };
        let mut all = records(1.0);
        all.extend(records(scale).into_iter().map(|record| Record { stage: 1, ..record }));
        all.iter_mut().rev().take(failed).for_each(|record| record.error = Some("http 503".to_owned()));
        let aims = Aims { efforts: &efforts, objectives: None };
        Run { summary: Summary::of(head(), &aims, &run, &judged(&all)), records: Some(all) }
    }

    #[test]
    fn a_sweep_that_fails_under_higher_loads_is_seen() {
        let thresholds = ["failed:+1%".parse().unwrap(), "p50:+10%".parse().unwrap()];
        let before = sweep(0, 1.0, false);
        assert_eq!(Difference::of(&before, &before, &thresholds).exceeded(&thresholds), Vec::<String>::new());
        let refusing = Difference::of(&before, &sweep(19, 1.0, false), &thresholds[..1]);
        let said = refusing.exceeded(&thresholds[..1]);
        assert_eq!(
            said,
            [
                "low, all loads: failed changed by +47.5 %, beyond failed:+1%",
                "low, 8 users: failed changed by +95.0 %, beyond failed:+1%"
            ]
        );
        let slower = Difference::of(&before, &sweep(0, 1.5, true), &thresholds);
        let said = slower.exceeded(&thresholds);
        assert_eq!(said, ["low, 8 users: e2e.p50 changed by +50.0 %, beyond e2e.p50:+10%"]);
        let shown = |difference: &Difference, quantity: &str| {
            difference.table().rows().iter().any(|row| row[1] == "8 users" && row[2] == quantity)
        };
        assert!(shown(&slower, "e2e.p50") && shown(&slower, "failed"));
        // Under a load that was too much before, times are those of a queue.
        let queues = Difference::of(&sweep(0, 1.0, true), &sweep(0, 1.5, true), &thresholds);
        assert_eq!(queues.exceeded(&thresholds), Vec::<String>::new());
        assert!(shown(&queues, "requests_per_second") && !shown(&queues, "e2e.p50"));
        assert_eq!(Difference::unmatched(&before, &before), 0);
        assert_eq!(Difference::unmatched(&before, &run(records(1.0), false)), 2);
    }

    #[test]
    fn a_sweep_and_a_single_load_are_of_different_kinds() {
        let (sweep, single) = (sweep(0, 1.0, false), run(records(1.0), true));
        assert!(!Difference::is_same_kind(&sweep, &single) && Difference::is_same_kind(&single, &single));
        assert!(Difference::of(&sweep, &single, &[]).changes.iter().all(|change| change.load.is_none()));
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
