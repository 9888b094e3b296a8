//! Thoughts between marks, for servers that send them as part of the text.
//!
//! A small machine that holds back what may still become a mark; it gives the same as looking at the whole text once it is
//! complete.

use brevity_training::thoughts::Thoughts;

use super::body::Start;
use crate::engine::text::partial;

const OPEN: &str = Thoughts::OPEN;
const CLOSE: &str = Thoughts::CLOSE;

/// Splits text at `<think>` and `</think>`, for servers that do not.
#[derive(Debug)]
pub(super) struct Splitter {
    place: Place,
    held: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first text; thoughts may open.
    Beginning,
    /// In the thoughts.
    Thoughts,
    /// After them: newlines before the answer are not part of it.
    Gap,
    /// In the answer.
    Answer,
}

/// What became certain of a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    pub thoughts: String,
    pub answer: String,
    /// Whether the thoughts were closed here.
    pub closed: bool,
}

impl Splitter {
    pub fn new(start: Start) -> Self {
        let place = match start {
            Start::Turn => Place::Beginning,
            Start::Thoughts => Place::Thoughts,
            Start::Answer => Place::Answer,
        };
        Self { place, held: String::new() }
    }

    /// The server separates the thoughts itself: what comes as text is the answer.
    pub fn separated(&mut self) {
        if matches!(self.place, Place::Beginning | Place::Thoughts) && self.held.is_empty() {
            self.place = Place::Gap;
        }
    }

    /// Whether the next text may still be thoughts.
    pub fn may_think(&self) -> bool {
        matches!(self.place, Place::Beginning | Place::Thoughts)
    }

    /// Adds text and gives what became certain.
    pub fn push(&mut self, text: &str) -> Split {
        self.held.push_str(text);
        let mut split = Split::default();
        if self.place == Place::Beginning {
            let rest = self.held.trim_start();
            if let Some(thoughts) = rest.strip_prefix(OPEN) {
                self.held = thoughts.to_owned();
                self.place = Place::Thoughts;
            } else if !OPEN.starts_with(rest) {
                self.place = Place::Answer;
            }
        }
        if self.place == Place::Thoughts {
            match self.held.find(CLOSE) {
                Some(end) => {
                    split.thoughts = self.held[..end].to_owned();
                    self.held.drain(..end + CLOSE.len());
                    split.closed = true;
                    self.place = Place::Gap;
                }
                None => {
                    let certain = self.held.len() - partial(self.held.as_bytes(), CLOSE.as_bytes());
                    split.thoughts = self.held.drain(..certain).collect();
                }
            }
        }
        if self.place == Place::Gap {
            let newlines = self.held.len() - self.held.trim_start_matches(['\n', '\r']).len();
            self.held.drain(..newlines);
            if !self.held.is_empty() {
                self.place = Place::Answer;
            }
        }
        if self.place == Place::Answer {
            split.answer = std::mem::take(&mut self.held);
        }
        split
    }

    /// What is held back, because nothing follows.
    pub fn finish(&mut self) -> Split {
        let held = std::mem::take(&mut self.held);
        match self.place {
            Place::Thoughts => Split { thoughts: held, ..Split::default() },
            _ => Split { answer: held, ..Split::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(start: Start, pieces: &[&str]) -> (String, String) {
        let mut splitter = Splitter::new(start);
        let mut parts: Vec<Split> = pieces.iter().map(|piece| splitter.push(piece)).collect();
        parts.push(splitter.finish());
        let join = |part: fn(&Split) -> &str| parts.iter().map(part).collect();
        (join(|split| &split.thoughts), join(|split| &split.answer))
    }

    #[test]
    fn marks_are_found_across_pieces() {
        let pair = |thoughts: &str, answer: &str| (thoughts.to_owned(), answer.to_owned());
        assert_eq!(
            whole(Start::Turn, &["\n<th", "ink>a < b", "</thi", "nk>\n", "\nyes </think>"]),
            pair("a < b", "yes </think>")
        );
        assert_eq!(whole(Start::Turn, &[" <b>", "<think>"]), pair("", " <b><think>"));
        assert_eq!(whole(Start::Thoughts, &["a</think", ">b"]), pair("a", "b"));
        assert_eq!(whole(Start::Thoughts, &["a</thi"]), pair("a</thi", ""));
        assert_eq!(whole(Start::Answer, &["<think>a</think>"]), pair("", "<think>a</think>"));
        assert_eq!(whole(Start::Turn, &["<thi"]), pair("", "<thi"));
    }

    #[test]
    fn a_server_that_separates_is_believed() {
        let mut splitter = Splitter::new(Start::Thoughts);
        splitter.separated();
        assert_eq!(splitter.push("\n\nyes").answer, "yes");
        assert!(!splitter.may_think());
    }

    proptest! {
        #[test]
        fn how_text_is_cut_does_not_matter(
            text in "(\n|<think>|<th|a|é){0,6}(</think>|</th|\n|é){0,6}",
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let mut places: Vec<usize> = text.char_indices().map(|(place, _)| place).collect();
            places.push(text.len());
            let mut chosen: Vec<usize> = cuts.iter().map(|cut| *cut.get(&places)).chain([0, text.len()]).collect();
            chosen.sort_unstable();
            let pieces: Vec<&str> = chosen.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            for start in [Start::Turn, Start::Thoughts, Start::Answer] {
                prop_assert_eq!(whole(start, &pieces), whole(start, &[&text]));
            }
        }
    }
}
