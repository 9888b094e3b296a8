//! Grading that cannot end a run: a panic in the grader, or in a library under it, becomes a grade without a verdict.
//!
//! Budgets bound every grading in steps and memory; this is for the mistakes that nobody has found yet. A day of training
//! is worth more than one verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Grade, Grader};

impl Grader {
    /// As [`Grader::grade`], and where that panics the response counts as incorrect and undecided.
    pub fn grade_safely(&self, response: &str, answer: &str) -> Grade {
        caught(|| self.grade(response, answer))
    }
}

fn caught(grade: impl FnOnce() -> Grade) -> Grade {
    // A grader holds no state that a panic could leave half changed.
    catch_unwind(AssertUnwindSafe(grade)).unwrap_or(Grade { correct: false, extracted: None, undecided: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_no_verdict_and_no_end() {
        assert_eq!(
            caught(|| panic!("a mistake that nobody has found yet")),
            Grade { correct: false, extracted: None, undecided: true }
        );
        assert!(Grader::default().grade_safely(r"\boxed{7}", "7").correct);
    }
}
