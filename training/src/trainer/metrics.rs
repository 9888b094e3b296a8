//! The numbers of every step, one JSON object a line: `metrics.jsonl`, and apart from it what a clock says,
//! `timings.jsonl`.
//!
//! `metrics.jsonl` holds nothing that depends on the machine's speed, so two runs of one recipe can be compared byte by
//! byte. Keys are those of TRL where it has one. A run that resumes cuts both files back to its checkpoint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lines::{Line, Lines, cut};
use super::run_folder::RunFolder;
use crate::Result;

const METRICS: &str = "metrics.jsonl";
const TIMINGS: &str = "timings.jsonl";

/// What happened in one step. Lengths are in response tokens, the end-of-sequence token included; means are over the
/// responses of the step unless said otherwise.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StepMetrics {
    /// The step, from 1.
    pub step: u64,
    /// Mean reward, without KL.
    pub reward: f64,
    /// Mean over prompts of the population standard deviation of their rewards.
    pub reward_std: f64,
    /// Share of prompts all of whose responses have the same reward: they teach nothing.
    pub frac_reward_zero_std: f64,
    /// Share of correct responses.
    pub accuracy: f64,
    /// Mean over tokens of the policy's log-probability minus the reference policy's; `None` without a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Mean over tokens of the entropy of the policy, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
    /// Mean over tokens of the distance between the sampler's log-probability and the trainer's, in nats.
    #[serde(rename = "sampling/sampling_logp_difference/mean", default, skip_serializing_if = "Option::is_none")]
    pub sampler_difference: Option<f64>,
    /// The greatest such distance.
    #[serde(rename = "sampling/sampling_logp_difference/max", default, skip_serializing_if = "Option::is_none")]
    pub sampler_difference_max: Option<f64>,
    /// Mean length.
    #[serde(rename = "completions/mean_length")]
    pub mean_length: f64,
    /// Least length.
    #[serde(rename = "completions/min_length")]
    pub min_length: f64,
    /// Greatest length.
    #[serde(rename = "completions/max_length")]
    pub max_length: f64,
    /// Mean length of the responses that ended by themselves; `None` when none did.
    #[serde(rename = "completions/mean_terminated_length", default, skip_serializing_if = "Option::is_none")]
    pub mean_terminated_length: Option<f64>,
    /// Mean length of the correct responses; `None` when none was.
    #[serde(rename = "completions/mean_correct_length", default, skip_serializing_if = "Option::is_none")]
    pub mean_correct_length: Option<f64>,
    /// Share of responses that were cut off.
    #[serde(rename = "completions/clipped_ratio")]
    pub clipped_ratio: f64,
    /// Share of responses on which the grader came to no verdict: its budget ran out, or it does not know the notation.
    /// They count as incorrect. 0 where an earlier version did not write it.
    #[serde(rename = "grader/undecided_ratio", default)]
    pub undecided_ratio: f64,
    /// Share of tokens whose probability ratio was outside the clip range in the direction of their advantage.
    #[serde(rename = "clip_ratio/region_mean")]
    pub clip_ratio: f64,
    /// Mean loss of the step's updates.
    pub loss: f64,
    /// Mean norm of the gradient before clipping, over the step's updates.
    pub grad_norm: f64,
    /// Learning rate of the step's last update.
    pub learning_rate: f64,
    /// Tokens of prompts and responses since the run began.
    pub num_tokens: u64,
    /// `accuracy/LEVEL`, `completions/mean_length/LEVEL`, …: see [`StepMetrics::set_level`].
    #[serde(flatten)]
    pub levels: BTreeMap<String, f64>,
}

/// What happened in one step at one level of difficulty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelMetrics {
    /// Share of correct responses.
    pub accuracy: f64,
    /// Mean length, in response tokens.
    pub mean_length: f64,
    /// Mean length of the correct responses; `None` when none was.
    pub mean_correct_length: Option<f64>,
}

impl StepMetrics {
    /// Records the metrics of `level` under keys that end in its name.
    pub fn set_level(&mut self, level: &str, metrics: &LevelMetrics) {
        self.levels.insert(format!("accuracy/{level}"), metrics.accuracy);
        self.levels.insert(format!("completions/mean_length/{level}"), metrics.mean_length);
        if let Some(length) = metrics.mean_correct_length {
            self.levels.insert(format!("completions/mean_correct_length/{level}"), length);
        }
    }
}

/// What the machine says about one step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StepTimings {
    /// The step, from 1.
    pub step: u64,
    /// When it ended, in seconds since 1970.
    pub wall_time: f64,
    /// Seconds from its beginning to its end.
    pub step_time: f64,
    /// Seconds of sampling.
    pub rollout_time: f64,
    /// Seconds of grading and of log-probabilities.
    pub score_time: f64,
    /// Seconds of updates.
    pub update_time: f64,
    /// Response tokens by seconds of sampling.
    pub rollout_tokens_per_second: f64,
    /// Tokens of prompts and responses by seconds of updates.
    pub train_tokens_per_second: f64,
    /// Bytes of memory that the process held when it ended; absent where the system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_memory: Option<u64>,
}

/// Bytes of memory that this process holds now.
pub(crate) fn resident_memory() -> Option<u64> {
    memory_stats::memory_stats().map(|memory| memory.physical_mem as u64)
}

impl Line for StepMetrics {
    const REMEDY: &str = "the run has diverged: lower optimizer.learning_rate";

    fn step(&self) -> u64 {
        self.step
    }
}

impl Line for StepTimings {
    const REMEDY: &str = "the clock of this machine may have been set back";

    fn step(&self) -> u64 {
        self.step
    }
}

/// The two files, open for one more step. `M` is what the method of the run reports.
#[derive(Debug)]
pub struct MetricsLog<M = StepMetrics> {
    metrics: Lines,
    timings: Lines,
    history: Vec<(M, Option<StepTimings>)>,
}

impl<M: Line> MetricsLog<M> {
    /// Opens the files of `run`, cut back to the steps up to `last_step` (0 for a run that begins).
    ///
    /// A last line that a killed process left half written is dropped.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when they cannot be read or written; [`crate::Error::Format`] with the line when one is damaged
    /// elsewhere.
    pub fn resume(run: &RunFolder, last_step: u64) -> Result<Self> {
        let metrics: Vec<M> = cut(&run.file(METRICS), last_step)?;
        let timings: Vec<StepTimings> = cut(&run.file(TIMINGS), last_step)?;
        let mut timings: BTreeMap<u64, StepTimings> = timings.into_iter().map(|line| (line.step, line)).collect();
        let history = metrics
            .into_iter()
            .map(|line| {
                let timing = timings.remove(&line.step());
                (line, timing)
            })
            .collect();
        Ok(Self {
            metrics: Lines::open(run.file(METRICS), Some(last_step))?,
            timings: Lines::open(run.file(TIMINGS), Some(last_step))?,
            history,
        })
    }

    /// The steps that were there when the files were opened, with their timings where those were written.
    pub fn history(&self) -> &[(M, Option<StepTimings>)] {
        &self.history
    }

    /// Writes a line to each file; both are on disk when this returns.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when they cannot be written; [`crate::Error::Config`] when a number is not finite (the run has diverged)
    /// or the step is not later than the one before.
    pub fn append(&mut self, metrics: &M, timings: &StepTimings) -> Result<()> {
        self.timings.append(timings)?;
        self.metrics.append(metrics)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::run_folder::tests::fresh;
    use super::*;
    use crate::files;

    fn step(step: u64) -> (StepMetrics, StepTimings) {
        let mut metrics = StepMetrics {
            step,
            reward: 0.1 + step as f64 / 3.0,
            kl: Some(0.25),
            mean_terminated_length: (step > 1).then_some(7.5),
            num_tokens: u64::MAX,
            ..Default::default()
        };
        metrics.set_level("easy", &LevelMetrics { accuracy: 0.5, mean_length: 12.0, mean_correct_length: None });
        (metrics, StepTimings { step, wall_time: 1e9 + step as f64, step_time: 2.5, ..Default::default() })
    }

    fn filled(run: &RunFolder, steps: u64) {
        let mut log = MetricsLog::resume(run, 0).unwrap();
        for number in 1..=steps {
            let (metrics, timings) = step(number);
            log.append(&metrics, &timings).unwrap();
        }
    }

    #[test]
    fn keys_are_those_of_the_field_and_no_clock_is_among_them() {
        let value = serde_json::to_value(step(2).0).unwrap();
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        for key in [
            "step",
            "reward",
            "reward_std",
            "frac_reward_zero_std",
            "accuracy",
            "kl",
            "completions/mean_length",
            "completions/min_length",
            "completions/max_length",
            "completions/mean_terminated_length",
            "completions/clipped_ratio",
            "grader/undecided_ratio",
            "clip_ratio/region_mean",
            "loss",
            "grad_norm",
            "learning_rate",
            "num_tokens",
            "accuracy/easy",
            "completions/mean_length/easy",
        ] {
            assert!(keys.contains(&key), "{key} is not among {keys:?}");
        }
        assert_eq!(keys.len(), 19);
    }

    #[test]
    fn lines_are_read_back_to_the_bit() {
        let (_guard, run) = fresh();
        filled(&run, 3);
        let log = MetricsLog::<StepMetrics>::resume(&run, 3).unwrap();
        let expected: Vec<_> = (1..=3).map(step).map(|(metrics, timings)| (metrics, Some(timings))).collect();
        assert_eq!(log.history(), expected);
    }

    #[test]
    fn resuming_and_repeating_gives_the_bytes_of_an_uninterrupted_run() {
        let ((_one, one), (_two, two)) = (fresh(), fresh());
        filled(&one, 4);
        filled(&two, 3);
        let mut log = MetricsLog::<StepMetrics>::resume(&two, 2).unwrap();
        assert_eq!(log.history().len(), 2);
        for number in 3..=4 {
            let (metrics, timings) = step(number);
            log.append(&metrics, &timings).unwrap();
        }
        for file in [METRICS, TIMINGS] {
            assert_eq!(fs::read(one.file(file)).unwrap(), fs::read(two.file(file)).unwrap(), "{file}");
        }
    }

    #[test]
    fn half_a_line_at_the_end_is_dropped() {
        let (_guard, run) = fresh();
        filled(&run, 2);
        let whole = fs::read(run.file(METRICS)).unwrap();
        for half in [&b"{\"step\":3,\"rew"[..], b"{\"step\":1}", b"\xe2\x82"] {
            fs::write(run.file(METRICS), [&whole, half].concat()).unwrap();
            assert_eq!(MetricsLog::<StepMetrics>::resume(&run, 9).unwrap().history().len(), 2);
            assert_eq!(fs::read(run.file(METRICS)).unwrap(), whole);
        }
    }

    #[test]
    fn damage_elsewhere_is_an_error_with_its_line() {
        let (_guard, run) = fresh();
        filled(&run, 3);
        let text = files::read_text(&run.file(METRICS)).unwrap().replacen("\"step\":2", "\"step\":?", 1);
        fs::write(run.file(METRICS), &text).unwrap();
        let message = MetricsLog::<StepMetrics>::resume(&run, 3).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl`: line 2: "), "{message}");
        assert_eq!(files::read_text(&run.file(METRICS)).unwrap(), text, "the file is untouched");
    }

    #[test]
    fn numbers_that_are_not_finite_and_steps_out_of_order_are_refused() {
        let (_guard, run) = fresh();
        let mut log = MetricsLog::<StepMetrics>::resume(&run, 0).unwrap();
        let (metrics, timings) = step(1);
        let diverged = StepMetrics { loss: f64::NAN, ..metrics.clone() };
        let message = log.metrics.append(&diverged).unwrap_err().to_string();
        assert_eq!(
            message,
            "step 1: `loss` is not a finite number; the run has diverged: lower optimizer.learning_rate"
        );
        log.append(&metrics, &timings).unwrap();
        let message = log.append(&metrics, &timings).unwrap_err().to_string();
        assert!(message.ends_with("step 1 cannot follow step 1"), "{message}");
        assert_eq!(files::read_text(&run.file(METRICS)).unwrap().lines().count(), 1);
    }
}
