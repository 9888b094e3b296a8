//! Measuring a tier: graded responses in, accuracy, tokens and behaviours with their uncertainty out.
//!
//! One half of the room is pure: it sees [`Response`]s, never an engine, a prompt or a file. Summaries are made per level
//! and overall, comparisons against the base use the same problems wherever both sides answered them. The other half
//! ([`suite`], [`runner`]) brings the problems and turns them into graded responses. Nothing here prints or writes.

pub mod behaviours;
pub mod comparison;
pub mod runner;
pub mod statistics;
pub mod suite;
pub mod summary;

pub use behaviours::{BehaviourCounts, Behaviours};
pub use comparison::{Comparison, compare};
pub use runner::{Evaluation, Graded, Settings};
pub use statistics::Interval;
pub use suite::{NamedColumns, Suite};
pub use summary::{LevelSummary, Summary, TokenSummary};

use serde::{Deserialize, Serialize};

/// One graded response, as the summaries need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Which problem it answers: its place in the data set, the same number for every tier.
    pub problem: usize,
    /// The problem's difficulty class; an empty string where the data set has none.
    pub level: String,
    /// The grader found the reference answer.
    pub correct: bool,
    /// It was cut off before its end-of-sequence token.
    pub truncated: bool,
    /// Completion tokens, the end-of-sequence token included.
    pub tokens: usize,
    /// Tokens of them inside the thinking block.
    pub reasoning_tokens: usize,
    /// Marker phrases found in its text.
    pub behaviours: BehaviourCounts,
}

/// The levels of `responses`: by number where all are numbers, else in the order in which they first appear.
fn level_names<'a>(responses: impl IntoIterator<Item = &'a Response>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for response in responses {
        if !names.contains(&response.level.as_str()) {
            names.push(&response.level);
        }
    }
    let number = |name: &&str| name.parse::<u64>().ok();
    if names.iter().all(|name| number(name).is_some()) {
        names.sort_by_key(number);
    }
    names
}

/// The responses grouped by problem, ascending by problem index.
fn by_problem<'a>(responses: impl IntoIterator<Item = &'a Response>) -> Vec<(usize, Vec<&'a Response>)> {
    let mut groups = std::collections::BTreeMap::<usize, Vec<&Response>>::new();
    for response in responses {
        groups.entry(response.problem).or_default().push(response);
    }
    groups.into_iter().collect()
}

/// Responses to test with.
#[cfg(test)]
mod sample {
    use super::{BehaviourCounts, Response};

    /// A response with half of its tokens in reasoning, two verifications, and a backtrack where it is correct; cut off from
    /// 200 tokens on.
    pub fn response(problem: usize, level: &str, correct: bool, tokens: usize) -> Response {
        Response {
            problem,
            level: level.to_owned(),
            correct,
            truncated: tokens >= 200,
            tokens,
            reasoning_tokens: tokens / 2,
            behaviours: BehaviourCounts { verification: 2, backtracking: usize::from(correct), exploration: 0 },
        }
    }
}
