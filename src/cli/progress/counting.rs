//! Bytes that are worked through, by whatever takes long enough to be watched.
//!
//! What the bytes are of is said by the name; nothing is written here.

use std::time::{Duration, Instant};

use brevity_training::trainer;
use indicatif::{ProgressBar, ProgressStyle};

use super::{bar, duration, say};

/// Time from line to line in a pipe.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// A bar of bytes; a line now and then in a pipe.
pub struct Counting {
    name: String,
    total: u64,
    done: u64,
    began: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
}

impl Counting {
    /// Nothing yet of `total` bytes.
    pub fn new(name: &str, total: u64) -> Self {
        let bar = bar(name, total);
        if let Some(bar) = &bar {
            let template = "{prefix} {bar:20} {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}";
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        }
        Self { name: name.to_owned(), total, done: 0, began: Instant::now(), said: Instant::now(), bar }
    }

    /// So many more.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if self.said.elapsed() >= BETWEEN_LINES {
            self.said = Instant::now();
            let left = self.total.saturating_sub(self.done) as f64 / self.done.max(1) as f64;
            let left = duration(left * self.began.elapsed().as_secs_f64());
            let (done, total) = (trainer::bytes(self.done), trainer::bytes(self.total));
            say(&format!("{}: {done} of {total}  ETA {left}", self.name));
        }
    }

    /// Takes the bar away and returns how many there were.
    pub fn finish(self) -> u64 {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.done
    }
}
