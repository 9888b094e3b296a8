//! `/v1/completions`: the older endpoint, which continues a text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{BrevityReport, OneOrMany, StreamOptions, UsageObject};

/// A request to continue a text as it is, without a chat template.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct CompletionRequest {
    /// The family, a tier (`family:tier`), or an effort of it (`family:low`).
    pub model: String,
    /// The text to continue, or several, each of which gets `n` choices. Where the model's tokenizer begins every text with a
    /// token (`bos_token`), that goes before it, unless the text begins with it. Token ids are refused.
    #[schema(value_type = super::chat_request::StopField)]
    pub prompt: Value,
    /// Picks the tier, as in `/v1/chat/completions`. The text itself is not changed by it. Extension.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub reasoning_effort: Option<Value>,
    /// Tokens to generate at most, 16 by default.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub max_tokens: Option<i64>,
    /// Softmax temperature from 0 (the most likely token) to 2. By default the model's own
    /// (`generation_config.json`), at which its card is measured, or 1.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Nucleus mass in (0, 1]; by default the model's own, or 1.
    #[serde(default)]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Only the k most likely tokens; 0 and -1 are all. Extension.
    #[serde(default)]
    pub top_k: Option<i64>,
    /// Only tokens at least this share as likely as the most likely one, in [0, 1]. Extension.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    pub min_p: Option<f64>,
    /// Choices for each prompt; of all prompts together no more than the server computes at a time, 128 at most.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub n: Option<i64>,
    /// 1 or `n`: choices are not drawn to be thrown away.
    #[serde(default)]
    pub best_of: Option<i64>,
    /// Whether the response comes as server-sent events.
    #[serde(default)]
    pub stream: Option<bool>,
    /// What a stream contains; only with `stream`.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// Log-probabilities of this many alternatives per token, 0 to 5. Not together with `echo`.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 5)]
    pub logprobs: Option<i64>,
    /// Whether the text begins with the prompt.
    #[serde(default)]
    pub echo: Option<bool>,
    /// Up to four texts that end the text and are not shown.
    #[serde(default)]
    #[schema(value_type = Option<super::chat_request::StopField>)]
    pub stop: Option<OneOrMany<String>>,
    /// From -2 to 2: subtracted once from the logit of every generated token.
    #[serde(default)]
    #[schema(minimum = -2, maximum = 2)]
    pub presence_penalty: Option<f64>,
    /// From -2 to 2: subtracted per occurrence from the logit of every generated token.
    #[serde(default)]
    #[schema(minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<f64>,
    /// From -100 to 100 by token id: added to the token's logit.
    #[serde(default)]
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// The same seed, tier and request give the same text, but for a token that other requests at the same time may turn by
    /// their rounding. Drawn and reported when absent.
    #[serde(default)]
    pub seed: Option<i64>,
    /// Go on after the token that ends a turn, for load generators. Extension.
    #[serde(default)]
    pub ignore_eos: Option<bool>,
    /// Refused: no tier fills gaps.
    #[serde(default)]
    pub suffix: Option<String>,
    /// *Ignored*.
    #[serde(default)]
    pub user: Option<String>,
}

/// A whole `text_completion`, or a part of a streamed one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CompletionResponse {
    /// Id of the response, the same in all its chunks.
    pub id: String,
    /// `text_completion`.
    pub object: String,
    /// When it began, in seconds since 1970.
    pub created: u64,
    /// The tier that answers, as a model name.
    pub model: String,
    /// The texts; of a chunk, what is new in them. All choices of the first prompt come before those of the second.
    pub choices: Vec<CompletionChoice>,
    /// Token counts: of a whole response, and of a stream as in `chat.completion.chunk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UsageObject>)]
    pub usage: Option<Option<UsageObject>>,
    /// Which weights answered, where the engine knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
    /// Who answered and why; in the first and the last chunk of a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brevity: Option<BrevityReport>,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CompletionChoice {
    /// Its place.
    pub index: usize,
    /// The text.
    pub text: String,
    /// Log-probabilities of its tokens, when asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop`, `length` or `content_filter`; null in all chunks of a choice but its last.
    pub finish_reason: Option<String>,
}

/// Log-probabilities, natural logarithm, in lists of the same length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CompletionLogprobs {
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// Their log-probabilities.
    pub token_logprobs: Vec<f32>,
    /// The most likely tokens at each place, and the drawn one.
    pub top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Where each token begins, in characters of the tokens before it.
    pub text_offset: Vec<usize>,
}
