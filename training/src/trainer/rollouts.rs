//! Some of the responses that a run learns from, as text: `rollouts.jsonl`.
//!
//! Numbers do not show that a model learns to leave its answer away, or that a grader is wrong about it. Like
//! `metrics.jsonl` the file is cut back to the checkpoint that a run goes on from.

use serde::{Deserialize, Serialize};

use super::lines::{Line, Lines, cut};
use super::run_folder::RunFolder;
use crate::Result;
use crate::tasks::Problem;

const FILE: &str = "rollouts.jsonl";

/// One response, and what was made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoggedRollout {
    /// The step, from 1.
    pub step: u64,
    /// The problem's own name in its data set.
    pub id: String,
    /// Its level, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// What was asked, before any template.
    pub question: String,
    /// The reference answer.
    pub answer: String,
    /// What the grader found in the response, normalised; `None` when it found nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extracted: Option<String>,
    /// Whether that is the answer.
    pub correct: bool,
    /// The grader came to no verdict, so that it counts as incorrect.
    pub undecided: bool,
    /// It was cut off at the token limit.
    pub truncated: bool,
    /// Its length, the end-of-sequence token included.
    pub tokens: usize,
    /// What it earned, without KL.
    pub reward: f64,
    /// The response as text, special tokens left out.
    pub text: String,
}

impl LoggedRollout {
    /// A response to `problem` that nothing is known of yet.
    pub(crate) fn to_problem(step: u64, problem: &Problem, text: String) -> Self {
        Self {
            step,
            id: problem.id.clone(),
            level: problem.level.clone(),
            question: problem.question.clone(),
            answer: problem.answer.clone(),
            extracted: None,
            correct: false,
            undecided: false,
            truncated: false,
            tokens: 0,
            reward: 0.0,
            text,
        }
    }
}

impl Line for LoggedRollout {
    const REMEDY: &str = "the run has diverged: lower optimizer.learning_rate";

    fn step(&self) -> u64 {
        self.step
    }
}

/// The step of a line, which is all that is read of it again.
#[derive(Serialize, Deserialize)]
struct Written {
    step: u64,
}

impl Line for Written {
    const REMEDY: &str = "";

    fn step(&self) -> u64 {
        self.step
    }
}

/// The file, open for one more step.
#[derive(Debug)]
pub(crate) struct RolloutLog(Lines);

impl RolloutLog {
    /// Opens the file of `run`, cut back to the steps up to `last_step`.
    ///
    /// # Errors
    /// As [`super::MetricsLog::resume`].
    pub(crate) fn resume(run: &RunFolder, last_step: u64) -> Result<Self> {
        cut::<Written>(&run.file(FILE), last_step)?;
        Ok(Self(Lines::open(run.file(FILE), Some(last_step))?))
    }

    /// Writes the responses of a step.
    ///
    /// # Errors
    /// As [`super::MetricsLog::append`].
    pub(crate) fn append(&mut self, step: u64, rollouts: &[LoggedRollout]) -> Result<()> {
        self.0.append_all(step, rollouts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::run_folder::tests::fresh;
    use super::*;
    use crate::files;

    #[test]
    fn a_run_that_goes_on_writes_the_same_lines() {
        let (_guard, run) = fresh();
        let problem = Problem { id: "7".into(), question: "1 + 1".into(), answer: "2".into(), level: None };
        let of = |step: u64| {
            let text = format!("step {step}: 2\n");
            vec![LoggedRollout::to_problem(step, &problem, text); 2]
        };
        let mut log = RolloutLog::resume(&run, 0).unwrap();
        (1..=3).for_each(|step| log.append(step, &of(step)).unwrap());
        let whole = files::read_text(&run.file(FILE)).unwrap();
        assert_eq!(whole.lines().count(), 6);
        let mut log = RolloutLog::resume(&run, 2).unwrap();
        assert_eq!(files::read_text(&run.file(FILE)).unwrap().lines().count(), 4);
        log.append(3, &of(3)).unwrap();
        assert_eq!(files::read_text(&run.file(FILE)).unwrap(), whole);
        assert_eq!(serde_json::from_str::<LoggedRollout>(whole.lines().next().unwrap()).unwrap(), of(1)[0]);
        assert!(log.append(3, &of(3)).is_err(), "a step twice");
    }
}
