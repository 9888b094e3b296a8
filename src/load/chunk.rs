//! The JSON of a streamed or whole completion, as far as a measurement needs it.
//!
//! Types borrow from the bytes they were read from: this runs for every token of every stream, and the generator must be
//! faster than what it measures. Both names under which servers send thoughts are known; their text is used once.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Text that is borrowed where it holds no escapes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// `chat.completion.chunk`, or `chat.completion` when the answer was not streamed.
#[derive(Debug, Deserialize)]
pub struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    /// Token counts; in a stream only in its last chunk.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// What went wrong, when the server says so inside a stream that began well.
    #[serde(default)]
    pub error: Option<serde_json::Value>,
    #[serde(borrow, default)]
    model: Option<Text<'a>>,
    #[serde(borrow, default)]
    system_fingerprint: Option<Text<'a>>,
    #[serde(default)]
    brevity: Option<Brevity>,
}

/// What this project's server says besides, as far as it is counted.
#[derive(Debug, Deserialize)]
struct Brevity {
    #[serde(default)]
    forced_close: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default, alias = "message")]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Text<'a>>,
    #[serde(borrow, default)]
    reasoning_content: Option<Text<'a>>,
    #[serde(borrow, default)]
    reasoning: Option<Text<'a>>,
}

/// `usage` of a completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Usage {
    /// Tokens of the prompt.
    #[serde(default)]
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, thoughts included.
    #[serde(default)]
    pub completion_tokens: Option<u64>,
    /// How many of these were thoughts.
    #[serde(default)]
    pub completion_tokens_details: Option<CompletionDetails>,
}

/// `completion_tokens_details` of [`Usage`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct CompletionDetails {
    /// Tokens of the thoughts; servers that do not count them leave this away.
    #[serde(default)]
    pub reasoning_tokens: Option<u64>,
}

impl Usage {
    /// Tokens of the thoughts, where the server counts them.
    pub fn reasoning_tokens(&self) -> Option<u64> {
        self.completion_tokens_details.and_then(|details| details.reasoning_tokens)
    }
}

impl<'a> Chunk<'a> {
    /// Reads a chunk.
    ///
    /// # Errors
    /// When it is not JSON, or not of this shape.
    pub fn parse(data: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(data)
    }

    fn choice(&self) -> Option<&Choice<'a>> {
        self.choices.as_ref()?.first()
    }

    /// New text of the answer; empty when there is none.
    pub fn answer(&self) -> &str {
        self.choice().and_then(|choice| choice.delta.as_ref()?.content.as_ref()).map_or("", |text| &text.0)
    }

    /// New text of the thoughts, from `reasoning_content` or else `reasoning`; empty when there is none.
    pub fn thoughts(&self) -> &str {
        let delta = self.choice().and_then(|choice| choice.delta.as_ref());
        let names = delta.map(|delta| [delta.reasoning_content.as_ref(), delta.reasoning.as_ref()]);
        let mut texts = names.into_iter().flatten().flatten().map(|text| text.0.as_ref());
        texts.find(|text: &&str| !text.is_empty()).unwrap_or_default()
    }

    /// Why the generation ended, in the chunk that ends it.
    pub fn finish_reason(&self) -> Option<&str> {
        self.choice()?.finish_reason.as_ref().map(|text| text.0.as_ref())
    }

    /// The model that the server says it used.
    pub fn model(&self) -> Option<&str> {
        self.model.as_ref().map(|text| text.0.as_ref())
    }

    /// The server's fingerprint of the weights that answered.
    pub fn fingerprint(&self) -> Option<&str> {
        self.system_fingerprint.as_ref().map(|text| text.0.as_ref())
    }

    /// Whether a thinking budget closed the thoughts; only this project's server says so, when the generation has ended.
    pub fn forced_close(&self) -> Option<bool> {
        self.brevity.as_ref()?.forced_close
    }
}

/// What an error object says: `error.message`, or the whole of it when it has another shape.
pub fn error_message(error: &serde_json::Value) -> String {
    let message = error.get("message").and_then(serde_json::Value::as_str).or(error.as_str());
    message.map_or_else(|| error.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_are_counted_once_under_either_name() {
        let text =
            r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm","reasoning":"hm"},"finish_reason":null}]}"#;
        assert_eq!(Chunk::parse(text.as_bytes()).unwrap().thoughts(), "hm");
        let text = r#"{"choices":[{"delta":{"content":null,"reasoning":"só\n"}}],"usage":null}"#;
        let chunk = Chunk::parse(text.as_bytes()).unwrap();
        assert_eq!((chunk.thoughts(), chunk.answer(), chunk.usage), ("só\n", "", None));
    }

    #[test]
    fn plain_text_is_borrowed() {
        let text = r#"{"id":"x","model":"m","choices":[{"delta":{"content":"plain"}}]}"#;
        let chunk = Chunk::parse(text.as_bytes()).unwrap();
        let content = chunk.choice().unwrap().delta.as_ref().unwrap().content.as_ref().unwrap();
        assert!(matches!(content.0, Cow::Borrowed("plain")));
        assert_eq!(chunk.model(), Some("m"));
    }

    #[test]
    fn usage_and_ends_are_read() {
        let text = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9,"total_tokens":12,
            "completion_tokens_details":{"reasoning_tokens":7}}}"#;
        let usage = Chunk::parse(text.as_bytes()).unwrap().usage.unwrap();
        assert_eq!(
            (usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens()),
            (Some(3), Some(9), Some(7))
        );
        let text = r#"{"choices":[{"delta":{},"finish_reason":"length"}],"usage":{"completion_tokens_details":null}}"#;
        let chunk = Chunk::parse(text.as_bytes()).unwrap();
        assert_eq!(chunk.finish_reason(), Some("length"));
        assert_eq!(chunk.usage.unwrap().reasoning_tokens(), None);
    }

    #[test]
    fn whole_answers_have_the_same_parts() {
        let text = r#"{"object":"chat.completion","choices":[{"message":{"role":"assistant","content":"4","reasoning":"2+2"},
            "finish_reason":"stop","logprobs":null}],"usage":{"completion_tokens":5}}"#;
        let chunk = Chunk::parse(text.as_bytes()).unwrap();
        assert_eq!((chunk.answer(), chunk.thoughts(), chunk.finish_reason()), ("4", "2+2", Some("stop")));
    }

    #[test]
    fn forced_closings_are_told_by_some_servers() {
        let told = |text: &str| Chunk::parse(text.as_bytes()).unwrap().forced_close();
        assert_eq!(told(r#"{"choices":[],"brevity":{"tier":"low","alpha":0.2,"forced_close":true}}"#), Some(true));
        assert_eq!(told(r#"{"choices":[],"brevity":{"tier":"low","forced_close":null}}"#), None);
        assert_eq!(told(r#"{"choices":[]}"#), None);
    }

    #[test]
    fn errors_of_any_shape_say_something() {
        let chunk = Chunk::parse(br#"{"error":{"message":"boom","code":null}}"#).unwrap();
        assert_eq!(error_message(&chunk.error.unwrap()), "boom");
        assert_eq!(error_message(&serde_json::json!("Unauthorized")), "Unauthorized");
        assert_eq!(error_message(&serde_json::json!({"detail": 1})), "{\"detail\":1}");
    }
}
