//! Values of options as people write them: seconds, sizes, devices, budgets.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use brevity::family::Effort;
use brevity::load::goodput::duration;
use clap::ValueEnum;

/// Longest time that is told apart from a mistake: a year.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// A time, as load tests read it: `30` and `30s` are seconds, `500ms`, `2m`, `1h`.
pub fn time(text: &str) -> Result<Duration, String> {
    let time = duration(text).map_err(|error| error.to_string())?;
    if time > LONGEST { Err(format!("`{text}` is longer than a year")) } else { Ok(time) }
}

/// A time longer than nothing.
pub fn some_time(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("it has to be longer than nothing".to_owned()),
        time => Ok(time),
    }
}

/// A number of bytes: `1000`, `64KiB`, `4MiB`, `1GiB`.
pub fn size(text: &str) -> Result<usize, String> {
    let wrong = || format!("`{text}` is no size; write bytes as in `65536`, or `64KiB`, `4MiB`, `1GiB`");
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: usize = text[..text.len() - unit.len()].parse().map_err(|_| wrong())?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).filter(|&bytes| bytes > 0).ok_or_else(wrong)
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The CUDA device of this index.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no device; write `cpu`, `cuda` or `cuda:1`");
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", index)) => index.parse().map(Self::Cuda).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(index) => write!(formatter, "cuda:{index}"),
        }
    }
}

/// Type of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Type {
    /// What suits the device
    Auto,
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
    /// 16-bit floats with the range of 32-bit ones
    Bf16,
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// In this process
    Mistral,
    /// Nothing here: every tier must name a server that computes it
    Upstream,
    /// Deterministic words instead of a model, for tests and load generators
    #[value(hide = true)]
    Scripted,
}

/// Under which names thoughts are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReasoningFieldName {
    /// As `reasoning_content` and as `reasoning`: every client finds one
    Both,
    /// As DeepSeek and SGLang do
    #[value(name = "reasoning_content")]
    ReasoningContent,
    /// As vLLM and OpenRouter do
    Reasoning,
}

/// A thinking budget of one effort, `low=256`.
pub fn budget(text: &str) -> Result<(Effort, usize), String> {
    let wrong = || format!("`{text}` is no budget; write EFFORT=TOKENS as in `low=256`");
    let (name, tokens) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.parse()?, tokens.parse().map_err(|_| wrong())?))
}

/// A softmax temperature.
pub fn temperature(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=2.0).contains(number));
    number.ok_or_else(|| format!("`{text}` is no temperature; it is from 0 (the most likely token) to 2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in
            [("30", 30_000), ("0.5", 500), ("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("0", 0)]
        {
            assert_eq!(time(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(time("1h"), Ok(Duration::from_secs(3600)));
        for text in ["", "s", "-1", "1d", "1e9", "99999h", ".", "1.2.3", "½s"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert!(some_time("0ms").is_err());
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("1000", 1000), ("64KiB", 65_536), ("4MiB", 4 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(size(text), Ok(bytes));
        }
        for text in ["", "4MB", "0", "-1", "99999999999999999999", "18446744073709551615GiB", "4µB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn devices_temperatures_and_budgets_are_read() {
        for (text, device) in [("cpu", Device::Cpu), ("cuda", Device::Cuda(0)), ("cuda:3", Device::Cuda(3))] {
            assert_eq!(text.parse(), Ok(device));
        }
        for text in ["gpu", "cuda:", "cuda:x", "cpu:0", ""] {
            assert!(text.parse::<Device>().is_err(), "{text}");
        }
        assert_eq!(temperature("0.6"), Ok(0.6));
        for text in ["", "-1", "2.1", "NaN", "warm"] {
            assert!(temperature(text).is_err(), "{text}");
        }
        assert_eq!(budget("Low=256"), Ok((Effort::Low, 256)));
        for text in ["low", "low=", "slow=1", "low=-1"] {
            assert!(budget(text).is_err(), "{text}");
        }
    }
}
