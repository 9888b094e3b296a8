//! `summary.json`: everything a report says, from the records of a run. Pure: clock, host and address are handed in.
//!
//! Figures of an effort are of its requests. What was done *a second* belongs to whoever had the server to themselves: to the
//! whole run where efforts were mixed, since their shares of it are those of the plan, and to the stage in a sweep.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::comparison::{Comparison, Estimate};
use super::distribution::Distribution;
use super::drive::Pace;
use super::gaps::GapSpread;
use super::goodput::Objectives;
use super::judge::Judged;
use super::metric::Metric;
use super::record::{Record, TokenSource, compared};
use super::run::{Finished, StageRun};
use super::saturation::{self, Saturation};
use crate::eval::statistics::{Tally, accuracy_interval};

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

/// One effort.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EffortSummary {
    /// Its name.
    pub effort: String,
    /// The models that answered, as the server names them.
    pub models: Vec<String>,
    /// Requests that ended.
    pub requests: usize,
    /// Those that ended well.
    pub succeeded: usize,
    /// The others by kind.
    pub errors: BTreeMap<String, usize>,
    /// How generations ended.
    pub finish_reasons: BTreeMap<String, usize>,
    /// Answers that the token limit cut off.
    pub truncated: usize,
    /// Generations that ended well with thoughts only, or nothing.
    pub empty_answers: usize,
    /// Generations that ended well and whose thoughts a thinking budget closed; absent where the server does not say.
    pub forced_closings: Option<usize>,
    /// Who counted the tokens, and for how many requests.
    pub token_sources: BTreeMap<TokenSource, usize>,
    /// Mean of (local count - server's count) / server's count, where both counted.
    pub token_count_difference: Option<f64>,
    /// What was measured of requests that ended well.
    pub metrics: BTreeMap<Metric, Distribution>,
    /// Share of correct answers among graded ones, those of requests that ended well.
    pub accuracy: Option<Estimate>,
    /// Graded answers.
    pub graded: usize,
    /// The same share with every request that failed counted as a wrong answer.
    pub accuracy_with_failures: Option<Estimate>,
    /// Share of all requests that ended well within the limits, if there are limits.
    pub goodput: Option<f64>,
}

/// What was got done a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Requests that ended well, see [`super::throughput`].
    pub requests_per_second: f64,
    /// Completion tokens: these requests times the mean tokens of one.
    pub tokens_per_second: f64,
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

/// Share of all requests that were within the limits.
fn good_share(records: &[&Record], objectives: Option<&Objectives>) -> Option<f64> {
    let objectives = objectives.filter(|_| !records.is_empty())?;
    let good = records.iter().filter(|record| objectives.met(record)).count() as f64;
    Some(good / records.len() as f64)
}

impl Rates {
    /// From the requests a second that were answered, and all requests.
    fn of(requests_per_second: f64, records: &[&Record], objectives: Option<&Objectives>) -> Self {
        let answered = records.iter().filter(|record| record.succeeded());
        let (count, tokens) = answered
            .fold((0.0, 0.0), |(count, tokens), record| (count + 1.0, tokens + record.tokens.unwrap_or(0) as f64));
        let of_answered = |amount: f64| if count > 0.0 { requests_per_second * amount / count } else { 0.0 };
        let goodput = |share: f64| Goodput { share, requests_per_second: of_answered(share * records.len() as f64) };
        Self {
            requests_per_second,
            tokens_per_second: of_answered(tokens),
            goodput: good_share(records, objectives).map(goodput),
        }
    }
}

fn count<T: Ord>(keys: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

impl EffortSummary {
    /// The summary of an effort from its records.
    pub fn of(effort: &str, judged: &Judged, objectives: Option<&Objectives>) -> Self {
        let records = compared(&judged.records, effort);
        let succeeded: Vec<&Record> = records.iter().copied().filter(|record| record.succeeded()).collect();
        let stage = records.first().map_or(0, |record| record.stage);
        let gaps = judged.gaps.get(&(stage, effort.to_owned()));
        let metric = |metric: Metric| {
            let distribution = match metric {
                Metric::InterToken => gaps.and_then(GapSpread::distribution),
                metric => Distribution::of(succeeded.iter().filter_map(|record| record.value(metric)).collect()),
            };
            Some((metric, distribution?))
        };
        let accuracy = accuracy(&succeeded);
        let told: Vec<bool> = succeeded.iter().filter_map(|record| record.forced_close).collect();
        let differences: Vec<f64> = succeeded.iter().filter_map(|record| token_difference(record)).collect();
        Self {
            effort: effort.to_owned(),
            models: count(records.iter().filter_map(|record| record.model.clone())).into_keys().collect(),
            requests: records.len(),
            succeeded: succeeded.len(),
            errors: count(records.iter().filter_map(|record| record.error.clone())),
            finish_reasons: count(succeeded.iter().filter_map(|record| record.finish_reason.clone())),
            truncated: succeeded.iter().filter(|record| record.is_truncated()).count(),
            empty_answers: succeeded.iter().filter(|record| record.empty_answer).count(),
            forced_closings: (!told.is_empty()).then(|| told.iter().filter(|&&forced| forced).count()),
            token_sources: count(succeeded.iter().filter_map(|record| record.token_source)),
            token_count_difference: (!differences.is_empty())
                .then(|| differences.iter().sum::<f64>() / differences.len() as f64),
            metrics: Metric::ALL.into_iter().filter_map(metric).collect(),
            accuracy,
            graded: succeeded.iter().filter(|record| record.correct.is_some()).count(),
            accuracy_with_failures: self::accuracy(&records),
            goodput: good_share(&records, objectives),
        }
    }
}

/// The share of correct answers, prompts being what varies.
fn accuracy(records: &[&Record]) -> Option<Estimate> {
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for record in records {
        if let Some(correct) = record.correct {
            let tally = tallies.entry(&record.prompt).or_insert(Tally { correct: 0, samples: 0 });
            tally.samples += 1;
            tally.correct += usize::from(correct);
        }
    }
    let (value, interval) = accuracy_interval(&tallies.into_values().collect::<Vec<_>>())?;
    Some(Estimate { value, interval: Some(interval) })
}

/// By how much the local count of tokens differs from the server's.
fn token_difference(record: &Record) -> Option<f64> {
    let server = record.tokens.filter(|&tokens| tokens > 0 && record.token_source == Some(TokenSource::Server))?;
    Some((record.local_tokens? as f64 - server as f64) / server as f64)
}

impl StageSummary {
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
            requests: records.len(),
            failed: records.len() - succeeded().count(),
            end_to_end: values(Metric::EndToEnd),
            time_to_first_token: values(Metric::TimeToFirstToken),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::load::drive::Pace;
    use crate::load::gaps::Gaps;
    use crate::load::run::Peak;
    use crate::load::throughput::Throughput;
    use crate::load::{page, table};

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
        let throughput = Throughput { requests_per_second: answered as f64 / 10.0, queue_growth: None, kept_up: None };
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
        assert!((total.tokens_per_second - 188.1).abs() < 1e-9, "{total:?}");
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
            throughput: Throughput { requests_per_second: done, queue_growth: Some(0.0), kept_up: Some(1.0) },
            saturated: done < per_second,
        };
        let run = Finished {
            stages: vec![stage(1, 1.0, 1.0), stage(0, 1.0, 1.0), stage(0, 9.0, 8.0), stage(1, 9.0, 2.0)],
            peaks: vec![
                Peak { requests_per_second: 8.0, saturated: true },
                Peak { requests_per_second: 2.0, saturated: false },
            ],
            seconds: 40.0,
            warm_up: 4,
            cpu_seconds: None,
            abandoned: 1,
            interrupted: true,
        };
        let record =
            |stage: usize, effort: &str, end: f64| Record { stage, end_to_end: end, ..Record::sample("p", effort) };
        let records = [record(0, "high", 2.0), record(1, "low", 1.0), record(2, "low", 90.0), record(3, "high", 95.0)];
        let aims = Aims { efforts: &efforts, objectives: None };
        let summary = Summary::of(head(), &aims, &run, &judged(&records));
        assert_eq!(summary.efforts[0].metrics[&Metric::EndToEnd].max, 1.0);
        assert_eq!(summary.efforts[1].metrics[&Metric::EndToEnd].max, 2.0);
        assert_eq!(summary.comparisons[0].pairs, 1);
        assert_eq!(summary.stages.len(), 4);
        assert!(summary.stages[2].saturated && summary.stages[2].offered == Some(9.0));
        let low = &summary.saturation[0];
        assert_eq!((low.peak.users, low.peak.over_reference, low.peak.reached), (480.0, Some(4.0), true));
        assert_eq!((low.within_limits, summary.total), (None, None));
        let text = table::terminal(&summary);
        assert!(text.contains("≥ 2.00") && text.contains("4.00 ×") && text.contains("1 request under way"), "{text}");
        let html = page::html(&summary, &records).unwrap();
        assert!(html.contains("Latency over load"));
    }
}
