//! When requests are meant to be sent in an open loop, where users come whether or not the server keeps up.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// How gaps between requests are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// All gaps are equal.
    Constant,
    /// Gaps are exponential, as of many users who know nothing of each other.
    Poisson,
}

impl Arrival {
    /// The name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        }
    }
}

/// The moments at which requests are meant to be sent, counted from the start; endless.
#[derive(Debug, Clone)]
pub struct Arrivals {
    arrival: Arrival,
    rate: f64,
    generator: ChaCha8Rng,
    sent: u64,
    clock: f64,
}

impl Arrivals {
    /// Arrivals at `rate` requests a second; `seed` decides the gaps of [`Arrival::Poisson`]. A rate that is no positive
    /// number gives no arrivals at all.
    pub fn new(arrival: Arrival, rate: f64, seed: u64) -> Self {
        Self { arrival, rate, generator: ChaCha8Rng::seed_from_u64(seed), sent: 0, clock: 0.0 }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        match self.arrival {
            // From the count, so that rounding does not add up.
            Arrival::Constant => self.clock = self.sent as f64 / self.rate,
            // Inverse of the exponential distribution; 1 - u is in (0, 1], so its logarithm is finite.
            Arrival::Poisson => self.clock -= (1.0 - self.generator.random::<f64>()).ln() / self.rate,
        }
        self.sent += 1;
        Duration::try_from_secs_f64(self.clock).ok().filter(|_| self.rate > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_arrivals_do_not_drift() {
        let arrivals: Vec<Duration> = Arrivals::new(Arrival::Constant, 4.0, 0).take(5).collect();
        assert_eq!(arrivals, [0, 250, 500, 750, 1000].map(Duration::from_millis));
        let last = Arrivals::new(Arrival::Constant, 10.0, 0).nth(3_000_000).unwrap();
        assert_eq!(last, Duration::from_secs(300_000));
        assert_eq!(Arrivals::new(Arrival::Constant, 0.0, 0).next(), None);
    }

    #[test]
    fn poisson_arrivals_are_seeded_and_have_the_moments_of_their_law() {
        let gaps = |seed| {
            let times = Arrivals::new(Arrival::Poisson, 5.0, seed).take(20_000).map(|time| time.as_secs_f64());
            times.scan(0.0, |last, time| Some(time - std::mem::replace(last, time))).collect::<Vec<f64>>()
        };
        assert_eq!(gaps(1), gaps(1));
        assert_ne!(gaps(1), gaps(2));
        let gaps = gaps(1);
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Mean 0.2 and standard deviation 0.2: the standard error of the mean is 0.0014.
        assert!((mean - 0.2).abs() < 0.006 && (variance.sqrt() - 0.2).abs() < 0.01, "{mean} {variance}");
    }
}
