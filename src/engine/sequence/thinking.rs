//! Where thoughts end and the answer begins, token by token.
//!
//! The sampler (for budget and grammar) and the assembler (for text) both follow a sequence with a [`Splitter`]; they
//! agree because they run the same one. Marks that are one token are recognised by id, others in the text.

use std::sync::Arc;

use super::vocabulary::{CLOSE, OPEN, Vocabulary};

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// At the start of a turn whose template leaves it to the model to open its thoughts.
    Opening,
    /// Inside the thoughts.
    Thinking,
    /// After them, or in a turn without any.
    Answer,
}

/// How a turn begins; found when its prompt is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    /// The first phase.
    pub phase: Phase,
    /// Whether marks of thoughts are recognised; not in raw text that opens no thought.
    pub marks: bool,
    /// Whether the prompt ends with the mark that closes thoughts.
    pub just_closed: bool,
}

/// What the bytes of one token belong to.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// Bytes of thoughts.
    pub thinking: Vec<u8>,
    /// Bytes of the answer; they follow the thoughts.
    pub answer: Vec<u8>,
    /// Whether this token closed the thoughts.
    pub closed: bool,
    /// Whether the token is a mark and nothing else.
    pub mark: bool,
}

/// Follows a sequence through its phases.
#[derive(Debug)]
pub(super) struct Splitter {
    vocabulary: Arc<Vocabulary>,
    phase: Phase,
    marks: bool,
    /// Bytes that may be the beginning of a mark, or whitespace before one.
    held: Vec<u8>,
}

impl Splitter {
    pub fn new(vocabulary: Arc<Vocabulary>, beginning: Beginning) -> Self {
        Self { vocabulary, phase: beginning.phase, marks: beginning.marks, held: Vec::new() }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether a mark that opens thoughts may come next: at the start of a turn, and where marks are only text. After the
    /// thoughts a second opening would be shown as part of the answer, and no budget would count it.
    pub fn may_open(&self) -> bool {
        !self.marks || self.phase != Phase::Answer
    }

    /// Takes the next token and writes to `split` (cleared first) what became certain.
    pub fn push(&mut self, id: u32, split: &mut Split) {
        split.thinking.clear();
        split.answer.clear();
        (split.closed, split.mark) = (false, false);
        if self.marks && (Some(id) == self.vocabulary.open || Some(id) == self.vocabulary.close) {
            split.mark = true;
            self.whole_mark(Some(id) == self.vocabulary.open, split);
            return;
        }
        let bytes = self.vocabulary.shown(id);
        match self.phase {
            Phase::Opening => {
                self.held.extend_from_slice(bytes);
                self.open(split);
            }
            Phase::Thinking if self.vocabulary.close.is_none() => {
                self.held.extend_from_slice(bytes);
                self.close(split);
            }
            Phase::Thinking => split.thinking.extend_from_slice(bytes),
            Phase::Answer => split.answer.extend_from_slice(bytes),
        }
    }

    /// Gives out what is held back, because nothing follows.
    pub fn finish(&mut self, split: &mut Split) {
        split.thinking.clear();
        split.answer.clear();
        let target = if self.phase == Phase::Thinking { &mut split.thinking } else { &mut split.answer };
        target.append(&mut self.held);
    }

    /// A mark that is one token. Out of place it changes nothing, and is not shown either.
    fn whole_mark(&mut self, opens: bool, split: &mut Split) {
        match (self.phase, opens) {
            (Phase::Opening, true) => {
                self.held.clear();
                self.phase = Phase::Thinking;
            }
            (Phase::Opening, false) => {
                split.answer.append(&mut self.held);
                self.phase = Phase::Answer;
            }
            (Phase::Thinking, false) => {
                split.thinking.append(&mut self.held);
                split.closed = true;
                self.phase = Phase::Answer;
            }
            (Phase::Thinking, true) | (Phase::Answer, _) => {}
        }
    }

    /// Held bytes at the start of a turn: whitespace, a mark that opens, or already the answer.
    fn open(&mut self, split: &mut Split) {
        let start = self.held.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(self.held.len());
        let rest = &self.held[start..];
        if self.vocabulary.open.is_none() && rest.starts_with(OPEN.as_bytes()) {
            self.held.drain(..start + OPEN.len());
            self.phase = Phase::Thinking;
            if self.vocabulary.close.is_none() {
                self.close(split);
            } else {
                split.thinking.append(&mut self.held);
            }
        } else if !rest.is_empty() && (self.vocabulary.open.is_some() || !OPEN.as_bytes().starts_with(rest)) {
            split.answer.append(&mut self.held);
            self.phase = Phase::Answer;
        }
    }

    /// Held bytes inside thoughts whose closing mark is written in pieces.
    fn close(&mut self, split: &mut Split) {
        let mark = CLOSE.as_bytes();
        if let Some(start) = self.held.windows(mark.len()).position(|window| window == mark) {
            split.thinking.extend_from_slice(&self.held[..start]);
            split.answer.extend_from_slice(&self.held[start + mark.len()..]);
            self.held.clear();
            split.closed = true;
            self.phase = Phase::Answer;
            return;
        }
        let open = crate::engine::text::partial(&self.held, mark);
        let certain = self.held.len() - open;
        split.thinking.extend(self.held.drain(..certain));
    }
}

/// Closes the thoughts once a budget is spent.
#[derive(Debug)]
pub(super) struct Budget {
    /// Thinking tokens at most; `None` for as many as the model likes.
    limit: Option<usize>,
    thought: usize,
    /// Ids of the closing mark.
    mark: Vec<u32>,
    /// How many of them are forced already.
    forced: usize,
}

impl Budget {
    /// A budget of `limit` tokens that is closed with the ids `mark`.
    pub fn new(limit: Option<usize>, mark: Vec<u32>) -> Self {
        Self { limit, thought: 0, mark, forced: 0 }
    }

    /// `wanted` thinking tokens, lowered so that of `max_tokens` there is room for the closing mark and an answer of an
    /// eighth of all tokens, at least 16. With very few tokens in all, the thoughts are closed at once.
    pub fn clamped(wanted: usize, max_tokens: usize, mark: usize) -> usize {
        let answer = (max_tokens / 8).max(16);
        wanted.min(max_tokens.saturating_sub(answer + mark))
    }

    /// The id that must come next, when the budget is spent.
    pub fn forced(&self, phase: Phase) -> Option<u32> {
        let spent = phase == Phase::Thinking && self.limit.is_some_and(|limit| self.thought >= limit);
        if spent { self.mark.get(self.forced).copied() } else { None }
    }

    /// Counts a token that was chosen in `phase`; an opening mark out of place inside the thoughts counts like any other.
    pub fn count(&mut self, phase: Phase, forced: bool) {
        if forced {
            self.forced += 1;
        } else if phase == Phase::Thinking {
            self.thought += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Single characters of the marks and some others, without tokens for the marks.
    fn letters() -> Arc<Vocabulary> {
        let mut vocab = serde_json::Map::new();
        for (id, letter) in "<think>/ab".chars().enumerate() {
            vocab.insert(letter.to_string(), json!(id));
        }
        vocab.insert("/th".into(), json!(10));
        vocab.insert("k>a".into(), json!(11));
        let tokenizer = json!({"decoder": {"type": "ByteLevel"}, "added_tokens": [], "model": {"vocab": vocab}});
        Arc::new(Vocabulary::new(tokenizer, vec![9]).unwrap())
    }

    fn beginning(phase: Phase) -> Beginning {
        Beginning { phase, marks: true, just_closed: false }
    }

    fn run(ids: &[u32], phase: Phase) -> (String, String) {
        let mut splitter = Splitter::new(letters(), beginning(phase));
        let (mut split, mut thinking, mut answer) = (Split::default(), Vec::new(), Vec::new());
        for &id in ids {
            splitter.push(id, &mut split);
            thinking.extend_from_slice(&split.thinking);
            answer.extend_from_slice(&split.answer);
        }
        splitter.finish(&mut split);
        thinking.extend_from_slice(&split.thinking);
        answer.extend_from_slice(&split.answer);
        (String::from_utf8(thinking).unwrap(), String::from_utf8(answer).unwrap())
    }

    #[test]
    fn marks_in_pieces_split_the_text_where_they_stand() {
        // a < /th i n k>a b
        assert_eq!(run(&[8, 0, 10, 3, 4, 11, 9], Phase::Thinking), ("a".into(), "ab".into()));
        assert_eq!(run(&[8, 0, 10, 3, 4], Phase::Thinking), ("a</thin".into(), String::new()));
        assert_eq!(run(&[0, 1, 2, 3, 4, 5, 6, 8], Phase::Opening), ("a".into(), String::new()));
        assert_eq!(run(&[0, 1, 8], Phase::Opening), (String::new(), "<ta".into()));
    }

    #[test]
    fn a_budget_leaves_room_for_an_answer() {
        assert_eq!(Budget::clamped(100, 1000, 1), 100);
        assert_eq!(Budget::clamped(1000, 1000, 1), 874);
        assert_eq!(Budget::clamped(1000, 40, 1), 23);
        assert_eq!(Budget::clamped(1000, 10, 1), 0);
    }

    proptest! {
        #[test]
        fn splitting_is_the_same_as_searching_the_whole_text(ids in prop::collection::vec(0u32..12, 0..60)) {
            let vocabulary = letters();
            let whole: Vec<u8> = ids.iter().flat_map(|&id| vocabulary.shown(id).to_vec()).collect();
            let whole = String::from_utf8(whole).unwrap();
            let expected = whole.split_once("</think>").map_or((whole.clone(), String::new()), |(a, b)| (a.into(), b.into()));
            prop_assert_eq!(run(&ids, Phase::Thinking), expected);
        }
    }
}
