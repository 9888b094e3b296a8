//! What is told of one effort: figures of its requests, how they ended, and what they got right.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::comparison::Estimate;
use super::distribution::Distribution;
use super::gaps::GapSpread;
use super::goodput::{Objectives, good_share};
use super::judge::Judged;
use super::metric::Metric;
use super::record::{Record, TokenSource, compared};
use crate::eval::statistics::{Tally, accuracy_interval};

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
    /// What became of its requests under all loads of a sweep, of which the figures above are the lightest's; absent where
    /// there was one load.
    #[serde(default)]
    pub all_loads: Option<AllLoads>,
}

/// What became of the requests of an effort under all loads of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AllLoads {
    /// Requests that ended.
    pub requests: usize,
    /// Those that did not end well.
    pub failed: usize,
    /// Those by kind.
    pub errors: BTreeMap<String, usize>,
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
        let all: Vec<&Record> = judged.records.iter().filter(|record| record.effort == effort).collect();
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
            all_loads: (all.len() > records.len()).then(|| AllLoads::of(&all)),
        }
    }

    /// Under all loads: requests that ended, and those of them that did not end well.
    pub fn in_all(&self) -> (usize, usize) {
        let own = (self.requests, self.requests - self.succeeded);
        self.all_loads.as_ref().map_or(own, |all| (all.requests, all.failed))
    }
}

impl AllLoads {
    fn of(records: &[&Record]) -> Self {
        let errors = count(records.iter().filter_map(|record| record.error.clone()));
        Self { requests: records.len(), failed: errors.values().sum(), errors }
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
