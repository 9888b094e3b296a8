//! Items of an output.

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::types::TokenLogprob;

/// An item of the output: the thoughts, the answer, or a call.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputItem {
    /// What was thought.
    Reasoning(ReasoningItem),
    /// What was said.
    Message(MessageItem),
    /// A call the model wants made.
    FunctionCall(FunctionCallItem),
}

/// Whether an item is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    /// More is to come.
    InProgress,
    /// All of it is there.
    Completed,
    /// A limit or an error cut it off.
    Incomplete,
}

/// What was thought.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ReasoningItem {
    /// Its id.
    pub id: String,
    /// The thoughts, in one part of type `summary_text`, where the request has `reasoning.summary`: many clients read them
    /// here only. Nothing is left out of them.
    pub summary: Vec<OutputPart>,
    /// The thoughts otherwise, in one part of type `reasoning_text`.
    pub content: Vec<OutputPart>,
    /// Whether they are complete.
    pub status: ItemStatus,
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct MessageItem {
    /// Its id.
    pub id: String,
    /// `assistant`.
    #[schema(value_type = String)]
    pub role: &'static str,
    /// The answer, in one part of type `output_text`.
    pub content: Vec<OutputPart>,
    /// Whether it is complete.
    pub status: ItemStatus,
}

/// A call the model wants made.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct FunctionCallItem {
    /// The item's id.
    pub id: String,
    /// The call's id, for the `function_call_output` that answers it.
    pub call_id: String,
    /// The function's name.
    pub name: String,
    /// Its arguments as JSON text.
    pub arguments: String,
    /// Whether the call is complete.
    pub status: ItemStatus,
}

/// A part of an item's content.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputPart {
    /// Thoughts.
    ReasoningText {
        /// Their text.
        text: String,
    },
    /// Thoughts, in the place of a summary.
    SummaryText {
        /// Their text.
        text: String,
    },
    /// The answer.
    OutputText {
        /// Its text.
        text: String,
        /// Always empty.
        #[schema(value_type = Vec<Object>)]
        annotations: [(); 0],
        /// Log-probabilities of its tokens, when asked for.
        logprobs: Vec<TokenLogprob>,
    },
}
