//! The tier card: what an evaluation found out about one tier, kept in the manifest next to the weights it was measured on.

use serde::{Deserialize, Serialize};

/// One evaluation of one tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierCard {
    /// The data set, with split.
    pub dataset: String,
    /// The day of the measurement as RFC 3339 full-date, `2025-03-31`.
    pub date: String,
    /// Seed of the sampling.
    pub seed: u64,
    /// Softmax temperature of the sampling.
    pub temperature: f64,
    /// Nucleus mass of the sampling, in (0, 1].
    pub top_p: f64,
    /// Of how many of the most likely tokens was drawn; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// The least share of the likeliest token's probability that was drawn from, in [0, 1].
    #[serde(default, skip_serializing_if = "is_off")]
    pub min_p: f64,
    /// Responses per problem.
    pub samples: usize,
    /// SHA-256 of the weights that were measured (as [`super::hash::weights_sha256`]); a card of other weights is stale.
    pub weights_sha256: String,
    /// Results by difficulty.
    #[serde(default, rename = "level")]
    pub levels: Vec<LevelCard>,
}

/// Results on one level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelCard {
    /// The level's name; `all` where the data set has none.
    pub level: String,
    /// Different problems.
    pub problems: usize,
    /// Responses graded.
    pub responses: usize,
    /// Share of correct responses, in [0, 1].
    pub accuracy: f64,
    /// Lower end of its 95 % interval.
    pub accuracy_low: f64,
    /// Upper end of its 95 % interval.
    pub accuracy_high: f64,
    /// Mean completion tokens per response.
    pub tokens_mean: f64,
    /// Median completion tokens.
    pub tokens_p50: f64,
    /// 95 % quantile of completion tokens.
    pub tokens_p95: f64,
    /// Share of responses cut off at the token limit, in [0, 1].
    pub truncated: f64,
    /// Verification markers per response.
    pub verification: f64,
    /// Backtracking markers per response.
    pub backtracking: f64,
    /// Exploration markers per response.
    pub exploration: f64,
}

impl TierCard {
    /// How responses were sampled, in words: `temperature 0.6, top-p 0.95, top-k 20`.
    pub fn sampling(&self) -> String {
        let top_k = self.top_k.map_or_else(String::new, |k| format!(", top-k {k}"));
        let min_p = if self.min_p > 0.0 { format!(", min-p {}", self.min_p) } else { String::new() };
        format!("temperature {}, top-p {}{top_k}{min_p}", self.temperature, self.top_p)
    }

    /// Every fault of the card as `(key, what is wrong and what to write instead)`, in the order of the file.
    pub(super) fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, key: String, message: String| {
            if !holds {
                faults.push((key, message));
            }
        };
        check(is_day(&self.date), "date".into(), format!("`{}` is no day, write it as 2025-03-31", self.date));
        check(
            self.temperature.is_finite() && self.temperature >= 0.0,
            "temperature".into(),
            format!("{} is no temperature, it is at least 0", self.temperature),
        );
        check(
            self.top_p > 0.0 && self.top_p <= 1.0,
            "top_p".into(),
            format!("{} is outside (0, 1], write 1.0 for the whole distribution", self.top_p),
        );
        check(self.top_k != Some(0), "top_k".into(), "0 tokens leave nothing to draw, leave it out for all".into());
        check(
            (0.0..=1.0).contains(&self.min_p),
            "min_p".into(),
            format!("{} is outside [0, 1], leave it out for the whole distribution", self.min_p),
        );
        check(self.samples > 0, "samples".into(), "0 samples measure nothing, run the evaluation again".into());
        for level in &self.levels {
            let key = |name: &str| format!("level \"{}\" {name}", level.level);
            for (name, share) in [
                ("accuracy", level.accuracy),
                ("accuracy_low", level.accuracy_low),
                ("accuracy_high", level.accuracy_high),
                ("truncated", level.truncated),
            ] {
                check(
                    (0.0..=1.0).contains(&share),
                    key(name),
                    format!("{share} is outside [0, 1], write a share, no percentage"),
                );
            }
            for (name, value) in [
                ("tokens_mean", level.tokens_mean),
                ("tokens_p50", level.tokens_p50),
                ("tokens_p95", level.tokens_p95),
                ("verification", level.verification),
                ("backtracking", level.backtracking),
                ("exploration", level.exploration),
            ] {
                check(value.is_finite() && value >= 0.0, key(name), format!("{value} is no count, it is at least 0"));
            }
        }
        faults
    }
}

/// Whether a `min_p` leaves everything.
fn is_off(min_p: &f64) -> bool {
    *min_p == 0.0
}

/// Whether `text` is a day of the Gregorian calendar as RFC 3339 writes it.
fn is_day(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut part = |width: usize| -> Option<u32> {
        parts.next().filter(|part| part.len() == width && part.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
    };
    let (Some(year), Some(month), Some(day)) = (part(4), part(2), part(2)) else {
        return false;
    };
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => 0,
    };
    parts.next().is_none() && (1..=days).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for day in ["2025-01-31", "2024-02-29", "2000-02-29", "2025-12-01"] {
            assert!(is_day(day), "{day}");
        }
        for day in
            ["2025-02-29", "1900-02-29", "2025-13-01", "2025-4-01", "2025-04-31", "2025-04-00", "2025-04", "25-04-01"]
        {
            assert!(!is_day(day), "{day}");
        }
        assert!(!is_day("2025-04-01-01") && !is_day("+025-04-01") && !is_day(""));
    }
}
