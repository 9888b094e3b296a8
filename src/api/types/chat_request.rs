//! `POST /v1/chat/completions`: every field, what it does here, and which are refused or ignored.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{OneOrMany, ReasoningField, RequestMessage, ResponseFormat, TemplateField, ThinkingField, ToolDefinition};

/// A request for a chat completion.
///
/// Fields that no server of this kind knows are not refused; they are listed in the response header `x-brevity-ignored`,
/// and so are those of the fields marked *ignored* below that would change something elsewhere, when a request sets them.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct ChatRequest {
    /// The family, a tier (`family:tier`), or an effort of it (`family:low`).
    pub model: String,
    /// The conversation, at least one turn.
    #[schema(min_items = 1)]
    pub messages: Vec<RequestMessage>,

    /// How much shall be thought: `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`, or `auto`, which picks the tier
    /// from measured accuracy, tokens and speed. Picks the tier that was trained for it. Upper and lower case are the same.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub reasoning_effort: Option<Value>,
    /// `reasoning_effort`, `max_reasoning_tokens` and `include_reasoning` in one object.
    #[serde(default)]
    pub reasoning: Option<ReasoningField>,
    /// `max_reasoning_tokens` as Anthropic's API writes it.
    #[serde(default)]
    pub thinking: Option<ThinkingField>,
    /// `false` is the effort `none`, as Qwen's API writes it.
    #[serde(default)]
    pub enable_thinking: Option<bool>,
    /// The same as clients of vLLM and SGLang write it.
    #[serde(default)]
    pub chat_template_kwargs: Option<TemplateField>,
    /// Thinking is closed at this many tokens, and the answer follows. Extension.
    #[serde(default)]
    pub max_reasoning_tokens: Option<i64>,
    /// Another name of `max_reasoning_tokens`.
    #[serde(default)]
    pub thinking_token_budget: Option<i64>,
    /// Another name of `max_reasoning_tokens`, as Qwen's API writes it.
    #[serde(default)]
    pub thinking_budget: Option<i64>,
    /// With effort `auto`: the time in milliseconds that the answer may be expected to take. Extension.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub latency_budget_ms: Option<i64>,
    /// Whether the thoughts are part of the response; true by default. Extension.
    #[serde(default)]
    pub include_reasoning: Option<bool>,

    /// Whether the response comes as server-sent events.
    #[serde(default)]
    pub stream: Option<bool>,
    /// What a stream contains; only with `stream`.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// Choices to generate, from 1 to as many as the server computes at a time, 128 at most. Choice i is drawn with `seed` + i.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub n: Option<i64>,
    /// Tokens to generate at most, thoughts included; without it whatever the context leaves.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub max_completion_tokens: Option<i64>,
    /// Deprecated name of `max_completion_tokens`.
    #[serde(default)]
    #[schema(deprecated, minimum = 1)]
    pub max_tokens: Option<i64>,
    /// Up to four texts that end the answer and are not shown. They are not looked for in the thoughts.
    #[serde(default)]
    #[schema(value_type = Option<StopField>)]
    pub stop: Option<OneOrMany<String>>,

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
    /// The same seed, tier and request give the same text, but for a token that other requests at the same time may turn by
    /// their rounding. Drawn and reported when absent.
    #[serde(default)]
    pub seed: Option<i64>,
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
    /// Go on after the token that ends the turn, for load generators. Extension.
    #[serde(default)]
    pub ignore_eos: Option<bool>,
    /// Whether log-probabilities of the answer's tokens are part of the response.
    #[serde(default)]
    pub logprobs: Option<bool>,
    /// Alternatives per token, 0 to 20; only with `logprobs`.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 20)]
    pub top_logprobs: Option<i64>,

    /// What the answer must look like.
    #[serde(default)]
    pub response_format: Option<ResponseFormat>,
    /// Functions the model may call.
    #[serde(default)]
    pub tools: Option<Vec<ToolDefinition>>,
    /// `none`, `auto`, `required`, `{"type": "function", "function": {"name": …}}` or `{"type": "allowed_tools", …}`.
    #[serde(default)]
    #[schema(value_type = Option<crate::api::types::ToolChoiceField>)]
    pub tool_choice: Option<Value>,
    /// Whether several functions may be called in one turn; true by default.
    #[serde(default)]
    pub parallel_tool_calls: Option<bool>,

    /// Legacy; refused, use `tools`.
    #[serde(default)]
    #[schema(value_type = Option<Object>, deprecated)]
    pub functions: Option<Value>,
    /// Legacy; refused, use `tool_choice`.
    #[serde(default)]
    #[schema(value_type = Option<Object>, deprecated)]
    pub function_call: Option<Value>,
    /// Refused: no tier speaks.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub audio: Option<Value>,
    /// `["text"]`; others are refused.
    #[serde(default)]
    pub modalities: Option<Vec<String>>,
    /// Refused: no tier searches.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub web_search_options: Option<Value>,
    /// `auto` or `default`, which are the same here; others are refused.
    #[serde(default)]
    pub service_tier: Option<String>,

    /// *Ignored*: nothing is stored.
    #[serde(default)]
    pub store: Option<bool>,
    /// *Ignored* after a check: at most 16 pairs, keys of 64 and values of 512 characters.
    #[serde(default)]
    pub metadata: Option<BTreeMap<String, String>>,
    /// *Ignored*.
    #[serde(default)]
    #[schema(deprecated)]
    pub user: Option<String>,
    /// *Ignored* after a check: at most 64 characters.
    #[serde(default)]
    pub safety_identifier: Option<String>,
    /// *Ignored*: caching is the engine's own.
    #[serde(default)]
    pub prompt_cache_key: Option<String>,
    /// *Ignored*.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub prompt_cache_options: Option<Value>,
    /// *Ignored*.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub prompt_cache_retention: Option<Value>,
    /// *Ignored* after a check (`low`, `medium`, `high`): tiers differ in how long they think, not in how long they answer.
    #[serde(default)]
    pub verbosity: Option<String>,
    /// *Ignored*: it would only make the answer come sooner.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub prediction: Option<Value>,
    /// *Ignored*: nothing is moderated.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub moderation: Option<Value>,
}

/// What a stream contains.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct StreamOptions {
    /// One more chunk before `[DONE]` with token counts; every other chunk then has `usage: null`.
    #[serde(default)]
    pub include_usage: Option<bool>,
    /// *Ignored*: chunks are never padded.
    #[serde(default)]
    pub include_obfuscation: Option<bool>,
}

/// A text or a list of texts, for the documentation.
#[derive(Debug, serde::Serialize, ToSchema)]
#[serde(untagged)]
pub enum StopField {
    /// One text.
    One(String),
    /// Up to four.
    Many(Vec<String>),
}
