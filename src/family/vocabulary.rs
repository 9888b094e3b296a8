//! Whether two tokenizers are one: tiers of a family share their token ids, or counts and prompts would not be comparable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use brevity_training::{Error, Result, files};
use serde_json::Value;

/// The token of every id in a folder's `tokenizer.json`, added tokens included.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    path: PathBuf,
    tokens: BTreeMap<u64, String>,
}

impl Vocabulary {
    /// Reads `tokenizer.json` of `folder`.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Format`] when it has no vocabulary.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let json: Value = files::read_json(&path)?;
        let mut tokens = BTreeMap::new();
        let vocabulary = json.get("model").and_then(|model| model.get("vocab"));
        match vocabulary {
            Some(Value::Object(map)) => {
                tokens.extend(map.iter().filter_map(|(token, id)| Some((id.as_u64()?, token.clone()))));
            }
            // Unigram models list pairs of token and score; the id is the place.
            Some(Value::Array(list)) => {
                let pairs = list.iter().zip(0u64..);
                tokens.extend(pairs.filter_map(|(pair, id)| Some((id, pair.get(0)?.as_str()?.to_owned()))));
            }
            _ => return Err(Error::format(&path, "there is no `model.vocab`, this is no tokenizer")),
        }
        for added in json.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
            if let (Some(id), Some(token)) = (added["id"].as_u64(), added["content"].as_str()) {
                tokens.insert(id, token.to_owned());
            }
        }
        Ok(Self { path, tokens })
    }

    /// Checks that `other` has the same tokens.
    ///
    /// # Errors
    /// [`Error::Format`] for `other`'s file, naming both and the first token that differs.
    pub fn same(&self, other: &Self) -> Result<()> {
        if self.tokens == other.tokens {
            return Ok(());
        }
        let ids = self.tokens.keys().chain(other.tokens.keys());
        let first = ids.filter(|id| self.tokens.get(id) != other.tokens.get(id)).min().copied().unwrap_or_default();
        let shown = |token: Option<&String>| token.map_or_else(|| "no token".to_owned(), |token| format!("{token:?}"));
        let message = format!(
            "this tokenizer is not that of the base, `{}`: {} and {} tokens, id {first} is {} here and {} there; \
             all tiers of a family need the same one",
            self.path.display(),
            other.tokens.len(),
            self.tokens.len(),
            shown(other.tokens.get(&first)),
            shown(self.tokens.get(&first))
        );
        Err(Error::format(&other.path, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vocabulary> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), text).unwrap();
        Vocabulary::read(folder.path())
    }

    #[test]
    fn the_first_difference_is_named() {
        let base =
            read(r#"{"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "<e>"}]}"#).unwrap();
        let same =
            read(r#"{"added_tokens": [{"id": 2, "content": "<e>"}], "model": {"vocab": {"b": 1, "a": 0}}}"#).unwrap();
        base.same(&same).unwrap();
        let other = read(r#"{"model": {"vocab": {"a": 0, "c": 1}}, "added_tokens": []}"#).unwrap();
        let message = base.same(&other).unwrap_err().to_string();
        assert!(message.contains("2 and 3 tokens, id 1 is \"c\" here and \"b\" there"), "{message}");
        assert_eq!(message.matches("tokenizer.json").count(), 2, "names both: {message}");
        let pairs = read(r#"{"model": {"vocab": [["a", -1.0], ["b", -2.5]]}}"#).unwrap();
        assert!(base.same(&pairs).unwrap_err().to_string().contains("id 2 is no token here and \"<e>\" there"));
        assert!(read("{}").unwrap_err().to_string().contains("model.vocab"));
    }
}
