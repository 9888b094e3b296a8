//! Drills: lines of plain, always right facts from which a model learns the arithmetic itself.
//!
//! Traces teach a style; they hold too few facts to learn sums and products from. A drill has the facts that traces are
//! made of, in the same notation and over the ranges that occur there, with carries and borrows more often than chance
//! would have them. No phrases, no behaviours, and no fact that is a test problem of the suite.

use std::ops::Range;

use rand::Rng;

use super::Split;
use super::expression::Sign;
use super::trace::{decompose_product, decompose_sum};

/// Largest running total that a hard problem can reach, rounded up.
const LARGEST_TOTAL: i64 = 3600;

/// Largest product of a two-digit and a one-digit number.
const LARGEST_PRODUCT: i64 = 891;

/// Facts, one a line, every line ended by a newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drill {
    /// All lines.
    pub text: String,
    /// The bytes of `text` that follow from what stands before them: of every line what comes after the first `=` or
    /// `:`. The numbers before it are random, and learning to predict them would only drown the facts in noise.
    pub learnt: Vec<Range<usize>>,
}

/// A drill of `lines` lines. Facts that are test problems are drawn anew.
pub fn drill(rng: &mut impl Rng, lines: usize) -> Drill {
    let mut drill = Drill { text: String::new(), learnt: Vec::with_capacity(lines) };
    while drill.learnt.len() < lines {
        let line = line(rng);
        if gives_away_a_test(&line) {
            continue;
        }
        let start = drill.text.len();
        let given = [" = ", ": "].iter().filter_map(|mark| Some(line.find(mark)? + mark.len())).min().unwrap_or(0);
        drill.text.push_str(&line);
        drill.text.push('\n');
        drill.learnt.push(start + given..drill.text.len());
    }
    drill
}

fn line(rng: &mut impl Rng) -> String {
    match rng.random_range(0..100) {
        0..22 => sum(two_digits(rng), two_digits(rng), rng),
        22..56 => {
            let total = running_total(rng);
            let value = operand(total, rng);
            sum(total, value, rng)
        }
        56..70 => {
            let total = running_total(rng);
            let value = operand(total, rng);
            decompose_sum(total, Sign::draw(rng), value)
        }
        70..80 => {
            let (left, right) = (two_digits(rng), one_digit(rng));
            format!("{left} * {right} = {}.", left * right)
        }
        80..94 => {
            let (left, right) = (two_digits(rng), one_digit(rng));
            format!("{left} * {right}: {}", decompose_product(left, right))
        }
        94..97 => {
            let (left, right) = (rng.random_range(1..=9) * 10, one_digit(rng));
            format!("{left} * {right} = {}.", left * right)
        }
        _ => {
            let (left, right) = (rng.random_range(1..=9), one_digit(rng));
            format!("{left} * {right} = {}.", left * right)
        }
    }
}

fn sum(total: i64, value: i64, rng: &mut impl Rng) -> String {
    let sign = Sign::draw(rng);
    format!("{total} {} {value} = {}.", sign.as_str(), sign.apply(total, value))
}

fn two_digits(rng: &mut impl Rng) -> i64 {
    rng.random_range(10..=99)
}

fn one_digit(rng: &mut impl Rng) -> i64 {
    rng.random_range(2..=9)
}

/// A running total as traces have them: mostly of two or three digits, some of four, some below zero.
fn running_total(rng: &mut impl Rng) -> i64 {
    match rng.random_range(0..20) {
        0..4 => rng.random_range(0..=99),
        4..17 => rng.random_range(100..=999),
        17..19 => rng.random_range(1000..=LARGEST_TOTAL),
        _ => -rng.random_range(1..=LARGEST_PRODUCT),
    }
}

/// What is added to or taken from `total`: a number, a product or a single place of one; often one that carries.
fn operand(total: i64, rng: &mut impl Rng) -> i64 {
    match rng.random_range(0..4) {
        0 => two_digits(rng),
        1 => rng.random_range(20..=LARGEST_PRODUCT),
        2 => rng.random_range(1..=9) * [1, 10, 100][rng.random_range(0..3)],
        _ => carrying(total, rng),
    }
}

/// A number of two or three digits each of which carries when added to `total` (borrows when taken from it, for the
/// digits where that is possible): every digit is larger than what is missing to ten or than the digit it meets.
fn carrying(total: i64, rng: &mut impl Rng) -> i64 {
    let places = rng.random_range(2..=3);
    let borrow = rng.random_bool(0.5);
    let (mut rest, mut place, mut value) = (total.abs(), 1, 0);
    for _ in 0..places {
        let digit = rest % 10;
        let smallest = if borrow { (digit + 1).min(9) } else { (10 - digit).min(9) };
        value += rng.random_range(smallest..=9) * place;
        rest /= 10;
        place *= 10;
    }
    value
}

/// Whether some fact of the line is the expression of a test problem: only sums of two two-digit numbers can be.
fn gives_away_a_test(line: &str) -> bool {
    let is_term = |text: &str| text.len() == 2 && text.parse::<u8>().is_ok_and(|number| number >= 10);
    line.trim_end_matches('.').split(", ").any(|fact| {
        let mut words = fact.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some(left), Some("+" | "-"), Some(right)) if is_term(left) && is_term(right) => {
                fact.split_once(" = ").is_some_and(|(expression, _)| Split::of(expression) == Split::Test)
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn every_fact_is_right_and_none_is_a_test_problem() {
        let mut rng = ChaCha8Rng::seed_from_u64(10);
        let text = drill(&mut rng, 20_000).text;
        assert_eq!(text.lines().count(), 20_000);
        let fact = regex::Regex::new(r"(-?\d+) ([+*-]) (-?\d+) = (-?\d+)").unwrap();
        let (mut negative, mut carries, mut large) = (0, 0, 0);
        for found in fact.captures_iter(&text) {
            let number = |group: usize| found[group].parse::<i64>().unwrap();
            let (left, right, result) = (number(1), number(3), number(4));
            let expected = match &found[2] {
                "+" => left + right,
                "-" => left - right,
                _ => left * right,
            };
            assert_eq!(expected, result, "{}", &found[0]);
            negative += usize::from(result < 0);
            carries += usize::from(&found[2] == "+" && left > 0 && left % 10 + right % 10 > 9);
            large += usize::from(result > 999);
            let expression = found[0].split_once(" = ").unwrap().0;
            if &found[2] != "*" && (10..=99).contains(&left) && (10..=99).contains(&right) {
                assert_eq!(Split::of(expression), Split::Train, "{expression}");
            }
        }
        assert!(negative > 2000 && carries > 2000 && large > 500, "{negative} {carries} {large}");
        assert!(text.contains(" * ") && text.contains(": "));
    }

    #[test]
    fn what_is_learnt_follows_from_what_is_given() {
        let mut rng = ChaCha8Rng::seed_from_u64(13);
        let drill = drill(&mut rng, 500);
        assert_eq!(drill.learnt.len(), 500);
        for (line, learnt) in drill.text.split_inclusive('\n').zip(&drill.learnt) {
            let learnt = &drill.text[learnt.clone()];
            let given = line.strip_suffix(learnt).unwrap();
            assert!(given.ends_with(" = ") || given.ends_with(": "), "{line}");
            assert_eq!(given.matches([':', '=']).count(), 1, "{line}");
        }
    }

    #[test]
    fn every_product_is_drilled() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let text = drill(&mut rng, 60_000).text;
        let lines: std::collections::BTreeSet<&str> = text.lines().collect();
        for left in 10..=99 {
            for right in 2..=9 {
                let fact = format!("{left} * {right} = {}.", left * right);
                assert!(lines.contains(fact.as_str()), "{fact}");
            }
        }
    }

    #[test]
    fn carrying_operands_carry_or_borrow_in_the_last_place() {
        let mut rng = ChaCha8Rng::seed_from_u64(12);
        for _ in 0..2000 {
            let total = rng.random_range(1..=999);
            let value = carrying(total, &mut rng);
            let (above, below) = (total % 10, value % 10);
            assert!(above == 0 || above == 9 || above + below > 9 || below > above, "{total} and {value}");
        }
    }
}
