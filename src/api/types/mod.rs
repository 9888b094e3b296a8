//! What travels over HTTP, one file a resource of the OpenAI API, each type with the documentation that `/docs` shows.
//!
//! Plain data: reading is tolerant of unknown fields (they are reported, see [`super::extract`]), and no rule is checked
//! here beyond shape. What values mean is decided in [`super::plan`].

pub mod brevity;
pub mod chat_request;
pub mod chat_response;
pub mod chunk;
pub mod completion;
pub mod logprobs;
pub mod message;
pub mod model;
pub mod one_or_many;
pub mod reasoning;
pub mod response_format;
pub mod responses;
pub mod tool;
pub mod usage;

pub use brevity::BrevityReport;
pub use chat_request::{ChatRequest, StreamOptions};
pub use chat_response::{ChatChoice, ChatMessage, ChatResponse};
pub use chunk::{ChatChunk, ChunkChoice, Delta, ToolCallDelta};
pub use completion::{CompletionChoice, CompletionLogprobs, CompletionRequest, CompletionResponse};
pub use logprobs::{ChoiceLogprobs, TokenLogprob, TopLogprob};
pub use message::{Content, ContentPart, RequestMessage, RequestToolCall};
pub use model::{ModelList, ModelObject};
pub use one_or_many::OneOrMany;
pub use reasoning::{ReasoningField, TemplateField, ThinkingField};
pub use response_format::{JsonSchemaFormat, ResponseFormat};
pub use responses::{CreateResponse, ResponseEvent, ResponseObject};
pub use tool::{FunctionCall, FunctionDefinition, ToolCallObject, ToolChoiceField, ToolDefinition};
pub use usage::{CompletionTokensDetails, PromptTokensDetails, UsageObject};
