//! From what a request wishes to the tier that answers: effort, model name, thinking budget, latency.
//!
//! Pure functions on plain values. No I/O, no clock, no engine: what is measured (speed) comes in as an argument, and the
//! same wish always gives the same [`Route`], with the reason in words.

use std::time::Duration;

use crate::family::Effort;

/// What a request says about who shall answer and how long may be thought.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wish {
    /// `model` of the request: the family, a tier, or `family:tier` / `family:effort`.
    pub model: String,
    /// `reasoning_effort`.
    pub effort: Option<EffortWish>,
    /// `latency_budget_ms`, for `auto`.
    pub latency_budget: Option<Duration>,
    /// `max_reasoning_tokens` or one of its aliases.
    pub max_reasoning_tokens: Option<usize>,
    /// `max_completion_tokens` or `max_tokens`.
    pub max_completion_tokens: Option<usize>,
}

/// `reasoning_effort` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffortWish {
    /// One of OpenAI's seven values.
    Named(Effort),
    /// Let the cards decide.
    Auto,
}

/// Who answers, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Name of the tier.
    pub tier: String,
    /// Its alpha; 0 for the base.
    pub alpha: f64,
    /// The effort that led here, where one did.
    pub effort: Option<Effort>,
    /// How much may be thought.
    pub thinking: crate::engine::Thinking,
    /// Whether another tier than the wished one answers, because that one is not loaded.
    pub substituted: bool,
    /// Why this tier, in a sentence for people.
    pub reason: String,
}
