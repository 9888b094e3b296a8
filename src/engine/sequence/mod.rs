//! What every engine that sees logits and token ids shares: prompt, sampling, budget, grammar, and text from token ids.
//!
//! A [`LocalModel`] is loaded once per base folder. Each generation becomes a [`Sequence`]: the prompt's ids, a
//! [`TokenSampler`] that turns logits into ids (it may live on an engine's thread), and an [`Assembler`] that turns ids
//! into events (it may live on the async side). No engine, no HTTP and no routing is known here.

mod assembler;
mod call_shape;
mod constraint;
mod draw;
mod model;
mod prompt;
mod sampler;
#[cfg(test)]
mod tests;
mod thinking;
mod tool_calls;
mod vocabulary;

pub use assembler::Assembler;
pub use model::{LocalModel, Prepared};
pub use sampler::{Chosen, TokenSampler};

/// One generation on a local model: feed logits to the sampler, the chosen tokens to the assembler, until it is finished.
#[derive(Debug)]
pub struct Sequence {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// Tokens at most, as the request and the context allow.
    pub max_tokens: usize,
    /// Chooses tokens from logits.
    pub sampler: TokenSampler,
    /// Makes events of tokens.
    pub assembler: Assembler,
}

/// A model folder whose text side cannot be used; says which file and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(String);

impl LoadError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl From<brevity_training::Error> for LoadError {
    fn from(error: brevity_training::Error) -> Self {
        Self(error.to_string())
    }
}
