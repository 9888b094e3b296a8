//! A recursive-descent parser from LaTeX, or plain text, to an [`Expression`].
//!
//! Sums, products (implicit ones too), powers, factorials, numbers and variables are read here; what a command takes as
//! arguments is read in `latex_commands`. Whatever neither knows is [`Undecided::Unparsable`], never a guess. Lists, intervals and equations are taken apart before.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Zero};

use super::budget::{Budget, MAX_BITS, Undecided};
use super::expression::{Constant, Expression, Function};
use super::token::{Token, tokens};

/// What the notation of a text may hold beyond plain LaTeX.
#[derive(Debug, Clone, Copy)]
pub(super) struct Notation {
    /// `1\frac12` is one and a half, `50\%` a half, `30^\circ` an angle, `sqrt(2)` a root and `0.\overline{3}` a third.
    pub(super) extended: bool,
}

/// Parses the whole of `text`.
pub(super) fn parse(text: &str, notation: Notation, budget: &mut Budget) -> Result<Expression, Undecided> {
    let tokens = tokens(text)?;
    budget.spend(tokens.len())?;
    budget.deeper(|budget| {
        let mut parser = Parser { tokens, position: 0, bars: 0, notation, budget };
        let expression = parser.sum()?;
        if parser.position == parser.tokens.len() { Ok(expression) } else { Err(Undecided::Unparsable) }
    })
}

/// A parse under way. `latex_commands` adds what begins with a backslash.
pub(super) struct Parser<'b> {
    pub(super) tokens: Vec<Token>,
    pub(super) position: usize,
    /// Absolute values that are open, so that a bar closes rather than opens one.
    bars: usize,
    notation: Notation,
    pub(super) budget: &'b mut Budget,
}

impl Parser<'_> {
    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.position)
    }

    pub(super) fn peek_command(&self) -> Option<&str> {
        match self.peek() {
            Some(Token::Command(name)) => Some(name),
            _ => None,
        }
    }

    pub(super) fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.position).cloned();
        self.position += 1;
        token
    }

    pub(super) fn take_char(&mut self, character: char) -> bool {
        let found = self.peek() == Some(&Token::Char(character));
        self.position += usize::from(found);
        found
    }

    pub(super) fn take_command(&mut self, name: &str) -> bool {
        let found = self.peek_command() == Some(name);
        self.position += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, character: char) -> Result<(), Undecided> {
        if self.take_char(character) { Ok(()) } else { Err(Undecided::Unparsable) }
    }

    /// Terms joined by plus and minus.
    pub(super) fn sum(&mut self) -> Result<Expression, Undecided> {
        self.budget.enter()?;
        let mut terms = Vec::new();
        loop {
            let mut negative = false;
            let mut signs = 0;
            while let Some(Token::Char(sign @ ('+' | '-' | '−'))) = self.peek() {
                negative ^= *sign != '+';
                signs += 1;
                self.position += 1;
            }
            if signs == 0 && !terms.is_empty() {
                break;
            }
            let term = self.product()?;
            terms.push(if negative { Expression::Negation(Box::new(term)) } else { term });
        }
        self.budget.leave();
        Ok(flat(terms, Expression::Sum))
    }

    /// Factors joined by multiplication and division signs, or by standing side by side.
    fn product(&mut self) -> Result<Expression, Undecided> {
        let mut factors = vec![self.factor()?];
        loop {
            self.budget.spend(1)?;
            let divide = match self.peek() {
                Some(Token::Char('*' | '·' | '×')) => false,
                Some(Token::Char('/' | ':' | '÷')) => true,
                Some(Token::Command(name)) if matches!(name.as_str(), "cdot" | "times" | "ast") => false,
                Some(Token::Command(name)) if name == "div" => true,
                _ if self.starts_factor() => {
                    // Two numbers side by side are no product but a slip, or digits of something else.
                    let after_number = matches!(self.tokens.get(self.position.wrapping_sub(1)), Some(Token::Number(_)));
                    if after_number && matches!(self.peek(), Some(Token::Number(_))) {
                        return Err(Undecided::Unparsable);
                    }
                    factors.push(self.factor()?);
                    continue;
                }
                _ => break,
            };
            self.position += 1;
            let negative = self.take_char('-');
            let factor = self.factor()?;
            let factor = if divide { Expression::Reciprocal(Box::new(factor)) } else { factor };
            factors.push(if negative { Expression::Negation(Box::new(factor)) } else { factor });
        }
        Ok(flat(factors, Expression::Product))
    }

    pub(super) fn starts_factor(&self) -> bool {
        match self.peek() {
            Some(Token::Number(_) | Token::Letter(_)) | Some(Token::Char('(' | '[' | '{')) => true,
            Some(Token::Char('|')) => self.bars == 0,
            Some(Token::Command(name)) => !matches!(
                name.as_str(),
                "cdot" | "times" | "ast" | "div" | "rfloor" | "rceil" | "rvert" | "end" | "\\" | "%" | "circ"
            ),
            _ => false,
        }
    }

    /// An operand with its exponents, factorials and percent signs.
    pub(super) fn factor(&mut self) -> Result<Expression, Undecided> {
        self.budget.enter()?;
        let start = self.position;
        let mut operand = self.operand()?;
        if let Some(mixed) = self.mixed_number(start, &operand) {
            operand = mixed?;
        }
        for _ in 0..8 {
            if self.take_char('!') {
                operand = Expression::Factorial(Box::new(operand));
            } else if self.notation.extended && (self.take_char('%') || self.take_command("%")) {
                operand = Expression::Product(vec![operand, rational(1, 100)]);
            } else if self.notation.extended && (self.take_char('°') || self.take_degree()) {
                operand = Expression::Product(vec![operand, rational(1, 180), Expression::Constant(Constant::Pi)]);
            } else if self.take_char('^') {
                let exponent = self.exponent()?;
                operand = Expression::Power(Box::new(operand), Box::new(exponent));
            } else {
                self.budget.leave();
                return Ok(operand);
            }
        }
        Err(Undecided::Budget)
    }

    /// `^\circ` or `^{\circ}`.
    fn take_degree(&mut self) -> bool {
        let circ = Token::Command("circ".into());
        let forms: [&[Token]; 2] =
            [&[Token::Char('^'), circ.clone()], &[Token::Char('^'), Token::Char('{'), circ.clone(), Token::Char('}')]];
        let ahead = self.tokens.get(self.position..).unwrap_or_default();
        let length = forms.iter().find(|form| ahead.starts_with(form)).map_or(0, |form| form.len());
        self.position += length;
        length > 0
    }

    /// The fraction behind an integer, as in `1\frac12`, joined to it; `None` when there is none.
    fn mixed_number(&mut self, start: usize, whole: &Expression) -> Option<Result<Expression, Undecided>> {
        let is_integer = |expression: &Expression| match expression {
            Expression::Number { value, decimal } => value.is_integer() && !decimal,
            _ => false,
        };
        let literal = matches!(self.tokens.get(start), Some(Token::Number(_))) && is_integer(whole);
        if !self.notation.extended || !literal || self.position != start + 1 || !self.take_command("frac") {
            return None;
        }
        let fraction = self.argument().and_then(|numerator| Ok((numerator, self.argument()?)));
        Some(fraction.map(|(numerator, denominator)| {
            let mixed = is_integer(&numerator) && is_integer(&denominator);
            let parts = vec![whole.clone(), quotient(numerator, denominator)];
            if mixed { Expression::Sum(parts) } else { Expression::Product(parts) }
        }))
    }

    pub(super) fn exponent(&mut self) -> Result<Expression, Undecided> {
        let negative = self.take_char('-');
        self.budget.enter()?;
        let mut exponent = self.operand()?;
        if self.take_char('^') {
            exponent = Expression::Power(Box::new(exponent), Box::new(self.exponent()?));
        }
        self.budget.leave();
        Ok(if negative { Expression::Negation(Box::new(exponent)) } else { exponent })
    }

    pub(super) fn operand(&mut self) -> Result<Expression, Undecided> {
        match self.take() {
            Some(Token::Number(digits)) => self.number(&digits),
            Some(Token::Letter(letter)) => self.letter(letter),
            Some(Token::Char('(')) => self.enclosed(')'),
            Some(Token::Char('[')) => self.enclosed(']'),
            Some(Token::Char('{')) => self.enclosed('}'),
            Some(Token::Char('|')) => {
                self.bars += 1;
                let inner = self.enclosed('|')?;
                self.bars -= 1;
                Ok(Expression::Call(Function::Abs, Box::new(inner)))
            }
            Some(Token::Command(name)) => self.command(&name),
            _ => Err(Undecided::Unparsable),
        }
    }

    /// What stands up to `close`, after the opening bracket was taken. Bars inside belong to the inside.
    pub(super) fn enclosed(&mut self, close: char) -> Result<Expression, Undecided> {
        let outer_bars = if close == '|' { self.bars } else { std::mem::take(&mut self.bars) };
        let inner = self.sum()?;
        self.bars = outer_bars;
        self.expect(close)?;
        Ok(inner)
    }

    /// A number; with a subscript it is a numeral in another base, which is equal only to itself.
    fn number(&mut self, digits: &str) -> Result<Expression, Undecided> {
        if self.peek() == Some(&Token::Char('_')) {
            return self.symbol(digits.to_owned());
        }
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if digits.len() as u64 * 3 > MAX_BITS {
            return Err(Undecided::Budget);
        }
        let parse = |digits: &str| match digits {
            "" => Ok(BigInt::zero()),
            digits => digits.parse::<BigInt>().map_err(|_| Undecided::Unparsable),
        };
        let ten_to = |exponent: usize| u32::try_from(exponent).map(|power| BigInt::from(10).pow(power));
        let scale = ten_to(fraction.len()).map_err(|_| Undecided::Budget)?;
        let mut value = BigRational::new(parse(whole)? * &scale + parse(fraction)?, scale.clone());
        let mut decimal = digits.contains('.');
        if self.notation.extended && decimal && self.take_command("overline") {
            let period = self.digits_in_braces()?;
            let nines = ten_to(period.len()).map_err(|_| Undecided::Budget)? - BigInt::one();
            value += BigRational::new(parse(&period)?, nines * scale);
            // A repeating decimal is an exact fraction.
            decimal = false;
        }
        Ok(Expression::Number { value, decimal })
    }

    fn digits_in_braces(&mut self) -> Result<String, Undecided> {
        self.expect('{')?;
        let Some(Token::Number(digits)) = self.take() else { return Err(Undecided::Unparsable) };
        self.expect('}')?;
        if digits.len() > 64 || digits.contains('.') { Err(Undecided::Unparsable) } else { Ok(digits) }
    }

    /// A variable or, in the extended notation, a plain-text name such as `sqrt` or `pi` that begins with it.
    fn letter(&mut self, letter: char) -> Result<Expression, Undecided> {
        if self.notation.extended {
            let ahead = self.tokens.get(self.position..).unwrap_or_default().iter();
            let word: String = std::iter::once(letter)
                .chain(ahead.map_while(|token| if let Token::Letter(letter) = token { Some(*letter) } else { None }))
                .take(12)
                .collect();
            let opens = |length: usize| self.tokens.get(self.position + length - 1) == Some(&Token::Char('('));
            let callable = matches!(word.as_str(), "sqrt" | "log") || Function::named(&word).is_some();
            if word == "pi" || word == "infty" || (callable && opens(word.len())) {
                self.position += word.len() - 1;
                return self.command(&word);
            }
            // A run of letters is a product of variables only while it is too short to be a word.
            let first = !matches!(self.tokens.get(self.position.wrapping_sub(2)), Some(Token::Letter(_)));
            if first && word.chars().count() > 3 {
                return Err(Undecided::Unparsable);
            }
        }
        match letter {
            'e' => Ok(Expression::Constant(Constant::E)),
            'i' => Ok(Expression::Constant(Constant::I)),
            _ => self.symbol(letter.to_string()),
        }
    }

    /// A variable, with the subscript and primes that follow it.
    pub(super) fn symbol(&mut self, mut name: String) -> Result<Expression, Undecided> {
        if self.take_char('_') {
            name.push('_');
            let braced = self.take_char('{');
            loop {
                match self.take() {
                    Some(Token::Number(part) | Token::Command(part)) => name.push_str(&part),
                    Some(Token::Letter(part)) => name.push(part),
                    Some(Token::Char('}')) if braced => break,
                    Some(Token::Char(part)) if braced && matches!(part, '+' | '-' | ',') => name.push(part),
                    _ => return Err(Undecided::Unparsable),
                }
                if !braced {
                    break;
                }
            }
        }
        while self.take_char('\'') {
            name.push('\'');
        }
        Ok(Expression::Symbol(name))
    }
}

/// The only element, or all of them in `list`.
pub(super) fn flat(parts: Vec<Expression>, list: impl FnOnce(Vec<Expression>) -> Expression) -> Expression {
    match <[Expression; 1]>::try_from(parts) {
        Ok([only]) => only,
        Err(parts) => list(parts),
    }
}

pub(super) fn quotient(numerator: Expression, denominator: Expression) -> Expression {
    Expression::Product(vec![numerator, Expression::Reciprocal(Box::new(denominator))])
}

fn rational(numerator: i64, denominator: i64) -> Expression {
    Expression::Number { value: BigRational::new(numerator.into(), denominator.into()), decimal: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, extended: bool) -> Result<Option<BigRational>, Undecided> {
        let mut budget = Budget::new();
        let expression = parse(text, Notation { extended }, &mut budget)?;
        super::super::exact::rational(&expression, &mut budget)
    }

    #[test]
    fn reads_arithmetic() {
        for (text, numerator, denominator) in [
            ("2+3*4", 14, 1),
            ("-2^2", -4, 1),
            ("2^{3^2}", 512, 1),
            ("2^10", 1024, 1),
            ("2^{-1}", 1, 2),
            (r"\frac12", 1, 2),
            (r"\frac{1}{2}3", 3, 2),
            ("6/2/3", 1, 1),
            (r"6\div 2\cdot-3", -9, 1),
            (r"2(3)(4)", 24, 1),
            ("0.25", 1, 4),
            ("5!", 120, 1),
            (r"\binom{5}{2}", 10, 1),
            (r"\sqrt{\frac{9}{4}}", 3, 2),
            (r"\sqrt[3]{27}", 3, 1),
            ("|-3|", 3, 1),
            ("|2|3||", 0, 0),
            (r"\lfloor-2.5\rfloor", -3, 1),
            ("--3", 3, 1),
        ] {
            let expected = (denominator != 0).then(|| BigRational::new(numerator.into(), denominator.into()));
            assert_eq!(value(text, false).ok().flatten(), expected, "{text}");
        }
    }

    #[test]
    fn extended_notation_is_a_mode() {
        let half = |numerator: i64| BigRational::new(numerator.into(), 2.into());
        for (text, plain, extended) in [
            (r"1\frac12", Some(half(1)), Some(half(3))),
            (r"50\%", None, Some(half(1))),
            (r"0.\overline{3}", None, Some(BigRational::new(1.into(), 3.into()))),
            (r"0.1\overline{6}", None, Some(BigRational::new(1.into(), 6.into()))),
            ("sqrt(4)", None, Some(half(4))),
        ] {
            assert_eq!(value(text, false).ok().flatten(), plain, "{text}");
            assert_eq!(value(text, true).ok().flatten(), extended, "{text}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for text in [
            "",
            "(",
            ")",
            "1+",
            r"\frac{1}",
            "a=b",
            "1,2",
            r"\foo",
            "2..3",
            "1 2",
            r"x\pm 1",
            r"\begin{pmatrix}1",
            "}{",
        ] {
            assert_eq!(value(text, false), Err(Undecided::Unparsable), "{text}");
        }
        assert_eq!(value("Monday", true), Err(Undecided::Unparsable));
        assert_eq!(value(&"(".repeat(500), true), Err(Undecided::Budget));
        assert_eq!(value(&"9".repeat(1000), true), Err(Undecided::Budget));
    }
}
