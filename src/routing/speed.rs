//! How fast each tier answered lately.

use std::collections::BTreeMap;
use std::time::Duration;

/// Share of a new measurement in the mean; after five requests a third of what was known before is left.
const WEIGHT: f64 = 0.2;

/// Speed of one tier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Seconds from the request to its first token, waiting included.
    pub seconds_to_first_token: f64,
    /// Seconds between two tokens.
    pub seconds_per_token: f64,
}

impl Speed {
    /// What is assumed before anything was measured: half a second, then 50 tokens a second.
    pub const ASSUMED: Self = Self { seconds_to_first_token: 0.5, seconds_per_token: 0.02 };

    /// Tokens a second once the first one is there.
    pub fn tokens_per_second(&self) -> f64 {
        1.0 / self.seconds_per_token
    }

    /// Expected seconds until an answer of `tokens` tokens is complete.
    pub fn seconds(&self, tokens: f64) -> f64 {
        self.seconds_to_first_token + (tokens - 1.0).max(0.0) * self.seconds_per_token
    }
}

/// Exponentially weighted means of what was measured, by tier; times are averaged, not rates, because times add up.
///
/// Values come in as arguments, so the same measurements in the same order always give the same means.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Speeds {
    tiers: BTreeMap<String, Speed>,
}

impl Speeds {
    /// Notes a finished generation of `tier`: the time to its first token, the time from there to its last, and how
    /// many tokens there were. Of one token only the first time is learned, of none nothing.
    pub fn observe(&mut self, tier: &str, first_token: Duration, generation: Duration, tokens: usize) {
        if tokens == 0 {
            return;
        }
        let before = self.tiers.get(tier).copied();
        let mean = |old: Option<f64>, new: f64| old.map_or(new, |old| old + WEIGHT * (new - old));
        let between = (tokens > 1).then(|| generation.as_secs_f64() / (tokens - 1) as f64);
        let assumed = self.of(tier).seconds_per_token;
        let speed = Speed {
            seconds_to_first_token: mean(before.map(|speed| speed.seconds_to_first_token), first_token.as_secs_f64()),
            seconds_per_token: match between {
                Some(seconds) => mean(before.map(|speed| speed.seconds_per_token), seconds),
                None => assumed,
            },
        };
        self.tiers.insert(tier.to_owned(), speed);
    }

    /// Speed of `tier`: its own mean, else the plain mean of the tiers that were measured (tiers of one family are the
    /// same network, so they run alike), else [`Speed::ASSUMED`].
    pub fn of(&self, tier: &str) -> Speed {
        if let Some(speed) = self.tiers.get(tier) {
            return *speed;
        }
        if self.tiers.is_empty() {
            return Speed::ASSUMED;
        }
        let count = self.tiers.len() as f64;
        let mean = |value: fn(&Speed) -> f64| self.tiers.values().map(value).sum::<f64>() / count;
        Speed {
            seconds_to_first_token: mean(|speed| speed.seconds_to_first_token),
            seconds_per_token: mean(|speed| speed.seconds_per_token),
        }
    }

    /// Whether `tier` itself was measured.
    pub fn is_measured(&self, tier: &str) -> bool {
        self.tiers.contains_key(tier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn means_move_by_a_fifth() {
        let mut speeds = Speeds::default();
        assert_eq!(speeds.of("a"), Speed::ASSUMED);
        speeds.observe("a", ms(100), ms(1000), 101);
        assert_eq!(speeds.of("a"), Speed { seconds_to_first_token: 0.1, seconds_per_token: 0.01 });
        speeds.observe("a", ms(200), ms(2000), 101);
        let speed = speeds.of("a");
        assert!((speed.seconds_to_first_token - 0.12).abs() < 1e-12 && (speed.seconds_per_token - 0.012).abs() < 1e-12);
        assert!(
            (speed.seconds(101.0) - 1.32).abs() < 1e-12 && (speed.tokens_per_second() - 1000.0 / 12.0).abs() < 1e-9
        );
    }

    #[test]
    fn unmeasured_tiers_run_like_the_others() {
        let mut speeds = Speeds::default();
        speeds.observe("a", ms(100), ms(1000), 101);
        speeds.observe("b", ms(300), ms(3000), 101);
        let other = speeds.of("c");
        assert!((other.seconds_to_first_token - 0.2).abs() < 1e-12 && (other.seconds_per_token - 0.02).abs() < 1e-12);
        assert!(speeds.is_measured("a") && !speeds.is_measured("c"));
    }

    #[test]
    fn short_generations_teach_only_what_they_show() {
        let mut speeds = Speeds::default();
        speeds.observe("a", ms(100), ms(0), 0);
        assert_eq!(speeds, Speeds::default());
        speeds.observe("a", ms(100), ms(0), 1);
        assert_eq!(speeds.of("a"), Speed { seconds_to_first_token: 0.1, seconds_per_token: 0.02 });
    }
}
