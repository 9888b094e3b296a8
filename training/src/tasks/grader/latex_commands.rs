//! The parser's commands: fractions, roots, functions, logarithms, letters, matrices.
//!
//! Each method reads the arguments of a command whose name was just taken. A command that is missing here makes the text
//! unparsable.

use super::budget::Undecided;
use super::expression::{Constant, Expression, Function};
use super::latex::{Parser, flat, quotient};
use super::token::Token;

impl Parser<'_> {
    /// What the command `name`, already taken, stands for with its arguments.
    pub(super) fn command(&mut self, name: &str) -> Result<Expression, Undecided> {
        match name {
            "frac" | "dfrac" | "tfrac" | "cfrac" => Ok(quotient(self.argument()?, self.argument()?)),
            "binom" | "dbinom" | "tbinom" => {
                Ok(Expression::Binomial(Box::new(self.argument()?), Box::new(self.argument()?)))
            }
            "sqrt" => {
                let degree = if self.take_char('[') { self.enclosed(']')? } else { Expression::integer(2) };
                Ok(Expression::Root { degree: Box::new(degree), radicand: Box::new(self.argument()?) })
            }
            "pi" => Ok(Expression::Constant(Constant::Pi)),
            "lfloor" => self.closed_by(Function::Floor, "rfloor"),
            "lceil" => self.closed_by(Function::Ceil, "rceil"),
            "lvert" => self.closed_by(Function::Abs, "rvert"),
            "log" | "lg" => self.logarithm(),
            "mathrm" | "mathit" | "mathbf" | "boldsymbol" | "boxed" => self.argument(),
            "operatorname" => {
                self.expect('{')?;
                let mut name = String::new();
                while let Some(Token::Letter(letter)) = self.peek() {
                    name.push(*letter);
                    self.position += 1;
                }
                self.expect('}')?;
                Function::named(&name).map_or(Err(Undecided::Unparsable), |function| self.call(function))
            }
            "begin" => self.matrix(),
            _ => match Function::named(name) {
                Some(function) => self.call(function),
                None if is_letter(name) => self.symbol(format!("\\{name}")),
                None => Err(Undecided::Unparsable),
            },
        }
    }

    fn closed_by(&mut self, function: Function, close: &str) -> Result<Expression, Undecided> {
        let inner = self.sum()?;
        if self.take_command(close) {
            Ok(Expression::Call(function, Box::new(inner)))
        } else {
            Err(Undecided::Unparsable)
        }
    }

    /// The argument of a command: a group, a single digit, or a single operand.
    pub(super) fn argument(&mut self) -> Result<Expression, Undecided> {
        self.budget.enter()?;
        let several_digits = match self.tokens.get_mut(self.position) {
            Some(Token::Number(digits)) if digits.len() > 1 && !digits.starts_with('.') => Some(digits.remove(0)),
            _ => None,
        };
        let argument = match several_digits {
            Some(digit) => Expression::integer(digit.to_digit(10).map_or(0, i64::from)),
            None => self.operand()?,
        };
        self.budget.leave();
        Ok(argument)
    }

    /// A function with its power and argument: `\sin x`, `\sin^2 x`, `\sin^{-1} x`, `\sin(x)`.
    fn call(&mut self, function: Function) -> Result<Expression, Undecided> {
        let power = if self.take_char('^') { Some(self.exponent()?) } else { None };
        let minus_one = [Expression::integer(-1), Expression::Negation(Box::new(Expression::integer(1)))];
        if let Some(inverse) = power.as_ref().filter(|power| minus_one.contains(power)).and(function.inverse()) {
            return Ok(Expression::Call(inverse, Box::new(self.call_argument()?)));
        }
        let call = Expression::Call(function, Box::new(self.call_argument()?));
        Ok(match power {
            Some(power) => Expression::Power(Box::new(call), Box::new(power)),
            None => call,
        })
    }

    fn logarithm(&mut self) -> Result<Expression, Undecided> {
        let base = if self.take_char('_') { self.argument()? } else { Expression::integer(10) };
        let power = if self.take_char('^') { Some(self.exponent()?) } else { None };
        let call = Expression::Logarithm { base: Box::new(base), argument: Box::new(self.call_argument()?) };
        Ok(match power {
            Some(power) => Expression::Power(Box::new(call), Box::new(power)),
            None => call,
        })
    }

    /// A bracket, or the factors up to the next sign, function or closing bracket.
    fn call_argument(&mut self) -> Result<Expression, Undecided> {
        if matches!(self.peek(), Some(Token::Char('(' | '[' | '{'))) {
            self.budget.enter()?;
            let argument = self.operand()?;
            self.budget.leave();
            return Ok(argument);
        }
        let mut factors = vec![self.factor()?];
        while self.starts_factor() && !self.starts_function() && !matches!(self.peek(), Some(Token::Char('('))) {
            factors.push(self.factor()?);
        }
        Ok(flat(factors, Expression::Product))
    }

    fn starts_function(&self) -> bool {
        self.peek_command()
            .is_some_and(|name| matches!(name, "log" | "lg" | "operatorname") || Function::named(name).is_some())
    }

    fn matrix(&mut self) -> Result<Expression, Undecided> {
        self.environment("pmatrix")?;
        let mut rows = vec![Vec::new()];
        loop {
            let cell = self.sum()?;
            if let Some(row) = rows.last_mut() {
                row.push(cell);
            }
            if self.take_char('&') {
                continue;
            }
            let next_row = self.take_command("\\");
            if self.take_command("end") {
                break;
            }
            if !next_row {
                return Err(Undecided::Unparsable);
            }
            rows.push(Vec::new());
        }
        self.environment("pmatrix")?;
        let width = rows.first().map_or(0, Vec::len);
        if rows.iter().all(|row| row.len() == width) {
            Ok(Expression::Matrix(rows))
        } else {
            Err(Undecided::Unparsable)
        }
    }

    fn environment(&mut self, name: &str) -> Result<(), Undecided> {
        self.expect('{')?;
        for letter in name.chars() {
            if self.take() != Some(Token::Letter(letter)) {
                return Err(Undecided::Unparsable);
            }
        }
        self.expect('}')
    }
}

/// Commands that stand for a letter, and infinity, which is equal only to itself like any variable.
fn is_letter(name: &str) -> bool {
    const LETTERS: [&str; 35] = [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "varepsilon",
        "zeta",
        "eta",
        "theta",
        "vartheta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "sigma",
        "tau",
        "upsilon",
        "phi",
        "varphi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Phi",
        "Psi",
        "Omega",
        "Sigma",
        "ell",
        "infty",
    ];
    LETTERS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::super::latex::{Notation, parse};
    use super::*;

    #[test]
    fn functions_take_the_factors_beside_them() {
        let parsed = |text: &str| parse(text, Notation { extended: false }, &mut Budget::new());
        assert_eq!(parsed(r"\sin 2x+1"), parsed(r"\sin(2x)+1"));
        assert_eq!(parsed(r"\sin x\cos x"), parsed(r"(\sin(x))(\cos(x))"));
        assert_eq!(parsed(r"\sin^2 x"), parsed(r"(\sin(x))^2"));
        assert_eq!(parsed(r"\sin^{-1} x"), parsed(r"\arcsin(x)"));
        assert_eq!(parsed(r"\log_28"), parsed(r"\log_{2}{8}"));
        assert_eq!(parsed("x_{12}"), Ok(Expression::Symbol("x_12".into())));
    }

    #[test]
    fn matrices_have_rows_of_one_length() {
        let parsed = |text: &str| parse(text, Notation { extended: false }, &mut Budget::new());
        let rows = |rows: &[&[i64]]| {
            let row = |row: &&[i64]| row.iter().copied().map(Expression::integer).collect();
            Ok(Expression::Matrix(rows.iter().map(row).collect()))
        };
        assert_eq!(parsed(r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"), rows(&[&[1, 2], &[3, 4]]));
        assert_eq!(parsed(r"\begin{pmatrix}1\\3\\\end{pmatrix}"), rows(&[&[1], &[3]]));
        assert_eq!(parsed(r"\begin{pmatrix}1&2\\3\end{pmatrix}"), Err(Undecided::Unparsable));
    }
}
