//! Reasoning effort as OpenAI's API spells it, and the default way from effort to tier.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Tier;

/// The seven values of `reasoning_effort`, from least to most thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// `none`
    None,
    /// `minimal`
    Minimal,
    /// `low`
    Low,
    /// `medium`, OpenAI's default
    Medium,
    /// `high`
    High,
    /// `xhigh`
    Xhigh,
    /// `max`
    Max,
}

impl Effort {
    /// All values, ascending.
    pub const ALL: [Self; 7] = [Self::None, Self::Minimal, Self::Low, Self::Medium, Self::High, Self::Xhigh, Self::Max];

    /// The value's name in requests and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// Where between the tersest tier (0) and the longest thinker (1) the effort points.
    fn place(self) -> f64 {
        match self {
            Self::None | Self::Minimal => 0.0,
            Self::Low => 0.2,
            Self::Medium => 0.5,
            Self::High => 0.8,
            Self::Xhigh | Self::Max => 1.0,
        }
    }
}

impl FromStr for Effort {
    type Err = String;

    /// Reads a value in upper, lower or mixed case.
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|effort| effort.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| format!("`{text}` is no effort; they are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

impl fmt::Display for Effort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Spreads the seven efforts over `tiers`: more effort never points to a larger alpha.
///
/// Tiers are ordered from the largest alpha (tersest) to the smallest, the base, which was never penalised, last. Effort
/// e takes the tier nearest to place(e) on that line: `none` and `minimal` the tersest, `low` a fifth of the way, `medium` the
/// middle, `high` four fifths, `xhigh` and `max` the longest thinker. A tie goes to the terser tier: saving tokens is what a
/// family is for. With the tiers A (tersest) to E:
///
/// | tiers | none | minimal | low | medium | high | xhigh | max |
/// |---|---|---|---|---|---|---|---|
/// | 1 | A | A | A | A | A | A | A |
/// | 2 | A | A | A | A | B | B | B |
/// | 3 | A | A | A | B | C | C | C |
/// | 4 | A | A | B | B | C | D | D |
/// | 5 | A | A | B | C | D | E | E |
///
/// The map is empty when there are no tiers.
pub fn default_effort_map(tiers: &[Tier]) -> BTreeMap<Effort, String> {
    let mut line: Vec<&Tier> = tiers.iter().collect();
    line.sort_by(|a, b| a.is_base().cmp(&b.is_base()).then(b.alpha.total_cmp(&a.alpha)).then(a.name.cmp(&b.name)));
    let last = line.len().saturating_sub(1) as f64;
    // Rounds to the nearest place, ties down.
    let index = |effort: Effort| (effort.place() * last - 0.5).ceil().max(0.0) as usize;
    Effort::ALL.into_iter().filter_map(|effort| Some((effort, line.get(index(effort))?.name.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn letters(tiers: usize) -> String {
        let list: Vec<Tier> = (0..tiers)
            .map(|i| Tier::new(&char::from(b'A' + i as u8).to_string(), 0.9 - 0.1 * i as f64))
            .map(|tier| tier.with_adapter("folder", "00"))
            .collect();
        default_effort_map(&list).into_values().collect::<Vec<_>>().concat()
    }

    #[test]
    fn the_documented_table_holds() {
        assert_eq!(letters(0), "");
        assert_eq!(letters(1), "AAAAAAA");
        assert_eq!(letters(2), "AAAABBB");
        assert_eq!(letters(3), "AAABCCC");
        assert_eq!(letters(4), "AABBCDD");
        assert_eq!(letters(5), "AABCDEE");
    }

    #[test]
    fn the_base_thinks_longest() {
        let tiers = [Tier::new("base", 0.0), Tier::new("alpha-0", 0.0).with_adapter("alpha-0", "00")];
        let map = default_effort_map(&tiers);
        assert_eq!(map[&Effort::Max], "base");
        assert_eq!(map[&Effort::None], "alpha-0");
    }

    #[test]
    fn names_are_those_of_serde() {
        for effort in Effort::ALL {
            assert_eq!(serde_json::to_string(&effort).unwrap(), format!("\"{effort}\""));
        }
    }

    proptest! {
        #[test]
        fn more_effort_never_means_a_larger_alpha(alphas in proptest::collection::vec(0.0..0.99f64, 1..12)) {
            let tiers: Vec<Tier> = alphas
                .iter()
                .enumerate()
                .map(|(i, &alpha)| Tier::new(&format!("t{i}"), alpha).with_adapter("folder", "00"))
                .collect();
            let map = default_effort_map(&tiers);
            prop_assert_eq!(map.len(), 7);
            let path: Vec<f64> =
                map.values().map(|name| tiers.iter().find(|tier| &tier.name == name).unwrap().alpha).collect();
            prop_assert!(path.windows(2).all(|pair| pair[0] >= pair[1]), "{:?}", path);
            prop_assert_eq!(path[0], alphas.iter().copied().fold(f64::MIN, f64::max));
            prop_assert_eq!(path[6], alphas.iter().copied().fold(f64::MAX, f64::min));
        }
    }
}
