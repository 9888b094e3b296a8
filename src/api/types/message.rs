//! The turns of a request.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::OneOrMany;

/// What a turn says: a text, or parts of which only texts are understood.
pub type Content = OneOrMany<ContentPart>;

/// One turn of the conversation.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct RequestMessage {
    /// `developer`, `system`, `user`, `assistant`, `tool`, or the legacy `function` (read as `tool`).
    pub role: String,
    /// A text, or a list of `{"type": "text", "text": …}` (joined by line breaks). May be null in an assistant's turn that
    /// calls tools. Images, audio and files are refused.
    #[serde(default)]
    #[schema(value_type = Option<MessageContent>)]
    pub content: Option<Content>,
    /// Name of the speaker.
    #[serde(default)]
    pub name: Option<String>,
    /// What the assistant thought in an earlier turn. Chat templates usually leave it out of the prompt.
    #[serde(default)]
    pub reasoning_content: Option<String>,
    /// Another name of `reasoning_content`.
    #[serde(default)]
    pub reasoning: Option<String>,
    /// The assistant's refusal in an earlier turn; read as its content where there is none.
    #[serde(default)]
    pub refusal: Option<String>,
    /// Calls the assistant made.
    #[serde(default)]
    pub tool_calls: Option<Vec<RequestToolCall>>,
    /// The call that a `tool` turn answers.
    #[serde(default)]
    pub tool_call_id: Option<String>,
    /// Legacy form of `tool_calls`; refused.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub function_call: Option<Value>,
    /// Spoken answers are refused.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub audio: Option<Value>,
}

/// A text or a list of parts, for the documentation.
#[derive(Debug, serde::Serialize, ToSchema)]
#[serde(untagged)]
pub enum MessageContent {
    /// Text.
    #[schema(title = "Text")]
    Text(String),
    /// Parts.
    #[schema(title = "Parts")]
    Parts(Vec<ContentPart>),
}

/// A part of a turn's content.
#[derive(Debug, Clone, PartialEq, serde::Serialize, Deserialize, ToSchema)]
pub struct ContentPart {
    /// `text`; also `refusal` in an assistant's turn.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text of a `text` part.
    #[serde(default)]
    pub text: Option<String>,
    /// The text of a `refusal` part.
    #[serde(default)]
    pub refusal: Option<String>,
}

/// A call that the assistant made in an earlier turn.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct RequestToolCall {
    /// Its id, to which a `tool` turn refers.
    pub id: String,
    /// `function`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which function, and with what.
    #[serde(default)]
    pub function: Option<super::FunctionCall>,
}
