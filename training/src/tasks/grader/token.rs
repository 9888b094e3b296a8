//! Cutting an answer into tokens: numbers, letters, LaTeX commands and single characters.
//!
//! White space and commands that only set the layout are dropped here; the parser never sees them.

use super::budget::Undecided;

/// One token of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// Digits with at most one decimal point, as written.
    Number(String),
    /// A single letter: a variable, or a part of a plain-text name.
    Letter(char),
    /// A LaTeX command without its backslash; `\\` is the command `\`.
    Command(String),
    /// Any other character.
    Char(char),
}

/// The tokens of `text`.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Undecided> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (taken, token) = match first {
            '0'..='9' | '.' => {
                let number = number(rest);
                // A lone point, or points in a row, is an ellipsis and no number.
                if !number.bytes().any(|byte| byte.is_ascii_digit()) {
                    return Err(Undecided::Unparsable);
                }
                (number.len(), Some(Token::Number(number.to_owned())))
            }
            '\\' => {
                let name = command(rest);
                (name.len() + 1, (!is_layout(name)).then(|| Token::Command(name.to_owned())))
            }
            _ if first.is_whitespace() || first == '~' => (first.len_utf8(), None),
            _ if first.is_alphabetic() => (first.len_utf8(), Some(Token::Letter(first))),
            _ => (first.len_utf8(), Some(Token::Char(first))),
        };
        tokens.extend(token);
        rest = rest.get(taken..).unwrap_or_default();
    }
    Ok(tokens)
}

fn number(text: &str) -> &str {
    let mut points = 0;
    let end = text.find(|c: char| {
        points += usize::from(c == '.');
        !(c.is_ascii_digit() || (c == '.' && points == 1))
    });
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

/// The name after a backslash: a run of letters, or a single other character.
fn command(text: &str) -> &str {
    let name = text.get(1..).unwrap_or_default();
    let letters = name.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(name.len());
    let end = if letters > 0 { letters } else { name.chars().next().map_or(0, char::len_utf8) };
    name.get(..end).unwrap_or_default()
}

fn is_layout(name: &str) -> bool {
    matches!(
        name,
        "," | ";"
            | ":"
            | "!"
            | " "
            | "left"
            | "right"
            | "quad"
            | "qquad"
            | "displaystyle"
            | "textstyle"
            | "limits"
            | "big"
            | "Big"
            | "bigl"
            | "bigr"
            | "Bigl"
            | "Bigr"
            | "bigg"
            | "Bigg"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_numbers_letters_and_commands() {
        let expected = [
            Token::Command("frac".into()),
            Token::Number("12.5".into()),
            Token::Letter('x'),
            Token::Char('^'),
            Token::Number("2".into()),
            Token::Command("\\".into()),
        ];
        assert_eq!(tokens(r"\left\frac 12.5x^{}2\\".replace("{}", "").as_str()), Ok(expected.to_vec()));
        assert_eq!(tokens("5."), Ok(vec![Token::Number("5.".into())]));
        assert_eq!(tokens("..."), Err(Undecided::Unparsable));
        assert_eq!(tokens("\\"), Ok(vec![Token::Command(String::new())]));
    }
}
