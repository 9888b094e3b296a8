//! Ways in which clients of other servers say how much shall be thought.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

/// `reasoning`, as the Responses API and OpenRouter write it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct ReasoningField {
    /// Same as `reasoning_effort`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub effort: Option<Value>,
    /// Same as `max_reasoning_tokens`.
    #[serde(default)]
    pub max_tokens: Option<i64>,
    /// Whether the thoughts are left out of the response; the opposite of `include_reasoning`.
    #[serde(default)]
    pub exclude: Option<bool>,
    /// `false` is the effort `none`.
    #[serde(default)]
    pub enabled: Option<bool>,
}

/// `thinking`, as Anthropic's API writes it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct ThinkingField {
    /// `enabled`, `adaptive`, or `disabled`, which is the effort `none`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Same as `max_reasoning_tokens`.
    #[serde(default)]
    pub budget_tokens: Option<i64>,
}
