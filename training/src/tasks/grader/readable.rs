//! Whether a reference is mathematics: then a wrong answer can be told from a right one in another form.
//!
//! Points, intervals, lists, matrices, equations and unions are taken apart; what is left must each be an expression.
//! Nothing is compared here.

use std::sync::LazyLock;

use regex::Regex;

use super::pattern;
use super::split::{enclosed, starts_with_token, top_level_positions};

/// Words of a text from which on it is a sentence, and no answer.
const WORDS_OF_A_SENTENCE: usize = 3;

/// What stands between two expressions.
const SEPARATORS: [&str; 15] =
    [",", ";", r"\cup", r"\cap", r"\in", r"\\", "&", "=", r"\ne", r"\le", r"\ge", r"\pm", r"\mp", "<", ">"];

static COMMAND: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\(?:text|mbox|textrm|mathrm)\{[^{}]*\}|\\[A-Za-z]+"));
static WORD: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b[A-Za-z]{2,}\b"));
static MATRIX: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\(?:begin|end)\{[bpv]?matrix\}"));

/// Whether a raw text is prose: a solution or a proof that stands where an answer should. Units and words in `\text{}` are not.
pub(super) fn is_prose(raw: &str) -> bool {
    WORD.find_iter(&COMMAND.replace_all(raw, " ")).nth(WORDS_OF_A_SENTENCE - 1).is_some()
}

/// The expressions that a normalised answer is made of, at least one; an empty one where something is missing.
pub(super) fn expressions(answer: &str) -> Vec<String> {
    let mut found = Vec::new();
    take_apart(&MATRIX.replace_all(answer, ""), &mut found);
    found
}

fn take_apart(text: &str, found: &mut Vec<String>) {
    let text = text.trim();
    let parts = parts(text);
    match (parts.as_slice(), enclosed(text)) {
        ([_], Some((_, inner, _))) if !inner.is_empty() => take_apart(inner, found),
        ([_], _) => found.push(text.to_owned()),
        // The sign of `\pm2`, and the break behind the last row of a matrix.
        (parts, _) => parts.iter().filter(|part| !part.trim().is_empty()).for_each(|part| take_apart(part, found)),
    }
}

fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for at in top_level_positions(text) {
        let rest = text.get(at..).unwrap_or_default();
        let separator = SEPARATORS.iter().find(|separator| at >= start && starts_with_token(rest, separator));
        if let Some(separator) = separator {
            parts.push(text.get(start..at).unwrap_or_default());
            start = at + separator.len();
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        for (answer, wanted) in [
            ("(3,4]", &["3", "4"][..]),
            (r"x\in[-2,7]", &["x", "-2", "7"]),
            (r"(-\infty,1)\cup(2,3)", &[r"-\infty", "1", "2", "3"]),
            (r"\begin{pmatrix}1&2\\3&4\\\end{pmatrix}", &["1", "2", "3", "4"]),
            (r"1\pm\sqrt{2}", &["1", r"\sqrt{2}"]),
            (r"\pm2", &["2"]),
            ("(x+1)(x-2)", &["(x+1)(x-2)"]),
            (r"\frac{1}{2}", &[r"\frac{1}{2}"]),
            ("f(x)=2x", &["f(x)", "2x"]),
            ("", &[""]),
        ] {
            assert_eq!(expressions(answer), wanted, "{answer}");
        }
    }

    #[test]
    fn sentences_are_no_answers() {
        for text in ["The number of ways is 12", "Proof by induction on n", r"So it holds that \(x = 2\)"] {
            assert!(is_prose(text), "{text}");
        }
        for text in [
            r"\sin x + \cos y",
            r"\text{no real solution}",
            "5 cm",
            r"12\text{ square feet per hour}",
            r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        ] {
            assert!(!is_prose(text), "{text}");
        }
    }
}
