//! Words that stand behind a number without changing it: units of measure and nouns that are counted.
//!
//! Data only, plus the question whether a word is among them. What is done with such a word is decided by the two
//! normalisers.

use std::collections::HashSet;
use std::sync::LazyLock;

/// Words that both modes take for units; a plural `s` is understood.
const MEASURES: &[&str] = &[
    // length, area, volume
    "mile", "ft", "feet", "foot", "inch", "inches", "yard", "km", "cm", "mm", "dm", "metre", "meter", "mtr", "acre",
    "hectare", "sq", "square", "cubic", "cube", "cc", "gallon", "gal", "litre", "liter", // speed, mass
    "mph", "kmph", "kmh", "kg", "gm", "lb", //
    // time
    "day", "hour", "hr", "minute", "min", "second", "sec", "month", "year", "yr", //
    // angle, share, money, electricity
    "degree", "deg", "percent", "rupee", "ohm", //
    // things
    "unit", "man", "men", "woman", "women", "soldier", "monkey", "apple", "tile", "toy", "coin", "mark", "pie",
];

/// Further words that only strict mode takes for units.
const STRICT: &[&str] = &["dollar", "cent", "euro", "pound", "ounce", "gram", "kilogram", "week", "radian", "meters"];

/// Further words that the paper's grader deletes wherever they stand alone, variables among them.
const DELETED: &[&str] = &[
    "east", "west", "prime", "ratio", "rd", "th", "st", "per", "lt", "gain", "ab", "way", "bc", "excess", "noon", "by",
    "rise", "profit", "minw", "am", "pm", "are", "rounds", "number", "mt", "mp", "more", "less", "loss", "pure",
    "increase", "decrease", "Surface", "rs", //
    "o", "t", "a", "h", "c", "l", "s", "g", "m", "d",
];

static DELETED_WORDS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let foreign = ["foot"];
    MEASURES.iter().chain(DELETED).copied().filter(|word| !foreign.contains(word)).collect()
});

static STRICT_WORDS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| MEASURES.iter().chain(STRICT).copied().collect());

/// Whether the paper's grader deletes this word when it stands alone.
pub(super) fn deleted(word: &str) -> bool {
    contains(&DELETED_WORDS, word)
}

/// Whether strict mode takes this word, behind a number, for a unit.
pub(super) fn unit(word: &str) -> bool {
    contains(&STRICT_WORDS, word) || matches!(word, "m" | "s" | "g" | "h" | "l" | "L" | "per" | "of")
}

fn contains(words: &HashSet<&'static str>, word: &str) -> bool {
    words.contains(word) || word.strip_suffix('s').is_some_and(|singular| words.contains(singular))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_count() {
        assert!(deleted("mile") && deleted("miles") && unit("miles") && unit("cents"));
        assert!(!deleted("milestone") && !unit("milestone"));
    }

    #[test]
    fn strict_mode_deletes_no_variables() {
        assert!(deleted("a") && deleted("c") && deleted("d"));
        assert!(!unit("a") && !unit("c") && !unit("d") && !unit("x"));
    }
}
