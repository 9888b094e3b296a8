//! Learning rates over the updates of a run.
//!
//! A schedule is a pure function of the update's index, so that a resumed run needs no state to go on exactly. It follows
//! the convention of Hugging Face's schedulers: update 0 runs at a learning rate of 0 (it only fills the optimizer's
//! moments), and with a warm-up of 6 the 7th update is the first at the full rate. Nothing but time enters here: rates
//! that react to losses or rewards belong to the trainer.

use serde::{Deserialize, Serialize};

/// How the learning rate moves over a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// Rises linearly from 0, then stays: the released code's choice, with a warm-up of 6 updates.
    ConstantWithWarmup {
        /// Updates below the full rate; 0 starts at the full rate.
        warmup_updates: u64,
    },
    /// Rises linearly from 0, then falls along half a cosine.
    CosineWithWarmup {
        /// Updates below the full rate; 0 starts at the full rate.
        warmup_updates: u64,
        /// Updates of the whole run, warm-up included; from this index on the rate stays at its final value.
        total: u64,
        /// The final rate as a share of the peak: 0 falls to nothing, 1 is constant.
        final_ratio: f64,
    },
}

impl Schedule {
    /// The learning rate of update number `update` (0-based) when the highest rate is `peak`.
    #[must_use]
    pub fn learning_rate(&self, update: u64, peak: f64) -> f64 {
        match *self {
            Self::ConstantWithWarmup { warmup_updates } => peak * warmup(update, warmup_updates),
            Self::CosineWithWarmup { warmup_updates, total, final_ratio } => {
                if update < warmup_updates {
                    return peak * warmup(update, warmup_updates);
                }
                let span = total.saturating_sub(warmup_updates).max(1);
                let progress = ((update - warmup_updates) as f64 / span as f64).min(1.0);
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
                peak * (final_ratio + (1.0 - final_ratio) * cosine)
            }
        }
    }
}

fn warmup(update: u64, updates: u64) -> f64 {
    if update < updates { update as f64 / updates as f64 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_schedule_is_full_from_the_seventh_update() {
        let schedule = Schedule::ConstantWithWarmup { warmup_updates: 6 };
        let got: Vec<f64> = (0..8).map(|update| schedule.learning_rate(update, 6.0)).collect();
        assert_eq!(got, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0]);
        assert_eq!(schedule.learning_rate(199, 5e-6), 5e-6);
    }

    #[test]
    fn without_warmup_the_first_update_is_full() {
        assert_eq!(Schedule::ConstantWithWarmup { warmup_updates: 0 }.learning_rate(0, 2e-6), 2e-6);
    }

    #[test]
    fn cosine_passes_its_landmarks() {
        let schedule = Schedule::CosineWithWarmup { warmup_updates: 10, total: 110, final_ratio: 0.1 };
        let near = |update: u64, expected: f64| {
            let got = schedule.learning_rate(update, 1.0);
            assert!((got - expected).abs() < 1e-12, "update {update}: {got} is not {expected}");
        };
        near(0, 0.0);
        near(5, 0.5);
        near(10, 1.0);
        // A quarter of the way: 0.1 + 0.9 * (1 + cos(pi / 4)) / 2.
        near(35, 0.1 + 0.45 * (1.0 + std::f64::consts::FRAC_1_SQRT_2));
        near(60, 0.55);
        near(110, 0.1);
        near(5000, 0.1);
    }

    #[test]
    fn a_cosine_shorter_than_its_warmup_stays_finite() {
        let schedule = Schedule::CosineWithWarmup { warmup_updates: 10, total: 4, final_ratio: 0.0 };
        assert!((0..20).all(|update| schedule.learning_rate(update, 1.0).is_finite()));
    }

    #[test]
    fn recipes_spell_schedules_in_kebab_case() {
        let schedule: Schedule = toml::from_str("kind = \"constant-with-warmup\"\nwarmup_updates = 6").unwrap();
        assert_eq!(schedule, Schedule::ConstantWithWarmup { warmup_updates: 6 });
        assert!(toml::from_str::<Schedule>("kind = \"constant-with-warmup\"\nwarmup = 6").is_err());
    }
}
