//! A run while it trains.

use brevity::report::number;
use brevity_training::methods::sft::{SftMetrics, SftObserver};
use brevity_training::trainer::{HeldOutMetrics, Observer, Phase, StepMetrics, StepTimings};
use indicatif::ProgressBar;

use super::{bar, duration, say};
use crate::cli::interrupt;

/// Steps over whose mean time the remaining time is estimated.
const RECENT: usize = 10;

/// Reinforcement learning of one tier.
pub struct Reinforced {
    name: String,
    steps: u64,
    bar: Option<ProgressBar>,
    /// Mean length in the first step, which is the base's.
    first_length: Option<f64>,
    /// The last step of which was heard.
    step: u64,
    /// Whether this process has begun a step of its own; before that, it is told of earlier ones.
    working: bool,
    times: Vec<f64>,
    state: String,
}

impl Reinforced {
    /// A run of `steps` steps begins, or goes on.
    pub fn new(name: &str, steps: u64) -> Self {
        let (name, bar) = (name.to_owned(), bar(name, steps));
        Self { name, steps, bar, first_length: None, step: 0, working: false, times: Vec::new(), state: String::new() }
    }

    /// The run has ended, one way or the other.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            if self.working {
                say(&format!("{}: step {}/{}  {}", self.name, self.step, self.steps, self.state));
            }
        }
    }

    fn begin(&mut self) {
        if !self.working && self.step > 0 {
            say(&format!("{}: goes on after step {}", self.name, self.step));
        }
        self.working = true;
    }

    fn describe(&self, metrics: &StepMetrics, timings: &StepTimings) -> String {
        let change = self.first_length.map_or(0.0, |first| metrics.mean_length / first - 1.0);
        let recent = self.times.get(self.times.len().saturating_sub(RECENT)..).unwrap_or_default();
        let mean = recent.iter().sum::<f64>() / recent.len().max(1) as f64;
        let kl = metrics.kl.map_or_else(String::new, |kl| format!("  KL {}", number::decimal(kl, 4)));
        format!(
            "reward {:.3}  accuracy {}  tokens {} ({}){kl}  {} tokens/s  ETA {}",
            metrics.reward,
            number::percent(metrics.accuracy, 1),
            number::grouped(metrics.mean_length),
            number::signed_percent(change, 1),
            number::grouped(timings.rollout_tokens_per_second),
            duration(mean * self.steps.saturating_sub(metrics.step) as f64)
        )
    }
}

impl Observer for Reinforced {
    fn on_step(&mut self, metrics: &StepMetrics, timings: &StepTimings) {
        self.first_length.get_or_insert(metrics.mean_length);
        self.step = metrics.step;
        if !self.working {
            return;
        }
        self.times.push(timings.step_time);
        self.state = self.describe(metrics, timings);
        match &self.bar {
            Some(bar) => {
                bar.set_position(metrics.step);
                bar.set_message(self.state.clone());
            }
            None => say(&format!("{}: step {}/{}  {}", self.name, self.step, self.steps, self.state)),
        }
    }

    fn on_phase(&mut self, phase: Phase) {
        self.begin();
        let Some(bar) = &self.bar else { return };
        let doing = match phase {
            Phase::Rollout { finished, total, .. } => format!("sampling {finished}/{total}"),
            Phase::Score => "scoring".to_owned(),
            Phase::Update { done, total } => format!("update {}/{total}", done + 1),
            Phase::Checkpoint => "saving".to_owned(),
        };
        bar.set_position(self.step);
        bar.set_message(format!("{}  [{doing}]", self.state));
    }

    fn on_held_out(&mut self, metrics: &HeldOutMetrics) {
        say(&format!(
            "{}: after step {}, {} responses to problems held out: accuracy {}  tokens {}",
            self.name,
            metrics.step,
            metrics.responses,
            number::percent(metrics.accuracy, 1),
            number::grouped(metrics.mean_length)
        ));
    }

    fn on_warning(&mut self, message: &str) {
        say(&format!("warning: {}: {message}", self.name));
    }

    fn should_stop(&self) -> bool {
        interrupt::requested()
    }
}

/// Supervised learning of one model.
pub struct Supervised {
    name: String,
    bar: Option<ProgressBar>,
    began: Option<(std::time::Instant, u64)>,
}

impl Supervised {
    /// A run begins, or goes on.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), bar: bar(name, 0), began: None }
    }

    /// The run has ended, one way or the other.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Whether nothing was left to do.
    pub fn is_idle(&self) -> bool {
        self.began.is_none()
    }
}

impl SftObserver for Supervised {
    fn on_warning(&mut self, message: &str) {
        say(&format!("warning: {}: {message}", self.name));
    }

    fn on_metrics(&mut self, metrics: &SftMetrics, updates: u64, tokens_per_second: f64) {
        let (started, first) = *self.began.get_or_insert_with(|| (std::time::Instant::now(), metrics.step));
        let left = match metrics.step - first {
            0 => String::new(),
            done => {
                let rest = updates.saturating_sub(metrics.step) as f64;
                format!("  ETA {}", duration(started.elapsed().as_secs_f64() * rest / done as f64))
            }
        };
        let state = format!(
            "loss {:.4}  learning rate {:.2e}  {} tokens/s{left}",
            metrics.loss,
            metrics.learning_rate,
            number::grouped(tokens_per_second)
        );
        match &self.bar {
            Some(bar) => {
                bar.set_length(updates);
                bar.set_position(metrics.step);
                bar.set_message(state);
            }
            None => say(&format!("{}: update {}/{updates}  {state}", self.name, metrics.step)),
        }
    }

    fn should_stop(&self) -> bool {
        interrupt::requested()
    }
}
