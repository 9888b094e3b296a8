use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::EngineError;

/// Everything an engine needs for one completion; made by routing and the API, checked there, honoured whole.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Name of the tier in the family.
    pub tier: String,
    /// What to continue.
    pub prompt: Prompt,
    /// How to draw tokens.
    pub sampling: Sampling,
    /// How much may be thought.
    pub thinking: Thinking,
    /// Completion tokens at most, thoughts included; `None` is whatever the context leaves.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer, not shown. They are looked for in the answer only: a stop string inside the thoughts
    /// would leave the user without any answer.
    pub stop: Vec<String>,
    /// Log-probabilities wanted with the tokens.
    pub logprobs: Option<Logprobs>,
    /// What the answer must look like.
    pub constraint: Constraint,
    /// What the choices of a request make only once. Those that share it differ in nothing but seeds.
    pub shared: Shared,
}

/// A place for what an engine makes of a prompt, once for all generations that share it: tokenising a long prompt or
/// compiling a schema can take seconds. Empty when new; clones are the same place.
#[derive(Clone, Default)]
pub struct Shared(Arc<OnceCell<Result<Arc<dyn Any + Send + Sync>, EngineError>>>);

impl Shared {
    /// What `make` gives, made by the first who asks; others wait for it.
    ///
    /// # Errors
    /// What `make` fails with, for all alike.
    pub async fn once<T: Any + Send + Sync>(
        &self,
        make: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<Arc<T>, EngineError> {
        let erased = async { make.await.map(|made| Arc::new(made) as Arc<dyn Any + Send + Sync>) };
        let made = self.0.get_or_init(|| erased).await.clone()?;
        made.downcast().map_err(|_| EngineError::failed("generations of several engines share a place; this is a bug"))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("made", &self.0.initialized()).finish()
    }
}

/// What to continue.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// A conversation; the chat template is applied by whoever holds the model.
    Chat(Conversation),
    /// Text as it is, without a template, but after the token that the model's tokenizer begins every text with, where it
    /// has one and the text does not begin with it. All that follows is answer: marks of thoughts are text like any other.
    Text(String),
}

/// Messages and tools, in the shape chat templates expect.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Conversation {
    /// The turns so far.
    pub messages: Vec<Message>,
    /// Tools the model may call.
    #[serde(default)]
    pub tools: Option<Tools>,
}

/// One turn.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What is said, parts joined; empty in an assistant's turn that only calls tools.
    pub content: String,
    /// What the assistant thought, where the client sends it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Calls the assistant made: OpenAI's objects, with `arguments` the text that was sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<Value>,
    /// The call that a `tool` turn answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Name of the speaker or tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Tools and how freely the model may choose among them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tools {
    /// OpenAI's tool objects (`{"type": "function", "function": {…}}`).
    pub definitions: Vec<Value>,
    /// Whether one must be called, and which.
    pub choice: ToolChoice,
    /// Whether several may be called in one turn.
    pub parallel: bool,
}

/// `tool_choice` of the OpenAI API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// No tool is called.
    None,
    /// The model decides.
    Auto,
    /// At least one tool is called.
    Required,
    /// This function is called.
    Function(String),
}

/// How tokens are drawn. All fields are explicit: an engine fills nothing in from a model's own defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Softmax temperature in [0, 2]; 0 takes the most likely token.
    pub temperature: f64,
    /// Nucleus mass in (0, 1].
    pub top_p: f64,
    /// The k most likely tokens only; `None` for all.
    pub top_k: Option<usize>,
    /// Tokens at least this share as likely as the most likely one, in [0, 1].
    pub min_p: f64,
    /// Seed of this sequence's own generator; the same seed, tier and prompt give the same text.
    pub seed: u64,
    /// Subtracted once from the logit of every generated token, in [-2, 2].
    pub presence_penalty: f64,
    /// Subtracted per occurrence, in [-2, 2].
    pub frequency_penalty: f64,
    /// Added to logits by token id, in [-100, 100].
    pub logit_bias: BTreeMap<u32, f32>,
    /// Go on after the token that ends a turn (for load generators).
    pub ignore_eos: bool,
}

impl Default for Sampling {
    /// OpenAI's defaults: temperature 1, no truncation, no penalties.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            min_p: 0.0,
            seed: 0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            ignore_eos: false,
        }
    }
}

/// How much may be thought before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    /// The thoughts are closed at once.
    Closed,
    /// As long as the model likes.
    Free,
    /// Closed by the sampler once this many tokens are thought, the closing mark not counted.
    Budget(usize),
}

/// Log-probabilities wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logprobs {
    /// Alternatives per token, 0 to 20.
    pub top: usize,
}

/// What the answer (not the thoughts) must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// Anything.
    Free,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits this schema.
    JsonSchema(Value),
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_is_shared_is_made_once() {
        let (shared, made) = (Shared::default(), AtomicUsize::new(0));
        let make = || async {
            made.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(7u32)
        };
        let (one, two) = (shared.clone(), shared.clone());
        let (left, right) = tokio::join!(one.once(make()), two.once(make()));
        assert_eq!((*left.unwrap(), *right.unwrap(), made.load(Ordering::SeqCst)), (7, 7, 1));
        assert!(shared.once(async { Ok("a word") }).await.is_err(), "of another type");
        let failing = Shared::default();
        for _ in 0..2 {
            let error = failing.once(async { Err::<u32, _>(EngineError::invalid("prompt", "no")) }).await;
            assert!(matches!(error, Err(EngineError::Invalid { param: Some("prompt"), .. })));
        }
    }
}
