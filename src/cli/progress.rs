//! What is shown while something runs: a bar on a terminal, plain lines in a pipe.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use brevity::report::number;
use brevity_training::rollout::RolloutProgress;
use indicatif::{ProgressBar, ProgressStyle};

/// Writes a line to standard error; where that is closed there is nobody left to tell.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes a result to standard output. A reader that went away (`| head`) is no error.
pub fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// A bar of `total` units on a terminal; `None` in a pipe.
fn bar(prefix: &str, total: u64) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(total).with_prefix(prefix.to_owned());
    let style = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len}  {msg}  ETA {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    Some(bar)
}

/// How far the sampling of one tier is.
pub struct Sampling {
    name: String,
    total: usize,
    started: Instant,
    bar: Option<ProgressBar>,
    /// Tenths that a line was written for.
    tenths: usize,
    last: RolloutProgress,
}

impl Sampling {
    /// Sampling of `total` responses of the tier `name` begins.
    pub fn new(name: &str, total: usize) -> Self {
        let last = RolloutProgress { finished: 0, tokens: 0 };
        Self { name: name.to_owned(), total, started: Instant::now(), bar: bar(name, total as u64), tenths: 0, last }
    }

    /// It has come this far.
    pub fn update(&mut self, progress: RolloutProgress) {
        self.last = progress;
        let tenths = progress.finished * 10 / self.total.max(1);
        match &self.bar {
            Some(bar) => {
                bar.set_position(progress.finished as u64);
                bar.set_message(self.rate());
            }
            None if tenths > self.tenths && tenths < 10 => {
                say(&format!("{}: {} of {} responses, {}", self.name, progress.finished, self.total, self.rate()));
            }
            None => {}
        }
        self.tenths = tenths;
    }

    /// It has ended.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let tokens = number::grouped(self.last.tokens as f64);
        say(&format!("{}: {} responses, {tokens} tokens, {}, {seconds:.1} s", self.name, self.total, self.rate()));
    }

    fn rate(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        format!("{} tokens/s", number::grouped(self.last.tokens as f64 / seconds))
    }
}
