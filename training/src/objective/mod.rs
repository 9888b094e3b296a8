//! Reward functions: what a group of responses to one prompt is worth, from correctness and length.
//!
//! One objective a file, one trait. An objective sees outcomes, never tokens or text, so that it can be shown on paper and
//! served to other trainers. Baselines, normalisation and KL are not rewards here: see [`crate::advantage`].

mod sigmoid;

pub use sigmoid::SigmoidLength;

/// What a recipe calls [`SigmoidLength`].
pub const SIGMOID_LENGTH: &str = "sigmoid-length";

/// The names of all objectives.
pub const NAMES: [&str; 1] = [SIGMOID_LENGTH];

/// What an objective may know of one response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The grader found the reference answer in it.
    pub correct: bool,
    /// It was cut off before its end-of-sequence token.
    pub truncated: bool,
    /// Response tokens, the end-of-sequence token included.
    pub tokens: usize,
}

/// A reward function over the responses to one prompt.
pub trait Objective: Send + Sync {
    /// The reward of every response of one group, in order. Must not depend on the order.
    fn rewards(&self, group: &[Outcome]) -> Vec<f64>;
}
