//! How a model wants to be sampled where a request does not say: its `generation_config.json`.
//!
//! The cards of a family are measured at that temperature, and a reasoning model answers clearly worse at OpenAI's default
//! of 1, so these numbers stand in for fields that a request leaves out (vLLM and SGLang do the same).

use std::fs;
use std::path::Path;

use brevity_training::{Error, Result};
use serde::Deserialize;

/// The file that Hugging Face's `generate` reads.
const FILE: &str = "generation_config.json";

/// Sampling of requests that leave it to the server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingDefaults {
    /// Softmax temperature in [0, 2]; 0 takes the most likely token.
    pub temperature: f64,
    /// Nucleus mass in (0, 1].
    pub top_p: f64,
    /// The k most likely tokens only; `None` for all.
    pub top_k: Option<usize>,
    /// Tokens at least this share as likely as the most likely one, in [0, 1].
    pub min_p: f64,
}

impl Default for SamplingDefaults {
    /// OpenAI's: temperature 1 and no truncation.
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: None, min_p: 0.0 }
    }
}

/// What is read of the file; keys that say nothing about sampling are passed over.
#[derive(Deserialize)]
struct GenerationConfig {
    do_sample: Option<bool>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<usize>,
    min_p: Option<f64>,
}

impl SamplingDefaults {
    /// Those of the model in `folder`; OpenAI's for what its `generation_config.json` does not say, or without one.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Format`] for a file that cannot be read, or has a number outside its range.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let config: GenerationConfig =
            serde_json::from_str(&text).map_err(|error| Error::format(&path, error.to_string()))?;
        let number = |key: &str, value: Option<f64>, most: f64, default: f64| match value {
            None => Ok(default),
            Some(value) if (0.0..=most).contains(&value) => Ok(value),
            Some(value) => Err(Error::format(&path, format!("`{key}` is {value}; it is from 0 to {most}"))),
        };
        let greedy = config.do_sample == Some(false);
        let top_p = number("top_p", config.top_p, 1.0, 1.0)?;
        Ok(Self {
            temperature: if greedy { 0.0 } else { number("temperature", config.temperature, 2.0, 1.0)? },
            // Some models write 0 for "off".
            top_p: if top_p == 0.0 { 1.0 } else { top_p },
            top_k: config.top_k.filter(|&k| k > 0),
            min_p: number("min_p", config.min_p, 1.0, 0.0)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SamplingDefaults> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), text).unwrap();
        SamplingDefaults::from_folder(folder.path())
    }

    #[test]
    fn the_model_says_and_the_rest_is_openais() {
        let deepseek = r#"{"bos_token_id": 1, "do_sample": true, "temperature": 0.6, "top_p": 0.95}"#;
        let expected = SamplingDefaults { temperature: 0.6, top_p: 0.95, ..SamplingDefaults::default() };
        assert_eq!(read(deepseek).unwrap(), expected);
        let all = read(r#"{"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.05}"#).unwrap();
        assert_eq!(all, SamplingDefaults { temperature: 0.7, top_p: 0.8, top_k: Some(20), min_p: 0.05 });
        assert_eq!(read("{}").unwrap(), SamplingDefaults::default());
        assert_eq!(read(r#"{"top_k": 0, "top_p": 0}"#).unwrap(), SamplingDefaults::default());
    }

    #[test]
    fn without_sampling_the_most_likely_token_is_taken() {
        assert_eq!(read(r#"{"do_sample": false, "temperature": 0.6}"#).unwrap().temperature, 0.0);
    }

    #[test]
    fn no_file_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(SamplingDefaults::from_folder(folder.path()).unwrap(), SamplingDefaults::default());
    }

    #[test]
    fn a_file_that_makes_no_sense_is_named() {
        for (text, fault) in [
            ("{", "generation_config.json"),
            (r#"{"temperature": -1}"#, "`temperature` is -1; it is from 0 to 2"),
            (r#"{"top_p": 1.5}"#, "`top_p` is 1.5; it is from 0 to 1"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }
}
