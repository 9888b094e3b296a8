//! Ways in which clients of other servers say how much shall be thought.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

/// `reasoning`, as the Responses API and OpenRouter write it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
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
    /// `auto`, `concise` or `detailed`. In the Responses API thoughts then come in the place of the summary, whole; *ignored* in
    /// chat completions.
    #[serde(default)]
    pub summary: Option<String>,
    /// The old name of `summary`.
    #[serde(default)]
    #[schema(deprecated)]
    pub generate_summary: Option<String>,
    /// *Ignored* after a check (`auto`, `current_turn`, `all_turns`): the chat template decides which earlier thoughts it
    /// shows.
    #[serde(default)]
    pub context: Option<String>,
    /// *Ignored*: there is one mode of reasoning.
    #[serde(default)]
    pub mode: Option<String>,
}

/// `thinking`, as Anthropic's API writes it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct ThinkingField {
    /// `enabled`, `adaptive`, or `disabled`, which is the effort `none`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Same as `max_reasoning_tokens`.
    #[serde(default)]
    pub budget_tokens: Option<i64>,
}

/// `chat_template_kwargs`, as clients of vLLM and SGLang write it: of what they hand to chat templates, what says how much
/// shall be thought. Other keys are listed in `x-brevity-ignored`.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub struct TemplateField {
    /// `false` is the effort `none` (Qwen3's templates).
    #[serde(default)]
    pub enable_thinking: Option<bool>,
    /// `false` is the effort `none` (DeepSeek's and Granite's templates).
    #[serde(default)]
    pub thinking: Option<bool>,
    /// Same as the field of this name beside it (gpt-oss's templates).
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub reasoning_effort: Option<Value>,
    /// Same as `max_reasoning_tokens`.
    #[serde(default)]
    pub thinking_budget: Option<i64>,
}
