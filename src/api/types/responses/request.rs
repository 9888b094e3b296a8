//! `POST /v1/responses`: every field, what it does here, and which are refused or ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::InputItem;
use crate::api::types::{OneOrMany, ReasoningField, TemplateField, ThinkingField};

/// A request for a response.
///
/// The server keeps nothing between requests: fields that refer to something stored are refused. Fields that no server of
/// this kind knows are not refused; they are listed in the response header `x-brevity-ignored`, and so are those of the
/// fields marked *ignored* below that would change something elsewhere, when a request sets them.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct CreateResponse {
    /// The family, a tier (`family:tier`), or an effort of it (`family:low`).
    pub model: String,
    /// What the user says, or the whole conversation as a list of items. Required.
    #[serde(default)]
    #[schema(required = true, value_type = super::input::InputField)]
    pub input: Option<OneOrMany<InputItem>>,
    /// A system message in front of the input.
    #[serde(default)]
    pub instructions: Option<String>,

    /// `effort` says how much shall be thought: `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`, or `auto`, and
    /// picks the tier that was trained for it. `max_tokens`, `exclude` and `enabled` are extensions.
    #[serde(default)]
    pub reasoning: Option<ReasoningField>,
    /// `reasoning.effort` as chat completions write it. Extension.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub reasoning_effort: Option<Value>,
    /// `max_reasoning_tokens` as Anthropic's API writes it. Extension.
    #[serde(default)]
    pub thinking: Option<ThinkingField>,
    /// `false` is the effort `none`, as Qwen's API writes it. Extension.
    #[serde(default)]
    pub enable_thinking: Option<bool>,
    /// The same as clients of vLLM and SGLang write it. Extension.
    #[serde(default)]
    pub chat_template_kwargs: Option<TemplateField>,
    /// Thinking is closed at this many tokens, and the answer follows. Extension.
    #[serde(default)]
    pub max_reasoning_tokens: Option<i64>,
    /// Another name of `max_reasoning_tokens`. Extension.
    #[serde(default)]
    pub thinking_token_budget: Option<i64>,
    /// Another name of `max_reasoning_tokens`, as Qwen's API writes it. Extension.
    #[serde(default)]
    pub thinking_budget: Option<i64>,
    /// With effort `auto`: the time in milliseconds that the answer may be expected to take. Extension.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub latency_budget_ms: Option<i64>,
    /// Whether the thoughts are part of the output; true by default. Extension.
    #[serde(default)]
    pub include_reasoning: Option<bool>,

    /// Whether the response comes as server-sent events.
    #[serde(default)]
    pub stream: Option<bool>,
    /// What a stream contains; only with `stream`.
    #[serde(default)]
    pub stream_options: Option<ResponseStreamOptions>,
    /// Tokens to generate at most, thoughts included; without it whatever the context leaves.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub max_output_tokens: Option<i64>,
    /// Up to four texts that end the answer and are not shown. They are not looked for in the thoughts. Extension.
    #[serde(default)]
    #[schema(value_type = Option<crate::api::types::chat_request::StopField>)]
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
    /// their rounding. Drawn and reported when absent. Extension.
    #[serde(default)]
    pub seed: Option<i64>,
    /// From -2 to 2: subtracted once from the logit of every generated token. Extension.
    #[serde(default)]
    #[schema(minimum = -2, maximum = 2)]
    pub presence_penalty: Option<f64>,
    /// From -2 to 2: subtracted per occurrence from the logit of every generated token. Extension.
    #[serde(default)]
    #[schema(minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<f64>,
    /// From -100 to 100 by token id: added to the token's logit. Extension.
    #[serde(default)]
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Go on after the token that ends the turn, for load generators. Extension.
    #[serde(default)]
    pub ignore_eos: Option<bool>,
    /// `message.output_text.logprobs` adds the log-probabilities of the answer's tokens. *Ignored* are
    /// `reasoning.encrypted_content` (thoughts are sent as they are) and those that belong to tools which do not exist here;
    /// unknown values are refused.
    #[serde(default)]
    pub include: Option<Vec<String>>,
    /// Alternatives per token, 0 to 20; only with `message.output_text.logprobs` in `include`.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 20)]
    pub top_logprobs: Option<i64>,

    /// What the answer must look like.
    #[serde(default)]
    pub text: Option<TextField>,
    /// Functions the model may call. Other tools are refused: none is built in.
    #[serde(default)]
    pub tools: Option<Vec<ResponseTool>>,
    /// `none`, `auto`, `required`, `{"type": "function", "name": …}` or `{"type": "allowed_tools", "mode": …, "tools": […]}`.
    #[serde(default)]
    #[schema(value_type = Option<crate::api::types::ToolChoiceField>)]
    pub tool_choice: Option<Value>,
    /// Whether several functions may be called in one turn; true by default.
    #[serde(default)]
    pub parallel_tool_calls: Option<bool>,
    /// Bounds calls of built-in tools, of which there are none; repeated in the response.
    #[serde(default)]
    pub max_tool_calls: Option<i64>,
    /// Repeated in the response: at most 16 pairs, keys of 64 and values of 512 characters.
    #[serde(default)]
    pub metadata: Option<BTreeMap<String, String>>,

    /// Refused: no response is stored. Send the earlier items in `input`.
    #[serde(default)]
    pub previous_response_id: Option<String>,
    /// Refused: no conversation is stored. Send its items in `input`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub conversation: Option<Value>,
    /// Refused: no prompt is stored. Send its text in `instructions` or `input`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub prompt: Option<Value>,
    /// `false`; `true` is refused, because a response could not be fetched later.
    #[serde(default)]
    pub background: Option<bool>,
    /// Refused: conversations are not compacted.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub context_management: Option<Value>,
    /// `auto` or `default`, which are the same here; others are refused.
    #[serde(default)]
    pub service_tier: Option<String>,

    /// *Ignored*: nothing is stored, and the response says `false`.
    #[serde(default)]
    pub store: Option<bool>,
    /// `disabled`; `auto` is *ignored*: no turn is ever left out, and an input that is too long is refused.
    #[serde(default)]
    pub truncation: Option<String>,
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
    /// *Ignored*: nothing is moderated.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub moderation: Option<Value>,
}

/// What a stream contains.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct ResponseStreamOptions {
    /// *Ignored*: events are never padded.
    #[serde(default)]
    pub include_obfuscation: Option<bool>,
}

/// What the answer must look like.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct TextField {
    /// Free text, any JSON object, or JSON that fits a schema.
    #[serde(default)]
    pub format: Option<TextFormat>,
    /// *Ignored* after a check (`low`, `medium`, `high`): tiers differ in how long they think, not in how long they answer.
    #[serde(default)]
    pub verbosity: Option<String>,
}

/// Binds the answer, never the thoughts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TextFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of a schema: letters, digits, `_` and `-`, at most 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the format is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The schema, with `json_schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Value>,
    /// Accepted for compatibility: the grammar is always enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

impl Default for TextFormat {
    /// Free text.
    fn default() -> Self {
        Self { kind: "text".to_owned(), name: None, description: None, schema: None, strict: None }
    }
}

/// A tool the model may call; also as the response repeats it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResponseTool {
    /// `function`; other kinds are refused.
    #[serde(rename = "type")]
    pub kind: String,
    /// The function's name: letters, digits, `_` and `-`, at most 64.
    #[serde(default)]
    pub name: String,
    /// What it does, for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of its arguments.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<Value>,
    /// Whether the arguments must fit the schema exactly.
    #[serde(default)]
    pub strict: Option<bool>,
}
