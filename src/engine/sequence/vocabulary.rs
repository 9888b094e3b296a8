//! What a token id stands for: its bytes, whether it is shown, and which ids open and close thoughts or end a turn.
//!
//! Read once per model from `tokenizer.json` and the configuration files; no sampling and no templates here.

use std::path::Path;

use brevity_training::files;
use brevity_training::thoughts::Thoughts;
use llguidance::{panic_utils, token_bytes_from_tokenizer_json};
use serde_json::Value;

use super::LoadError;

/// Opens the thoughts in the text of reasoning models.
pub(super) const OPEN: &str = Thoughts::OPEN;

/// Closes them.
pub(super) const CLOSE: &str = Thoughts::CLOSE;

/// Marks of the tool-call format of Qwen and Hermes models.
pub(super) const TOOL_MARKS: [&str; 2] = ["<tool_call>", "</tool_call>"];

/// The bytes and roles of every token of a tokenizer.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// Bytes of each token; empty where no token has the id.
    bytes: Vec<Vec<u8>>,
    /// Tokens that are never shown: turn marks and their like.
    hidden: Vec<bool>,
    /// Ids below the vocabulary's size that no token has.
    holes: Vec<u32>,
    /// Ids that end a turn, in the order of the configuration; never empty.
    ends: Vec<u32>,
    /// The token that opens thoughts, if it is one.
    pub open: Option<u32>,
    /// The token that closes thoughts, if it is one.
    pub close: Option<u32>,
}

impl Vocabulary {
    /// The vocabulary of a parsed `tokenizer.json`; `ends` are the ids that end a turn.
    pub fn new(mut tokenizer: Value, ends: Vec<u32>) -> Result<Self, LoadError> {
        unwrap_decoder(&mut tokenizer);
        let marked =
            panic_utils::catch_unwind(std::panic::AssertUnwindSafe(|| token_bytes_from_tokenizer_json(&tokenizer)))
                .map_err(|error| {
                    let reason: String = error.to_string().lines().next().unwrap_or_default().to_owned();
                    LoadError::new(format!("cannot tell the bytes of the tokens in `tokenizer.json`: {reason}"))
                })?;
        let mut hidden = vec![false; marked.len()];
        let shown = [OPEN, CLOSE, TOOL_MARKS[0], TOOL_MARKS[1]];
        let mut bytes = Vec::with_capacity(marked.len());
        let added = tokenizer["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
        let special = |id: usize| added.iter().any(|token| token["id"] == id && token["special"] == true);
        for (id, token) in marked.into_iter().enumerate() {
            if token.first() == Some(&0xff) && special(id) {
                let text = token[1..].to_vec();
                hidden[id] = !shown.iter().any(|mark| mark.as_bytes() == text);
                bytes.push(text);
            } else {
                bytes.push(token);
            }
        }
        let size = bytes.len();
        if ends.is_empty() || ends.iter().any(|&id| id as usize >= size) {
            return Err(LoadError::new(format!(
                "the model needs an `eos_token_id` below {size} in `generation_config.json` or `config.json`, not {ends:?}"
            )));
        }
        let holes = (0..size).filter(|&id| bytes[id].is_empty()).map(|id| id as u32).collect();
        let whole = |mark: &str| bytes.iter().position(|token| token == mark.as_bytes()).map(|id| id as u32);
        let (open, close) = (whole(OPEN), whole(CLOSE));
        Ok(Self { hidden, holes, ends, open, close, bytes })
    }

    /// Entries, added tokens included; ids from here on are padding.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the longest token.
    pub fn longest(&self) -> usize {
        self.bytes.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// All bytes of a token, shown or not; empty for ids that no token has.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// The bytes of a token that a reader may see: none for turn marks and their like.
    pub fn shown(&self, id: u32) -> &[u8] {
        if self.hidden.get(id as usize) == Some(&false) { self.bytes(id) } else { &[] }
    }

    /// Ids below [`Vocabulary::size`] that no token has.
    pub fn holes(&self) -> &[u32] {
        &self.holes
    }

    /// Ids that end a turn.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Whether the token ends a turn.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The words of the grammar engine's tree: hidden tokens carry its marker for special ones.
    pub fn words(&self) -> Vec<Vec<u8>> {
        let marked = |(token, &hidden): (&Vec<u8>, &bool)| {
            if hidden { [&[0xff], token.as_slice()].concat() } else { token.clone() }
        };
        self.bytes.iter().zip(&self.hidden).map(marked).collect()
    }
}

/// Puts the only decoder of a list in the place of the list.
fn unwrap_decoder(tokenizer: &mut Value) {
    let list = tokenizer.pointer_mut("/decoder/decoders").and_then(Value::as_array_mut);
    let only = list.filter(|list| list.len() == 1).and_then(Vec::pop);
    if let Some(only) = only {
        tokenizer["decoder"] = only;
    }
}

/// Ids that end a turn: `eos_token_id` of `generation_config.json`, and of `config.json`, one id or a list, joined.
pub(super) fn end_ids(folder: &Path) -> Result<Vec<u32>, LoadError> {
    let mut ends = Vec::new();
    for name in ["generation_config.json", "config.json"] {
        let path = folder.join(name);
        if path.exists() {
            let config: Value = files::read_json(&path)?;
            for id in ids(&config["eos_token_id"]).into_iter().chain(ids(&config["text_config"]["eos_token_id"])) {
                if !ends.contains(&id) {
                    ends.push(id);
                }
            }
        }
    }
    Ok(ends)
}

fn ids(value: &Value) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    value.as_array().map_or_else(|| one(value).into_iter().collect(), |list| list.iter().filter_map(one).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn byte_level_tokens_are_bytes_and_special_ones_are_hidden() {
        let tokenizer = json!({
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]},
            "added_tokens": [
                {"id": 3, "content": "<|end|>", "special": true},
                {"id": 4, "content": "</think>", "special": true},
                {"id": 7, "content": "<tool_call>", "special": false},
            ],
            "model": {"vocab": {"Ġa": 0, "Ã": 1, "ÿ": 2}},
        });
        let vocabulary = Vocabulary::new(tokenizer.clone(), vec![3]).unwrap();
        assert_eq!(vocabulary.size(), 8);
        assert_eq!(vocabulary.shown(0), b" a");
        assert_eq!(vocabulary.shown(1), [0xc3]);
        assert_eq!(vocabulary.shown(2), [0xff], "a byte is not the marker of special tokens");
        assert_eq!((vocabulary.bytes(3), vocabulary.shown(3)), (&b"<|end|>"[..], &b""[..]));
        assert_eq!(vocabulary.shown(4), b"</think>");
        assert_eq!((vocabulary.open, vocabulary.close), (None, Some(4)));
        assert_eq!(vocabulary.holes(), [5, 6]);
        assert_eq!(vocabulary.shown(99), b"");
        assert_eq!(vocabulary.words()[3], b"\xff<|end|>");
        assert!(vocabulary.is_end(3) && !vocabulary.is_end(0));
        assert!(
            Vocabulary::new(tokenizer.clone(), vec![8]).is_err() && Vocabulary::new(tokenizer.clone(), vec![]).is_err()
        );
    }

    #[test]
    fn byte_fallback_tokens_are_bytes_too() {
        let tokenizer = json!({
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            ]},
            "added_tokens": [{"id": 0, "content": "</s>", "special": true}],
            "model": {"vocab": {"</s>": 0, "<0xE2>": 1, "▁Hi": 2}},
        });
        let vocabulary = Vocabulary::new(tokenizer, vec![0]).unwrap();
        assert_eq!((vocabulary.shown(1), vocabulary.shown(2)), (&[0xe2][..], &b" Hi"[..]));
        let broken = json!({"decoder": {"type": "WordPiece"}, "added_tokens": [], "model": {"vocab": {}}});
        assert!(Vocabulary::new(broken, vec![0]).unwrap_err().to_string().contains("tokenizer.json"));
    }

    #[test]
    fn end_ids_are_joined_from_both_files() {
        let folder = tempfile::tempdir().unwrap();
        assert!(end_ids(folder.path()).unwrap().is_empty());
        files::write_json(&folder.path().join("config.json"), &json!({"eos_token_id": 7})).unwrap();
        assert_eq!(end_ids(folder.path()).unwrap(), [7]);
        files::write_json(&folder.path().join("generation_config.json"), &json!({"eos_token_id": [9, 7]})).unwrap();
        assert_eq!(end_ids(folder.path()).unwrap(), [9, 7]);
    }
}
