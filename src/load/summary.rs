//! `summary.json`: everything a report says, from the records of a run. Pure: clock, host and address are handed in.
//!
//! Figures of an effort are of its requests. What was done *a second* belongs to whoever had the server to themselves: to the
//! whole run where efforts were mixed, since their shares of it are those of the plan, and to the stage in a sweep.

use serde::{Deserialize, Serialize};

use super::comparison::Comparison;
use super::distribution::Distribution;
use super::drive::Pace;
use super::effort::EffortSummary;
use super::goodput::{Objectives, good_share};
use super::judge::Judged;
use super::metric::Metric;
use super::record::{Record, compared};
use super::run::{Finished, StageRun};
use super::saturation::{self, Saturation};
use super::table;
use super::throughput::Verdict;

/// The name and version of this format.
pub const SCHEMA: &str = "brevity.load-test/2";

/// A run, as a report tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SCHEMA`].
    pub schema: String,
    /// Where, when and how.
    pub head: Head,
    /// How long the measurement took, in seconds.
    pub seconds: f64,
    /// Whether it was ended before its time.
    pub interrupted: bool,
    /// Requests under way at that moment, which count for nothing.
    pub abandoned: usize,
    /// Requests before the measurement, in a sweep before that of every stage, which count for nothing.
    pub warm_up: usize,
    /// What the generator itself took.
    pub generator: Generator,
    /// What all efforts together got done a second; absent in a sweep, whose stages differ.
    pub total: Option<Rates>,
    /// Every effort.
    pub efforts: Vec<EffortSummary>,
    /// Every other effort against the reference.
    pub comparisons: Vec<Comparison>,
    /// Stages of a sweep; empty without one.
    pub stages: Vec<StageSummary>,
    /// What the server can do under each effort, found by a sweep; empty without one.
    pub saturation: Vec<Saturation>,
}

/// Where, when and how a run was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Name of the run.
    pub name: String,
    /// Version of this program.
    pub version: String,
    /// The day, `2025-03-31`.
    pub date: String,
    /// The command line, quoted for a shell, without passwords.
    pub command: String,
    /// Address of the server.
    pub url: String,
    /// The model that was asked for.
    pub model: String,
    /// The host that made the load: system, architecture, cores.
    pub host: String,
    /// The prompts' source.
    pub prompts: String,
    /// How many prompts there were.
    pub prompt_count: usize,
    /// The load.
    pub load: String,
    /// Seed of order, request seeds, arrivals and bootstrap.
    pub seed: u64,
    /// The effort that the others are compared with.
    pub reference: String,
    /// Longest time of a request, in seconds.
    pub timeout: f64,
    /// Limits behind the goodput, if there were any.
    pub objectives: Option<String>,
    /// Seconds from request to request of one user, for users per machine.
    pub user_interval: f64,
}

/// What the generator itself took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Processor time of the process over the time of the run: 1 is one core, always busy.
    pub cores_busy: Option<f64>,
    /// Chunks of streams that were read.
    pub chunks: usize,
    /// Chunks a second.
    pub chunks_per_second: f64,
    /// How much later than intended requests were sent, in seconds.
    pub send_delay: Option<Distribution>,
    /// Seconds for which users waited because grading had fallen behind.
    pub grading_wait: f64,
}

/// What was got done a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Requests that ended well, see [`super::throughput`].
    pub requests_per_second: f64,
    /// Completion tokens: these requests times the mean tokens of one; absent when nobody counted them.
    pub tokens_per_second: Option<f64>,
    /// Requests within the limits.
    pub goodput: Option<Goodput>,
}

/// Requests that were good enough.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Goodput {
    /// Their share of all requests, failed ones included.
    pub share: f64,
    /// How many of them a second: answered requests times the part of these that are good.
    pub requests_per_second: f64,
}

/// A stage of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageSummary {
    /// The effort.
    pub effort: String,
    /// Users, in a closed loop.
    pub users: Option<usize>,
    /// Requests a second that were asked for, in an open loop.
    pub offered: Option<f64>,
    /// What was got done.
    #[serde(flatten)]
    pub rates: Rates,
    /// By how many requests a second the queue grew, in an open loop.
    pub queue_growth: Option<f64>,
    /// Whether it was beyond saturation.
    pub saturated: bool,
    /// Whether it was too short for answers that take so long, so that nothing can be said of saturation.
    #[serde(default)]
    pub too_short: bool,
    /// Requests that ended.
    pub requests: usize,
    /// Those that did not end well.
    pub failed: usize,
    /// Time end to end.
    pub end_to_end: Option<Distribution>,
    /// Time to the first token.
    pub time_to_first_token: Option<Distribution>,
}

/// What was aimed at, besides [`Head`].
pub struct Aims<'a> {
    /// The efforts in the order of the report.
    pub efforts: &'a [String],
    /// Limits behind the goodput.
    pub objectives: Option<&'a Objectives>,
}

impl Summary {
    /// The summary of a run.
    pub fn of(head: Head, aims: &Aims<'_>, run: &Finished, judged: &Judged) -> Self {
        let records = judged.records.as_slice();
        let is_sweep = !run.peaks.is_empty();
        let others = compared(records, &head.reference);
        let comparisons =
            aims.efforts.iter().filter(|effort| **effort != head.reference).map(|effort| {
                Comparison::of((effort, &compared(records, effort)), (&head.reference, &others), head.seed)
            });
        let summaries = aims.efforts.iter().map(|effort| EffortSummary::of(effort, judged, aims.objectives));
        let total = run.stages.first().filter(|_| !is_sweep).map(|stage| {
            let all: Vec<&Record> = records.iter().collect();
            Rates::of(stage.throughput.requests_per_second, &all, aims.objectives)
        });
        let stages = run.stages.iter().enumerate().filter(|_| is_sweep);
        let stages: Vec<StageSummary> =
            stages.map(|(index, stage)| StageSummary::of(index, stage, aims, records)).collect();
        let chunks = records.iter().map(|record| record.chunks).sum();
        Self {
            schema: SCHEMA.to_owned(),
            seconds: run.seconds,
            interrupted: run.interrupted,
            abandoned: run.abandoned,
            warm_up: run.warm_up,
            generator: Generator {
                cores_busy: run.cpu_seconds.filter(|_| run.seconds > 0.0).map(|cpu| cpu / run.seconds),
                chunks,
                chunks_per_second: per_second(chunks as f64, run.seconds),
                send_delay: Distribution::of(records.iter().map(|r| (r.sent - r.intended).max(0.0)).collect()),
                grading_wait: judged.waited.as_secs_f64(),
            },
            total,
            efforts: summaries.collect(),
            comparisons: comparisons.collect(),
            saturation: saturation::of(&head, aims, run, &stages),
            stages,
            head,
        }
    }
}

fn per_second(count: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { count / seconds } else { 0.0 }
}

impl Rates {
    /// From the requests a second that were answered, and all requests.
    fn of(requests_per_second: f64, records: &[&Record], objectives: Option<&Objectives>) -> Self {
        let answered = || records.iter().filter(|record| record.succeeded());
        let count = answered().count() as f64;
        let tokens: Vec<f64> = answered().filter_map(|record| record.value(Metric::Tokens)).collect();
        let of_answered = |amount: f64| if count > 0.0 { requests_per_second * amount / count } else { 0.0 };
        let goodput = |share: f64| Goodput { share, requests_per_second: of_answered(share * records.len() as f64) };
        Self {
            requests_per_second,
            tokens_per_second: match tokens.is_empty() {
                true => (count == 0.0).then_some(0.0),
                false => Some(requests_per_second * tokens.iter().sum::<f64>() / tokens.len() as f64),
            },
            goodput: good_share(records, objectives).map(goodput),
        }
    }
}

impl StageSummary {
    /// Its load in words: `8 users` or `2.50/s`.
    pub fn load(&self) -> String {
        match (self.users, self.offered) {
            (Some(users), _) => table::count(users, "user"),
            (None, offered) => format!("{}/s", table::rate(offered.unwrap_or_default())),
        }
    }

    fn of(index: usize, stage: &StageRun, aims: &Aims<'_>, records: &[Record]) -> Self {
        let records: Vec<&Record> = records.iter().filter(|record| record.stage == index).collect();
        let succeeded = || records.iter().filter(|record| record.succeeded());
        let values = |metric: Metric| Distribution::of(succeeded().filter_map(|r| r.value(metric)).collect());
        let (users, offered) = match stage.pace {
            Pace::Concurrency(users) => (Some(users), None),
            Pace::Rate { per_second, .. } => (None, Some(per_second)),
        };
        Self {
            effort: stage.effort.and_then(|effort| aims.efforts.get(effort)).cloned().unwrap_or_default(),
            users,
            offered,
            rates: Rates::of(stage.throughput.requests_per_second, &records, aims.objectives),
            queue_growth: stage.throughput.queue_growth,
            saturated: stage.saturated,
            too_short: stage.throughput.verdict == Some(Verdict::TooShort),
            requests: records.len(),
            failed: records.len() - succeeded().count(),
            end_to_end: values(Metric::EndToEnd),
            time_to_first_token: values(Metric::TimeToFirstToken),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::load::drive::Pace;
    use crate::load::gaps::{GapSpread, Gaps};
    use crate::load::page;
    use crate::load::run::Peak;
    use crate::load::throughput::Throughput;

    /// A head to test with.
    pub fn head() -> Head {
        Head {
            name: "test".to_owned(),
            version: "1.2.3".to_owned(),
            date: "2025-03-31".to_owned(),
            command: "serve load-test --url http://127.0.0.1:8080/v1".to_owned(),
            url: "http://127.0.0.1:8080/v1".to_owned(),
            model: "mini".to_owned(),
            host: "linux x86_64, 2 cores".to_owned(),
            prompts: "mini:test".to_owned(),
            prompt_count: 20,
            load: "2 users".to_owned(),
            seed: 0,
            reference: "high".to_owned(),
            timeout: 60.0,
            objectives: None,
            user_interval: 60.0,
        }
    }

    /// What a judge would have found, with three gaps of a tenth of its time in every answer that ended well.
    pub fn judged(records: &[Record]) -> Judged {
        let mut judged = Judged { records: records.to_vec(), ..Judged::default() };
        let start = Instant::now();
        for record in records.iter().filter(|record| record.succeeded()) {
            let mut gaps = Gaps::default();
            (0..4).for_each(|chunk| gaps.chunk(start + Duration::from_secs_f64(record.end_to_end) * chunk / 10));
            let key = (record.stage, record.effort.clone());
            judged.gaps.entry(key).or_insert_with(|| GapSpread::new().unwrap()).add(&gaps);
        }
        judged
    }

    /// The summary of a mixed run of ten seconds.
    pub fn summary(head: Head, efforts: &[&str], records: &[Record]) -> Summary {
        let efforts: Vec<String> = efforts.iter().map(|&effort| effort.to_owned()).collect();
        let answered = records.iter().filter(|record| record.succeeded()).count();
        let throughput = Throughput { requests_per_second: answered as f64 / 10.0, ..Throughput::default() };
        let pace = Pace::Concurrency(2);
        let stage = StageRun { effort: None, pace, began: 0.0, seconds: 10.0, throughput, saturated: false };
        let run = Finished {
            stages: vec![stage],
            peaks: Vec::new(),
            seconds: 10.0,
            warm_up: 2,
            cpu_seconds: Some(0.5),
            abandoned: 0,
            interrupted: false,
        };
        let aims = Aims { efforts: &efforts, objectives: Some(&"e2e:1s".parse().unwrap()) };
        Summary::of(head, &aims, &run, &judged(records))
    }

    /// Twenty prompts under two efforts, and two failures.
    fn records() -> Vec<Record> {
        let one = |index: u64, effort: &str, scale: u64| Record {
            tokens: Some(scale * (10 + index)),
            reasoning_tokens: Some(scale * index),
            end_to_end: scale as f64 * (0.1 + 0.01 * index as f64),
            time_to_first_token: Some(0.01 * (1 + index % 3) as f64),
            time_to_first_answer_token: Some(0.05 * scale as f64),
            forced_close: (effort == "low").then_some(index.is_multiple_of(10)),
            correct: Some(index > 2 || (index == 2 && effort == "high")),
            finish_reason: Some(if index == 19 { "length" } else { "stop" }.to_owned()),
            model: Some("mini".to_owned()),
            ..Record::sample(&format!("p{index:02}"), effort)
        };
        let mut records: Vec<Record> =
            (0..20).flat_map(|index| [one(index, "low", 1), one(index, "high", 4)]).collect();
        for (index, error) in [(6, "timeout"), (9, "http 503")] {
            (records[index].error, records[index].correct) = (Some(error.to_owned()), Some(false));
        }
        records
    }

    /// Compares with a file in `tests/golden`; `UPDATE_GOLDEN=1` writes it anew.
    fn golden(name: &str, found: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, found).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, expected, "differs from {}", path.display());
    }

    #[test]
    fn a_small_report_is_what_it_was() {
        let summary = summary(head(), &["low", "high"], &records());
        golden("load-report.txt", &table::terminal(&summary));
        golden("load-summary.json", &format!("{}\n", serde_json::to_string_pretty(&summary).unwrap()));
        let read: Summary = serde_json::from_str(&serde_json::to_string(&summary).unwrap()).unwrap();
        assert_eq!(read, summary);
    }

    #[test]
    fn figures_are_those_of_requests_that_ended_well() {
        let summary = summary(head(), &["low", "high"], &records());
        let low = &summary.efforts[0];
        assert_eq!((low.requests, low.succeeded, low.truncated), (20, 19, 1));
        assert_eq!(low.errors, BTreeMap::from([("timeout".to_owned(), 1)]));
        // 0.10 to 0.29 without 0.13.
        let times = low.metrics[&Metric::EndToEnd];
        assert!((times.p50 - 0.20).abs() < 1e-12 && (times.max - 0.29).abs() < 1e-12);
        assert_eq!(low.metrics[&Metric::InterToken].count, 57);
        assert!((low.accuracy.unwrap().value - 16.0 / 19.0).abs() < 1e-12);
        assert!((low.accuracy_with_failures.unwrap().value - 16.0 / 20.0).abs() < 1e-12);
        assert_eq!((low.forced_closings, summary.efforts[1].forced_closings), (Some(2), None));
        assert_eq!(low.goodput, Some(0.95));
        // 19 + 19 answers in ten seconds, of which 377 + 1504 tokens; nineteen and fifteen are within a second.
        let total = summary.total.unwrap();
        assert_eq!(total.requests_per_second, 3.8);
        assert!((total.tokens_per_second.unwrap() - 188.1).abs() < 1e-9, "{total:?}");
        let goodput = total.goodput.unwrap();
        assert!((goodput.share - 0.85).abs() < 1e-12 && (goodput.requests_per_second - 3.4).abs() < 1e-12);
        let comparison = &summary.comparisons[0];
        assert_eq!((comparison.pairs, comparison.effort.as_str()), (18, "low"));
        assert_eq!(comparison.split.unwrap().pairs, 18);
        assert_eq!(summary.generator.cores_busy, Some(0.05));
    }

    #[test]
    fn the_page_holds_every_picture_and_loads_nothing() {
        let records = records();
        let html = page::html(&summary(head(), &["low", "high"], &records), &records).unwrap();
        for words in ["Time end to end", "Tokens per answer", "Accuracy and time", "serve load-test --url", "Against"] {
            assert!(html.contains(words), "{words}");
        }
        for loading in ["src=", "href=", "@import", "url(", "<script"] {
            assert!(!html.contains(loading), "{loading}");
        }
        // A run in which everything failed still has a page.
        let failed = vec![Record { error: Some("connect".to_owned()), correct: None, ..records[0].clone() }];
        page::html(&summary(head(), &["low", "high"], &failed), &failed).unwrap();
        page::html(&summary(head(), &["low"], &[]), &[]).unwrap();
    }

    #[test]
    fn a_sweep_compares_under_the_first_load_and_shows_the_rest() {
        let efforts = ["low".to_owned(), "high".to_owned()];
        let stage = |effort: usize, per_second: f64, done: f64| StageRun {
            effort: Some(effort),
            pace: Pace::Rate { per_second, arrival: crate::load::Arrival::Poisson },
            began: 0.0,
            seconds: 10.0,
            throughput: Throughput {
                requests_per_second: done,
                queue_growth: Some(0.0),
                verdict: (done > per_second).then_some(Verdict::TooShort),
                ..Throughput::default()
            },
            saturated: done < per_second,
        };
        let run = Finished {
            stages: vec![stage(1, 1.0, 1.0), stage(0, 1.0, 1.0), stage(0, 9.0, 8.0), stage(1, 9.0, 9.1)],
            peaks: vec![
                Peak { requests_per_second: 8.0, saturated: true },
                Peak { requests_per_second: 9.1, saturated: false },
            ],
            seconds: 40.0,
            warm_up: 4,
            cpu_seconds: None,
            abandoned: 1,
            interrupted: true,
        };
        let record =
            |stage: usize, effort: &str, end: f64| Record { stage, end_to_end: end, ..Record::sample("p", effort) };
        let mut records =
            [record(0, "high", 2.0), record(1, "low", 1.0), record(2, "low", 90.0), record(3, "high", 95.0)];
        records[2].error = Some("http 503".to_owned());
        let aims = Aims { efforts: &efforts, objectives: None };
        let summary = Summary::of(head(), &aims, &run, &judged(&records));
        assert_eq!(summary.efforts[0].metrics[&Metric::EndToEnd].max, 1.0);
        assert_eq!(summary.efforts[1].metrics[&Metric::EndToEnd].max, 2.0);
        assert_eq!(summary.comparisons[0].pairs, 1);
        assert_eq!(summary.stages.len(), 4);
        assert!(summary.stages[2].saturated && summary.stages[2].offered == Some(9.0));
        let low = &summary.saturation[0];
        assert_eq!((low.peak.users, low.peak.reached), (480.0, true));
        assert!((low.peak.over_reference.unwrap() - 8.0 / 9.1).abs() < 1e-12);
        assert_eq!((low.within_limits, summary.total), (None, None));
        let text = table::terminal(&summary);
        for words in [
            "≥ 9.10",
            "0.88 ×",
            "1 request under way",
            "Times and tokens under the lightest load (1.00/s)",
            "Outcomes under the lightest load (1.00/s)",
            "too short to tell",
            "9.00/s with high",
            "--duration 238s",
            "Failed under all loads: low 1 of 2 (http 503: 1)",
        ] {
            assert!(text.contains(words), "no `{words}` in\n{text}");
        }
        let all = summary.efforts[0].all_loads.as_ref().unwrap();
        assert_eq!((summary.efforts[0].succeeded, all.requests, all.failed), (1, 2, 1));
        let html = page::html(&summary, &records).unwrap();
        assert!(html.contains("Latency over load") && html.contains("under the lightest load"));
    }

    #[test]
    fn tokens_that_nobody_counted_are_not_none_a_second() {
        let mut records = records();
        records.iter_mut().for_each(|record| record.tokens = None);
        let uncounted = summary(head(), &["low", "high"], &records);
        assert_eq!(uncounted.total.unwrap().tokens_per_second, None);
        assert!(table::terminal(&uncounted).contains("Answered: 3.80 requests/s, all efforts"));
        // Those that were counted stand for the others.
        records[0].tokens = Some(30);
        let some = summary(head(), &["low", "high"], &records).total.unwrap();
        assert!((some.tokens_per_second.unwrap() - 3.8 * 30.0).abs() < 1e-9, "{some:?}");
        let failed = vec![Record { error: Some("connect".to_owned()), ..records[1].clone() }];
        assert_eq!(summary(head(), &["low"], &failed).total.unwrap().tokens_per_second, Some(0.0));
    }

    #[test]
    fn failures_are_told_where_nothing_is_compared_too() {
        let records: Vec<Record> = records().into_iter().filter(|record| record.effort == "low").collect();
        let summary = summary(Head { reference: "low".to_owned(), ..head() }, &["low"], &records);
        let text = table::terminal(&summary);
        assert!(text.contains("Failed, and so not in the figures: low 1 of 20."), "{text}");
        let html = page::html(&summary, &records).unwrap();
        assert!(html.contains("Share of all requests"), "{html}");
    }
}
