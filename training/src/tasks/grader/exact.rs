//! The exact value of an expression that is a rational number.
//!
//! No floating point here: where a value is irrational or depends on a variable the answer is `None`, and `numeric` takes
//! over. Every operation pays for the size of its operands, so `10^{10^{10}}` ends at once.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::budget::{Budget, MAX_BITS, Undecided, bits};
use super::expression::{Expression, Function};

/// Largest n of an exactly computed n! (about 2000 bits).
const MAX_FACTORIAL: u32 = 300;

/// The rational value of `expression`, or `None` when it has none or none is seen without floating point.
pub(super) fn rational(expression: &Expression, budget: &mut Budget) -> Result<Option<BigRational>, Undecided> {
    budget.deeper(|budget| match expression {
        Expression::Number { value, .. } => Ok(Some(value.clone())),
        Expression::Symbol(_) | Expression::Constant(_) | Expression::Matrix(_) => Ok(None),
        Expression::Sum(terms) => fold(terms, BigRational::zero(), |a, b| a + b, budget),
        Expression::Product(factors) => fold(factors, BigRational::one(), |a, b| a * b, budget),
        Expression::Negation(inner) => Ok(rational(inner, budget)?.map(|value| -value)),
        Expression::Reciprocal(inner) => match rational(inner, budget)? {
            Some(value) if value.is_zero() => Err(Undecided::Undefined),
            value => Ok(value.map(|value| value.recip())),
        },
        Expression::Power(base, exponent) => match (rational(base, budget)?, rational(exponent, budget)?) {
            (Some(base), Some(exponent)) => power(&base, &exponent, budget),
            _ => Ok(None),
        },
        Expression::Root { degree, radicand } => match (rational(degree, budget)?, rational(radicand, budget)?) {
            (Some(degree), Some(radicand)) if degree.is_integer() => root(&radicand, degree.numer(), budget),
            _ => Ok(None),
        },
        Expression::Call(function, argument) => Ok(rational(argument, budget)?.and_then(|argument| match function {
            Function::Abs => Some(argument.abs()),
            Function::Floor => Some(argument.floor()),
            Function::Ceil => Some(argument.ceil()),
            _ => None,
        })),
        Expression::Logarithm { .. } => Ok(None),
        Expression::Factorial(inner) => match rational(inner, budget)? {
            Some(value) => factorial(&value, budget).map(Some),
            None => Ok(None),
        },
        Expression::Binomial(n, k) => match (rational(n, budget)?, rational(k, budget)?) {
            (Some(n), Some(k)) => binomial(&n, &k, budget).map(Some),
            _ => Ok(None),
        },
    })
}

fn fold(
    parts: &[Expression],
    start: BigRational,
    join: impl Fn(BigRational, BigRational) -> BigRational,
    budget: &mut Budget,
) -> Result<Option<BigRational>, Undecided> {
    let mut result = Some(start);
    // All parts are visited even when one has no rational value: a later division by zero is still undefined.
    for part in parts {
        let value = rational(part, budget)?;
        result = match (result, value) {
            (Some(a), Some(b)) => {
                budget.arithmetic(&a, &b)?;
                Some(join(a, b))
            }
            _ => None,
        };
    }
    Ok(result)
}

fn power(base: &BigRational, exponent: &BigRational, budget: &mut Budget) -> Result<Option<BigRational>, Undecided> {
    if !exponent.is_integer() {
        let Some(radical) = root(base, exponent.denom(), budget)? else { return Ok(None) };
        let numerator = BigRational::from_integer(exponent.numer().clone());
        return power(&radical, &numerator, budget);
    }
    if base.is_zero() {
        return match exponent {
            exponent if exponent.is_positive() => Ok(Some(BigRational::zero())),
            exponent if exponent.is_zero() => Ok(Some(BigRational::one())),
            _ => Err(Undecided::Undefined),
        };
    }
    if base.abs().is_one() {
        let odd = exponent.numer().bit(0);
        return Ok(Some(if odd { base.clone() } else { BigRational::one() }));
    }
    let size = exponent.numer().abs().to_u64().and_then(|times| times.checked_mul(bits(base)));
    if size.is_none_or(|size| size > MAX_BITS) {
        return Err(Undecided::Budget);
    }
    let times = exponent.numer().to_i32().ok_or(Undecided::Budget)?;
    let result = base.pow(times);
    budget.arithmetic(&result, &result)?;
    Ok(Some(result))
}

/// The real root of an exact power, odd roots of negative numbers excepted (their principal value is complex).
fn root(radicand: &BigRational, degree: &BigInt, budget: &mut Budget) -> Result<Option<BigRational>, Undecided> {
    let Some(degree) = degree.to_u32().filter(|degree| (1..=64).contains(degree)) else { return Ok(None) };
    if radicand.is_negative() {
        return Ok((degree == 1).then(|| radicand.clone()));
    }
    budget.arithmetic(radicand, radicand)?;
    budget.spend(usize::try_from(bits(radicand)).unwrap_or(usize::MAX))?;
    let (numerator, denominator) = (radicand.numer().nth_root(degree), radicand.denom().nth_root(degree));
    let is_exact = numerator.pow(degree) == *radicand.numer() && denominator.pow(degree) == *radicand.denom();
    Ok(is_exact.then(|| BigRational::new(numerator, denominator)))
}

fn natural(value: &BigRational) -> Result<u32, Undecided> {
    if !value.is_integer() || value.is_negative() {
        return Err(Undecided::Undefined);
    }
    value.numer().to_u32().ok_or(Undecided::Budget)
}

fn factorial(value: &BigRational, budget: &mut Budget) -> Result<BigRational, Undecided> {
    let n = natural(value)?;
    if n > MAX_FACTORIAL {
        return Err(Undecided::Budget);
    }
    budget.spend(8 * n as usize)?;
    Ok(BigRational::from_integer((1..=n).fold(BigInt::one(), |product, factor| product * factor)))
}

fn binomial(n: &BigRational, k: &BigRational, budget: &mut Budget) -> Result<BigRational, Undecided> {
    let (n, k) = (natural(n)?, natural(k)?);
    if k > n {
        return Ok(BigRational::zero());
    }
    let k = k.min(n - k);
    if k > MAX_FACTORIAL {
        return Err(Undecided::Budget);
    }
    budget.spend(64 * k as usize)?;
    let mut result = BigInt::one();
    for factor in 1..=k {
        result = result * (n - k + factor) / factor;
        if result.bits() > MAX_BITS {
            return Err(Undecided::Budget);
        }
    }
    Ok(BigRational::from_integer(result))
}

#[cfg(test)]
mod tests {
    use super::super::latex::{Notation, parse};
    use super::*;

    fn value(text: &str) -> Result<Option<BigRational>, Undecided> {
        let mut budget = Budget::new();
        let expression = parse(text, Notation { extended: true }, &mut budget)?;
        rational(&expression, &mut budget)
    }

    #[test]
    fn computes_rationals() {
        for (text, numerator, denominator) in [
            (r"\frac13+\frac16", 1, 2),
            (r"\left(\frac23\right)^{-2}", 9, 4),
            (r"8^{\frac23}", 4, 1),
            (r"\sqrt{0.25}", 1, 2),
            ("0^0", 1, 1),
            ("(-1)^{10^{30}}", 1, 1),
            (r"\binom{3}{5}", 0, 1),
            (r"\binom{52}{5}", 2_598_960, 1),
            ("0!", 1, 1),
        ] {
            assert_eq!(value(text), Ok(Some(BigRational::new(numerator.into(), denominator.into()))), "{text}");
        }
    }

    #[test]
    fn leaves_the_rest_to_others() {
        for text in [r"\sqrt2", r"\pi", "x", r"\log_28", r"\sin 0", r"\sqrt{-4}", r"\sqrt[3]{-8}"] {
            assert_eq!(value(text), Ok(None), "{text}");
        }
        for text in [r"\frac10", "0^{-1}", "(-3)!", r"2.5!", r"\pi\cdot\frac{1}{1-1}"] {
            assert_eq!(value(text), Err(Undecided::Undefined), "{text}");
        }
        for text in ["10^{10^{10}}", "99999!", "((300!)!)!", r"\binom{4000000000}{2000000000}", "2^{2^{11}}"] {
            assert_eq!(value(text), Err(Undecided::Budget), "{text}");
        }
    }
}
