//! The mini suite: generated arithmetic that a model of a million parameters can own.
//!
//! Problems of three levels, ways to ask them, over-thinking traces to imitate, drills of plain facts, and the tokenizer
//! and chat template of models trained on all that. Text and integers only: no tensors, no rewards. Train and test
//! problems are told apart by a hash of the expression, so they never overlap, whatever is drawn and in whatever order.

mod drill;
mod expression;
mod phrasing;
pub mod tokenizer;
mod trace;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use drill::{Drill, drill};
pub use expression::{Expression, Sign, Term};
pub use phrasing::{INSTRUCTION, PHRASINGS, SYSTEM_PROMPTS, system_prompt};
pub use trace::{BACKTRACKING, EXPLORATION, Trace, TraceStyle, VERIFICATION, direct, example, trace};

use super::Problem;
use crate::{Error, Result};

/// How hard a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Two to four two-digit numbers, added and subtracted.
    Easy,
    /// Two terms, one or both of them a two-digit times a one-digit number.
    Medium,
    /// Three or four terms, two or three of them such products.
    Hard,
}

impl Level {
    /// Every level, from easy to hard.
    pub const ALL: [Self; 3] = [Self::Easy, Self::Medium, Self::Hard];

    /// The name used in files and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Easy => "easy",
            Self::Medium => "medium",
            Self::Hard => "hard",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name).ok_or_else(|| {
            Error::config(format!("unknown level `{name}` of the mini suite; there are easy, medium and hard"))
        })
    }
}

/// Which side of the fence a problem is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Nine expressions in ten: seen in training.
    Train,
    /// One expression in ten: kept for measuring.
    Test,
}

impl Split {
    /// The split that an expression in canonical form belongs to, decided by its SHA-256.
    pub fn of(expression: &str) -> Self {
        let digest = Sha256::digest(expression.as_bytes());
        let head = digest.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        if head % 10 == 0 { Self::Test } else { Self::Train }
    }
}

/// One problem of the mini suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MiniProblem {
    parsed: Expression,
    expression: String,
    level: Level,
    question: String,
}

impl MiniProblem {
    /// A random problem of a level and a split, with a random phrasing.
    pub fn draw(level: Level, split: Split, rng: &mut impl Rng) -> Self {
        loop {
            let parsed = Expression::draw(level, rng);
            let expression = parsed.to_string();
            if Split::of(&expression) == split {
                let question = phrasing::ask(&parsed, rng);
                return Self { parsed, expression, level, question };
            }
        }
    }

    /// The canonical expression, such as `58 + 68 + 35 - 9`: one space around every operator.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The expression as terms and signs.
    pub fn terms(&self) -> &Expression {
        &self.parsed
    }

    /// The right answer.
    pub fn answer(&self) -> i64 {
        self.parsed.value()
    }

    /// The level it was drawn from.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The user's message.
    pub fn question(&self) -> &str {
        &self.question
    }

    /// The problem as every task source gives it; its id is the canonical expression.
    pub fn to_problem(&self) -> Problem {
        Problem {
            id: self.expression.clone(),
            question: self.question.clone(),
            answer: self.answer().to_string(),
            level: Some(self.level.as_str().to_owned()),
        }
    }
}

/// `count` test problems of a level with distinct expressions, the same for the same seed.
///
/// A larger set with the same seed starts with the smaller one. Should a level have too few test expressions for
/// `count`, those found are returned: drawing stops after ten thousand repeats in a row.
pub fn test_set(level: Level, count: usize, seed: u64) -> Vec<MiniProblem> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut seen = BTreeSet::new();
    let mut problems = Vec::with_capacity(count);
    let mut repeats = 0;
    while problems.len() < count && repeats < 10_000 {
        let problem = MiniProblem::draw(level, Split::Test, &mut rng);
        if seen.insert(problem.expression.clone()) {
            problems.push(problem);
            repeats = 0;
        } else {
            repeats += 1;
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evaluates a canonical expression by its text alone.
    fn evaluate(text: &str) -> i64 {
        let mut total = 0;
        for piece in text.replace(" - ", " + -").split(" + ") {
            let (sign, piece) = piece.strip_prefix('-').map_or((1, piece), |rest| (-1, rest));
            total += sign * piece.split(" * ").map(|factor| factor.parse::<i64>().unwrap()).product::<i64>();
        }
        total
    }

    #[test]
    fn answers_follow_from_the_text_and_splits_are_disjoint() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for level in Level::ALL {
            let mut drawn = |split, count| -> BTreeSet<String> {
                (0..count)
                    .map(|_| {
                        let problem = MiniProblem::draw(level, split, &mut rng);
                        assert_eq!(evaluate(problem.expression()), problem.answer(), "{}", problem.expression());
                        problem.expression
                    })
                    .collect()
            };
            let (train, test) = (drawn(Split::Train, 20_000), drawn(Split::Test, 4_000));
            assert!(train.is_disjoint(&test));
            assert!(train.len() > 10_000 && test.len() > 1_500, "{level}: {} and {}", train.len(), test.len());
        }
    }

    #[test]
    fn one_expression_in_ten_is_a_test() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let tests = (0..20_000)
            .filter(|_| Split::of(&Expression::draw(Level::Hard, &mut rng).to_string()) == Split::Test)
            .count();
        assert!((1_850..2_150).contains(&tests), "{tests}");
    }

    #[test]
    fn a_test_set_is_distinct_and_repeatable() {
        for level in Level::ALL {
            let set = test_set(level, 500, 7);
            assert_eq!(set, test_set(level, 500, 7));
            assert_eq!(set[..100], test_set(level, 100, 7));
            assert_ne!(set, test_set(level, 500, 8));
            let expressions: BTreeSet<&str> = set.iter().map(MiniProblem::expression).collect();
            assert_eq!(expressions.len(), 500);
            assert!(expressions.iter().all(|expression| Split::of(expression) == Split::Test));
        }
    }

    #[test]
    fn a_problem_carries_its_level_and_answer() {
        let problem = &test_set(Level::Medium, 1, 1)[0];
        let plain = problem.to_problem();
        assert_eq!(plain.level.as_deref(), Some("medium"));
        assert_eq!((plain.id.as_str(), plain.answer), (problem.expression(), problem.answer().to_string()));
        assert_eq!("medium".parse::<Level>().unwrap(), Level::Medium);
        assert!("middle".parse::<Level>().unwrap_err().to_string().contains("easy, medium and hard"));
        assert_eq!(serde_json::to_string(&Level::Hard).unwrap(), "\"hard\"");
    }
}
