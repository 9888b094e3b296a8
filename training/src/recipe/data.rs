//! `[data]`, `[grader]` and `[behaviours]`: what is asked, what counts as right, which phrases are counted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::choices::DataSource;
use crate::tasks::grader::GraderMode;

/// `[data]`: where problems come from and how a prompt is made of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSection {
    /// The mini suite's generator or a file. Default `file`.
    pub source: DataSource,
    /// The JSONL, Parquet or Arrow file, with `source = "file"`; `hf://datasets/ORGANISATION/NAME[@REVISION]/FILE` for one on
    /// the Hugging Face hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Where the file lies when `path` is an address: set by who fetched it, no key of a recipe.
    #[serde(skip)]
    pub fetched: Option<PathBuf>,
    /// Column of the problem. Default `problem`, as in the paper's data.
    pub question_column: String,
    /// Column of the reference answer. Default `answer`.
    pub answer_column: String,
    /// Column of the difficulty class by which results are reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level_column: Option<String>,
    /// Column of a unique name; the row number when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_column: Option<String>,
    /// Whether to leave out problems whose reference answer the grader cannot read as mathematics, so that only the very same
    /// text would equal it: the paper's filter, "answers that parse". Comes before `limit`. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub gradable_only: bool,
    /// Column of the user's message, for supervised learning on a file of pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_column: Option<String>,
    /// Column of the response to learn, for supervised learning on a file of pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_column: Option<String>,
    /// The user's message, `{question}` standing for the problem. Default `{question}`.
    pub prompt_template: String,
    /// Whether the filled template is a user's message that goes through the model's chat template (default), or, with
    /// false, the whole prompt with its special tokens, as in the paper's script.
    pub chat_template: bool,
    /// The system message, with `chat_template = true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Shares of the mini suite's levels; they need not sum to 1. Default easy 2, medium 2, hard 1.
    pub levels: BTreeMap<String, f64>,
    /// Most problems of a file that are used, the first of it, in an order that `seed` decides, again from the start when
    /// they run out; the mini suite draws its problems anew. Default 3200
    /// (`max_samples` of the paper's script: 100 steps of 32, each problem once).
    pub limit: usize,
    /// Problems that are not trained on, of those that `limit` leaves, for `run.eval_every`. The mini suite, which never runs
    /// out, draws as many of its own. Default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub held_out: usize,
}

impl DataSection {
    /// The file to read.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.fetched.as_deref().or(self.path.as_deref())
    }
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            source: DataSource::File,
            path: None,
            fetched: None,
            question_column: "problem".to_owned(),
            answer_column: "answer".to_owned(),
            level_column: None,
            id_column: None,
            gradable_only: false,
            prompt_column: None,
            response_column: None,
            prompt_template: "{question}".to_owned(),
            chat_template: true,
            system: None,
            levels: [("easy", 2.0), ("medium", 2.0), ("hard", 1.0)]
                .map(|(level, share)| (level.to_owned(), share))
                .into(),
            limit: 3200,
            held_out: 0,
        }
    }
}

/// `[grader]`: what counts as the reference answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GraderSection {
    /// The rules. Default `qwen`, those of the released code.
    pub mode: GraderMode,
    /// Whether training pays only for answers in a box. Default true; with false a response earns its reward by a last
    /// number too, and a length penalty teaches it to leave the box away. Evaluation finds answers without a box as well.
    #[serde(skip_serializing_if = "is_true")]
    pub require_box: bool,
    /// Whether only what follows the thoughts (`</think>`) is graded, in training and evaluation, as users read it. Default
    /// false, as in the released code: there a response that ends with a box inside its thoughts is correct, and answers
    /// nothing when it is served. A response without thoughts is graded as a whole.
    #[serde(skip_serializing_if = "is_false")]
    pub after_thoughts: bool,
}

impl Default for GraderSection {
    fn default() -> Self {
        Self { mode: GraderMode::Qwen, require_box: true, after_thoughts: false }
    }
}

/// Whether a switch is on, so that a default need not be written.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_true(switch: &bool) -> bool {
    *switch
}

/// As [`is_true`], for a number.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// As [`is_true`], for a switch that is off by default.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(switch: &bool) -> bool {
    !*switch
}

/// `[behaviours]`: phrases whose occurrences are counted in responses, as in the paper's analysis of behaviours.
///
/// The paper's own lists are not published. Matching ignores case.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BehavioursSection {
    /// Checking a result. Default: none counted.
    pub verification: Vec<String>,
    /// Giving up a path. Default: none counted.
    pub backtracking: Vec<String>,
    /// Trying another way. Default: none counted.
    pub exploration: Vec<String>,
}
