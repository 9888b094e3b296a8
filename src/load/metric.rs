//! What is measured of a request, by name.

use std::fmt;
use std::str::FromStr;

use brevity_training::{Error, Result};
use serde::{Deserialize, Serialize};

/// A quantity of a request. Times are in seconds and count from the moment the request was meant to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Until the end of the answer: the last event of a stream, `[DONE]` included, or the whole body.
    EndToEnd,
    /// Until the first text, thought or answer.
    TimeToFirstToken,
    /// Until the first text of the answer.
    TimeToFirstAnswerToken,
    /// From chunk of text to chunk of text, over all gaps of all requests; chunks that were read together share their
    /// time, see [`super::gaps`]. Of one request, its mean.
    InterToken,
    /// (end to end - time to first token) / (tokens - 1), of each request; none with one token or without a stream.
    TimePerOutputToken,
    /// All completion tokens.
    Tokens,
    /// Tokens of the thoughts.
    ReasoningTokens,
    /// Tokens of the answer.
    AnswerTokens,
    /// Price of prompt and completion.
    Cost,
}

impl Metric {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 9] = [
        Self::EndToEnd,
        Self::TimeToFirstToken,
        Self::TimeToFirstAnswerToken,
        Self::InterToken,
        Self::TimePerOutputToken,
        Self::Tokens,
        Self::ReasoningTokens,
        Self::AnswerTokens,
        Self::Cost,
    ];

    /// The name in files, full, and the one in options, short.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::EndToEnd => ("end_to_end", "e2e"),
            Self::TimeToFirstToken => ("time_to_first_token", "ttft"),
            Self::TimeToFirstAnswerToken => ("time_to_first_answer_token", "ttfa"),
            Self::InterToken => ("inter_token", "itl"),
            Self::TimePerOutputToken => ("time_per_output_token", "tpot"),
            Self::Tokens => ("tokens", "tokens"),
            Self::ReasoningTokens => ("reasoning_tokens", "reasoning"),
            Self::AnswerTokens => ("answer_tokens", "answer"),
            Self::Cost => ("cost", "cost"),
        }
    }

    /// The name for people, who read costs of a thousand requests.
    pub fn title(self) -> &'static str {
        match self {
            Self::EndToEnd => "end to end",
            Self::TimeToFirstToken => "first token",
            Self::TimeToFirstAnswerToken => "first answer token",
            Self::InterToken => "inter-token",
            Self::TimePerOutputToken => "per output token",
            Self::Tokens => "tokens",
            Self::ReasoningTokens => "reasoning tokens",
            Self::AnswerTokens => "answer tokens",
            Self::Cost => "cost of 1,000",
        }
    }

    /// Whether it is a time.
    pub fn is_time(self) -> bool {
        matches!(
            self,
            Self::EndToEnd
                | Self::TimeToFirstToken
                | Self::TimeToFirstAnswerToken
                | Self::InterToken
                | Self::TimePerOutputToken
        )
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.names().0)
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_named = |metric: &Self| metric.names().0 == text || metric.names().1 == text;
        Self::ALL.into_iter().find(is_named).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|metric| metric.names().1).collect();
            Error::config(format!("there is no metric `{text}`; there are {}", names.join(", ")))
        })
    }
}

/// A figure of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Statistic {
    /// The mean.
    Mean,
    /// The median.
    P50,
    /// The 90th percentile.
    P90,
    /// The 95th percentile.
    P95,
    /// The 99th percentile.
    P99,
    /// The largest.
    Max,
}

impl Statistic {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 6] = [Self::Mean, Self::P50, Self::P90, Self::P95, Self::P99, Self::Max];

    /// The name in files and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Max => "max",
        }
    }

    /// The quantile that it is, if it is one.
    pub fn quantile(self) -> Option<f64> {
        match self {
            Self::Mean | Self::Max => None,
            Self::P50 => Some(0.5),
            Self::P90 => Some(0.9),
            Self::P95 => Some(0.95),
            Self::P99 => Some(0.99),
        }
    }

    /// Its value over `values`, exact; percentiles are linear between the two nearest ranks. The order of `values`
    /// changes. `None` without values.
    pub fn of(self, values: &mut [f64]) -> Option<f64> {
        let Some(quantile) = self.quantile() else {
            return match self {
                Self::Max => values.iter().copied().reduce(f64::max),
                _ => (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64),
            };
        };
        let rank = quantile * values.len().checked_sub(1)? as f64;
        let below = rank.floor() as usize;
        // Selection instead of sorting: this runs in every draw of a bootstrap.
        let (_, low, above) = values.select_nth_unstable_by(below, f64::total_cmp);
        let low = *low;
        let high = above.iter().copied().reduce(f64::min).unwrap_or(low);
        Some(low + (high - low) * (rank - below as f64))
    }
}

impl FromStr for Statistic {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|statistic| statistic.name() == text).ok_or_else(|| {
            Error::config(format!("there is no statistic `{text}`; there are mean, p50, p90, p95, p99 and max"))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::eval::statistics::quantile;

    #[test]
    fn names_come_back() {
        for metric in Metric::ALL {
            assert_eq!(metric.names().0.parse::<Metric>().unwrap(), metric);
            assert_eq!(metric.names().1.parse::<Metric>().unwrap(), metric);
            assert_eq!(serde_json::to_string(&metric).unwrap(), format!("\"{metric}\""));
        }
        for statistic in Statistic::ALL {
            assert_eq!(statistic.name().parse::<Statistic>().unwrap(), statistic);
        }
        assert!("speed".parse::<Metric>().unwrap_err().to_string().contains("e2e, ttft"));
        assert!("p42".parse::<Statistic>().is_err());
    }

    #[test]
    fn figures_are_exact() {
        let mut values: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        let figures = Statistic::ALL.map(|statistic| statistic.of(&mut values).unwrap());
        assert_eq!(figures, [51.0, 51.0, 91.0, 96.0, 100.0, 101.0]);
        assert_eq!(Statistic::P50.of(&mut [1.0, 2.0]), Some(1.5));
        assert_eq!(Statistic::P99.of(&mut [3.0]), Some(3.0));
        assert!(Statistic::ALL.iter().all(|statistic| statistic.of(&mut []).is_none()));
    }

    proptest! {
        #[test]
        fn selection_gives_what_sorting_gives(values in prop::collection::vec(-1e6..1e6f64, 1..200)) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            for (statistic, share) in [(Statistic::P50, 0.5), (Statistic::P90, 0.9), (Statistic::P95, 0.95), (Statistic::P99, 0.99)] {
                let expected = quantile(&sorted, share).unwrap();
                prop_assert!((statistic.of(&mut values.clone()).unwrap() - expected).abs() < 1e-6);
            }
        }
    }
}
