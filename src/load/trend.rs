//! Whether times grow while a stage goes on: a straight line through the latencies of answered requests, by when they were due.
//!
//! Latency over due time tells a queue that grows from answers that only take long. With λ requests a second due and μ
//! answered, each waits longer than the one before it: the line rises by λ/μ - 1 seconds a second. It stays level where
//! the server keeps up, whether an answer takes a tenth of the stage or longer than all of it.

use super::drive::Timing;
use crate::eval::statistics::{Z95, quantile};

/// Latency over due time of the measured requests that ended well.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// Seconds by which latency grows in a second; the excess of load over what the server does.
    pub slope: f64,
    /// Whether the slope is above zero by more than chance explains.
    pub rises: bool,
    /// Seconds within which half were answered, growth taken out.
    pub half: f64,
    /// Seconds within which 95 % were answered, growth taken out.
    pub most: f64,
}

impl Trend {
    /// Of the measured requests among `timings`; `None` when none ended well. Fewer than three, or all due at once, have no
    /// slope.
    pub fn of(timings: &[Timing]) -> Option<Self> {
        let answered = timings.iter().filter(|timing| timing.is_measured && timing.succeeded);
        let points: Vec<(f64, f64)> =
            answered.map(|timing| (timing.intended, (timing.ended - timing.intended).max(0.0))).collect();
        let count = points.len() as f64;
        let mean = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (due, latency) = (mean(&|point| point.0), mean(&|point| point.1));
        let spread: f64 = points.iter().map(|point| (point.0 - due).powi(2)).sum();
        let together: f64 = points.iter().map(|point| (point.0 - due) * (point.1 - latency)).sum();
        let slope = if points.len() > 2 && spread > 0.0 { together / spread } else { 0.0 };
        let mut level: Vec<f64> = points.iter().map(|point| point.1 - slope * point.0).collect();
        let residuals: f64 = level.iter().map(|value| (value - (latency - slope * due)).powi(2)).sum();
        level.sort_by(f64::total_cmp);
        let (half, most) = (quantile(&level, 0.5)?.max(0.0), quantile(&level, 0.95)?.max(0.0));
        let error = if slope == 0.0 { 0.0 } else { (residuals / (count - 2.0) / spread).sqrt() };
        Some(Self { slope, rises: slope > Z95 * error, half, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timings(latency: impl Fn(usize) -> f64) -> Vec<Timing> {
        let timing = |index: usize| {
            let due = index as f64 / 10.0;
            let ended = due + latency(index);
            Timing { is_measured: true, intended: due, sent: due, ended, succeeded: true }
        };
        (0..100).map(timing).collect()
    }

    #[test]
    fn a_line_comes_back() {
        let trend = Trend::of(&timings(|index| 2.0 + 0.05 * index as f64)).unwrap();
        assert!((trend.slope - 0.5).abs() < 1e-9 && trend.rises, "{trend:?}");
        assert!((trend.most - 2.0).abs() < 1e-9, "{trend:?}");
    }

    #[test]
    fn answers_of_all_lengths_are_no_growth() {
        // 1 to 7 seconds in an order that has nothing to do with when they were due.
        let trend = Trend::of(&timings(|index| 1.0 + (index * 37 % 7) as f64)).unwrap();
        assert!(!trend.rises && trend.slope.abs() < 0.1, "{trend:?}");
        assert!((3.5..4.5).contains(&trend.half) && (6.0..7.5).contains(&trend.most), "{trend:?}");
    }

    #[test]
    fn failures_and_too_few_requests_say_nothing() {
        let mut all = timings(|index| index as f64);
        all.iter_mut().for_each(|timing| timing.succeeded = false);
        assert_eq!(Trend::of(&all), None);
        let two = Trend::of(&timings(|index| 3.0 * index as f64)[..2]).unwrap();
        assert!(!two.rises && two.slope == 0.0 && (two.most - 2.85).abs() < 1e-9, "{two:?}");
    }
}
