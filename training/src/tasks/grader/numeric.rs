//! The complex value of an expression, in double precision, with given values for its variables.
//!
//! Principal values throughout. A result that is not finite is [`Undecided::Undefined`]: this file never returns a NaN.

use std::collections::BTreeMap;
use std::f64::consts::{E, PI};

use num_complex::Complex64;
use num_traits::ToPrimitive;

use super::budget::{Budget, Undecided};
use super::expression::{Constant, Expression, Function};

/// Where an expression is evaluated.
#[derive(Debug, Default)]
pub(super) struct Point {
    /// Values of the variables, constants among them when those are free.
    pub(super) values: BTreeMap<String, Complex64>,
    /// An odd root of a negative number is real, not the complex principal value.
    pub(super) real_roots: bool,
}

/// The value of `expression` at `point`.
pub(super) fn evaluate(expression: &Expression, point: &Point, budget: &mut Budget) -> Result<Complex64, Undecided> {
    let value = budget.deeper(|budget| {
        let mut at = |inner: &Expression| evaluate(inner, point, budget);
        Ok(match expression {
            Expression::Number { value, .. } => Complex64::from(value.to_f64().ok_or(Undecided::Undefined)?),
            Expression::Symbol(name) => *point.values.get(name).ok_or(Undecided::Undefined)?,
            Expression::Constant(constant) => match point.values.get(constant.name()) {
                Some(value) => *value,
                None => match constant {
                    Constant::Pi => PI.into(),
                    Constant::E => E.into(),
                    Constant::I => Complex64::i(),
                },
            },
            Expression::Sum(terms) => terms.iter().try_fold(Complex64::ZERO, |sum, term| Ok(sum + at(term)?))?,
            Expression::Product(factors) => {
                factors.iter().try_fold(Complex64::ONE, |product, factor| Ok(product * at(factor)?))?
            }
            Expression::Negation(inner) => -at(inner)?,
            Expression::Reciprocal(inner) => at(inner)?.inv(),
            Expression::Power(base, exponent) => power(at(base)?, at(exponent)?),
            Expression::Root { degree, radicand } => root(at(radicand)?, at(degree)?, point.real_roots),
            Expression::Call(function, argument) => call(*function, at(argument)?)?,
            Expression::Logarithm { base, argument } => at(argument)?.ln() / at(base)?.ln(),
            Expression::Factorial(inner) => Complex64::from(gamma(real(at(inner)?)? + 1.0)),
            Expression::Binomial(n, k) => {
                let (n, k) = (real(at(n)?)?, real(at(k)?)?);
                Complex64::from(gamma(n + 1.0) / (gamma(k + 1.0) * gamma(n - k + 1.0)))
            }
            Expression::Matrix(_) => return Err(Undecided::Undefined),
        })
    })?;
    if value.is_finite() { Ok(value) } else { Err(Undecided::Undefined) }
}

/// Whole exponents by repeated multiplication, which keeps real numbers real; others through the logarithm.
fn power(base: Complex64, exponent: Complex64) -> Complex64 {
    if exponent.im == 0.0 && exponent.re.fract() == 0.0 && exponent.re.abs() <= 1024.0 {
        return exponent.re.to_i32().map_or(Complex64::new(f64::NAN, 0.0), |times| base.powi(times));
    }
    if base.im == 0.0 && base.re >= 0.0 && exponent.im == 0.0 {
        return base.re.powf(exponent.re).into();
    }
    base.powc(exponent)
}

fn root(radicand: Complex64, degree: Complex64, real_roots: bool) -> Complex64 {
    let odd = degree.im == 0.0 && degree.re.rem_euclid(2.0) == 1.0;
    if degree == Complex64::from(2.0) {
        radicand.sqrt()
    } else if real_roots && odd && radicand.im == 0.0 && radicand.re < 0.0 {
        -power(-radicand, degree.inv())
    } else {
        power(radicand, degree.inv())
    }
}

fn call(function: Function, z: Complex64) -> Result<Complex64, Undecided> {
    Ok(match function {
        Function::Sin => z.sin(),
        Function::Cos => z.cos(),
        Function::Tan => z.tan(),
        Function::Cot => z.cos() / z.sin(),
        Function::Sec => z.cos().inv(),
        Function::Csc => z.sin().inv(),
        Function::Arcsin => z.asin(),
        Function::Arccos => z.acos(),
        Function::Arctan => z.atan(),
        Function::Sinh => z.sinh(),
        Function::Cosh => z.cosh(),
        Function::Tanh => z.tanh(),
        Function::Exp => z.exp(),
        Function::Ln => z.ln(),
        Function::Abs => z.norm().into(),
        Function::Floor => real(z)?.floor().into(),
        Function::Ceil => real(z)?.ceil().into(),
    })
}

/// The real part of a value that is real up to rounding.
pub(super) fn real(value: Complex64) -> Result<f64, Undecided> {
    if value.im.abs() <= 1e-12 * (1.0 + value.re.abs()) { Ok(value.re) } else { Err(Undecided::Undefined) }
}

/// Euler's gamma function: Stirling's series far to the right, the recurrence elsewhere. NaN at its poles.
fn gamma(x: f64) -> f64 {
    if !(-160.0..=171.0).contains(&x) || (x <= 0.0 && x.fract() == 0.0) {
        return f64::NAN;
    }
    let (mut shifted, mut divisor) = (x, 1.0);
    while shifted < 16.0 {
        divisor *= shifted;
        shifted += 1.0;
    }
    let inverse = 1.0 / shifted;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    let logarithm = (shifted - 0.5) * shifted.ln() - shifted + 0.5 * (2.0 * PI).ln() + series;
    logarithm.exp() / divisor
}

#[cfg(test)]
mod tests {
    use super::super::latex::{Notation, parse};
    use super::*;

    fn at(text: &str, x: f64) -> Result<Complex64, Undecided> {
        let mut budget = Budget::new();
        let expression = parse(text, Notation { extended: true }, &mut budget)?;
        let point = Point { values: [("x".to_owned(), x.into())].into(), real_roots: true };
        evaluate(&expression, &point, &mut budget)
    }

    #[test]
    fn evaluates_to_known_values() {
        for (text, x, expected) in [
            (r"\sqrt{x}", 2.0, 2f64.sqrt()),
            (r"\sqrt[3]{x}", -8.0, -2.0),
            (r"\sin(30^\circ)", 0.0, 0.5),
            (r"\log_28", 0.0, 3.0),
            (r"\log 1000", 0.0, 3.0),
            (r"\ln e^x", 1.5, 1.5),
            ("e^{i\\pi}", 0.0, -1.0),
            ("x!", 4.0, 24.0),
            ("x!", 0.5, PI.sqrt() / 2.0),
            ("x!", -0.5, PI.sqrt()),
            (r"\binom{x}{2}", 5.0, 10.0),
            (r"\arctan x+\sec x\cos x", 1.0, PI / 4.0 + 1.0),
        ] {
            let value = at(text, x).unwrap();
            assert!((value - expected).norm() < 1e-10, "{text}: {value}");
        }
        assert_eq!(at("i^2", 0.0), Ok(Complex64::from(-1.0)));
    }

    #[test]
    fn what_is_not_finite_is_undefined() {
        for text in [r"\frac1x", r"\ln x", "(x-1)!", "y", r"10^{400}", r"\lfloor i\rfloor"] {
            assert_eq!(at(text, 0.0), Err(Undecided::Undefined), "{text}");
        }
    }
}
