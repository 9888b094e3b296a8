//! Normalisation that only removes what carries no meaning: layout, math delimiters, units behind a number.
//!
//! Unlike the paper's rules no letter, percent sign or bracket is lost here, so `a+b` stays and `(1,2)` stays a tuple.

use std::sync::LazyLock;

use regex::Regex;

use super::normalize::{is_plain_integer, replace, substitute};
use super::{pattern, units, words};

static ARRAY_BEGIN: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\begin\{array\}\{[^{}]*\}"));
static DELIMITER_SIZE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\(?:left|right|[bB]igg?[lr]?)\b\.?"));
static LAYOUT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\\displaystyle\b|\\textstyle\b|\\(?:q?quad|thinspace|limits)\b|\\[,;:! ]|~"));
static TEXT_JOINER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r",?\s*(?:\\(?:text|mbox|textrm|mathrm)\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)\s*"));
static WHOLE_TEXT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^\\(?:text|mbox|textrm|textbf|textit|mathrm|mathbf|operatorname)\{([^{}]*)\}$"));
static TEXT_UNIT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^(.*[0-9}\)a-z])\s*\\(?:text|mbox|textrm|mathrm)\{([^{}]*)\}(?:\s*\^(?:[23]|\{[23]\}))?$")
});
static PLAIN_UNIT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^([-+]?[0-9.,/]*[0-9])\s*([A-Za-z][A-Za-z /.]*[A-Za-z])(?:\^(?:[23]|\{[23]\}))?$"));
static DEGREES: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^(.*[0-9}\)])\s*(?:\^\s*(?:\\circ\b|\{\s*\\circ\s*\})|°|\\degree\b)$"));
static FUNCTION: LazyLock<Regex> = LazyLock::new(|| pattern(r"sin|cos|tan|cot|sec|csc"));
static ORDINAL: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^([0-9]+)\^?\{?\s*\\(?:text|mbox|textrm|mathrm)\{\s*(?:st|nd|rd|th)\s*\}\s*\}?$"));
static THOUSANDS: LazyLock<Regex> = LazyLock::new(|| pattern(r"^([-+]?[0-9]{1,3}(?:,[0-9]{3})+)(\.[0-9]+)?$"));
static SPACED_THOUSANDS: LazyLock<Regex> = LazyLock::new(|| {
    let space = r"(?: |~|\\[,!: ]|\\thinspace\b ?)+";
    let behind = r"\s*(?:(?:\\(?:text|mbox|textrm|mathrm)\{|\^|°|\\degree|\\?%).*)?";
    pattern(&format!(r"^([-+]?[0-9]{{1,3}}(?:{space}[0-9]{{3}})+)((?:\.[0-9]+)?{behind})$"))
});
static EMPTY_TEXT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\(?:text|mbox|textrm|mathrm)\{\s*\}"));
static MIXED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(-?[0-9]+) +([0-9]+)/([0-9]+)$"));

/// The normal form of a raw answer in strict mode.
pub(super) fn strict(raw: &str) -> String {
    if is_plain_integer(raw) {
        return raw.to_owned();
    }
    let mut text = raw.trim().to_owned();
    for delimiters in [("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")] {
        let inner = text.strip_prefix(delimiters.0).and_then(|inner| inner.strip_suffix(delimiters.1));
        if let Some(inner) = inner {
            text = inner.trim().to_owned();
        }
    }
    text.truncate(text.trim_end_matches(['.', ' ']).len());
    substitute(&mut text, &ARRAY_BEGIN, r"\begin{pmatrix}");
    for (from, to) in [
        (r"\end{array}", r"\end{pmatrix}"),
        ("bmatrix", "pmatrix"),
        (r"\tfrac", r"\frac"),
        (r"\dfrac", r"\frac"),
        (r"\cfrac", r"\frac"),
        (r"\neq", r"\ne"),
        (r"\leqslant", r"\le"),
        (r"\geqslant", r"\ge"),
        (r"\leq", r"\le"),
        (r"\geq", r"\ge"),
        (r"\langle", "("),
        (r"\rangle", ")"),
        ("≤", r"\le "),
        ("≥", r"\ge "),
        ("≠", r"\ne "),
        ("−", "-"),
        ("π", r"\pi "),
        ("∞", r"\infty "),
        ("√", r"\sqrt "),
        (r"\{", "{"),
        (r"\}", "}"),
        (r"\lbrace", "{"),
        (r"\rbrace", "}"),
        (r"\$", ""),
        ("$", ""),
        ("€", ""),
        ("£", ""),
        ("¥", ""),
        ("**", ""),
        (r"\varnothing", r"\emptyset"),
    ] {
        replace(&mut text, from, to);
    }
    // What a currency sign stood in.
    substitute(&mut text, &EMPTY_TEXT, "");
    join_thousands(&mut text);
    // A row break `\\` may be followed by any of the layout characters; it is kept apart while those are removed.
    replace(&mut text, r"\\", "\u{1}");
    substitute(&mut text, &DELIMITER_SIZE, "");
    // `12,\!345` and `1{,}000` are ways to set a thousands separator.
    substitute(&mut text, &LAYOUT, " ");
    replace(&mut text, "\u{1}", r"\\");
    replace(&mut text, "{,}", ",");
    text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    substitute(&mut text, &TEXT_JOINER, ",");
    substitute(&mut text, &ORDINAL, "${1}");
    drop_units(&mut text);
    // The angle of a function is its degrees.
    if !FUNCTION.is_match(&text) {
        substitute(&mut text, &DEGREES, "${1}");
    }
    while let Some(inner) = WHOLE_TEXT.captures(&text).and_then(|found| found.get(1)) {
        text = inner.as_str().trim().to_owned();
        join_thousands(&mut text);
        drop_units(&mut text);
    }
    if let Some(number) = words::number(&text, true) {
        return number;
    }
    substitute(&mut text, &MIXED, r"${1}\frac{${2}}{${3}}");
    remove_idle_spaces(&mut text);
    if THOUSANDS.is_match(&text) {
        replace(&mut text, ",", "");
    }
    if text == r"(-\infty,\infty)" {
        r"\mathbb{R}".clone_into(&mut text);
    }
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    text
}

/// `1\,000\,000` and `10 000\text{ m}` lose the spaces in their number; wider spaces keep numbers apart.
fn join_thousands(text: &mut String) {
    let Some(found) = SPACED_THOUSANDS.captures(text) else { return };
    let part = |index: usize| found.get(index).map_or("", |part| part.as_str());
    let digits = |character: &char| character.is_ascii_digit() || "+-".contains(*character);
    *text = part(1).chars().filter(digits).collect::<String>() + part(2);
}

/// `12\text{ cm}^2`, `5 miles` and `3\mathrm{m/s}` lose their unit; a unit without a number before it is the answer.
fn drop_units(text: &mut String) {
    let known = |unit: &str| {
        let mut words = unit.split([' ', '/', '.']).filter(|word| !word.is_empty()).peekable();
        words.peek().is_some() && words.all(units::unit)
    };
    for regex in [&TEXT_UNIT, &PLAIN_UNIT] {
        let Some(found) = regex.captures(text) else { continue };
        let (Some(value), Some(unit)) = (found.get(1), found.get(2)) else { continue };
        if known(unit.as_str()) {
            *text = value.as_str().trim().to_owned();
            return;
        }
    }
}

/// Removes every space except those that keep a command from its letters (`\sin x`) or two numbers apart.
fn remove_idle_spaces(text: &mut String) {
    if !text.contains(' ') {
        return;
    }
    let mut result = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ' ' {
            let Some(next) = characters.peek() else { continue };
            let in_command = || {
                let name = result.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                name.len() < result.len() && name.ends_with('\\') && next.is_ascii_alphabetic()
            };
            let between_digits = next.is_ascii_digit() && result.ends_with(|c: char| c.is_ascii_digit());
            if !(in_command() || between_digits) {
                continue;
            }
        }
        result.push(character);
    }
    *text = result;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_layout_delimiters_and_units() {
        for (raw, normal) in [
            (r"$\left( \dfrac{1}{2}, 3 \right]$", r"(\frac{1}{2},3]"),
            (r"12\text{ cm}^2", "12"),
            (r"864 \mbox{ inches}^2", "864"),
            ("5 miles", "5"),
            (r"\frac{270}7\text{ degrees}", r"\frac{270}7"),
            (r"90^{\circ}", "90"),
            (r"\$32,\!348", "32348"),
            (r"11,\! 111,\! 111,\! 100", "11111111100"),
            ("1{,}000", "1000"),
            (r"4\text{ and }5", "4,5"),
            ("3, 5, and 7", "3,5,7"),
            (r"\text{twenty-one}", "21"),
            (r"\text{east}", "east"),
            (r"\sin x + 1", r"\sin x+1"),
            ("1 1/2", r"1\frac{1}{2}"),
            (r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
            (".5", "0.5"),
            (r"\text{20 minutes}", "20"),
            (r"\text{\$}20", "20"),
            ("€20", "20"),
            ("-12 345 678.5", "-12345678.5"),
            (r"10\,000\text{ meters}", "10000"),
            (r"\text{1 000}", "1000"),
            (r"1\,080^\circ", "1080"),
            (r"\mathbf{10\,000}", "10000"),
            (r"15^{\text{th}}", "15"),
            (r"x \geqslant 2", r"x\ge2"),
            (r"\langle 1, 2 \rangle", "(1,2)"),
        ] {
            assert_eq!(strict(raw), normal, "{raw}");
        }
    }

    #[test]
    fn keeps_what_has_meaning() {
        for text in
            ["a+b", "c^2-d", "(a,b)", "land", "50%", "s*t", "5m", "x=5", "(1,000,2)", "4,5", "j+1", "12 34", "1 0000"]
        {
            assert_eq!(strict(text), text);
        }
    }
}
