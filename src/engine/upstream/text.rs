//! Text of the answer in pieces: thoughts between marks, and stop strings.
//!
//! Two small machines that hold back what may still become a mark or a stop string; each gives the same as looking at
//! the whole text once it is complete.

use super::body::Start;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

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
                    let certain = self.held.len() - partial(&self.held, CLOSE);
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

/// Looks for stop strings; the match that is complete first wins, of several that end together the longest.
#[derive(Debug)]
pub(super) struct Stops {
    stops: Vec<String>,
    held: String,
}

impl Stops {
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Adds text; gives what is safe to show, and the stop string if one is complete (nothing may follow then).
    pub fn push(&mut self, text: &str) -> (String, Option<String>) {
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)));
        if let Some((start, stop)) = found.min_by_key(|&(start, stop)| (start + stop.len(), start)) {
            let stop = stop.clone();
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), Some(stop));
        }
        let open = self.stops.iter().map(|stop| partial(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - open);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// What is held back, because nothing follows.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that is a beginning of `mark`, but not all of it.
fn partial(text: &str, mark: &str) -> usize {
    let longest = text.len().min(mark.len().saturating_sub(1));
    (1..=longest).rev().find(|&length| mark.is_char_boundary(length) && text.ends_with(&mark[..length])).unwrap_or(0)
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

    #[test]
    fn stops_are_held_back_and_cut_off() {
        let stops = |list: &[&str]| Stops::new(&list.iter().map(|&stop| stop.to_owned()).collect::<Vec<_>>());
        assert_eq!(stops(&["abc", "b"]).push("abc"), ("a".into(), Some("b".into())));
        assert_eq!(stops(&["c", "abc"]).push("xabc"), ("x".into(), Some("abc".into())));
        let mut held = stops(&["", "\n\nEnd"]);
        assert_eq!(held.push("a\n\nEn"), ("a".into(), None));
        assert_eq!(held.push("ough\n"), ("\n\nEnough".into(), None));
        assert_eq!(held.finish(), "\n");
    }

    proptest! {
        #[test]
        fn how_text_is_cut_does_not_matter(
            text in "(\n|<think>|<th|a|é){0,6}(</think>|</th|\n|é){0,6}",
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
            stop in "[a<h\n]{1,3}",
        ) {
            let mut places: Vec<usize> = text.char_indices().map(|(place, _)| place).collect();
            places.push(text.len());
            let mut chosen: Vec<usize> = cuts.iter().map(|cut| *cut.get(&places)).chain([0, text.len()]).collect();
            chosen.sort_unstable();
            let pieces: Vec<&str> = chosen.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            for start in [Start::Turn, Start::Thoughts, Start::Answer] {
                prop_assert_eq!(whole(start, &pieces), whole(start, &[&text]));
            }
            let run = |pieces: &[&str]| {
                let mut stops = Stops::new(std::slice::from_ref(&stop));
                let mut shown = String::new();
                for piece in pieces {
                    let (text, found) = stops.push(piece);
                    shown.push_str(&text);
                    if found.is_some() {
                        return (shown, found);
                    }
                }
                (shown + &stops.finish(), None)
            };
            let expected = match text.find(&stop) {
                Some(start) => (text[..start].to_owned(), Some(stop.clone())),
                None => (text.clone(), None),
            };
            prop_assert_eq!(run(&pieces), expected);
        }
    }
}
