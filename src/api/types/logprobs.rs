//! Log-probabilities of the answer's tokens, natural logarithm.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::Alternative;

/// `logprobs` of a choice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChoiceLogprobs {
    /// One entry a token of the answer; thoughts are not listed.
    pub content: Vec<TokenLogprob>,
    /// Always null.
    pub refusal: Option<Vec<TokenLogprob>>,
}

/// A token that was drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenLogprob {
    /// Its text.
    pub token: String,
    /// Natural logarithm of its probability before temperature and truncation.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The most likely tokens at its place.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token that could have been drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopLogprob {
    /// Its text.
    pub token: String,
    /// Natural logarithm of its probability before temperature and truncation.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// JSON has no infinities; OpenAI writes -9999 for what is (all but) impossible.
fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { -9999.0 }
}

impl From<Alternative> for TokenLogprob {
    fn from(drawn: Alternative) -> Self {
        let top = drawn.top.into_iter();
        let top = top.map(|top| TopLogprob { token: top.token, logprob: finite(top.logprob), bytes: top.bytes });
        Self { token: drawn.token, logprob: finite(drawn.logprob), bytes: drawn.bytes, top_logprobs: top.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_tokens_stay_numbers() {
        let drawn = Alternative { token: "a".into(), bytes: vec![97], logprob: f32::NEG_INFINITY, top: Vec::new() };
        let json = serde_json::to_value(TokenLogprob::from(drawn)).unwrap();
        assert_eq!(json["logprob"], -9999.0);
    }
}
