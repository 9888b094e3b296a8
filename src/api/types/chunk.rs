//! `chat.completion.chunk`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BrevityReport, ChoiceLogprobs, FunctionCall, UsageObject};

/// A part of a streamed response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatChunk {
    /// Id of the response, the same in all its chunks.
    pub id: String,
    /// `chat.completion.chunk`.
    pub object: String,
    /// When the response began, in seconds since 1970.
    pub created: u64,
    /// The tier that answers, as a model name.
    pub model: String,
    /// What is new; empty in the chunk that brings the usage.
    pub choices: Vec<ChunkChoice>,
    /// With `stream_options.include_usage` the last chunk's token counts, null in all others; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UsageObject>)]
    pub usage: Option<Option<UsageObject>>,
    /// Which weights answered; in the chunk that ends a choice, where the engine knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
    /// Who answers and why; in the first and the last chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brevity: Option<BrevityReport>,
}

/// What is new in one choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChunkChoice {
    /// Which choice.
    pub index: usize,
    /// What is new.
    pub delta: Delta,
    /// Log-probabilities of the answer's new tokens, when asked for.
    pub logprobs: Option<ChoiceLogprobs>,
    /// Why the choice ended; null before its last chunk.
    pub finish_reason: Option<String>,
}

/// New text or calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Delta {
    /// `assistant`, in the choice's first chunk only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// More of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// More of the thoughts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// More of the thoughts, under their other name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Calls the model wants made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallDelta>,
}

/// A call, which comes whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ToolCallDelta {
    /// Its place among the calls of the message.
    pub index: usize,
    /// Its id.
    pub id: String,
    /// `function`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which function, and with what.
    pub function: FunctionCall,
}
