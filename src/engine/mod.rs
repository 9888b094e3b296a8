//! Tokens from a plan: the one door between HTTP and whatever computes.
//!
//! [`Engine`] is implemented by `mistral` (in this process), `upstream` (any OpenAI-compatible server) and `scripted`
//! (deterministic, for tests and load generators); [`ByTier`] makes one of several. A [`Generation`] goes in, [`Event`]s come out; what a particular engine
//! cannot do is made up for inside its own folder, so that nothing above can tell engines apart. No HTTP types, no routing.

mod by_tier;
mod error;
mod event;
mod generation;
#[cfg(feature = "mistral")]
pub mod mistral;
pub mod scripted;
pub mod sequence;
mod text;
pub mod upstream;

use std::pin::Pin;

use async_trait::async_trait;
use futures::Stream;

pub use by_tier::ByTier;
pub use error::EngineError;
pub use event::{Alternative, Channel, Event, Finish, FinishReason, Piece, ToolCall, Usage};
pub use generation::{
    Constraint, Conversation, Generation, Logprobs, Message, Prompt, Sampling, Shared, Thinking, ToolChoice, Tools,
};

/// The events of one generation, in order; ends after [`Event::Finished`] or the first error.
///
/// Dropping it cancels the generation: the engine stops computing within two decode steps and frees what it held.
pub type Events = Pin<Box<dyn Stream<Item = Result<Event, EngineError>> + Send>>;

/// Something that generates tokens for the tiers of one family.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Short name for logs and `/v1/tiers`: `mistral`, `upstream`, `scripted`, or `mixed`.
    fn kind(&self) -> &'static str;

    /// Tokens that prompt and completion of this tier may have together, where the engine knows.
    fn context_length(&self, tier: &str) -> Option<usize>;

    /// Starts one generation. What is wrong with the request is said here, before the first event, so that it can still
    /// become a status code; once this returns, only failures of the engine itself end the stream with an error.
    ///
    /// # Errors
    /// See [`EngineError`]; the variants say whose fault it is.
    async fn generate(&self, generation: Generation) -> Result<Events, EngineError>;

    /// Generates one token with `tier`, to know that it answers.
    ///
    /// # Errors
    /// What the generation fails with; [`EngineError::Unavailable`] when the engine is down or restarting.
    async fn probe(&self, tier: &str) -> Result<(), EngineError>;
}
