//! An evaluation while it samples.

use std::time::{Duration, Instant};

use brevity::report::number;
use brevity_training::rollout::RolloutProgress;
use indicatif::ProgressBar;

use super::{bar, duration, say};

/// Time from line to line in a pipe.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// How far the sampling of one tier is.
pub struct Sampling {
    name: String,
    total: usize,
    started: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
    last: RolloutProgress,
}

impl Sampling {
    /// Sampling of `total` responses of the tier `name` begins.
    pub fn new(name: &str, total: usize) -> Self {
        let (now, last) = (Instant::now(), RolloutProgress { finished: 0, tokens: 0 });
        Self { name: name.to_owned(), total, started: now, said: now, bar: bar(name, total as u64), last }
    }

    /// It has come this far.
    pub fn update(&mut self, progress: RolloutProgress) {
        self.last = progress;
        if let Some(bar) = &self.bar {
            bar.set_position(progress.finished as u64);
            bar.set_message(self.state());
        } else if self.said.elapsed() >= BETWEEN_LINES {
            self.said = Instant::now();
            say(&format!("{}: {} of {} responses  {}", self.name, progress.finished, self.total, self.state()));
        }
    }

    /// It has ended.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let tokens = number::grouped(self.last.tokens as f64);
        let (finished, took) = (self.last.finished, duration(self.started.elapsed().as_secs_f64()));
        say(&format!("{}: {finished} responses, {tokens} tokens, {} tokens/s, {took}", self.name, self.rate()));
    }

    fn state(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let left = match self.last.finished {
            0 => String::new(),
            finished => {
                let rest = self.total.saturating_sub(finished) as f64;
                format!("  ETA {}", duration(seconds * rest / finished as f64))
            }
        };
        format!("{} tokens/s{left}", self.rate())
    }

    fn rate(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        number::grouped(self.last.tokens as f64 / seconds)
    }
}
