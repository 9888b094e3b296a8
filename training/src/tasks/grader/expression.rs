//! The tree that an answer is parsed into.
//!
//! Sums and products are flat lists, so that a long chain of terms does not deepen the tree; everything that evaluates a
//! tree recurses on it and relies on that.

use std::collections::BTreeSet;

use num_rational::BigRational;

/// A mathematical expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    /// A rational number; `decimal` when it was written with a decimal point and may have been rounded.
    Number { value: BigRational, decimal: bool },
    /// A variable, its subscript and primes included.
    Symbol(String),
    /// A letter with a fixed meaning in mathematics.
    Constant(Constant),
    /// A sum of at least one term.
    Sum(Vec<Expression>),
    /// A product of at least one factor.
    Product(Vec<Expression>),
    /// Minus the inner expression.
    Negation(Box<Expression>),
    /// One over the inner expression.
    Reciprocal(Box<Expression>),
    /// Base, exponent.
    Power(Box<Expression>, Box<Expression>),
    /// The root of the given degree.
    Root { degree: Box<Expression>, radicand: Box<Expression> },
    /// A function of one argument.
    Call(Function, Box<Expression>),
    /// A logarithm to the given base.
    Logarithm { base: Box<Expression>, argument: Box<Expression> },
    /// n!
    Factorial(Box<Expression>),
    /// n over k.
    Binomial(Box<Expression>, Box<Expression>),
    /// Rows of a matrix, all of one length.
    Matrix(Vec<Vec<Expression>>),
}

/// Letters with a fixed meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Constant {
    /// 3.14159...
    Pi,
    /// 2.71828...
    E,
    /// The imaginary unit.
    I,
}

impl Constant {
    /// The name under which it is a variable, where constants are variables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pi => r"\pi",
            Self::E => "e",
            Self::I => "i",
        }
    }
}

/// Functions of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Arcsin,
    Arccos,
    Arctan,
    Sinh,
    Cosh,
    Tanh,
    Exp,
    Ln,
    Abs,
    Floor,
    Ceil,
}

impl Function {
    /// The function called `name`, in LaTeX (without backslash) or plain text.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sin" => Self::Sin,
            "cos" => Self::Cos,
            "tan" | "tg" => Self::Tan,
            "cot" | "ctg" => Self::Cot,
            "sec" => Self::Sec,
            "csc" => Self::Csc,
            "arcsin" | "asin" => Self::Arcsin,
            "arccos" | "acos" => Self::Arccos,
            "arctan" | "atan" => Self::Arctan,
            "sinh" => Self::Sinh,
            "cosh" => Self::Cosh,
            "tanh" => Self::Tanh,
            "exp" => Self::Exp,
            "ln" => Self::Ln,
            "abs" => Self::Abs,
            "floor" => Self::Floor,
            "ceil" => Self::Ceil,
            _ => return None,
        })
    }

    /// The inverse, for notations such as `\sin^{-1} x`.
    pub(super) fn inverse(self) -> Option<Self> {
        match self {
            Self::Sin => Some(Self::Arcsin),
            Self::Cos => Some(Self::Arccos),
            Self::Tan => Some(Self::Arctan),
            _ => None,
        }
    }
}

impl Expression {
    /// The number `value`, exact.
    pub(super) fn integer(value: i64) -> Self {
        Self::Number { value: BigRational::from_integer(value.into()), decimal: false }
    }

    /// The expressions directly below this one.
    fn children(&self) -> Vec<&Self> {
        match self {
            Self::Number { .. } | Self::Symbol(_) | Self::Constant(_) => Vec::new(),
            Self::Sum(parts) | Self::Product(parts) => parts.iter().collect(),
            Self::Negation(inner) | Self::Reciprocal(inner) | Self::Call(_, inner) | Self::Factorial(inner) => {
                vec![inner]
            }
            Self::Power(a, b)
            | Self::Root { degree: a, radicand: b }
            | Self::Logarithm { base: a, argument: b }
            | Self::Binomial(a, b) => vec![a, b],
            Self::Matrix(rows) => rows.iter().flatten().collect(),
        }
    }

    /// Adds the names of all variables to `names`; constants are variables when `free_constants` says so.
    pub(super) fn collect_symbols(&self, free_constants: bool, names: &mut BTreeSet<String>) {
        match self {
            Self::Symbol(name) => {
                names.insert(name.clone());
            }
            Self::Constant(constant) if free_constants => {
                names.insert(constant.name().to_owned());
            }
            _ => self.children().into_iter().for_each(|child| child.collect_symbols(free_constants, names)),
        }
    }

    /// Whether a decimal point was written anywhere in it.
    pub(super) fn has_decimal(&self) -> bool {
        matches!(self, Self::Number { decimal: true, .. }) || self.children().into_iter().any(Self::has_decimal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_symbols_only_on_request() {
        let sum = Expression::Sum(vec![Expression::Constant(Constant::Pi), Expression::Symbol("x".into())]);
        let names = |free| {
            let mut names = BTreeSet::new();
            sum.collect_symbols(free, &mut names);
            names.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["x"]);
        assert_eq!(names(true), [r"\pi", "x"]);
    }

    #[test]
    fn decimals_are_found_at_any_depth() {
        let value = BigRational::new(1.into(), 2.into());
        let half = Expression::Number { value, decimal: true };
        assert!(Expression::Negation(Box::new(Expression::Sum(vec![Expression::integer(1), half]))).has_decimal());
        assert!(!Expression::integer(1).has_decimal());
    }
}
