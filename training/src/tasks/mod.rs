//! Problems with known answers, where they come from, and how a response is graded.
//!
//! A task is a source of [`Problem`]s (the mini suite's generator, a JSONL, Parquet or Arrow data set) and a [`Grader`] that
//! says whether a response reaches the problem's answer. Rewards, lengths and tokens are not known here: a task sees text.

pub mod behaviours;
pub mod chat;
pub mod grader;
pub mod mini;
pub mod readers;

pub use grader::Grader;

/// One problem: what the user asks, and the answer that counts as correct.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// Unique within its source, stable between runs: the row number of a data set, the expression of the mini suite.
    pub id: String,
    /// The user's message, without chat template.
    pub question: String,
    /// The reference answer, as the data set gives it or the generator computed it.
    pub answer: String,
    /// A difficulty class (`easy`, `medium`, `hard`; MATH's `1` to `5`) by which results are reported, if the source has one.
    pub level: Option<String>,
}
