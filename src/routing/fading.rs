//! A mean of measurements that is forgotten as it ages.

use std::time::Duration;

/// Evidence that a mean has at most, in measurements: a new one then counts a fifth.
const FULL: f64 = 4.0;

/// A mean that new measurements pull at and time pulls back to a value at rest, which whoever asks names each time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fading {
    mean: f64,
    /// How many measurements it is worth, at most [`FULL`].
    evidence: f64,
    at: Duration,
}

impl Fading {
    /// `before` with one more measurement, a value and its weight. What was known counts less the older it is, and where
    /// nothing was known the measurement counts whole.
    pub fn with(before: Option<Self>, (value, weight): (f64, f64), rest: f64, at: Duration, half_life: f64) -> Self {
        let Some(before) = before else { return Self { mean: value, evidence: weight, at } };
        let evidence = before.evidence * before.left(at, half_life);
        let known = before.now(rest, at, half_life);
        let total = evidence + weight;
        Self {
            mean: if total > 0.0 { known + (value - known) * weight / total } else { known },
            evidence: total.min(FULL),
            // Measurements may come in late, and do not turn time back.
            at: before.at.max(at),
        }
    }

    /// The mean as it was after the last measurement.
    pub fn last(&self) -> f64 {
        self.mean
    }

    /// The mean at the moment `now`: half of what sets it apart from `rest` goes in each half-life.
    pub fn now(&self, rest: f64, now: Duration, half_life: f64) -> f64 {
        rest + (self.mean - rest) * self.left(now, half_life)
    }

    fn left(&self, now: Duration, half_life: f64) -> f64 {
        0.5f64.powf(now.saturating_sub(self.at).as_secs_f64() / half_life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn measurements_are_averaged_and_then_count_a_fifth() {
        let note = |before, value| Some(Fading::with(before, (value, 1.0), 0.0, s(0), 1.0));
        let two = note(note(None, 1.0), 3.0);
        assert!(near(two.unwrap().last(), 2.0));
        let many = (0..9).fold(None, |mean, _| note(mean, 1.0));
        assert!(near(note(many, 2.0).unwrap().last(), 1.2));
        let half = Fading::with(note(None, 1.0), (4.0, 0.5), 0.0, s(0), 1.0);
        assert!(near(half.last(), 2.0), "half a measurement counts half");
    }

    #[test]
    fn time_pulls_back_and_makes_new_measurements_count_more() {
        let old = Fading::with(None, (9.0, 4.0), 1.0, s(10), 2.0);
        assert!(near(old.now(1.0, s(10), 2.0), 9.0) && near(old.now(1.0, s(12), 2.0), 5.0));
        assert!(near(old.now(1.0, s(14), 2.0), 3.0) && near(old.now(1.0, s(1_000_000), 2.0), 1.0));
        // Of four measurements one is left, and the mean has come down to 3.
        assert!(near(Fading::with(Some(old), (1.0, 1.0), 1.0, s(14), 2.0).last(), 2.0));
        let late = Fading::with(Some(old), (9.0, 1.0), 1.0, s(3), 2.0);
        assert!(near(late.now(1.0, s(12), 2.0), 5.0), "a late measurement does not turn time back");
        assert!(Fading::with(Some(old), (1.0, 0.0), 1.0, Duration::MAX, 2.0).last().is_finite());
    }
}
