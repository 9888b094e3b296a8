//! `chat.completion`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BrevityReport, ChoiceLogprobs, ToolCallObject, UsageObject};

/// A whole response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatResponse {
    /// Id of the response.
    pub id: String,
    /// `chat.completion`.
    pub object: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The tier that answered, as a model name.
    pub model: String,
    /// The answers.
    pub choices: Vec<ChatChoice>,
    /// What they took.
    pub usage: UsageObject,
    /// Which weights answered, where the engine knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
    /// Who answered and why.
    pub brevity: BrevityReport,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatChoice {
    /// Its place.
    pub index: usize,
    /// What was said.
    pub message: ChatMessage,
    /// Log-probabilities of the answer's tokens, when asked for.
    pub logprobs: Option<ChoiceLogprobs>,
    /// `stop`, `length`, `tool_calls` or `content_filter`.
    pub finish_reason: String,
}

/// What was said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatMessage {
    /// `assistant`.
    pub role: String,
    /// The answer; empty when the limit came while thinking, null when only tools are called.
    pub content: Option<String>,
    /// Always null.
    pub refusal: Option<String>,
    /// The thoughts, where there are any and they are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The thoughts under their other name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Calls the model wants made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallObject>,
}
