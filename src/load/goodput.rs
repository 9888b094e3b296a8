//! Which requests were good enough: those that ended well within every limit on their times.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use brevity_training::{Error, Result};

use super::metric::Metric;
use super::record::Record;

/// Limits on the times of a request, such as `ttft:500ms,e2e:2s`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Objectives {
    limits: Vec<(Metric, Duration)>,
}

impl Objectives {
    /// Whether `record` ended well and within every limit. A time that a request does not have is not within any.
    pub fn met(&self, record: &Record) -> bool {
        let within = |&(metric, limit): &(Metric, Duration)| {
            record.value(metric).is_some_and(|seconds| seconds <= limit.as_secs_f64())
        };
        record.succeeded() && self.limits.iter().all(within)
    }
}

/// Share of all requests that were within the limits.
pub(super) fn good_share(records: &[&Record], objectives: Option<&Objectives>) -> Option<f64> {
    let objectives = objectives.filter(|_| !records.is_empty())?;
    let good = records.iter().filter(|record| objectives.met(record)).count() as f64;
    Some(good / records.len() as f64)
}

/// A duration as `500ms`, `2s`, `1.5m` or `1h`; a number alone is seconds.
///
/// # Errors
/// [`Error::Config`] when it is none.
pub fn duration(text: &str) -> Result<Duration> {
    let unit = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let scale = match unit.trim() {
        "us" => Some(1e-6),
        "ms" => Some(1e-3),
        "" | "s" => Some(1.0),
        "m" | "min" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    };
    let seconds = scale.and_then(|scale| Some(number.parse::<f64>().ok()? * scale));
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| Error::config(format!("`{text}` is no duration; write it like 500ms, 2s or 10m")))
}

impl FromStr for Objectives {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let limit = |part: &str| {
            let (name, limit) = part.split_once(':').ok_or_else(|| {
                Error::config(format!("`{part}` is no limit; write METRIC:DURATION, such as ttft:500ms"))
            })?;
            let metric: Metric = name.trim().parse()?;
            if !metric.is_time() {
                return Err(Error::config(format!("`{name}` is no time; a limit is on e2e, ttft, ttfa, itl or tpot")));
            }
            Ok((metric, duration(limit.trim())?))
        };
        Ok(Self { limits: text.split(',').map(limit).collect::<Result<_>>()? })
    }
}

impl fmt::Display for Objectives {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = |(metric, limit): &(Metric, Duration)| format!("{}:{limit:?}", metric.names().1);
        formatter.write_str(&self.limits.iter().map(limit).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, milliseconds) in
            [("500ms", 500), ("2s", 2000), ("1.5m", 90_000), ("1h", 3_600_000), ("0s", 0), ("5", 5000)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for wrong in ["s", "-1s", "1 fortnight", "", "1e400s"] {
            assert!(duration(wrong).unwrap_err().to_string().contains("500ms"), "{wrong}");
        }
    }

    #[test]
    fn every_limit_must_be_kept() {
        let objectives: Objectives = "ttft:500ms,e2e:2s".parse().unwrap();
        let record = |first: Option<f64>, end: f64| Record {
            time_to_first_token: first,
            end_to_end: end,
            ..Record::sample("p", "low")
        };
        assert!(objectives.met(&record(Some(0.5), 2.0)));
        assert!(!objectives.met(&record(Some(0.51), 2.0)));
        assert!(!objectives.met(&record(Some(0.5), 2.01)));
        assert!(!objectives.met(&record(None, 1.0)));
        let failed = Record { error: Some("timeout".to_owned()), ..record(Some(0.1), 0.2) };
        assert!(!objectives.met(&failed));
        assert_eq!(objectives.to_string(), "ttft:500ms,e2e:2s");
        for wrong in ["ttft", "ttft:fast", "speed:1s", "tokens:1s", ""] {
            assert!(wrong.parse::<Objectives>().is_err(), "{wrong}");
        }
    }
}
