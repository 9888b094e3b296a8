//! Whether a response reaches the reference answer of its problem.
//!
//! A [`Grader`] finds the answer in a response, normalises it and compares it with the reference: as text, as numbers,
//! and at last as mathematics. It sees text only; lengths, tokens and rewards may not enter here. Every grading is bounded
//! in steps and in memory and reads no clock, so the same texts always get the same verdict, in well under 10 ms.
//!
//! [`GraderMode::Qwen`] follows the grader of the paper's released code (section 4 of arXiv 2502.04463 trains and reports
//! with it), its false positives included, but for two that pay a response for nothing:
//!
//! 1. A response without an answer is incorrect, also where the reference is a word that the rules delete (`\text{east}`).
//! 2. Such a word is compared as a word, where it would equal every other of its kind.
//!
//! [`GraderMode::Strict`] differs as follows:
//!
//! 1. An answer must be put in a closed `\boxed{}` or `\fbox{}` (the bare word "boxed" announces nothing), else follow
//!    "answer is" in one sentence, else be the last number, whose minus is no subtraction.
//! 2. No letter is deleted: `a+b` stays, where Qwen mode makes it `+b`; units go only behind a number.
//! 3. `4\text{ and }5` is a list of two answers, not 45; `j` is not `i`; `land` stays `land`.
//! 4. `1{,}000` and `1,000` are 1000, but 45 is not `4,5`.
//! 5. 50 is neither 0.5 nor 5000. Only a written percent sign may mean either reading: `50\%` equals 50 and 0.5.
//! 6. Integers match exactly: 1234567 is not 1234568 and 17 is not 17.0001. A decimal that is no integer may differ by
//!    1e-4, relatively, from another or from what it rounds; two values without decimal points may not differ.
//! 7. Pi, e and i have their values: `\frac{\pi}{2}` is 1.5708 and `i^2` is -1.
//! 8. `1\frac12` is 1.5 and `0.\overline{3}` a third; `\sin(30^\circ)` is 0.5; `\sqrt[3]{-8}` is -2.
//! 9. Brackets count: `(1,2)` is not `[1,2]`, and neither is the list `1,2`.
//! 10. Lists and sets are compared in any order, and `1\pm\sqrt2` is a list of two.
//! 11. Equations may differ by any factor but zero, inequalities by a positive one.
//! 12. A choice is one letter: "A and C" does not answer "C". A variable's case counts; that of a word does not.
//! 13. A noun in a text behind a number says what was counted, and is no part of the answer where the other has none:
//!     `18\text{ eggs}` is 18, but not `18\text{ hens}`, and `2\text{ million}` is not 2.
//! 14. No answer equals nothing: an empty reference is never reached.

mod budget;
mod equal;
mod equal_strict;
mod exact;
mod expression;
mod extract;
mod latex;
mod latex_commands;
mod normalize;
mod normalize_strict;
mod numeric;
mod readable;
mod safely;
mod split;
mod symbolic;
#[cfg(test)]
mod tests;
mod token;
mod units;
mod words;

use regex::Regex;
use serde::{Deserialize, Serialize};

use budget::MAX_ANSWER_BYTES;
use equal::Comparison;

/// Which rules decide whether an answer is correct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GraderMode {
    /// The grader of the paper's released code (Qwen2.5-Math lineage), quirks included: for results that compare with it.
    #[default]
    Qwen,
    /// The same task without the known errors; the [module](self) lists every difference.
    Strict,
}

/// Grades responses by the rules of a [`GraderMode`]. It holds no state, so one may be shared or copied freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grader {
    mode: GraderMode,
    requires_box: bool,
}

/// The verdict on one response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grade {
    /// The response's answer equals the reference.
    pub correct: bool,
    /// The normalised answer that was found in the response.
    pub extracted: Option<String>,
    /// The answer counts as incorrect because a comparison ran out of budget, or was of texts that are no expressions the
    /// grader knows; it was not shown to be different.
    pub undecided: bool,
}

impl Grader {
    /// A grader with the rules of `mode`.
    pub fn new(mode: GraderMode) -> Self {
        Self { mode, requires_box: false }
    }

    /// Whether only an answer in a box counts, `\boxed{}` or `\fbox{}`: no announcing phrase, no last number.
    ///
    /// Under a length penalty a box that is left out is a few tokens saved, so training asks for it. The paper's released
    /// code does so by accident: it grades prompt and response together, and its prompt holds a box of its own.
    #[must_use]
    pub fn requiring_box(self, requires_box: bool) -> Self {
        Self { requires_box, ..self }
    }

    /// The mode that this grader was made with.
    pub fn mode(&self) -> GraderMode {
        self.mode
    }

    /// Finds the answer in a whole response and normalises it.
    ///
    /// The answer is what the last `\boxed{}` holds, else what follows "answer is", else the last number. `None` when
    /// there is none of these (no box, where one is required), when it is empty, or when it is longer than any answer
    /// (2048 bytes).
    pub fn extract(&self, response: &str) -> Option<String> {
        // Only strict mode looks into an `\fbox`.
        let boxes: &[&str] = match self.mode {
            GraderMode::Qwen => &[r"\boxed"],
            GraderMode::Strict => &[r"\boxed", r"\fbox"],
        };
        if self.requires_box && !boxes.iter().any(|name| response.contains(name)) {
            return None;
        }
        let raw = match self.mode {
            GraderMode::Qwen => extract::qwen(response),
            GraderMode::Strict => extract::strict(response),
        }?;
        (raw.len() <= MAX_ANSWER_BYTES).then(|| self.normalize(&raw)).filter(|answer| !answer.is_empty())
    }

    /// Grades `response` against the reference `answer`: a bare answer (`42`, `\frac{1}{2}`), a solution that boxes it, or
    /// a GSM8K solution that ends in `#### 18`.
    ///
    /// Whether the response was cut off at the token limit is not this function's business: it grades the text that it is
    /// given. The objective decides that a truncated response earns nothing.
    pub fn grade(&self, response: &str, answer: &str) -> Grade {
        let extracted = self.extract(response);
        let Some(reference) = self.reference(answer) else {
            return Grade { correct: false, extracted, undecided: true };
        };
        let mut comparison = Comparison::new();
        let correct = extracted.as_deref().is_some_and(|answer| self.compare(answer, &reference, &mut comparison));
        Grade { correct, extracted, undecided: !correct && comparison.undecided }
    }

    /// Whether the reference `answer` is mathematics that this grader reads, so that it can tell a different answer from an
    /// equal one in another form. Of others only the very same text is correct.
    pub fn reads(&self, answer: &str) -> bool {
        let Some(raw) = self.raw_reference(answer).filter(|raw| !readable::is_prose(raw)) else { return false };
        // Whatever is compared with a number is either decided or not read.
        let is_read = |part: &String| {
            let mut comparison = Comparison::new();
            !part.is_empty() && (self.compare("0", part, &mut comparison) || !comparison.undecided)
        };
        raw.len() <= MAX_ANSWER_BYTES && readable::expressions(&self.normalize(&raw)).iter().all(is_read)
    }

    /// Whether two answers are equal.
    ///
    /// Qwen mode expects both as [`Grader::extract`] gives them and, like the original, does not normalise them again;
    /// strict mode normalises both. Texts of more than 2048 bytes are equal only if they are identical.
    pub fn equal(&self, prediction: &str, reference: &str) -> bool {
        let mut comparison = Comparison::new();
        if prediction.len().max(reference.len()) > MAX_ANSWER_BYTES {
            return prediction == reference;
        }
        match self.mode {
            GraderMode::Qwen => self.compare(prediction, reference, &mut comparison),
            GraderMode::Strict => {
                self.compare(&self.normalize(prediction), &self.normalize(reference), &mut comparison)
            }
        }
    }

    /// Compares two normalised answers.
    fn compare(&self, prediction: &str, reference: &str, comparison: &mut Comparison) -> bool {
        match self.mode {
            GraderMode::Qwen => equal::qwen(prediction, reference, comparison),
            GraderMode::Strict => match (prediction.parse::<i64>(), reference.parse::<i64>()) {
                (Ok(prediction), Ok(reference)) => prediction == reference,
                _ => equal_strict::strict(prediction, reference, comparison),
            },
        }
    }

    fn normalize(&self, raw: &str) -> String {
        match self.mode {
            GraderMode::Qwen => match normalize::qwen(raw) {
                // The rules delete some words whole.
                deleted if deleted.is_empty() => normalize_strict::strict(raw),
                normal => normal,
            },
            GraderMode::Strict => normalize_strict::strict(raw),
        }
    }

    /// The normalised reference; `None` when it is longer than any answer or, though a solution, gives none.
    fn reference(&self, answer: &str) -> Option<String> {
        self.raw_reference(answer).filter(|raw| raw.len() <= MAX_ANSWER_BYTES).map(|raw| self.normalize(&raw))
    }

    /// The reference as it is written; `None` when a solution gives none.
    fn raw_reference(&self, answer: &str) -> Option<String> {
        // A box first: a solution may have headings, which begin with hashes as the answers of GSM8K do.
        if answer.contains(r"\boxed") || (self.mode == GraderMode::Strict && answer.contains(r"\fbox")) {
            match self.mode {
                GraderMode::Qwen => extract::qwen(answer),
                GraderMode::Strict => extract::strict(answer),
            }
        } else if let Some(after) = extract::after_hashes(answer) {
            Some(after.replace(',', ""))
        } else {
            Some(answer.to_owned())
        }
    }
}

/// A pattern that is written in this module's source.
#[expect(clippy::expect_used, reason = "the patterns are constants and the tests use every one of them")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern compiles")
}
