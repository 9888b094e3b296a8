//! By what two runs are compared, and by how much it may change.

use std::fmt;
use std::str::FromStr;

use brevity_training::{Error, Result};

use super::metric::{Metric, Statistic};
use super::summary::{StageSummary, Summary};

/// What stands in place of an effort for what all of a mixed run got done together.
pub(super) const TOGETHER: &str = "(all efforts)";

/// What two runs are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// A figure of a metric.
    Figure(Metric, Statistic),
    /// Requests that ended well, a second: of all efforts together, or in a sweep of each at its peak.
    RequestsPerSecond,
    /// Completion tokens a second, of the same.
    TokensPerSecond,
    /// The share of requests that failed, in a sweep under all of its loads. Its change is a difference, not a ratio: it is
    /// often 0.
    Failed,
    /// The share of correct answers. Its change is a difference, not a ratio.
    Accuracy,
}

impl Quantity {
    /// Its value for an effort, or for [`TOGETHER`].
    pub(super) fn of(self, summary: &Summary, name: &str) -> Option<f64> {
        let effort = summary.efforts.iter().find(|effort| effort.effort == name);
        // In a sweep, what the server gave at most; else it is that of the whole run.
        let peak = summary.saturation.iter().find(|saturation| saturation.effort == name).map(|s| s.peak);
        let total = summary.total.filter(|_| name == TOGETHER);
        match self {
            Self::Figure(metric, statistic) => effort?.metrics.get(&metric).map(|figures| figures.get(statistic)),
            Self::RequestsPerSecond => {
                peak.map(|peak| peak.requests_per_second).or(total.map(|total| total.requests_per_second))
            }
            Self::TokensPerSecond => {
                peak.map_or(total.and_then(|total| total.tokens_per_second), |peak| peak.tokens_per_second)
            }
            Self::Failed => effort.and_then(|effort| share_of(effort.in_all())),
            Self::Accuracy => effort?.accuracy.map(|accuracy| accuracy.value),
        }
    }

    /// Its value under one load of a sweep, as far as that is kept.
    pub(super) fn of_stage(self, stage: &StageSummary) -> Option<f64> {
        match self {
            Self::Figure(metric, statistic) => {
                let figures = match metric {
                    Metric::EndToEnd => stage.end_to_end,
                    Metric::TimeToFirstToken => stage.time_to_first_token,
                    _ => None,
                };
                figures.map(|figures| figures.get(statistic))
            }
            Self::RequestsPerSecond => Some(stage.rates.requests_per_second),
            Self::TokensPerSecond => stage.rates.tokens_per_second,
            Self::Failed => share_of((stage.requests, stage.failed)),
            Self::Accuracy => None,
        }
    }

    /// What of a sweep it is about, whose lightest load is called `lightest`.
    pub(super) fn load(self, lightest: &str) -> String {
        match self {
            Self::Figure(..) | Self::Accuracy => lightest.to_owned(),
            Self::RequestsPerSecond | Self::TokensPerSecond => "at most".to_owned(),
            Self::Failed => "all loads".to_owned(),
        }
    }

    /// After over before, less one; for shares, after less before.
    pub(super) fn change(self, old: f64, new: f64) -> f64 {
        match self.is_share() {
            true => new - old,
            // From nothing to something is beyond every limit.
            false if new == old => 0.0,
            false => new / old - 1.0,
        }
    }

    /// Whether it is a share, whose changes are differences.
    pub(super) fn is_share(self) -> bool {
        matches!(self, Self::Failed | Self::Accuracy)
    }
}

/// The second as a share of the first.
fn share_of((all, some): (usize, usize)) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64)
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Figure(metric, statistic) => write!(formatter, "{}.{}", metric.names().1, statistic.name()),
            Self::RequestsPerSecond => formatter.write_str("requests_per_second"),
            Self::TokensPerSecond => formatter.write_str("tokens_per_second"),
            Self::Failed => formatter.write_str("failed"),
            Self::Accuracy => formatter.write_str("accuracy"),
        }
    }
}

impl FromStr for Quantity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "requests_per_second" => Ok(Self::RequestsPerSecond),
            "tokens_per_second" => Ok(Self::TokensPerSecond),
            "failed" => Ok(Self::Failed),
            "accuracy" => Ok(Self::Accuracy),
            _ => match text.split_once('.') {
                Some((metric, statistic)) => Ok(Self::Figure(metric.parse()?, statistic.parse()?)),
                // The short form is about the whole of a request.
                None => Ok(Self::Figure(Metric::EndToEnd, text.parse()?)),
            },
        }
    }
}

/// A change that is too much, such as `e2e.p95:+10%`: with `+`, more than so much more; with `-`, more than so much less.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Of what.
    pub quantity: Quantity,
    /// The change, as a share, with its sign.
    pub change: f64,
}

impl Threshold {
    /// Whether `change` is beyond it.
    pub fn is_exceeded(&self, change: f64) -> bool {
        if self.change.is_sign_negative() { change < self.change } else { change > self.change }
    }
}

impl FromStr for Threshold {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let message = "write QUANTITY:+N% or QUANTITY:-N%, such as e2e.p95:+10% or requests_per_second:-5%";
            Error::config(format!("`{text}` is no threshold; {message}"))
        };
        let (quantity, change) = text.split_once(':').ok_or_else(wrong)?;
        let percent = change.trim().strip_suffix('%').ok_or_else(wrong)?;
        if !percent.starts_with(['+', '-']) {
            return Err(wrong());
        }
        let change = percent.parse::<f64>().ok().filter(|change| change.is_finite()).ok_or_else(wrong)?;
        Ok(Self { quantity: quantity.trim().parse()?, change: change / 100.0 })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.change.is_sign_negative() { '-' } else { '+' };
        write!(formatter, "{}:{sign}{}%", self.quantity, (self.change.abs() * 1e4).round() / 1e2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_and_written() {
        let threshold: Threshold = "p95:+10%".parse().unwrap();
        assert_eq!(threshold, "e2e.p95:+10%".parse().unwrap());
        assert_eq!(threshold.to_string(), "e2e.p95:+10%");
        assert!(threshold.is_exceeded(0.11) && !threshold.is_exceeded(0.1) && !threshold.is_exceeded(-0.5));
        let threshold: Threshold = "requests_per_second:-5%".parse().unwrap();
        assert!(threshold.is_exceeded(-0.06) && !threshold.is_exceeded(0.5));
        assert_eq!("ttft.mean:+2.5%".parse::<Threshold>().unwrap().to_string(), "ttft.mean:+2.5%");
        for wrong in ["p95", "p95:10%", "p95:+10", "p42:+1%", "speed.p50:+1%", "p95:+x%", ""] {
            assert!(wrong.parse::<Threshold>().is_err(), "{wrong}");
        }
    }
}
