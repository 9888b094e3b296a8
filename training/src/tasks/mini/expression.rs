//! The arithmetic that the mini suite asks: expressions of two to four terms, their value, and how a level draws them.
//!
//! Everything here is exact integer arithmetic and random draws. How an expression becomes a question or a trace of
//! thoughts is decided in the neighbouring files.

use std::fmt;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::Level;

/// One term of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// A plain number.
    Number(i64),
    /// A two-digit number times a one-digit number.
    Product(i64, i64),
}

impl Term {
    /// What the term is worth.
    pub fn value(self) -> i64 {
        match self {
            Self::Number(number) => number,
            Self::Product(left, right) => left * right,
        }
    }

    fn draw_number(rng: &mut impl Rng) -> Self {
        Self::Number(rng.random_range(10..=99))
    }

    fn draw_product(rng: &mut impl Rng) -> Self {
        Self::Product(rng.random_range(10..=99), rng.random_range(2..=9))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Product(left, right) => write!(formatter, "{left} * {right}"),
        }
    }
}

/// How a term joins the running total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// The term is added.
    Plus,
    /// The term is taken away.
    Minus,
}

impl Sign {
    /// The running total after this sign and a term worth `value`.
    pub fn apply(self, total: i64, value: i64) -> i64 {
        match self {
            Self::Plus => total + value,
            Self::Minus => total - value,
        }
    }

    /// `+` or `-`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus => "-",
        }
    }

    /// Either sign, equally likely.
    pub(super) fn draw(rng: &mut impl Rng) -> Self {
        if rng.random_bool(0.5) { Self::Plus } else { Self::Minus }
    }
}

/// A sum of terms, evaluated from left to right; its [`Display`](fmt::Display) form is the canonical text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    first: Term,
    rest: Vec<(Sign, Term)>,
}

impl Expression {
    /// An expression from its first term and the signed terms that follow.
    pub fn new(first: Term, rest: Vec<(Sign, Term)>) -> Self {
        Self { first, rest }
    }

    /// The term that carries no sign.
    pub fn first(&self) -> Term {
        self.first
    }

    /// The terms after the first, each with its sign.
    pub fn rest(&self) -> &[(Sign, Term)] {
        &self.rest
    }

    /// The value of the whole expression.
    pub fn value(&self) -> i64 {
        self.rest.iter().fold(self.first.value(), |total, (sign, term)| sign.apply(total, term.value()))
    }

    /// Whether some running total from left to right is below zero.
    fn dips_below_zero(&self) -> bool {
        let mut total = self.first.value();
        self.rest.iter().any(|(sign, term)| {
            total = sign.apply(total, term.value());
            total < 0
        })
    }

    /// A random expression of `level`:
    ///
    /// - easy: two to four two-digit numbers, no running total below zero;
    /// - medium: two terms, one or both of them products, of either sign in the end;
    /// - hard: three or four terms, two or three of them products, no running total below zero.
    pub fn draw(level: Level, rng: &mut impl Rng) -> Self {
        loop {
            let expression = Self::draw_once(level, rng);
            if level == Level::Medium || !expression.dips_below_zero() {
                return expression;
            }
        }
    }

    fn draw_once(level: Level, rng: &mut impl Rng) -> Self {
        let (terms, products) = match level {
            Level::Easy => (rng.random_range(2..=4), 0),
            Level::Medium => (2, rng.random_range(1..=2)),
            Level::Hard => (rng.random_range(3..=4), rng.random_range(2..=3)),
        };
        let mut drawn: Vec<Term> = (0..terms)
            .map(|index| if index < products { Term::draw_product(rng) } else { Term::draw_number(rng) })
            .collect();
        drawn.shuffle(rng);
        let first = drawn.remove(0);
        let rest = drawn.into_iter().map(|term| (Sign::draw(rng), term)).collect();
        Self { first, rest }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.first)?;
        self.rest.iter().try_for_each(|(sign, term)| write!(formatter, " {} {term}", sign.as_str()))
    }
}

/// The non-zero place values of `number`, largest first: 305 is 300 and 5. Zero has none.
pub(super) fn place_values(number: i64) -> Vec<i64> {
    let mut parts = Vec::new();
    let (mut rest, mut place) = (number.abs(), 1);
    while rest > 0 {
        let digit = rest % 10;
        if digit > 0 {
            parts.push(digit * place * number.signum());
        }
        rest /= 10;
        place *= 10;
    }
    parts.reverse();
    parts
}

/// A product that somebody who guesses might say instead of `right`: off by a little, by a carry, or in the tens digit.
/// Always positive and never `right`.
pub(super) fn near_miss(right: i64, rng: &mut impl Rng) -> i64 {
    const SLIPS: [i64; 10] = [-100, -20, -10, -2, -1, 1, 2, 10, 20, 100];
    loop {
        let guess = if rng.random_bool(0.2) {
            right + (rng.random_range(0..=9) - right / 10 % 10) * 10
        } else {
            right + SLIPS.choose(rng).copied().unwrap_or(10)
        };
        if guess > 0 && guess != right {
            return guess;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_canonical_text_and_the_value_agree_with_hand_computation() {
        let products = Expression::new(Term::Product(37, 9), vec![(Sign::Minus, Term::Product(88, 7))]);
        assert_eq!((products.to_string().as_str(), products.value()), ("37 * 9 - 88 * 7", -283));
        let sums = Expression::new(
            Term::Number(58),
            vec![(Sign::Plus, Term::Number(68)), (Sign::Plus, Term::Number(35)), (Sign::Minus, Term::Number(9))],
        );
        assert_eq!((sums.to_string().as_str(), sums.value()), ("58 + 68 + 35 - 9", 152));
    }

    #[test]
    fn every_level_draws_what_it_promises() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut negative = 0;
        for level in Level::ALL {
            for _ in 0..2000 {
                let expression = Expression::draw(level, &mut rng);
                let terms: Vec<Term> = std::iter::once(expression.first())
                    .chain(expression.rest().iter().map(|(_, term)| *term))
                    .collect();
                let products = terms.iter().filter(|term| matches!(term, Term::Product(..))).count();
                for term in &terms {
                    match *term {
                        Term::Number(number) => assert!((10..=99).contains(&number)),
                        Term::Product(left, right) => {
                            assert!((10..=99).contains(&left) && (2..=9).contains(&right));
                        }
                    }
                }
                match level {
                    Level::Easy => assert!((2..=4).contains(&terms.len()) && products == 0),
                    Level::Medium => assert!(terms.len() == 2 && (1..=2).contains(&products)),
                    Level::Hard => assert!((3..=4).contains(&terms.len()) && (2..=3).contains(&products)),
                }
                if level == Level::Medium {
                    negative += usize::from(expression.value() < 0);
                } else {
                    assert!(!expression.dips_below_zero() && expression.value() >= 0);
                }
            }
        }
        assert!(negative > 300, "medium problems may end below zero: {negative}");
    }

    #[test]
    fn place_values_skip_zeros() {
        assert_eq!(place_values(305), [300, 5]);
        assert_eq!(place_values(616), [600, 10, 6]);
        assert_eq!(place_values(80), [80]);
        assert!(place_values(0).is_empty());
    }

    #[test]
    fn near_misses_are_near_and_missed() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..5000 {
            let right = rng.random_range(20..=891);
            let guess = near_miss(right, &mut rng);
            assert!(guess > 0 && guess != right && (guess - right).abs() <= 100, "{guess} for {right}");
        }
    }
}
