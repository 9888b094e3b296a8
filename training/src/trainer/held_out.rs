//! How a run does on problems that it is not trained on: `held_out.jsonl`, a line for each time it was asked.

use serde::{Deserialize, Serialize};

use super::lines::{Line, Lines, cut};
use super::run_folder::RunFolder;
use crate::Result;

const FILE: &str = "held_out.jsonl";

/// What came of the problems that are held out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOutMetrics {
    /// Steps that were done; 0 is the base.
    pub step: u64,
    /// Responses.
    pub responses: usize,
    /// Share of correct ones.
    pub accuracy: f64,
    /// Their mean length in tokens, the end-of-sequence token included.
    #[serde(rename = "completions/mean_length")]
    pub mean_length: f64,
    /// Share of those that were cut off.
    #[serde(rename = "completions/clipped_ratio")]
    pub clipped_ratio: f64,
}

impl Line for HeldOutMetrics {
    const REMEDY: &str = "the run has diverged: lower optimizer.learning_rate";

    fn step(&self) -> u64 {
        self.step
    }
}

/// The file, open for more.
#[derive(Debug)]
pub(crate) struct HeldOutLog(Lines);

impl HeldOutLog {
    /// Opens the file of `run`, cut back to the steps up to `last_step`.
    ///
    /// # Errors
    /// As [`super::MetricsLog::resume`].
    pub(crate) fn resume(run: &RunFolder, last_step: u64) -> Result<Self> {
        let path = run.file(FILE);
        let last = cut::<HeldOutMetrics>(&path, last_step)?.last().map(Line::step);
        Ok(Self(Lines::open(path, last)?))
    }

    /// Whether the problems were asked after so many steps.
    pub(crate) fn has(&self, step: u64) -> bool {
        self.0.last().is_some_and(|last| step <= last)
    }

    /// Writes what came of them.
    ///
    /// # Errors
    /// As [`super::MetricsLog::append`].
    pub(crate) fn append(&mut self, metrics: &HeldOutMetrics) -> Result<()> {
        self.0.append(metrics)
    }
}
