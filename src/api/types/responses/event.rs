//! Events of a streamed response.

use serde::Serialize;
use utoipa::ToSchema;

use super::{OutputItem, OutputPart, ResponseObject};
use crate::api::types::TokenLogprob;

/// An event; its type is also the name of the server-sent event.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ResponseEvent<'a> {
    /// What happens.
    #[serde(flatten)]
    pub body: EventBody<'a>,
    /// Its place in the stream, from 0.
    pub sequence_number: usize,
}

/// The text that an event is about.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct TextPlace<'a> {
    /// Id of its item.
    pub item_id: &'a str,
    /// Place of its item in the output.
    pub output_index: usize,
    /// Its place in the item's content.
    pub content_index: usize,
}

/// The thoughts that an event is about, in the place of a summary.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct SummaryPlace<'a> {
    /// Id of their item.
    pub item_id: &'a str,
    /// Place of their item in the output.
    pub output_index: usize,
    /// Their place in the item's summary.
    pub summary_index: usize,
}

/// What happens. The order is: `response.created`, `response.in_progress`, the items one after the other, and one of
/// `response.completed`, `response.incomplete`, or `error` and `response.failed`.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type")]
pub enum EventBody<'a> {
    /// The response begins.
    #[serde(rename = "response.created")]
    Created {
        /// The response, still empty.
        response: &'a ResponseObject,
    },
    /// The model works.
    #[serde(rename = "response.in_progress")]
    InProgress {
        /// The response, still empty.
        response: &'a ResponseObject,
    },
    /// An item begins.
    #[serde(rename = "response.output_item.added")]
    ItemAdded {
        /// Its place in the output.
        output_index: usize,
        /// The item, still empty.
        item: &'a OutputItem,
    },
    /// A text of an item begins.
    #[serde(rename = "response.content_part.added")]
    PartAdded {
        /// Where.
        #[serde(flatten)]
        place: TextPlace<'a>,
        /// The part, still empty.
        part: &'a OutputPart,
    },
    /// More is thought.
    #[serde(rename = "response.reasoning_text.delta")]
    ReasoningDelta {
        /// Where.
        #[serde(flatten)]
        place: TextPlace<'a>,
        /// The new text.
        delta: &'a str,
    },
    /// All is thought.
    #[serde(rename = "response.reasoning_text.done")]
    ReasoningDone {
        /// Where.
        #[serde(flatten)]
        place: TextPlace<'a>,
        /// The whole text.
        text: &'a str,
    },
    /// Thoughts begin, where the request has `reasoning.summary`.
    #[serde(rename = "response.reasoning_summary_part.added")]
    SummaryPartAdded {
        /// Where.
        #[serde(flatten)]
        place: SummaryPlace<'a>,
        /// The part, still empty.
        part: &'a OutputPart,
    },
    /// More is thought.
    #[serde(rename = "response.reasoning_summary_text.delta")]
    SummaryDelta {
        /// Where.
        #[serde(flatten)]
        place: SummaryPlace<'a>,
        /// The new text.
        delta: &'a str,
    },
    /// All is thought.
    #[serde(rename = "response.reasoning_summary_text.done")]
    SummaryDone {
        /// Where.
        #[serde(flatten)]
        place: SummaryPlace<'a>,
        /// The whole text.
        text: &'a str,
    },
    /// Thoughts end.
    #[serde(rename = "response.reasoning_summary_part.done")]
    SummaryPartDone {
        /// Where.
        #[serde(flatten)]
        place: SummaryPlace<'a>,
        /// The whole part.
        part: &'a OutputPart,
    },
    /// More is said.
    #[serde(rename = "response.output_text.delta")]
    TextDelta {
        /// Where.
        #[serde(flatten)]
        place: TextPlace<'a>,
        /// The new text.
        delta: &'a str,
        /// Log-probabilities of the new tokens, when asked for.
        logprobs: &'a [TokenLogprob],
    },
    /// All is said.
    #[serde(rename = "response.output_text.done")]
    TextDone {
        /// Where.
        #[serde(flatten)]
        place: TextPlace<'a>,
        /// The whole text.
        text: &'a str,
        /// Log-probabilities of all its tokens, when asked for.
        logprobs: &'a [TokenLogprob],
    },
    /// A text of an item ends.
    #[serde(rename = "response.content_part.done")]
    PartDone {
        /// Where.
        #[serde(flatten)]
        place: TextPlace<'a>,
        /// The whole part.
        part: &'a OutputPart,
    },
    /// The arguments of a call, which come whole.
    #[serde(rename = "response.function_call_arguments.delta")]
    ArgumentsDelta {
        /// Id of the call's item.
        item_id: &'a str,
        /// Its place in the output.
        output_index: usize,
        /// The arguments as JSON text.
        delta: &'a str,
    },
    /// The arguments of a call are complete.
    #[serde(rename = "response.function_call_arguments.done")]
    ArgumentsDone {
        /// Id of the call's item.
        item_id: &'a str,
        /// Its place in the output.
        output_index: usize,
        /// The function's name.
        name: &'a str,
        /// The arguments as JSON text.
        arguments: &'a str,
    },
    /// An item ends.
    #[serde(rename = "response.output_item.done")]
    ItemDone {
        /// Its place in the output.
        output_index: usize,
        /// The whole item.
        item: &'a OutputItem,
    },
    /// The model ended its turn.
    #[serde(rename = "response.completed")]
    Completed {
        /// The whole response.
        response: &'a ResponseObject,
    },
    /// A limit cut the response off.
    #[serde(rename = "response.incomplete")]
    Incomplete {
        /// What there is of the response.
        response: &'a ResponseObject,
    },
    /// Something went wrong; `response.failed` follows.
    #[serde(rename = "error")]
    Error {
        /// A word for programs, or null.
        code: Option<&'a str>,
        /// What went wrong, in words.
        message: &'a str,
        /// The request's field, or null.
        param: Option<&'a str>,
    },
    /// The response ended with an error.
    #[serde(rename = "response.failed")]
    Failed {
        /// What there is of the response.
        response: &'a ResponseObject,
    },
}

impl EventBody<'_> {
    /// The type, which is the name of the server-sent event.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "response.created",
            Self::InProgress { .. } => "response.in_progress",
            Self::ItemAdded { .. } => "response.output_item.added",
            Self::PartAdded { .. } => "response.content_part.added",
            Self::ReasoningDelta { .. } => "response.reasoning_text.delta",
            Self::ReasoningDone { .. } => "response.reasoning_text.done",
            Self::SummaryPartAdded { .. } => "response.reasoning_summary_part.added",
            Self::SummaryDelta { .. } => "response.reasoning_summary_text.delta",
            Self::SummaryDone { .. } => "response.reasoning_summary_text.done",
            Self::SummaryPartDone { .. } => "response.reasoning_summary_part.done",
            Self::TextDelta { .. } => "response.output_text.delta",
            Self::TextDone { .. } => "response.output_text.done",
            Self::PartDone { .. } => "response.content_part.done",
            Self::ArgumentsDelta { .. } => "response.function_call_arguments.delta",
            Self::ArgumentsDone { .. } => "response.function_call_arguments.done",
            Self::ItemDone { .. } => "response.output_item.done",
            Self::Completed { .. } => "response.completed",
            Self::Incomplete { .. } => "response.incomplete",
            Self::Error { .. } => "error",
            Self::Failed { .. } => "response.failed",
        }
    }
}
