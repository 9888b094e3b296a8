//! `reasoning_effort` as requests write it.

use std::fmt;
use std::str::FromStr;

use crate::family::{Effort, nearest};

/// `reasoning_effort` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EffortWish {
    /// One of OpenAI's seven values.
    Named(Effort),
    /// `auto`, our extension: let the cards decide.
    Auto,
}

impl EffortWish {
    /// All values, as requests may write them: OpenAI's seven from least to most thinking, then `auto`.
    pub const ALL: [Self; 8] = [
        Self::Named(Effort::None),
        Self::Named(Effort::Minimal),
        Self::Named(Effort::Low),
        Self::Named(Effort::Medium),
        Self::Named(Effort::High),
        Self::Named(Effort::Xhigh),
        Self::Named(Effort::Max),
        Self::Auto,
    ];

    /// The value's name in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Named(effort) => effort.name(),
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for EffortWish {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A word that is no effort (HTTP 400 with `param` `reasoning_effort`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{asked}` is no reasoning effort{hint} Allowed are {}", allowed())]
pub struct UnknownEffort {
    asked: String,
    hint: String,
}

impl FromStr for EffortWish {
    type Err = UnknownEffort;

    /// Reads a value in upper, lower or mixed case.
    fn from_str(text: &str) -> Result<Self, UnknownEffort> {
        let found = Self::ALL.into_iter().find(|wish| wish.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| {
            let asked: String = text.chars().take(64).collect();
            let near = nearest(&asked.to_lowercase(), Self::ALL.iter().map(|wish| wish.name()));
            let hint = if near.ends_with('?') { near } else { ".".to_owned() };
            UnknownEffort { asked, hint }
        })
    }
}

fn allowed() -> String {
    EffortWish::ALL.map(|wish| format!("`{wish}`")).join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_value_reads_in_any_case() {
        for wish in EffortWish::ALL {
            assert_eq!(wish.name().parse(), Ok(wish));
            assert_eq!(wish.name().to_uppercase().parse(), Ok(wish));
        }
        assert_eq!("Medium".parse(), Ok(EffortWish::Named(Effort::Medium)));
        assert_eq!("AuTo".parse(), Ok(EffortWish::Auto));
        let named: Vec<EffortWish> = Effort::ALL.into_iter().map(EffortWish::Named).collect();
        assert_eq!(EffortWish::ALL[..7], named);
    }

    #[test]
    fn a_wrong_value_lists_the_right_ones() {
        let list = "Allowed are `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`, `auto`";
        let error = "turbo".parse::<EffortWish>().unwrap_err().to_string();
        assert_eq!(error, format!("`turbo` is no reasoning effort. {list}"));
        let error = "Mediun".parse::<EffortWish>().unwrap_err().to_string();
        assert_eq!(error, format!("`Mediun` is no reasoning effort, did you mean `medium`? {list}"));
        assert!(" low".parse::<EffortWish>().is_err() && "".parse::<EffortWish>().is_err());
        let long = "x".repeat(10_000).parse::<EffortWish>().unwrap_err().to_string();
        assert!(long.len() < 300, "a long word is not sent back whole");
    }

    proptest! {
        #[test]
        fn only_the_eight_words_are_efforts(text in ".*") {
            let known = EffortWish::ALL.iter().any(|wish| wish.name() == text.to_ascii_lowercase());
            prop_assert_eq!(text.parse::<EffortWish>().is_ok(), known);
        }
    }
}
