//! `response`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{OutputItem, ResponseTool, TextFormat};
use crate::api::types::BrevityReport;
use crate::engine::Usage;

/// A response, whole or on its way.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ResponseObject {
    /// Id of the response. Nothing is stored, so it cannot be fetched by it.
    pub id: String,
    /// `response`.
    #[schema(value_type = String)]
    pub object: &'static str,
    /// When it began, in seconds since 1970.
    pub created_at: u64,
    /// How far it is.
    pub status: ResponseStatus,
    /// When it was completed, in seconds since 1970; null otherwise.
    pub completed_at: Option<u64>,
    /// Why it failed.
    pub error: Option<ResponseFailure>,
    /// Why it is incomplete.
    pub incomplete_details: Option<IncompleteDetails>,
    /// The tier that answers, as a model name.
    pub model: String,
    /// Thoughts, answer and calls, in this order.
    pub output: Vec<OutputItem>,
    /// What the response repeats of the request.
    #[serde(flatten)]
    pub settings: ResponseSettings,
    /// What it took; absent before the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<ResponseUsage>,
    /// Which weights answered, where the engine knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
    /// Who answers and why.
    pub brevity: BrevityReport,
}

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseStatus {
    /// More is to come.
    InProgress,
    /// The model ended its turn.
    Completed,
    /// A limit cut it off.
    Incomplete,
    /// It ended with an error.
    Failed,
}

/// Why a response failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ResponseFailure {
    /// `server_error`, `rate_limit_exceeded` or `invalid_prompt`.
    #[schema(value_type = String)]
    pub code: &'static str,
    /// What went wrong, in words.
    pub message: String,
}

/// Why a response is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct IncompleteDetails {
    /// `max_output_tokens` or `content_filter`.
    #[schema(value_type = String)]
    pub reason: &'static str,
}

/// What a response repeats of its request, as it is in force.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ResponseSettings {
    /// `instructions`
    pub instructions: Option<String>,
    /// `max_output_tokens`
    pub max_output_tokens: Option<usize>,
    /// `max_tool_calls`
    pub max_tool_calls: Option<i64>,
    /// `temperature`
    pub temperature: f64,
    /// `top_p`
    pub top_p: f64,
    /// `top_logprobs`
    pub top_logprobs: usize,
    /// `reasoning`
    pub reasoning: ReasoningInForce,
    /// `text`
    pub text: TextInForce,
    /// `tools`
    pub tools: Vec<ResponseTool>,
    /// `tool_choice`
    #[schema(value_type = crate::api::types::ToolChoiceField)]
    pub tool_choice: Value,
    /// `parallel_tool_calls`
    pub parallel_tool_calls: bool,
    /// `metadata`
    pub metadata: BTreeMap<String, String>,
    /// Always null.
    pub previous_response_id: Option<String>,
    /// Always `false`.
    pub store: bool,
    /// Always `false`.
    pub background: bool,
    /// `disabled`
    #[schema(value_type = String)]
    pub truncation: &'static str,
    /// `default`
    #[schema(value_type = String)]
    pub service_tier: &'static str,
}

/// How much is thought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReasoningInForce {
    /// The effort asked for, or the default one; null where `auto` or the model's name chose the tier.
    #[schema(value_type = Option<String>)]
    pub effort: Option<&'static str>,
    /// `reasoning.summary` of the request: thoughts come in the place of a summary.
    pub summary: Option<String>,
}

/// What the answer looks like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct TextInForce {
    /// `text.format`
    pub format: TextFormat,
}

/// Tokens of the prompt and the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct ResponseUsage {
    /// Tokens of the rendered prompt.
    pub input_tokens: usize,
    /// What the prompt's tokens were.
    pub input_tokens_details: InputTokensDetails,
    /// Tokens sampled: thoughts, marks, answer and the token that ends the turn.
    pub output_tokens: usize,
    /// What the sampled tokens were.
    pub output_tokens_details: OutputTokensDetails,
    /// Both together.
    pub total_tokens: usize,
}

/// What the prompt's tokens were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct InputTokensDetails {
    /// Tokens that came from a cache.
    pub cached_tokens: usize,
    /// Always 0: writing to the cache is not counted.
    pub cache_write_tokens: usize,
}

/// What the sampled tokens were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct OutputTokensDetails {
    /// Tokens up to and including the mark that closes the thoughts.
    pub reasoning_tokens: usize,
}

impl From<Usage> for ResponseUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokensDetails { cached_tokens: usage.cached_tokens, cache_write_tokens: 0 },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokensDetails { reasoning_tokens: usage.reasoning_tokens },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        }
    }
}
