//! Where the thoughts of a reasoning model begin and end, in tokens.
//!
//! The marks are `<think>` and `</think>`. Either may stand in the prompt, since chat templates open thoughts (and close
//! them, where none are wanted) themselves. Nothing is decoded or judged here.

use crate::text::Codec;

/// The tokens around a chain of thought, as far as a vocabulary has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thoughts {
    /// `<think>`.
    pub open: Option<u32>,
    /// `</think>`.
    pub close: Option<u32>,
}

impl Thoughts {
    /// The mark that opens thoughts.
    pub const OPEN: &str = "<think>";
    /// The mark that closes them.
    pub const CLOSE: &str = "</think>";

    /// Those of the vocabulary of `codec`.
    pub fn of(codec: &Codec) -> Self {
        Self { open: codec.token_id(Self::OPEN), close: codec.token_id(Self::CLOSE) }
    }

    /// What `prompt` has behind the mark that opens thoughts, often a line break; `None` where it leaves none open.
    pub fn left_open<'p>(&self, prompt: &'p [u32]) -> Option<&'p [u32]> {
        let last = prompt.iter().rposition(|&id| Some(id) == self.open || Some(id) == self.close)?;
        if prompt.get(last).copied() == self.open { prompt.get(last + 1..) } else { None }
    }

    /// The thoughts in `response`: what is between the opening mark (in the prompt, or in the response itself) and the
    /// closing one, or the end where nothing closes. Empty for a model without these marks.
    pub fn within<'r>(&self, prompt: &[u32], response: &'r [u32]) -> &'r [u32] {
        let (Some(open), Some(close)) = (self.open, self.close) else { return &[] };
        let start = match response.iter().position(|&id| id == open) {
            Some(position) => position + 1,
            None if self.left_open(prompt).is_some() || response.contains(&close) => 0,
            None => return &[],
        };
        let rest = response.get(start..).unwrap_or_default();
        rest.get(..rest.iter().position(|&id| id == close).unwrap_or(rest.len())).unwrap_or_default()
    }

    /// What a reader gets to see of `response`: all behind its last closing mark, nothing where thoughts are still open, and
    /// the whole of a response that has none.
    pub fn answer<'r>(&self, prompt: &[u32], response: &'r [u32]) -> &'r [u32] {
        match response.iter().rposition(|&id| Some(id) == self.close) {
            Some(position) => response.get(position + 1..).unwrap_or_default(),
            None if self.left_open(prompt).is_some() || response.iter().any(|&id| Some(id) == self.open) => &[],
            None => response,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Thoughts = Thoughts { open: Some(1), close: Some(2) };

    #[test]
    fn thoughts_are_found_wherever_they_open() {
        let count = |prompt: &[u32], response: &[u32]| MARKS.within(prompt, response).len();
        assert_eq!(count(&[9, 1], &[5, 5, 2, 7]), 2, "opened by the prompt");
        assert_eq!(count(&[9], &[1, 5, 5, 5, 2, 7]), 3, "opened by the response");
        assert_eq!(count(&[9, 1], &[5, 5]), 2, "never closed");
        assert_eq!(count(&[9, 1, 2], &[5, 5]), 0, "closed by the prompt");
        assert_eq!(count(&[9], &[5, 2, 7]), 1, "closed without being opened");
        assert_eq!(Thoughts { open: None, close: Some(2) }.within(&[9, 1], &[5, 2]), [0u32; 0], "no such tokens");
    }

    #[test]
    fn the_answer_is_what_follows_the_thoughts() {
        assert_eq!(MARKS.answer(&[9, 1], &[5, 5, 2, 7, 8]), [7, 8]);
        assert_eq!(MARKS.answer(&[9], &[1, 5, 2, 7, 2, 8]), [8], "behind the last mark");
        assert_eq!(MARKS.answer(&[9, 1], &[5, 5]), [0u32; 0], "never closed");
        assert_eq!(MARKS.answer(&[9], &[1, 5]), [0u32; 0]);
        assert_eq!(MARKS.answer(&[9, 1, 2], &[7, 8]), [7, 8], "closed by the prompt");
        assert_eq!(MARKS.answer(&[9], &[7, 8]), [7, 8], "no thoughts at all");
    }

    #[test]
    fn what_a_prompt_leaves_open_is_known_by_its_last_mark() {
        assert_eq!(MARKS.left_open(&[9, 1, 4]), Some(&[4u32][..]));
        assert_eq!(MARKS.left_open(&[9, 1]), Some(&[][..]));
        assert_eq!(MARKS.left_open(&[1, 5, 2, 9]), None);
        assert_eq!(MARKS.left_open(&[9]), None);
    }
}
