//! Items of an input: turns, calls, their results, and earlier thoughts.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::types::{ContentPart, OneOrMany};

/// An item of the input. Items of an earlier response can be sent back as they came.
///
/// Which fields an item has depends on its type:
/// - `message`: `role` and `content`.
/// - `reasoning`: `content`, the thoughts of the turn that follows. The chat template decides whether the model sees them
///   again; usually it does not.
/// - `function_call`: `call_id`, `name` and `arguments`. Belongs to the assistant's turn before it, if there is one.
/// - `function_call_output`: `call_id` and `output`.
///
/// Others are refused.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct InputItem {
    /// `message`, which is what is meant without it, `reasoning`, `function_call` or `function_call_output`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Who speaks: `user`, `assistant`, `system` or `developer`.
    #[serde(default)]
    pub role: Option<String>,
    /// A text, or a list of parts (joined by line breaks). Images, audio and files are refused.
    #[serde(default)]
    #[schema(value_type = Option<InputContent>)]
    pub content: Option<OneOrMany<InputPart>>,
    /// The call's id, to which its output refers.
    #[serde(default)]
    pub call_id: Option<String>,
    /// The function's name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its arguments as JSON text.
    #[serde(default)]
    pub arguments: Option<String>,
    /// What the function gave: a text, or a list of text parts.
    #[serde(default)]
    #[schema(value_type = Option<InputContent>)]
    pub output: Option<OneOrMany<InputPart>>,
    /// Not needed: nothing is stored that it could refer to.
    #[serde(default)]
    pub id: Option<String>,
    /// Not needed.
    #[serde(default)]
    pub status: Option<String>,
    /// Not needed: thoughts are in `content`.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    pub summary: Option<Value>,
}

/// A part of an item's content.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
pub struct InputPart {
    /// `input_text` or `output_text`, which are the same here; `reasoning_text` in a `reasoning` item; `refusal` in an
    /// assistant's turn.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    #[serde(default)]
    pub text: Option<String>,
    /// The text of a `refusal` part.
    #[serde(default)]
    pub refusal: Option<String>,
    /// Not needed.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    pub annotations: Option<Value>,
    /// Not needed.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    pub logprobs: Option<Value>,
}

impl From<InputPart> for ContentPart {
    fn from(part: InputPart) -> Self {
        Self { kind: part.kind, text: part.text, refusal: part.refusal }
    }
}

/// A text or a list of parts, for the documentation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum InputContent {
    /// Text.
    #[schema(title = "Text")]
    Text(String),
    /// Parts.
    #[schema(title = "Parts")]
    Parts(Vec<InputPart>),
}

/// A text or a list of items, for the documentation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum InputField {
    /// What the user says.
    #[schema(title = "Text")]
    Text(String),
    /// Items.
    #[schema(title = "Items")]
    Items(Vec<InputItem>),
}
