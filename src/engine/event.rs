/// What an engine says while it generates. The order is: `Started`, any number of `Token` and `ToolCall`, `Finished`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The prompt is accepted and counted; decoding begins.
    Started {
        /// Tokens of the rendered prompt.
        prompt_tokens: usize,
    },
    /// One or more new tokens with their text.
    Token(Piece),
    /// The model calls a tool; comes whole, after the text before it.
    ToolCall(ToolCall),
    /// The end.
    Finished(Finish),
}

/// Whether a text is thought or said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Between `<think>` and `</think>`, the marks not included.
    Thinking,
    /// The answer that the user reads.
    Answer,
}

/// Text that is safe to show: whole UTF-8 characters, no mark, no part of a stop string.
///
/// Text may be empty while characters or stop strings are still open; `tokens` then counts all the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Thought or said.
    pub channel: Channel,
    /// The new text.
    pub text: String,
    /// Tokens sampled since the piece before, marks included.
    pub tokens: usize,
    /// One entry a token of this piece's channel, when log-probabilities were asked for; empty otherwise.
    pub logprobs: Vec<Alternative>,
}

/// A token with its natural-log probability under the distribution before temperature and truncation.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    /// The token's text; bytes that are no whole character are replaced.
    pub token: String,
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The most likely tokens at this place, most likely first; only in the token that was chosen.
    pub top: Vec<Alternative>,
}

/// A function the model wants called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Its place among the calls of this message, from 0.
    pub index: usize,
    /// An id for the answer to refer to.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// Its arguments as JSON text.
    pub arguments: String,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended its turn, or a stop string came.
    Stop,
    /// The limit of completion tokens or of the context was reached.
    Length,
    /// The model called tools.
    ToolCalls,
    /// A content filter of an upstream server cut it.
    ContentFilter,
}

impl FinishReason {
    /// `finish_reason` of the OpenAI API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
        }
    }
}

/// The end of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// What it took.
    pub usage: Usage,
    /// Whether a thinking budget closed the thoughts.
    pub forced_close: bool,
    /// The stop string that ended it, if one did.
    pub stop: Option<String>,
    /// Which weights answered: a hash or a generation of the adapter, for `system_fingerprint`.
    pub fingerprint: Option<String>,
}

/// Token counts of one generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: usize,
    /// All sampled tokens: thoughts, marks, answer, the token that ends the turn.
    pub completion_tokens: usize,
    /// Sampled tokens up to and including the mark that closes the thoughts.
    pub reasoning_tokens: usize,
    /// Prompt tokens that came from a cache.
    pub cached_tokens: usize,
}
