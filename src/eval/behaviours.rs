//! Counting what a reasoning model does in its text: checking, going back, trying another way.
//!
//! Each behaviour is a list of marker phrases (paper section on reasoning behaviours: verification, backtracking,
//! exploration). Counting phrases is crude and says so: counts compare tiers of one family on the same problems; they are no
//! absolute measure of reasoning. Grading and tokens are not known here.

use brevity_training::tasks::behaviours;
use serde::{Deserialize, Serialize};

/// Marker phrases of the three behaviours. The default fits English chains of thought in the style of DeepSeek-R1 and QwQ
/// ([`brevity_training::tasks::behaviours`]); a family with its own phrases brings its own lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviours {
    /// Phrases that announce a check of something already said.
    pub verification: Vec<String>,
    /// Phrases that take something back.
    pub backtracking: Vec<String>,
    /// Phrases that try another way.
    pub exploration: Vec<String>,
}

impl Default for Behaviours {
    fn default() -> Self {
        let list = |phrases: &[&str]| phrases.iter().map(|&phrase| phrase.to_owned()).collect();
        Self {
            verification: list(behaviours::VERIFICATION),
            backtracking: list(behaviours::BACKTRACKING),
            exploration: list(behaviours::EXPLORATION),
        }
    }
}

/// How often each behaviour occurs in one response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehaviourCounts {
    /// Checks.
    pub verification: usize,
    /// Steps taken back.
    pub backtracking: usize,
    /// Other ways tried.
    pub exploration: usize,
}

impl Behaviours {
    /// Counts the markers in `text`, ignoring case.
    ///
    /// A marker is whole words: `wait` is not in `waiter`. Where words are not written apart, as in Chinese, it is found
    /// anywhere. Occurrences never overlap, over all three lists together: at each place the longest marker that fits is taken and
    /// the search goes on after it, so `alternatively, start over` counts once. Empty markers count nothing; a marker in
    /// several lists belongs to the first of them.
    pub fn count(&self, text: &str) -> BehaviourCounts {
        let mut markers: Vec<(String, usize)> = [&self.verification, &self.backtracking, &self.exploration]
            .into_iter()
            .enumerate()
            .flat_map(|(kind, list)| list.iter().map(move |marker| (marker.to_lowercase(), kind)))
            .filter(|(marker, _)| !marker.is_empty())
            .collect();
        markers.sort_by_key(|(marker, kind)| (std::cmp::Reverse(marker.len()), *kind));
        let text = text.to_lowercase();
        let mut counts = [0usize; 3];
        let (mut rest, mut before) = (text.as_str(), None);
        while let Some(first) = rest.chars().next() {
            let hit = markers.iter().find(|(marker, _)| {
                let behind = rest.strip_prefix(marker.as_str());
                behind.is_some_and(|behind| !is_inside(before, marker) && !is_inside(marker.chars().last(), behind))
            });
            let step = match hit {
                Some((marker, kind)) => {
                    counts[*kind] += 1;
                    marker.len()
                }
                None => first.len_utf8(),
            };
            before = rest[..step].chars().last();
            rest = &rest[step..];
        }
        let [verification, backtracking, exploration] = counts;
        BehaviourCounts { verification, backtracking, exploration }
    }
}

/// Whether between the character `before` and the text `behind` there is the inside of a word.
fn is_inside(before: Option<char>, behind: &str) -> bool {
    before.zip(behind.chars().next()).is_some_and(|(left, right)| is_of_word(left) && is_of_word(right))
}

/// Whether a character is part of words that are written apart from each other.
fn is_of_word(character: char) -> bool {
    let is_unspaced = matches!(character,
        // Thai to Burmese, Khmer; Chinese and Japanese, whose signs lie together; Korean, which hangs particles onto words.
        '\u{e00}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{1100}'..='\u{11ff}' | '\u{2e80}'..='\u{9fff}'
        | '\u{a960}'..='\u{a97f}' | '\u{ac00}'..='\u{d7ff}' | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ffdc}'
        | '\u{20000}'..='\u{3ffff}');
    character.is_alphanumeric() && !is_unspaced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(verification: &[&str], backtracking: &[&str], exploration: &[&str]) -> Behaviours {
        let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Behaviours {
            verification: list(verification),
            backtracking: list(backtracking),
            exploration: list(exploration),
        }
    }

    #[test]
    fn counts_a_trace_by_hand() {
        let text = "58 + 68 = 126. Let me check. That is not right. ALTERNATIVELY, start over. Let me check.";
        let counts = Behaviours::default().count(text);
        assert_eq!(counts, BehaviourCounts { verification: 2, backtracking: 1, exploration: 1 });
    }

    #[test]
    fn the_longest_marker_wins_and_nothing_overlaps() {
        let behaviours = lists(&["wait"], &["wait, no"], &["aa"]);
        assert_eq!(
            behaviours.count("Wait. Wait, no! WAIT"),
            BehaviourCounts { verification: 2, backtracking: 1, exploration: 0 }
        );
        assert_eq!(behaviours.count("aa-aa aa").exploration, 3);
        assert_eq!(lists(&[], &[], &["一一"]).count("一一一一一").exploration, 2);
    }

    #[test]
    fn a_marker_inside_a_word_is_none() {
        let counts =
            Behaviours::default().count("The waiter is awaited; waiting, rechecking, make surer. Wait2 übercheckings");
        assert_eq!(counts, BehaviourCounts::default());
        let counts = Behaviours::default().count("Wait... (wait) \\textit{wait} wait, Double-checking: let me check.");
        assert_eq!(counts, BehaviourCounts { verification: 2, backtracking: 4, exploration: 0 });
        assert_eq!(lists(&["wait"], &[], &[]).count("让我wait一下").verification, 1);
    }

    #[test]
    fn empty_markers_and_foreign_letters_do_no_harm() {
        let behaviours = lists(&["", "prüfe"], &["等一下"], &[]);
        assert_eq!(
            behaviours.count("Ich PRÜFE das 🙂. 等一下，等一下"),
            BehaviourCounts { verification: 1, backtracking: 2, exploration: 0 }
        );
        assert_eq!(behaviours.count(""), BehaviourCounts::default());
    }
}
