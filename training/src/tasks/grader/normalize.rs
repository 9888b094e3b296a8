//! The paper's normalisation of an answer: a fixed list of rewrites, applied in a fixed order, quirks included.
//!
//! The order is part of the definition: units go before `\text{}` is unwrapped, variables before spaces are deleted.
//! Strict mode has rules of its own, in `normalize_strict`.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::{pattern, units, words};

static ARRAY_BEGIN: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\begin\{array\}\{.*?\}"));
static TRAILING_TEXT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\text\{.*?\}$"));
static TEXT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\text\{(.*?)\}"));
static MBOX: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\mbox\{.*?\}"));
static ZERO_DECIMALS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(\d+)\.0*([^\d])"));
static ZERO_DECIMALS_AT_END: LazyLock<Regex> = LazyLock::new(|| pattern(r"(\d+)\.0*$"));
static SQRT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\\sqrt(\w+)"));

/// Units of several words. The dots are wildcards, so `a .` also takes the `a +` of `a + b`.
static UNIT_PHRASES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    const PHRASES: [&str; 27] = [
        "m sqaure",
        " m east",
        "sq m",
        "q .",
        "profit of rs",
        "p . m",
        "a .",
        "b .",
        "c .",
        "d .",
        "e .",
        "f .",
        "g .",
        "h .",
        "no change",
        "a . m",
        "π r 2",
        "sq . m",
        "° f",
        "cu cm",
        "sq inch",
        "∏ cm ³",
        "cu . m",
        "cm 2",
        "rs .",
        "pi sq m",
        "s .",
    ];
    PHRASES.iter().map(|phrase| pattern(&format!(r"(^|\W){phrase}s?($|\W)"))).collect()
});

/// The normal form of a raw answer in the paper's grader.
pub(super) fn qwen(raw: &str) -> String {
    if is_plain_integer(raw) {
        return raw.to_owned();
    }
    let mut text = raw.trim().replace('\n', "");
    text.truncate(text.trim_end_matches('.').len());
    replace(&mut text, r"\!", "");
    substitute(&mut text, &ARRAY_BEGIN, r"\begin{pmatrix}");
    for (from, to) in [
        (r"\end{array}", r"\end{pmatrix}"),
        ("bmatrix", "pmatrix"),
        ("tfrac", "frac"),
        ("dfrac", "frac"),
        (r"\neq", r"\ne"),
        (r"\leq", r"\le"),
        (r"\geq", r"\ge"),
        (r"\left", ""),
        (r"\right", ""),
        (r"\{", "{"),
        (r"\}", "}"),
    ] {
        replace(&mut text, from, to);
    }
    drop_trailing_text(&mut text);
    drop_units(&mut text);
    for part in [r"^{\circ}", r"^\circ", r"\$", "$", r"\(", r"\)"] {
        replace(&mut text, part, "");
    }
    if let Some(number) = words::number(&text, false) {
        text = number;
    }
    substitute(&mut text, &TEXT, "${1}");
    for key in ["x=", "y=", "z=", r"x\in", r"y\in", r"z\in", r"x\to", r"y\to", r"z\to"] {
        replace(&mut text, key, "");
    }
    replace(&mut text, r"\emptyset", "{}");
    replace(&mut text, r"(-\infty,\infty)", r"\mathbb{R}");
    for (from, to) in [(r"\%", ""), ("%", ""), (" .", " 0."), ("{.", "{0."), ("infinity", r"\infty")] {
        replace(&mut text, from, to);
    }
    if !text.contains(r"\infty") {
        replace(&mut text, "inf", r"\infty");
    }
    replace(&mut text, "and", "");
    replace(&mut text, r"\mathbf", "");
    substitute(&mut text, &MBOX, "");
    if !text.contains('i') {
        replace(&mut text, "j", "i");
    }
    substitute(&mut text, &ZERO_DECIMALS, "${1}${2}");
    substitute(&mut text, &ZERO_DECIMALS_AT_END, "${1}");
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    drop_short_left_side(&mut text);
    substitute(&mut text, &SQRT, r"\sqrt{${1}}");
    replace(&mut text, " ", "");
    brace_fractions(&mut text);
    slash_to_fraction(&mut text);
    text
}

/// Digits with at most one leading minus: nothing that any rule would change.
pub(super) fn is_plain_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// `str::replace` in place, without a new string when there is nothing to replace.
pub(super) fn replace(text: &mut String, from: &str, to: &str) {
    if text.contains(from) {
        *text = text.replace(from, to);
    }
}

/// `Regex::replace_all` in place.
pub(super) fn substitute(text: &mut String, regex: &Regex, by: &str) {
    if let Cow::Owned(changed) = regex.replace_all(text, by) {
        *text = changed;
    }
}

/// `12\text{ cm}` to `12`, unless the text is all there is.
fn drop_trailing_text(text: &mut String) {
    if let Cow::Owned(changed) = TRAILING_TEXT.replace_all(text, "") {
        let changed = changed.trim();
        if !changed.is_empty() {
            *text = changed.to_owned();
        }
    }
}

/// Deletes unit words that stand alone, single letters such as `a` or `m` among them; never the whole string.
fn drop_units(text: &mut String) {
    if text.contains(' ') {
        for _ in 0..2 {
            for phrase in UNIT_PHRASES.iter() {
                if let Cow::Owned(changed) = phrase.replace_all(text, "${1}${2}")
                    && !changed.is_empty()
                {
                    *text = changed;
                }
            }
        }
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let between = rest.find(is_word).unwrap_or(rest.len());
        let (gap, tail) = rest.split_at(between);
        let (word, tail) = tail.split_at(tail.find(|c| !is_word(c)).unwrap_or(tail.len()));
        kept.push_str(gap);
        if !units::deleted(word) {
            kept.push_str(word);
        }
        rest = tail;
    }
    if !kept.is_empty() {
        *text = kept;
    }
}

/// `k=7` to `7` when the left side has at most two characters.
fn drop_short_left_side(text: &mut String) {
    let mut sides = text.split('=');
    if let (Some(left), Some(right), None) = (sides.next(), sides.next(), sides.next())
        && left.chars().count() <= 2
    {
        *text = right.to_owned();
    }
}

/// `\frac12` to `\frac{1}{2}` and `\frac1{72}` to `\frac{1}{72}`; nothing at all when a fraction lacks its arguments.
fn brace_fractions(text: &mut String) {
    let mut parts = text.split(r"\frac");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        result.push_str(r"\frac");
        if part.starts_with('{') {
            result.push_str(part);
            continue;
        }
        let mut characters = part.chars();
        let (Some(numerator), Some(denominator)) = (characters.next(), characters.next()) else { return };
        let rest = characters.as_str();
        let bracket = |character: char| format!("{{{character}}}");
        result.push_str(&bracket(numerator));
        if denominator == '{' {
            result.push('{');
        } else {
            result.push_str(&bracket(denominator));
        }
        result.push_str(rest);
    }
    *text = result;
}

/// `3/4` to `\frac{3}{4}` when both sides are integers without superfluous characters.
fn slash_to_fraction(text: &mut String) {
    let Some((numerator, denominator)) = text.split_once('/') else { return };
    let canonical = |part: &str| {
        let digits = part.strip_prefix('-').unwrap_or(part);
        is_plain_integer(part) && (digits == "0" || !digits.starts_with('0')) && part != "-0"
    };
    let fits = |part: &str| part.contains("sqrt") || canonical(part);
    if fits(numerator) && fits(denominator) && !denominator.contains('/') {
        *text = format!(r"\frac{{{numerator}}}{{{denominator}}}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrites_to_the_normal_form() {
        for (raw, normal) in [
            (r"\dfrac12", r"\frac{1}{2}"),
            (r"\frac1{72}", r"\frac{1}{72}"),
            ("-3/4", r"\frac{-3}{4}"),
            (r"\sqrt2", r"\sqrt{2}"),
            ("5.00", "5"),
            (".5", "0.5"),
            ("x = 5", "5"),
            (r"12\text{ cm}", "12"),
            (r"\text{(B)}", "(B)"),
            ("ten", "10"),
            (r"90^\circ", "90"),
            (r"x \in [1,2]", r"x\in[1,2]"),
            (r"\left(\frac{3}{5},\frac{8}{3}\right]", r"(\frac{3}{5},\frac{8}{3}]"),
            (r"\{1,2\}", "{1,2}"),
            ("-17", "-17"),
        ] {
            assert_eq!(qwen(raw), normal, "{raw}");
        }
    }

    #[test]
    fn reproduces_the_quirks() {
        for (raw, normal) in [
            ("a+b", "+b"),
            ("c^2 - d", "^2-"),
            ("(a, b)", "(,b)"),
            (r"12 \text{ cm}^2", "12^2"),
            (r"4\text{ and }5", "45"),
            ("land", "l"),
            (r"\sqrt 2", r"\sqrt2"),
            ("1{,}000", "1{,}000"),
            ("j+1", "i+1"),
            ("p . m", "p0"),
            ("s t", ""),
            ("m", "m"),
            ("50\\%", "50"),
        ] {
            assert_eq!(qwen(raw), normal, "{raw}");
        }
    }

    #[test]
    fn units_of_several_words_go_as_one() {
        assert_eq!(UNIT_PHRASES.len(), 27);
        assert_eq!(qwen("7 sq m"), "7");
        assert_eq!(qwen("7 cu cms"), "7");
        assert_eq!(qwen("7 no change"), "7");
    }
}
