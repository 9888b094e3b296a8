//! A load test while it runs.

use std::time::{Duration, Instant};

use brevity::load::drive::{Pace, Sample};
use brevity::load::run::Observer;
use brevity::report::number;
use indicatif::ProgressBar;

use super::{bar, duration, say};
use crate::cli::interrupt;

/// Time from line to line in a pipe.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// How far a load test is.
pub struct Loading {
    efforts: Vec<String>,
    name: String,
    requests: Option<usize>,
    lasts: Option<Duration>,
    began: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
    finished: usize,
    failed: usize,
}

impl Loading {
    /// A test of these efforts; its first stage has not begun.
    pub fn new(efforts: &[String]) -> Self {
        let now = Instant::now();
        Self {
            efforts: efforts.to_vec(),
            name: "warm-up".to_owned(),
            requests: None,
            lasts: None,
            began: now,
            said: now,
            bar: None,
            finished: 0,
            failed: 0,
        }
    }

    /// The test has ended.
    pub fn finish(mut self) {
        self.end_stage();
    }

    fn end_stage(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if self.finished > 0 {
            let took = duration(self.began.elapsed().as_secs_f64());
            say(&format!(
                "{}: {} requests, {}, {took}",
                self.name,
                number::grouped(self.finished as f64),
                self.state()
            ));
        }
    }

    fn state(&self) -> String {
        let rate = self.finished as f64 / self.began.elapsed().as_secs_f64().max(1e-9);
        let failed = if self.failed == 0 { String::new() } else { format!(", {} failed", self.failed) };
        format!("{rate:.1} requests/s{failed}")
    }

    fn left(&self) -> String {
        let elapsed = self.began.elapsed().as_secs_f64();
        let left = match (self.lasts, self.requests) {
            (Some(lasts), _) => Some(lasts.as_secs_f64() - elapsed),
            (None, Some(requests)) if self.finished > 0 => {
                Some(elapsed * requests.saturating_sub(self.finished) as f64 / self.finished as f64)
            }
            _ => None,
        };
        left.map_or_else(String::new, |left| format!("  ETA {}", duration(left)))
    }
}

impl Observer for Loading {
    fn on_stage(&mut self, effort: Option<usize>, pace: &Pace, requests: Option<usize>, lasts: Option<Duration>) {
        self.end_stage();
        let load = match pace {
            Pace::Concurrency(1) => "1 user".to_owned(),
            Pace::Concurrency(users) => format!("{users} users"),
            Pace::Rate { per_second, .. } => format!("{per_second:.2}/s"),
        };
        let effort = effort.and_then(|effort| self.efforts.get(effort));
        self.name = effort.map_or_else(|| load.clone(), |effort| format!("{effort} at {load}"));
        (self.requests, self.lasts, self.began, self.said) = (requests, lasts, Instant::now(), Instant::now());
        (self.finished, self.failed) = (0, 0);
        // Without a known number of requests, time is what fills the bar.
        let total = requests.map_or_else(|| lasts.map_or(0, |lasts| lasts.as_secs()), |requests| requests as u64);
        self.bar = bar(&self.name, total);
    }

    fn on_sample(&mut self, sample: &Sample) {
        self.finished += 1;
        self.failed += usize::from(sample.exchange.failure.is_some());
    }

    fn on_tick(&mut self) {
        if let Some(bar) = &self.bar {
            bar.set_position(if self.requests.is_some() {
                self.finished as u64
            } else {
                self.began.elapsed().as_secs()
            });
            bar.set_message(format!("{}{}", self.state(), self.left()));
        } else if self.finished > 0 && self.said.elapsed() >= BETWEEN_LINES {
            self.said = Instant::now();
            let of = self.requests.map_or_else(String::new, |requests| format!(" of {requests}"));
            say(&format!("{}: {}{of} requests  {}{}", self.name, self.finished, self.state(), self.left()));
        }
    }

    fn should_stop(&self) -> bool {
        interrupt::requested()
    }
}
