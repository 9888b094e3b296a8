//! What surrounds a training loop: its folder on disk, checkpoints, metrics, the plan made before it, and who watches
//! it.
//!
//! Everything here makes a run survive: whatever moment it is killed at, the same command goes on from the last
//! checkpoint and writes the same numbers. No mathematics of training is here, and nothing is printed: an [`Observer`]
//! is told.

mod checkpoint;
mod hash;
mod held_out;
mod lines;
mod metrics;
mod plan;
mod rollouts;
mod run_folder;
mod tensorboard;

pub use checkpoint::{Checkpoint, Latest, latest, save};
pub use hash::hash_file;
pub(crate) use held_out::HeldOutLog;
pub use held_out::HeldOutMetrics;
pub use lines::Line;
pub(crate) use metrics::resident_memory;
pub use metrics::{LevelMetrics, MetricsLog, StepMetrics, StepTimings};
pub use plan::{Fit, Memory, ModelShape, Plan, bytes};
pub use rollouts::LoggedRollout;
pub(crate) use rollouts::RolloutLog;
pub use run_folder::{RunFolder, RunIdentity};
pub use tensorboard::EventWriter;

/// What a step is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Responses are being sampled.
    Rollout {
        /// Responses that have ended.
        finished: usize,
        /// Responses of the step.
        total: usize,
        /// Tokens sampled so far.
        tokens: usize,
    },
    /// Responses are being graded and their log-probabilities taken.
    Score,
    /// Weights are being updated.
    Update {
        /// Updates of the step that are done.
        done: usize,
        /// Updates of the step.
        total: usize,
    },
    /// State is being written.
    Checkpoint,
}

/// Somebody who watches a run and may end it: a progress bar, a signal handler, a test.
pub trait Observer {
    /// A step has ended; its metrics are on disk.
    fn on_step(&mut self, metrics: &StepMetrics, timings: &StepTimings);

    /// A phase has begun or moved on. Called often, so it must be quick.
    fn on_phase(&mut self, phase: Phase);

    /// The problems that are held out were asked; what came of them is on disk.
    fn on_held_out(&mut self, _metrics: &HeldOutMetrics) {}

    /// Something was passed over that the user should know of: a damaged checkpoint, for one. The run goes on.
    fn on_warning(&mut self, message: &str);

    /// Whether the run should end; asked while responses are sampled and scored, and after every step, but not between
    /// the updates of a step, whose half would be lost. The run then returns [`crate::Error::Interrupted`], and the same
    /// command resumes it.
    fn should_stop(&self) -> bool;
}

/// An observer that neither looks nor interferes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on_step(&mut self, _: &StepMetrics, _: &StepTimings) {}

    fn on_phase(&mut self, _: Phase) {}

    fn on_warning(&mut self, _: &str) {}

    fn should_stop(&self) -> bool {
        false
    }
}
