//! Equality of two normalised answers as mathematics has it.
//!
//! The kind of an answer decides how it is compared: lists and sets in any order, tuples and intervals part by part with
//! their brackets, equations and inequalities up to a factor, everything else by value.

use std::sync::LazyLock;

use regex::Regex;

use super::budget::Undecided;
use super::equal::{Comparison, equal_multisets};
use super::expression::Expression;
use super::latex::parse;
use super::split::{enclosed, starts_with_token, top_level, top_level_positions};
use super::symbolic::{Relation, Rules, equal, proportional};
use super::{pattern, words};

static COUNTED: LazyLock<Regex> = LazyLock::new(|| {
    let number = r"[-+]?(?:[0-9.,/]*[0-9]|\\frac\{[0-9]+\}\{[0-9]+\})";
    pattern(&format!(r"^({number})\\(?:text|mbox|textrm)\{{([A-Za-z-]{{2,}})\}}$"))
});
static LABELLED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\{\(?([A-E])\s*[).:]+\s*\}(.+)$"));
/// Parts of words that change the number before them.
const MULTIPLES: [&str; 13] = [
    "hundred",
    "thousand",
    "illion",
    "lakh",
    "crore",
    "dozen",
    "pair",
    "half",
    "halves",
    "squared",
    "cubed",
    "power",
    "factorial",
];
/// Ends of words that divide it, in the singular.
const FRACTIONS: [&str; 15] = [
    "third",
    "quarter",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "teenth",
    "tieth",
    "hundredth",
    "thousandth",
];

const RULES: Rules = Rules { strict: true };
/// Most elements of a list that is compared in any order; the number of comparisons grows with the square.
const MAX_ELEMENTS: usize = 32;

/// Whether `prediction` and `reference` denote the same.
pub(super) fn strict(prediction: &str, reference: &str, comparison: &mut Comparison) -> bool {
    comparison.nested(prediction, reference, |comparison| decide(prediction, reference, comparison))
}

fn decide(prediction: &str, reference: &str, comparison: &mut Comparison) -> bool {
    if prediction.is_empty() || reference.is_empty() {
        return false;
    }
    if prediction == reference || same_word(prediction, reference) {
        return true;
    }
    if let Some(verdict) = shares(prediction, reference, comparison) {
        return verdict;
    }
    match (labelled(prediction), labelled(reference)) {
        (Some((predicted, _)), Some((wanted, _))) => return predicted == wanted,
        (Some((letter, value)), None) => {
            return strict(letter, reference, comparison) || strict(value, reference, comparison);
        }
        (None, Some((letter, value))) => {
            return strict(prediction, letter, comparison) || strict(prediction, value, comparison);
        }
        (None, None) => {}
    }
    match (counted(prediction), counted(reference)) {
        (Some(number), None) => return strict(number, reference, comparison),
        (None, Some(number)) => return strict(prediction, number, comparison),
        _ => {}
    }
    let (predicted, wanted) = (elements(prediction), elements(reference));
    if predicted.len() > 1 || wanted.len() > 1 {
        return in_any_order(&predicted, &wanted, comparison);
    }
    let (predicted, wanted) = (parts_of_union(prediction), parts_of_union(reference));
    if predicted.len() > 1 || wanted.len() > 1 {
        return in_any_order(&predicted, &wanted, comparison);
    }
    match (tuple(prediction), tuple(reference)) {
        (Some(prediction), Some(reference)) => {
            return prediction.brackets == reference.brackets
                && prediction.parts.len() == reference.parts.len()
                && prediction.parts.iter().zip(&reference.parts).all(|(a, b)| strict(a, b, comparison));
        }
        // Either may still be the right side of `x=(1,2)` or `x\in(1,2)`.
        (None, None) => {}
        _ if relations(prediction).operators.is_empty() && relations(reference).operators.is_empty() => return false,
        _ => {}
    }
    equal_relations(prediction, reference, comparison)
}

/// Words are the same in any case; a single letter is a variable and is not.
fn same_word(prediction: &str, reference: &str) -> bool {
    let is_word = |text: &str| text.chars().count() > 1 && text.chars().all(char::is_alphabetic);
    is_word(prediction) && is_word(reference) && prediction.to_lowercase() == reference.to_lowercase()
}

/// An answer with a percent sign against one without: `50\%` is 50 where per cent were asked for, and 0.5 elsewhere.
fn shares(prediction: &str, reference: &str, comparison: &mut Comparison) -> Option<bool> {
    let share = |text: &str| text.strip_suffix(r"\%").or_else(|| text.strip_suffix('%')).map(str::to_owned);
    match (share(prediction), share(reference)) {
        (Some(share), None) => {
            Some(strict(&share, reference, comparison) || equal_values(prediction, reference, comparison))
        }
        (None, Some(share)) => {
            Some(strict(prediction, &share, comparison) || equal_values(prediction, reference, comparison))
        }
        _ => None,
    }
}

/// Letter and value of `\textbf{(B)}12`, a choice that is written with what it says.
fn labelled(text: &str) -> Option<(&str, &str)> {
    let found = LABELLED.captures(text)?;
    Some((found.get(1)?.as_str(), found.get(2)?.as_str()))
}

/// The number of `18\text{eggs}`, which against a number alone says what was counted. Words that change it are part of it.
fn counted(text: &str) -> Option<&str> {
    let (number, noun) = COUNTED.captures(text).and_then(|found| Some((found.get(1)?, found.get(2)?)))?;
    // No spaces are left between the words.
    let words = noun.as_str().to_lowercase();
    let singular = words.strip_suffix('s').unwrap_or(&words);
    let changes = words::number(singular, true).is_some()
        || MULTIPLES.iter().any(|part| words.contains(part))
        || FRACTIONS.iter().any(|end| singular.ends_with(end))
        || ["bn", "mn"].contains(&singular);
    (!changes).then_some(number.as_str())
}

/// The elements of a set or a list, every `\pm` taken as two; a single answer is its only element.
fn elements(text: &str) -> Vec<String> {
    let inner = match enclosed(text) {
        Some(('{', inner, '}')) => inner,
        _ => text,
    };
    let list = top_level(inner, ",");
    list.into_iter().flat_map(both_signs).collect()
}

fn both_signs(text: &str) -> Vec<String> {
    let text = text.replace('±', r"\pm").replace('∓', r"\mp");
    if text.contains(r"\pm") || text.contains(r"\mp") {
        let with = |plus: &str, minus: &str| text.replace(r"\pm", plus).replace(r"\mp", minus);
        vec![with("+", "-"), with("-", "+")]
    } else {
        vec![text]
    }
}

fn parts_of_union(text: &str) -> Vec<String> {
    top_level(text, r"\cup").into_iter().map(str::to_owned).collect()
}

fn in_any_order(prediction: &[String], reference: &[String], comparison: &mut Comparison) -> bool {
    if prediction.len() == reference.len() && prediction.len() > MAX_ELEMENTS {
        return comparison.settle(Err(Undecided::Budget));
    }
    equal_multisets(prediction, reference, comparison, strict)
}

/// A point, a vector or an interval.
struct Tuple<'t> {
    brackets: (char, char),
    parts: Vec<&'t str>,
}

fn tuple(text: &str) -> Option<Tuple<'_>> {
    let (open, inner, close) = enclosed(text).filter(|(open, ..)| *open != '{')?;
    let parts = top_level(inner, ",");
    (parts.len() > 1).then_some(Tuple { brackets: (open, close), parts })
}

/// How two sides of a relation are joined, `>` turned round to `<`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
    Element,
}

impl Operator {
    const SIGNS: [(&'static str, Self); 9] = [
        ("=", Self::Equal),
        (r"\ne", Self::Unequal),
        ("<", Self::Less),
        (r"\lt", Self::Less),
        (r"\le", Self::AtMost),
        (">", Self::Greater),
        (r"\gt", Self::Greater),
        (r"\ge", Self::AtLeast),
        (r"\in", Self::Element),
    ];

    fn turned(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::AtMost => Self::AtLeast,
            Self::Greater => Self::Less,
            Self::AtLeast => Self::AtMost,
            other => other,
        }
    }
}

/// Expressions and the operators between them, one fewer.
struct Relations<'t> {
    sides: Vec<&'t str>,
    operators: Vec<Operator>,
}

fn relations(text: &str) -> Relations<'_> {
    let (mut sides, mut operators, mut start) = (Vec::new(), Vec::new(), 0);
    for at in top_level_positions(text) {
        let rest = text.get(at..).unwrap_or_default();
        let sign = Operator::SIGNS.iter().find(|(sign, _)| at >= start && starts_with_token(rest, sign));
        if let Some((sign, operator)) = sign {
            sides.push(text.get(start..at).unwrap_or_default().trim());
            operators.push(*operator);
            start = at + sign.len();
        }
    }
    sides.push(text.get(start..).unwrap_or_default().trim());
    if matches!(operators.first(), Some(Operator::Greater | Operator::AtLeast)) {
        sides.reverse();
        operators.reverse();
        operators.iter_mut().for_each(|operator| *operator = operator.turned());
    }
    Relations { sides, operators }
}

/// `x=5` and `x\in[1,2]` stand for their right side; two relations of one kind are compared; the rest are values.
fn equal_relations(prediction: &str, reference: &str, comparison: &mut Comparison) -> bool {
    let (predicted, wanted) = (relations(prediction), relations(reference));
    match (predicted.operators.as_slice(), wanted.operators.as_slice()) {
        ([], []) => equal_values(prediction, reference, comparison),
        ([Operator::Equal | Operator::Element], []) => {
            named_value(&predicted).is_some_and(|value| strict(value, reference, comparison))
        }
        ([], [Operator::Equal | Operator::Element]) => {
            named_value(&wanted).is_some_and(|value| strict(prediction, value, comparison))
        }
        (a, b) if a != b => false,
        (operators, _) => {
            let pairs = predicted.sides.iter().zip(&wanted.sides);
            if pairs.clone().all(|(a, b)| strict(a, b, comparison)) {
                return true;
            }
            let relation = match operators {
                [Operator::Equal | Operator::Unequal] => Relation::Multiple,
                [Operator::Less | Operator::AtMost] => Relation::PositiveMultiple,
                _ => return false,
            };
            let verdict = same_up_to_factor(&predicted.sides, &wanted.sides, relation, comparison);
            comparison.settle(verdict)
        }
    }
}

/// The right side of a relation whose left side only gives it a name: `x`, `x_1`, `f(x)`, `AB`, `(x,y)`.
fn named_value<'t>(relations: &Relations<'t>) -> Option<&'t str> {
    let [left, right] = relations.sides.as_slice() else { return None };
    let mut letters = left.chars();
    let is_name = letters.next().is_some_and(char::is_alphabetic)
        && matches!(letters.as_str().chars().next(), None | Some('_' | '(' | '\''))
        && !letters.as_str().contains(['+', '-', '*', '/', '^', ',']);
    let is_word = |text: &str| !text.is_empty() && text.chars().all(char::is_alphabetic);
    let is_name = is_name || is_word(left) || tuple(left).is_some_and(|names| names.parts.iter().copied().all(is_word));
    let is_command = left.strip_prefix('\\').is_some_and(|name| name.chars().all(|c| c.is_ascii_alphabetic()));
    (is_name || is_command).then_some(*right)
}

fn same_up_to_factor(
    prediction: &[&str],
    reference: &[&str],
    relation: Relation,
    comparison: &mut Comparison,
) -> Result<bool, Undecided> {
    let budget = &mut comparison.budget;
    let mut difference = |sides: &[&str]| match sides {
        [left, right] => {
            let (left, right) = (parse(left, RULES.notation(), budget)?, parse(right, RULES.notation(), budget)?);
            Ok(Expression::Sum(vec![left, Expression::Negation(Box::new(right))]))
        }
        _ => Err(Undecided::Unparsable),
    };
    let (prediction, reference) = (difference(prediction)?, difference(reference)?);
    let mut names = std::collections::BTreeSet::new();
    prediction.collect_symbols(false, &mut names);
    // Between constants every relation is just true or false, and any two would be multiples.
    if names.is_empty() {
        return Ok(false);
    }
    proportional(&prediction, &reference, relation, RULES, budget)
}

fn equal_values(prediction: &str, reference: &str, comparison: &mut Comparison) -> bool {
    let (prediction, reference) = (plain_exponent(prediction), plain_exponent(reference));
    let budget = &mut comparison.budget;
    let verdict = parse(&prediction, RULES.notation(), budget)
        .and_then(|prediction| equal(&prediction, &parse(&reference, RULES.notation(), budget)?, RULES, budget));
    comparison.settle(verdict)
}

/// `1.5e-3` as `1.5\times10^{-3}`; anything else as it is.
fn plain_exponent(text: &str) -> String {
    let scientific = || {
        let (mantissa, exponent) = text.split_once(['e', 'E'])?;
        let is_number =
            mantissa.parse::<f64>().is_ok_and(f64::is_finite) && mantissa.ends_with(|c: char| c.is_ascii_digit());
        let exponent: i16 = exponent.parse().ok().filter(|_| is_number)?;
        Some(format!(r"{mantissa}\times10^{{{exponent}}}"))
    };
    scientific().unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(prediction: &str, reference: &str) -> bool {
        strict(prediction, reference, &mut Comparison::new())
    }

    #[test]
    fn accepts_other_ways_to_write_the_same() {
        for (prediction, reference) in [
            ("0.5", r"\frac12"),
            ("33.3333", r"\frac{100}{3}"),
            (r"1\frac12", "1.5"),
            (r"\frac{\pi}{2}", "1.5708"),
            (r"\sin(30^\circ)", "0.5"),
            (r"50\%", "0.5"),
            (r"50\%", "50"),
            ("12", "12.0"),
            ("1e3", "1000"),
            ("1,2", "2,1"),
            ("{1,2}", "2,1"),
            (r"1\pm\sqrt{19}", r"1-\sqrt{19},1+\sqrt{19}"),
            (r"{1\pm\sqrt5,-2}", r"{-2,1+\sqrt5,1-\sqrt5}"),
            (r"(-\infty,2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,2)"),
            ("(1,4.5)", r"(1,\frac92)"),
            ("x=5", "5"),
            ("f(x)=2x", "2x"),
            ("AB=5", "5"),
            ("(x,y)=(1,2)", "(1,2)"),
            (r"\textbf{(B)}12", "12"),
            (r"\textbf{(B)}12", "B"),
            (r"\textbf{(B)}12", r"\text{B.}12"),
            (r"x\in[-2,7]", "[-2,7]"),
            ("y=2x+1", "2y-4x=2"),
            ("x>5", "5<x"),
            ("2x>10", "x>5"),
            (r"1<x\le2", r"2\ge x>1"),
            ("x=0.3333", r"x=\frac13"),
            ("Monday", "monday"),
            ("(B)", "B"),
            (r"\begin{pmatrix}0.5\\1\end{pmatrix}", r"\begin{pmatrix}\frac12\\1\end{pmatrix}"),
            (r"0.\overline{3}", r"\frac13"),
            ("a+b", "b+a"),
        ] {
            assert!(same(prediction, reference), "{prediction} | {reference}");
            assert!(same(reference, prediction), "{reference} | {prediction}");
        }
    }

    #[test]
    fn rejects_what_only_looks_the_same() {
        for (prediction, reference) in [
            ("50", "0.5"),
            ("5", "500"),
            ("45", "4,5"),
            ("(1,2)", "[1,2]"),
            ("(1,2)", "(2,1)"),
            ("(1,2)", "1,2"),
            ("17", "17.0001"),
            ("1234567", "1234568"),
            ("33.33", r"\frac{100}{3}"),
            ("A and C", "C"),
            ("x>5", "x<5"),
            (r"x\ge5", "x>5"),
            ("-x>5", "x>5"),
            ("x=5", "x=6"),
            ("(x,y)=(1,2)", "(2,1)"),
            (r"\textbf{(B)}12", "13"),
            (r"\textbf{(B)}12", "C"),
            (r"\textbf{(B)}12", r"\textbf{(C)}12"),
            ("1=2", "3=5"),
            ("a+b", "a+c"),
            ("x", "X"),
            ("1,1,2", "1,2,2"),
            (r"50\%", "5"),
            ("", ""),
        ] {
            assert!(!same(prediction, reference), "{prediction} | {reference}");
        }
    }

    #[test]
    fn long_lists_are_left_open() {
        let numbers = |step: usize| (0..40).map(|n| (n * step % 41).to_string()).collect::<Vec<_>>().join(",");
        let mut comparison = Comparison::new();
        assert!(!strict(&numbers(1), &numbers(2), &mut comparison) && comparison.undecided);
    }
}
