//! Whether two expressions are equal, without a computer algebra system.
//!
//! Rational constants are compared exactly, other constants in double precision. Expressions with variables are compared
//! at fixed pseudo-random points: two different polynomials, roots or trigonometric sums agree at none of them, so equal
//! values everywhere mean an identity.

use std::collections::BTreeSet;

use num_complex::Complex64;
use num_rational::BigRational;
use num_traits::{ToPrimitive, Zero};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::budget::{Budget, Undecided};
use super::exact::rational;
use super::expression::Expression;
use super::latex::Notation;
use super::numeric::{Point, evaluate};

/// Points at which an identity is tested.
const POINTS: u64 = 6;
/// Points that both sides must be defined at for a verdict.
const NEEDED_POINTS: usize = 3;
/// Relative tolerance between a rounded decimal and the value that it stands for.
pub(super) const DECIMAL_TOLERANCE: f64 = 1e-4;
/// Relative tolerance between values computed in double precision.
const TOLERANCE: f64 = 1e-9;
/// Below this magnitude a computed value counts as zero.
const ZERO: f64 = 1e-13;
/// Most factors that taking a product of scalars into the entries of a matrix may make.
const MAX_SCALED_FACTORS: usize = 1024;

/// How expressions are compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Strict mode: pi, e and i have their values, decimals are roundings of anything but integers, roots of negative
    /// numbers are real where they can be. Otherwise as the paper's grader: constants are variables that take complex
    /// values, and any two numbers may differ by 1e-4.
    pub(super) strict: bool,
}

impl Rules {
    /// The notation that goes with the rules.
    pub(super) fn notation(self) -> Notation {
        Notation { extended: self.strict }
    }
}

/// How the values of two expressions may be related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// The same value.
    Equal,
    /// A constant positive multiple.
    PositiveMultiple,
    /// A constant multiple other than zero.
    Multiple,
}

/// Whether the two expressions are equal.
pub(super) fn equal(a: &Expression, b: &Expression, rules: Rules, budget: &mut Budget) -> Result<bool, Undecided> {
    if a == b {
        return Ok(true);
    }
    if let (Some(a), Some(b)) = (matrix(a), matrix(b)) {
        return equal_matrices(&a, &b, rules, budget);
    }
    let decimal = a.has_decimal() || b.has_decimal();
    let names = symbols(a, b, rules);
    if names.is_empty() {
        // Both are tried before either failure counts: one side may be defined only in floating point.
        let exact = (rational(a, budget), rational(b, budget));
        if let (Ok(Some(a)), Ok(Some(b))) = &exact {
            return Ok(equal_rationals(a, b, decimal, rules));
        }
        for undecided in [exact.0.err(), exact.1.err()].into_iter().flatten() {
            if undecided == Undecided::Budget {
                return Err(undecided);
            }
        }
        let point = Point { real_roots: rules.strict, ..Point::default() };
        let (a, b) = (evaluate(a, &point, budget)?, evaluate(b, &point, budget)?);
        return Ok(equal_constants(a, b, decimal, rules));
    }
    let tolerance = if decimal && rules.strict { DECIMAL_TOLERANCE } else { TOLERANCE };
    related(a, b, Relation::Equal, &names, tolerance, rules, budget)
}

/// Whether one expression is a constant multiple, as `relation` allows, of the other; both must have variables.
pub(super) fn proportional(
    a: &Expression,
    b: &Expression,
    relation: Relation,
    rules: Rules,
    budget: &mut Budget,
) -> Result<bool, Undecided> {
    let names = symbols(a, b, rules);
    related(a, b, relation, &names, TOLERANCE, rules, budget)
}

fn symbols(a: &Expression, b: &Expression, rules: Rules) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    a.collect_symbols(!rules.strict, &mut names);
    b.collect_symbols(!rules.strict, &mut names);
    names
}

fn equal_rationals(a: &BigRational, b: &BigRational, decimal: bool, rules: Rules) -> bool {
    if a == b || (rules.strict && (!decimal || a.is_integer() || b.is_integer())) {
        return a == b;
    }
    // In double precision, as the original: 33.33 is a hair too far from 100/3 there, at a distance of just 1e-4.
    match (a.to_f64(), b.to_f64()) {
        (Some(a), Some(b)) if a.is_finite() && b.is_finite() => close(a.into(), b.into(), DECIMAL_TOLERANCE),
        _ => false,
    }
}

fn equal_constants(a: Complex64, b: Complex64, decimal: bool, rules: Rules) -> bool {
    let whole = |value: Complex64| (value - value.re.round()).norm() <= TOLERANCE * value.norm().max(1.0);
    let rounding = if rules.strict { decimal && !whole(a) && !whole(b) } else { a.im == 0.0 && b.im == 0.0 };
    close(a, b, if rounding { DECIMAL_TOLERANCE } else { TOLERANCE })
}

fn close(a: Complex64, b: Complex64, tolerance: f64) -> bool {
    let size = a.norm().max(b.norm());
    size <= ZERO || (a - b).norm() <= tolerance * size
}

/// Compares the values at the fixed points. Where either side is undefined the point says nothing.
fn related(
    a: &Expression,
    b: &Expression,
    relation: Relation,
    names: &BTreeSet<String>,
    tolerance: f64,
    rules: Rules,
    budget: &mut Budget,
) -> Result<bool, Undecided> {
    let mut random = ChaCha8Rng::seed_from_u64(0x6272_6576_6974_7921);
    let mut ratio: Option<Complex64> = None;
    let mut agreed = 0;
    for index in 0..POINTS {
        // Positive, negative and mixed signs; complex points too where variables are not known to be real.
        let point = names.iter().map(|name| {
            let size = random.random_range(0.3..2.3);
            let sign = if index % 3 == 1 || (index % 3 == 2 && random.random_bool(0.5)) { -1.0 } else { 1.0 };
            let imaginary = if !rules.strict && index >= 3 { random.random_range(0.1..1.1) } else { 0.0 };
            (name.clone(), Complex64::new(sign * size, imaginary))
        });
        let point = Point { values: point.collect(), real_roots: rules.strict };
        let values = evaluate(a, &point, budget).and_then(|a| Ok((a, evaluate(b, &point, budget)?)));
        let (a, b) = match values {
            Ok(values) => values,
            Err(Undecided::Undefined) => continue,
            Err(undecided) => return Err(undecided),
        };
        let agrees = match relation {
            Relation::Equal => close(a, b, tolerance),
            Relation::PositiveMultiple | Relation::Multiple => {
                if a.norm() <= ZERO || b.norm() <= ZERO {
                    return Ok(false);
                }
                let here = a / b;
                let positive = here.im.abs() <= TOLERANCE * here.norm() && here.re > 0.0;
                let same = ratio.is_none_or(|ratio| close(here, ratio, tolerance));
                ratio = Some(here);
                same && (relation == Relation::Multiple || positive)
            }
        };
        if !agrees {
            return Ok(false);
        }
        agreed += 1;
    }
    if agreed >= NEEDED_POINTS { Ok(true) } else { Err(Undecided::Undefined) }
}

/// The rows of a matrix, or of a scalar multiple of one.
fn matrix(expression: &Expression) -> Option<Vec<Vec<Expression>>> {
    match expression {
        Expression::Matrix(rows) => Some(rows.clone()),
        Expression::Negation(inner) => scaled(&matrix(inner)?, &[Expression::integer(-1)]),
        Expression::Product(factors) => {
            let (matrices, scalars): (Vec<_>, Vec<_>) =
                factors.iter().cloned().partition(|factor| matches!(factor, Expression::Matrix(_)));
            match matrices.as_slice() {
                [Expression::Matrix(rows)] => scaled(rows, &scalars),
                _ => None,
            }
        }
        _ => None,
    }
}

fn scaled(rows: &[Vec<Expression>], scalars: &[Expression]) -> Option<Vec<Vec<Expression>>> {
    if scalars.is_empty() || rows.iter().flatten().count() * scalars.len() > MAX_SCALED_FACTORS {
        return None;
    }
    let scale = |cell: &Expression| Expression::Product(scalars.iter().cloned().chain([cell.clone()]).collect());
    Some(rows.iter().map(|row| row.iter().map(scale).collect()).collect())
}

fn equal_matrices(
    a: &[Vec<Expression>],
    b: &[Vec<Expression>],
    rules: Rules,
    budget: &mut Budget,
) -> Result<bool, Undecided> {
    let shape = |rows: &[Vec<Expression>]| (rows.len(), rows.first().map_or(0, Vec::len));
    if shape(a) != shape(b) {
        return Ok(false);
    }
    for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
        let same = equal(a, b, rules, budget)? || (!rules.strict && equal_rounded(a, b, budget)?);
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The paper's grader rounds numeric matrix entries to three decimals.
fn equal_rounded(a: &Expression, b: &Expression, budget: &mut Budget) -> Result<bool, Undecided> {
    let (Some(a), Some(b)) = (rational(a, budget)?, rational(b, budget)?) else { return Ok(false) };
    let thousand = BigRational::from_integer(1000.into());
    let rounded = |value: BigRational| (value * &thousand).round();
    Ok((rounded(a) - rounded(b)).is_zero())
}

#[cfg(test)]
mod tests {
    use super::super::latex::parse;
    use super::*;

    fn same(a: &str, b: &str, strict: bool) -> Result<bool, Undecided> {
        let rules = Rules { strict };
        let mut budget = Budget::new();
        let (a, b) = (parse(a, rules.notation(), &mut budget)?, parse(b, rules.notation(), &mut budget)?);
        equal(&a, &b, rules, &mut budget)
    }

    #[test]
    fn identities_hold_in_both_modes() {
        for (a, b) in [
            ("x^2+2x+1", "(x+1)^2"),
            (r"2\sqrt2", r"\sqrt8"),
            (r"\frac1{\sqrt2}", r"\frac{\sqrt2}2"),
            (r"\sec^2(y)", r"\tan^2(y)+1"),
            (r"\sin^2 x+\cos^2 x", "1"),
            (r"\sin^2 x+\cos^2 x-1", "0"),
            (r"\frac{x^2-1}{x-1}", "x+1"),
            (r"\log_2 8", "3"),
            ("(x+1)^{10}", "(1+x)^{9}(x+1)"),
            (r"\begin{pmatrix}\frac12&x\end{pmatrix}", r"\frac12\begin{pmatrix}1&2x\end{pmatrix}"),
        ] {
            assert_eq!((same(a, b, false), same(a, b, true)), (Ok(true), Ok(true)), "{a} = {b}");
        }
    }

    #[test]
    fn near_misses_fail_in_both_modes() {
        for (a, b) in [
            ("x+1", "x+2n+1"),
            (r"\sqrt{x^2}", "x"),
            ("|x|", "x"),
            ("x^2", "x^3"),
            ("2", "3"),
            (r"\sqrt2", "1.41"),
            ("x", "1.0001x+0.001"),
            ("(x+1)^2", "x^2+2x+1.01"),
        ] {
            assert_eq!((same(a, b, false), same(a, b, true)), (Ok(false), Ok(false)), "{a} = {b}");
        }
    }

    #[test]
    fn constants_and_roundings_depend_on_the_mode() {
        for (a, b, qwen, strict) in [
            (r"\frac{\pi}{2}", "1.5708", false, true),
            ("i^2", "-1", false, true),
            (r"\frac{100}3", r"\frac{10001}{300}", true, false),
            (r"\sqrt[3]{-8}", "-2", false, true),
            ("17", "17.0001", true, false),
            (r"\frac13", "0.3333", true, true),
            (r"\sqrt{4.0004}", "2", true, false),
        ] {
            assert_eq!((same(a, b, false), same(a, b, true)), (Ok(qwen), Ok(strict)), "{a} = {b}");
        }
    }

    #[test]
    fn multiples_are_told_from_other_functions() {
        let rules = Rules { strict: true };
        let related = |a: &str, b: &str, relation| {
            let mut budget = Budget::new();
            let (a, b) = (parse(a, rules.notation(), &mut budget)?, parse(b, rules.notation(), &mut budget)?);
            proportional(&a, &b, relation, rules, &mut budget)
        };
        assert_eq!(related("2x-4y", "x-2y", Relation::PositiveMultiple), Ok(true));
        assert_eq!(related("2x-4y", "2y-x", Relation::PositiveMultiple), Ok(false));
        assert_eq!(related("2x-4y", "2y-x", Relation::Multiple), Ok(true));
        assert_eq!(related("2x-4y", "2y-x+1", Relation::Multiple), Ok(false));
    }

    #[test]
    fn huge_numbers_are_undecided() {
        assert_eq!(same("10^{10^{10}}", "1", true), Err(Undecided::Budget));
        assert_eq!(same("99999!", "1", false), Err(Undecided::Budget));
    }
}
