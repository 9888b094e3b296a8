//! From what a request wishes to the tier that answers: effort, model name, thinking budget, latency.
//!
//! Pure functions on plain values. No I/O, no clock, no engine: what is measured (speed) and the time of it come in as
//! arguments, and the same wish always gives the same [`Route`], with the reason in words.

mod auto;
mod budget;
mod catalogue;
mod comparable;
mod effort;
mod error;
mod fading;
mod model;
mod resolve;
mod speed;

#[cfg(test)]
mod fixtures;

use std::time::Duration;

use crate::engine::Thinking;
use crate::family::Effort;

pub use budget::default_limit;
pub use catalogue::{Catalogue, CatalogueTier, Expectation};
pub use comparable::ignored_cards;
pub use effort::{EffortWish, UnknownEffort};
pub use error::RouteError;
pub use model::{ModelName, model_ids, resolve_model, tier_id};
pub use resolve::route;
pub use speed::{Outlook, Sample, Speed, Speeds};

/// What a request says about who shall answer and how long may be thought.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wish {
    /// `model` of the request: the family, a tier, or `family:tier` / `family:effort`.
    pub model: String,
    /// `reasoning_effort`.
    pub effort: Option<EffortWish>,
    /// The field that asks for thoughts without saying how many, such as `enable_thinking`.
    pub asks_for_thoughts: Option<&'static str>,
    /// `latency_budget_ms`: only with `auto`, which it stands for where no effort is named.
    pub latency_budget: Option<Duration>,
    /// `max_reasoning_tokens` or one of its aliases; 0 closes the thoughts at once.
    pub max_reasoning_tokens: Option<usize>,
    /// `max_completion_tokens` or `max_tokens`.
    pub max_completion_tokens: Option<usize>,
}

/// Who answers, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Name of the tier; it is loaded.
    pub tier: String,
    /// Its alpha; 0 for the base.
    pub alpha: f64,
    /// The effort in force: the one asked for, or the default one where `auto` did not choose. It led to the tier
    /// unless `model` named that.
    pub effort: Option<Effort>,
    /// Whether `auto` chose the tier from the cards; `effort` is empty then.
    pub auto: bool,
    /// How much may be thought.
    pub thinking: Thinking,
    /// Whether another tier than the effort's answers, because that one is not loaded.
    pub substituted: bool,
    /// Why this tier, in a sentence or two for people; one line.
    pub reason: String,
}
