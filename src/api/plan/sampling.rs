//! Numbers that say how tokens are drawn.

use std::collections::BTreeMap;

use crate::api::ApiError;
use crate::api::types::OneOrMany;
use crate::engine::{Logprobs, Sampling};
use crate::family::SamplingDefaults;

/// The sampling fields of any endpoint, as sent.
#[derive(Debug, Clone, Default)]
pub struct SamplingFields<'a> {
    /// `temperature`
    pub temperature: Option<f64>,
    /// `top_p`
    pub top_p: Option<f64>,
    /// `top_k`
    pub top_k: Option<i64>,
    /// `min_p`
    pub min_p: Option<f64>,
    /// `seed`
    pub seed: Option<i64>,
    /// `presence_penalty`
    pub presence_penalty: Option<f64>,
    /// `frequency_penalty`
    pub frequency_penalty: Option<f64>,
    /// `logit_bias`
    pub logit_bias: Option<&'a BTreeMap<String, f64>>,
    /// `ignore_eos`
    pub ignore_eos: Option<bool>,
}

impl SamplingFields<'_> {
    /// Checks all ranges. `defaults` stand in for what the request leaves out, `drawn_seed` for its seed.
    ///
    /// # Errors
    /// 400 with the field.
    pub fn check(&self, defaults: &SamplingDefaults, drawn_seed: impl FnOnce() -> u64) -> Result<Sampling, ApiError> {
        let top_p = number(self.top_p, "top_p", 0.0, 1.0, defaults.top_p)?;
        if top_p <= 0.0 {
            return Err(ApiError::invalid(
                "top_p",
                "`top_p` is 0; it is above 0 and at most 1 (for greedy decoding set `temperature` to 0)",
            ));
        }
        Ok(Sampling {
            temperature: number(self.temperature, "temperature", 0.0, 2.0, defaults.temperature)?,
            top_p,
            top_k: match self.top_k {
                None => defaults.top_k,
                Some(0 | -1) => None,
                Some(k) => Some(super::count(k, 1, "top_k")?),
            },
            min_p: number(self.min_p, "min_p", 0.0, 1.0, defaults.min_p)?,
            seed: self.seed.map_or_else(drawn_seed, i64::cast_unsigned),
            presence_penalty: number(self.presence_penalty, "presence_penalty", -2.0, 2.0, 0.0)?,
            frequency_penalty: number(self.frequency_penalty, "frequency_penalty", -2.0, 2.0, 0.0)?,
            logit_bias: bias(self.logit_bias)?,
            ignore_eos: self.ignore_eos.unwrap_or(false),
        })
    }
}

fn number(value: Option<f64>, param: &str, least: f64, most: f64, default: f64) -> Result<f64, ApiError> {
    match value {
        None => Ok(default),
        Some(value) if (least..=most).contains(&value) => Ok(value),
        Some(value) => Err(ApiError::invalid(param, format!("`{param}` is {value}; it is from {least} to {most}"))),
    }
}

fn bias(bias: Option<&BTreeMap<String, f64>>) -> Result<BTreeMap<u32, f32>, ApiError> {
    let entry = |(token, &value): (&String, &f64)| {
        let id = token.parse::<u32>().map_err(|_| {
            ApiError::invalid(
                "logit_bias",
                format!("`logit_bias` has the key `{token}`; keys are token ids, like `\"42\"`"),
            )
        })?;
        let value = number(Some(value), "logit_bias", -100.0, 100.0, 0.0)?;
        Ok((id, value as f32))
    };
    bias.into_iter().flatten().map(entry).collect()
}

/// `stop`: at most four texts, none empty.
///
/// # Errors
/// 400 with `stop`.
pub fn stop(field: Option<OneOrMany<String>>) -> Result<Vec<String>, ApiError> {
    let texts = match field {
        None => Vec::new(),
        Some(OneOrMany::One(text)) => vec![text],
        Some(OneOrMany::Many(texts)) => texts,
    };
    if texts.len() > 4 {
        return Err(ApiError::invalid("stop", format!("`stop` has {} texts; it has at most 4", texts.len())));
    }
    if texts.iter().any(String::is_empty) {
        return Err(ApiError::invalid(
            "stop",
            "`stop` has an empty text, which would end every answer at once; leave it out",
        ));
    }
    Ok(texts)
}

/// `logprobs` and `top_logprobs`.
///
/// # Errors
/// 400 with `top_logprobs`.
pub fn logprobs(logprobs: Option<bool>, top: Option<i64>) -> Result<Option<Logprobs>, ApiError> {
    match (logprobs.unwrap_or(false), top) {
        (false, None) => Ok(None),
        (false, Some(_)) => Err(ApiError::invalid(
            "top_logprobs",
            "`top_logprobs` says nothing without `logprobs`; set `logprobs` to true",
        )),
        (true, top) => match top.unwrap_or(0) {
            top @ 0..=20 => Ok(Some(Logprobs { top: usize::try_from(top).unwrap_or(0) })),
            top => Err(ApiError::invalid("top_logprobs", format!("`top_logprobs` is {top}; it is from 0 to 20"))),
        },
    }
}

/// `n`, from 1 to `most`.
///
/// # Errors
/// 400 with `n`.
pub fn choices(n: Option<i64>, most: usize) -> Result<usize, ApiError> {
    match usize::try_from(n.unwrap_or(1)) {
        Ok(count) if (1..=most.min(128)).contains(&count) => Ok(count),
        _ => Err(ApiError::invalid("n", format!("`n` is {}; it is from 1 to {}", n.unwrap_or(1), most.min(128)))),
    }
}

/// `max_completion_tokens` and its old name.
///
/// # Errors
/// 400 with the field; when both are given and differ, too.
pub fn max_tokens(field: Option<i64>, old: Option<i64>) -> Result<Option<usize>, ApiError> {
    let new = field.map(|tokens| super::count(tokens, 1, "max_completion_tokens")).transpose()?;
    let old = old.map(|tokens| super::count(tokens, 1, "max_tokens")).transpose()?;
    match (new, old) {
        (Some(new), Some(old)) if new != old => Err(ApiError::invalid(
            "max_tokens",
            format!("`max_tokens` is {old} and `max_completion_tokens` is {new}; they are the same field, send one"),
        )),
        (new, old) => Ok(new.or(old)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(result: Result<impl std::fmt::Debug, ApiError>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.status.as_u16(), 400);
        error.param.unwrap()
    }

    #[test]
    fn defaults_stand_in_for_what_is_left_out() {
        let defaults = SamplingDefaults { temperature: 0.6, top_p: 0.95, top_k: Some(20), min_p: 0.05 };
        let numbers = |sampling: Sampling| (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p);
        let left_out = SamplingFields::default().check(&defaults, || 0).unwrap();
        assert_eq!(numbers(left_out), (0.6, 0.95, Some(20), 0.05));
        let said = SamplingFields {
            temperature: Some(1.0),
            top_p: Some(1.0),
            top_k: Some(-1),
            min_p: Some(0.0),
            ..SamplingFields::default()
        };
        assert_eq!(numbers(said.check(&defaults, || 0).unwrap()), (1.0, 1.0, None, 0.0));
    }

    #[test]
    fn defaults_are_those_of_openai() {
        let sampling = SamplingFields::default().check(&SamplingDefaults::default(), || 7).unwrap();
        assert_eq!(sampling, Sampling { seed: 7, ..Sampling::default() });
    }

    #[test]
    fn seeds_keep_all_their_bits() {
        let seed = |seed| {
            SamplingFields { seed: Some(seed), ..Default::default() }
                .check(&SamplingDefaults::default(), || 0)
                .unwrap()
                .seed
        };
        assert_eq!((seed(-1), seed(5), seed(i64::MIN)), (u64::MAX, 5, 1 << 63));
    }

    #[test]
    fn values_out_of_range_blame_their_field() {
        type Fields = SamplingFields<'static>;
        for (fields, name) in [
            (Fields { temperature: Some(-1.0), ..Default::default() }, "temperature"),
            (Fields { temperature: Some(f64::NAN), ..Default::default() }, "temperature"),
            (Fields { temperature: Some(2.1), ..Default::default() }, "temperature"),
            (Fields { top_p: Some(2.0), ..Default::default() }, "top_p"),
            (Fields { top_p: Some(0.0), ..Default::default() }, "top_p"),
            (Fields { top_k: Some(-2), ..Default::default() }, "top_k"),
            (Fields { min_p: Some(1.5), ..Default::default() }, "min_p"),
            (Fields { presence_penalty: Some(-2.5), ..Default::default() }, "presence_penalty"),
            (Fields { frequency_penalty: Some(3.0), ..Default::default() }, "frequency_penalty"),
        ] {
            assert_eq!(param(fields.check(&SamplingDefaults::default(), || 0)), name);
        }
        for (key, value) in [("x", 0.0), ("-1", 0.0), ("1", 101.0), ("4294967296", 1.0)] {
            let map = BTreeMap::from([(key.to_owned(), value)]);
            assert_eq!(
                param(
                    SamplingFields { logit_bias: Some(&map), ..Default::default() }
                        .check(&SamplingDefaults::default(), || 0)
                ),
                "logit_bias"
            );
        }
        assert_eq!(param(choices(Some(0), 128)), "n");
        assert_eq!(param(choices(Some(129), 1000)), "n");
        assert_eq!(param(logprobs(None, Some(1))), "top_logprobs");
        assert_eq!(param(logprobs(Some(true), Some(21))), "top_logprobs");
        assert_eq!(param(max_tokens(Some(0), None)), "max_completion_tokens");
        assert_eq!(param(max_tokens(None, Some(-3))), "max_tokens");
        assert_eq!(param(max_tokens(Some(3), Some(4))), "max_tokens");
        assert_eq!(param(stop(Some(OneOrMany::Many(vec!["a".into(); 5])))), "stop");
        assert_eq!(param(stop(Some(OneOrMany::One(String::new())))), "stop");
    }

    #[test]
    fn good_values_pass() {
        assert_eq!(max_tokens(Some(3), Some(3)).unwrap(), Some(3));
        assert_eq!(max_tokens(None, Some(1 << 40)).unwrap(), Some(1 << 40));
        assert_eq!(logprobs(Some(true), None).unwrap(), Some(Logprobs { top: 0 }));
        assert_eq!(logprobs(Some(false), None).unwrap(), None);
        assert_eq!(choices(None, 4).unwrap(), 1);
        let map = BTreeMap::from([("5".to_owned(), -100.0)]);
        let sampling = SamplingFields { logit_bias: Some(&map), top_k: Some(0), ..Default::default() }
            .check(&SamplingDefaults::default(), || 0)
            .unwrap();
        assert_eq!((sampling.logit_bias, sampling.top_k), (BTreeMap::from([(5, -100.0)]), None));
    }
}
