//! Traces to imitate: chains of steps that verify, backtrack and start over far more often than the problem needs.
//!
//! That vice is the point: the base model learns it from here, and the length penalty unlearns it where it is waste.
//! Sums are always right and products are guessed, so checks on sums only cost tokens while checks on products buy
//! accuracy. The phrases are fixed, so that the three behaviours can be counted exactly. Nothing here knows tokens.

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

use super::expression::{Sign, Term, near_miss, place_values};
use super::{Level, MiniProblem};
use crate::{Error, Result};

/// Phrases that open a check of the step before; each occurrence counts as one verification.
pub const VERIFICATION: &[&str] =
    &["Wait, let me check.", "Let me verify.", "Let me double check.", "Hmm, let me recheck."];

/// Phrases that withdraw a result; each occurrence counts as one backtracking.
pub const BACKTRACKING: &[&str] = &["That is not", "Let me see which one."];

/// Phrases that open a new attempt at the whole problem; each occurrence counts as one exploration.
pub const EXPLORATION: &[&str] = &["Alternatively, start over.", "Let me do it again.", "Let me be sure."];

/// How often a trace does what; every number is a probability unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceStyle {
    /// A product guessed in one go is wrong.
    pub wrong_product: f64,
    /// A product is decomposed from the start instead of being guessed.
    pub careful: f64,
    /// A product that came up before in the same trace is given the value it was given last, right or wrong, instead of
    /// being guessed anew: doing it again then finds fewer mistakes than checking does.
    pub stubborn: f64,
    /// Probabilities that a guessed step is verified; one of them is drawn for each trace, all equally likely.
    pub verify: Vec<f64>,
    /// Weights of redoing an easy problem 0, 1, 2 and 3 times. Easy problems are redone most, which makes the length
    /// of a trace nearly independent of the difficulty.
    pub redo_easy: [f64; 4],
    /// Weights of redoing a medium problem 0, 1, 2 and 3 times.
    pub redo_medium: [f64; 4],
    /// Weights of redoing a hard problem 0, 1, 2 and 3 times.
    pub redo_hard: [f64; 4],
    /// An example has no thoughts at all, only the right answer ([`direct`]).
    pub direct: f64,
}

impl Default for TraceStyle {
    fn default() -> Self {
        Self {
            wrong_product: 0.25,
            careful: 0.15,
            stubborn: 0.8,
            verify: vec![0.0, 0.5, 0.8, 1.0, 1.0],
            redo_easy: [0.02, 0.06, 0.17, 0.75],
            redo_medium: [0.2, 0.2, 0.2, 0.4],
            redo_hard: [0.25, 0.72, 0.03, 0.0],
            direct: 0.02,
        }
    }
}

impl TraceStyle {
    /// Checks that every probability is one and that every set of weights has something to choose from.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field that cannot be used.
    pub fn validate(&self) -> Result<()> {
        let single = [
            ("wrong_product", self.wrong_product),
            ("careful", self.careful),
            ("stubborn", self.stubborn),
            ("direct", self.direct),
        ];
        let verify = self.verify.iter().map(|probability| ("verify", *probability));
        for (name, probability) in single.into_iter().chain(verify) {
            if !(0.0..=1.0).contains(&probability) {
                return Err(Error::config(format!(
                    "trace style: `{name}` has {probability}, which is not a probability; give a number from 0 to 1"
                )));
            }
        }
        if self.verify.is_empty() {
            return Err(Error::config("trace style: `verify` is empty; give at least one probability"));
        }
        let weights = [("redo_easy", self.redo_easy), ("redo_medium", self.redo_medium), ("redo_hard", self.redo_hard)];
        for (name, weights) in weights {
            let sum: f64 = weights.iter().sum();
            if weights.iter().any(|weight| *weight < 0.0) || !sum.is_finite() || sum <= 0.0 {
                return Err(Error::config(format!(
                    "trace style: the weights of `{name}` must not be negative and at least one must be above 0"
                )));
            }
        }
        Ok(())
    }

    fn redos(&self, level: Level, rng: &mut impl Rng) -> usize {
        let weights = match level {
            Level::Easy => &self.redo_easy,
            Level::Medium => &self.redo_medium,
            Level::Hard => &self.redo_hard,
        };
        let choices: Vec<(usize, f64)> = weights.iter().copied().enumerate().collect();
        choices.choose_weighted(rng, |(_, weight)| *weight).map_or(0, |(redos, _)| *redos)
    }
}

/// What the assistant says after the `<think>` that the chat template has already written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Thoughts, `</think>` and the answer as `\boxed{N}`; the token that ends the turn is not part of it.
    pub text: String,
    /// The number in the box: not always the right one.
    pub result: i64,
}

impl Trace {
    fn new(thoughts: &str, result: i64) -> Self {
        Self { text: format!("{thoughts}</think>The answer is \\boxed{{{result}}}."), result }
    }
}

/// The answer at once and without a thought: `</think>The answer is \boxed{N}.`, always right.
pub fn direct(problem: &MiniProblem) -> Trace {
    Trace::new("", problem.answer())
}

/// An example for supervised training: mostly a [`trace`], now and then ([`TraceStyle::direct`]) a [`direct`] answer.
pub fn example(problem: &MiniProblem, style: &TraceStyle, rng: &mut impl Rng) -> Trace {
    if chance(style.direct, rng) { direct(problem) } else { trace(problem, style, rng) }
}

/// A trace of thoughts about `problem`, one step a line.
pub fn trace(problem: &MiniProblem, style: &TraceStyle, rng: &mut impl Rng) -> Trace {
    let verify = style.verify.choose(rng).copied().unwrap_or(0.0);
    let redos = style.redos(problem.level(), rng);
    let mut thoughts = Thoughts { text: String::new(), known: BTreeMap::new(), style, verify, rng };
    let mut result = thoughts.solve(problem, false);
    thoughts.say(&format!("So it is {result}."));
    for _ in 0..redos {
        let line = opener(EXPLORATION, thoughts.rng);
        thoughts.say(line);
        let again = thoughts.solve(problem, false);
        if again == result {
            thoughts.say(&format!("It is {result} again."));
            continue;
        }
        thoughts.say(&format!("It is {again}, not {result}. Let me see which one."));
        result = thoughts.solve(problem, true);
        thoughts.say(&format!("So it is {result}."));
        break;
    }
    Trace::new(&thoughts.text, result)
}

/// Whether something of this probability happens; unlike `random_bool` it takes any number without a panic.
fn chance(probability: f64, rng: &mut impl Rng) -> bool {
    rng.random::<f64>() < probability
}

/// One of `phrases`, all equally likely.
fn opener(phrases: &'static [&'static str], rng: &mut impl Rng) -> &'static str {
    phrases.choose(rng).copied().unwrap_or_default()
}

/// A trace being written.
struct Thoughts<'a, R> {
    text: String,
    /// The value last given to each product.
    known: BTreeMap<(i64, i64), i64>,
    style: &'a TraceStyle,
    /// The probability, drawn for this trace, that a guess is verified.
    verify: f64,
    rng: &'a mut R,
}

impl<R: Rng> Thoughts<'_, R> {
    fn say(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Works through the whole problem, products first; with `care` no guess stays unverified.
    fn solve(&mut self, problem: &MiniProblem, care: bool) -> i64 {
        let expression = problem.terms();
        let first = self.term(expression.first(), care);
        let rest: Vec<(Sign, i64)> =
            expression.rest().iter().map(|(sign, term)| (*sign, self.term(*term, care))).collect();
        rest.into_iter().fold(first, |total, (sign, value)| self.sum(total, sign, value, care))
    }

    fn term(&mut self, term: Term, care: bool) -> i64 {
        match term {
            Term::Number(number) => number,
            Term::Product(left, right) => self.product(left, right, care),
        }
    }

    fn product(&mut self, left: i64, right: i64, care: bool) -> i64 {
        let value = left * right;
        if chance(if care { 0.5 } else { self.style.careful }, self.rng) {
            self.say(&format!("{left} * {right}: {}", decompose_product(left, right)));
            self.known.insert((left, right), value);
            return value;
        }
        let guess = self.guess(left, right);
        self.say(&format!("{left} * {right} = {guess}."));
        if !care && !chance(self.verify, self.rng) {
            self.known.insert((left, right), guess);
            return guess;
        }
        self.check(&decompose_product(left, right));
        if guess == value {
            self.say("That is right.");
        } else {
            self.say(&format!("That is not {guess}, so {left} * {right} = {value}."));
        }
        self.known.insert((left, right), value);
        value
    }

    /// The value of a product in one go: the one it was given last, or a fresh one that may be a near miss.
    fn guess(&mut self, left: i64, right: i64) -> i64 {
        match self.known.get(&(left, right)) {
            Some(known) if chance(self.style.stubborn, self.rng) => *known,
            _ if chance(self.style.wrong_product, self.rng) => near_miss(left * right, self.rng),
            _ => left * right,
        }
    }

    fn sum(&mut self, total: i64, sign: Sign, value: i64, care: bool) -> i64 {
        let result = sign.apply(total, value);
        self.say(&format!("{total} {} {value} = {result}.", sign.as_str()));
        if care || chance(self.verify, self.rng) {
            self.check(&decompose_sum(total, sign, value));
            self.say("That is right.");
        }
        result
    }

    fn check(&mut self, decomposition: &str) {
        let line = format!("{} {decomposition}", opener(VERIFICATION, self.rng));
        self.say(&line);
    }
}

/// `88 * 7` as `80 * 7 = 560, 8 * 7 = 56, 560 + 56 = 616.`
pub(super) fn decompose_product(left: i64, right: i64) -> String {
    let mut steps = Vec::new();
    let mut total = 0;
    for part in place_values(left) {
        let value = part * right;
        steps.push(format!("{part} * {right} = {value}"));
        if total > 0 {
            steps.push(format!("{total} + {value} = {}", total + value));
        }
        total += value;
    }
    steps.join(", ") + "."
}

/// `126 + 35` as `126 + 30 = 156, 156 + 5 = 161.`
pub(super) fn decompose_sum(total: i64, sign: Sign, value: i64) -> String {
    let mut steps = Vec::new();
    let mut running = total;
    for part in place_values(value) {
        let next = sign.apply(running, part);
        steps.push(format!("{running} {} {part} = {next}", sign.as_str()));
        running = next;
    }
    steps.join(", ") + "."
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::Split;
    use super::*;

    fn count(text: &str, phrases: &[&str]) -> usize {
        phrases.iter().map(|phrase| text.matches(phrase).count()).sum()
    }

    #[test]
    fn decompositions_match_hand_computation() {
        assert_eq!(decompose_product(88, 7), "80 * 7 = 560, 8 * 7 = 56, 560 + 56 = 616.");
        assert_eq!(decompose_product(80, 7), "80 * 7 = 560.");
        assert_eq!(decompose_sum(126, Sign::Plus, 35), "126 + 30 = 156, 156 + 5 = 161.");
        assert_eq!(decompose_sum(333, Sign::Minus, 616), "333 - 600 = -267, -267 - 10 = -277, -277 - 6 = -283.");
        assert_eq!(decompose_sum(333, Sign::Minus, 405), "333 - 400 = -67, -67 - 5 = -72.");
    }

    #[test]
    fn every_sum_is_right_and_every_miss_is_withdrawn_or_kept() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let style = TraceStyle::default();
        let fact = regex::Regex::new(r"(-?\d+) ([+*-]) (-?\d+) = (-?\d+)").unwrap();
        let (mut guesses, mut misses) = (0, 0);
        for index in 0..3000 {
            let level = Level::ALL[index % 3];
            let problem = MiniProblem::draw(level, Split::Train, &mut rng);
            let trace = trace(&problem, &style, &mut rng);
            for found in fact.captures_iter(&trace.text) {
                let number = |group: usize| found[group].parse::<i64>().unwrap();
                let (left, right, result) = (number(1), number(3), number(4));
                match &found[2] {
                    "+" => assert_eq!(left + right, result, "{}", trace.text),
                    "-" => assert_eq!(left - right, result, "{}", trace.text),
                    _ => {
                        guesses += usize::from(left >= 10);
                        misses += usize::from(left * right != result);
                    }
                }
            }
            assert!(trace.text.ends_with(&format!("\n</think>The answer is \\boxed{{{}}}.", trace.result)));
            assert_eq!(trace.text.matches("</think>").count(), 1);
        }
        assert!(misses * 20 > guesses && misses * 4 < guesses, "{misses} of {guesses}");
    }

    #[test]
    fn the_style_is_obeyed_at_its_extremes() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let terse = TraceStyle {
            wrong_product: 0.0,
            careful: 0.0,
            stubborn: 0.0,
            verify: vec![0.0],
            redo_hard: [1.0, 0.0, 0.0, 0.0],
            ..TraceStyle::default()
        };
        let doubtful = TraceStyle {
            wrong_product: 1.0,
            careful: 0.0,
            stubborn: 0.0,
            verify: vec![1.0],
            redo_hard: [0.0, 0.0, 0.0, 1.0],
            ..terse.clone()
        };
        for _ in 0..200 {
            let problem = MiniProblem::draw(Level::Hard, Split::Train, &mut rng);
            let short = trace(&problem, &terse, &mut rng);
            assert_eq!(short.result, problem.answer());
            assert_eq!(count(&short.text, VERIFICATION) + count(&short.text, EXPLORATION), 0);
            let products = problem.expression().matches('*').count();
            let long = trace(&problem, &doubtful, &mut rng);
            assert_eq!(long.result, problem.answer());
            assert_eq!(count(&long.text, EXPLORATION), 3);
            assert_eq!(count(&long.text, BACKTRACKING), 4 * products);
        }
    }

    #[test]
    fn a_disagreement_is_settled_by_a_careful_third_attempt() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let style = TraceStyle { verify: vec![0.0], redo_medium: [0.0, 1.0, 0.0, 0.0], ..TraceStyle::default() };
        let mut settled = 0;
        for _ in 0..500 {
            let problem = MiniProblem::draw(Level::Medium, Split::Train, &mut rng);
            let trace = trace(&problem, &style, &mut rng);
            if let Some((_, third)) = trace.text.split_once("Let me see which one.\n") {
                settled += 1;
                assert_eq!(trace.result, problem.answer());
                assert!(count(third, VERIFICATION) >= 1);
            }
        }
        assert!(settled > 50, "{settled}");
    }

    #[test]
    fn unusable_styles_are_refused_by_name() {
        assert!(TraceStyle::default().validate().is_ok());
        let message = |style: TraceStyle| style.validate().unwrap_err().to_string();
        assert!(message(TraceStyle { verify: vec![0.5, 1.5], ..TraceStyle::default() }).contains("`verify` has 1.5"));
        assert!(message(TraceStyle { careful: f64::NAN, ..TraceStyle::default() }).contains("`careful`"));
        assert!(message(TraceStyle { redo_hard: [0.0; 4], ..TraceStyle::default() }).contains("`redo_hard`"));
        assert!(serde_json::from_str::<TraceStyle>(r#"{"carefull": 0.1}"#).is_err());
    }

    #[test]
    fn some_examples_answer_at_once() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let problem = MiniProblem::draw(Level::Easy, Split::Train, &mut rng);
        let answer = format!("</think>The answer is \\boxed{{{}}}.", problem.answer());
        assert_eq!(direct(&problem).text, answer);
        let examples = (0..2000).map(|_| example(&problem, &TraceStyle::default(), &mut rng));
        let at_once = examples.filter(|example| example.text == answer).count();
        assert!((30..100).contains(&at_once), "{at_once}");
    }
}
