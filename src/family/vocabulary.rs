//! Whether two tokenizers are one: tiers of a family share token ids and prompts, or counts and texts would not be comparable.
//!
//! Equal is what makes the same ids of the same conversation: tokens, merges, normaliser, pre-tokeniser, flags of special
//! tokens, chat template. How a file is written, and how it pads batches, changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brevity_training::tasks::chat::ChatTemplate;
use brevity_training::{Error, Result, files};
use serde_json::{Map, Value};

/// Keys of `tokenizer.json` that do not change what a text's ids are: the file's format, and what is done with batches.
const VOLATILE: [&str; 3] = ["version", "truncation", "padding"];

/// What a folder makes of a text: every id's token, the rules, and the chat template.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    path: PathBuf,
    tokens: BTreeMap<u64, String>,
    /// `tokenizer.json` without the tokens and the volatile keys, in one way of writing.
    rules: Arc<Value>,
    /// `None` where there is none.
    template: Option<String>,
}

impl Vocabulary {
    /// Reads `tokenizer.json` and the chat template of `folder`.
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
        // Whoever renders prompts says what is wrong with a template; here it is only compared.
        let template = ChatTemplate::from_folder(folder).ok().map(|template| template.text());
        Ok(Self { path, tokens, rules: Arc::new(rules(json)), template })
    }

    /// Checks that `other` makes the same ids of the same conversation.
    ///
    /// # Errors
    /// [`Error::Format`] for `other`'s file, naming both and the first token or key that differs.
    pub fn same(&self, other: &Self) -> Result<()> {
        let differs = |what: String| {
            let base = self.path.display();
            let message = format!(
                "this tokenizer is not that of the base, `{base}`: {what}; all tiers of a family need the same one"
            );
            Err(Error::format(&other.path, message))
        };
        if self.tokens != other.tokens {
            let ids = self.tokens.keys().chain(other.tokens.keys());
            let first = ids.filter(|id| self.tokens.get(id) != other.tokens.get(id)).min().copied().unwrap_or_default();
            let shown =
                |token: Option<&String>| token.map_or_else(|| "no token".to_owned(), |token| format!("{token:?}"));
            return differs(format!(
                "{} and {} tokens, id {first} is {} here and {} there",
                other.tokens.len(),
                self.tokens.len(),
                shown(other.tokens.get(&first)),
                shown(self.tokens.get(&first))
            ));
        }
        if let Some(Difference { key, base, other }) = difference(&self.rules, &other.rules) {
            return differs(format!("`{key}` is {} here and {} there", short(other), short(base)));
        }
        if self.template != other.template {
            return differs("the chat template in its folder is another one".to_owned());
        }
        Ok(())
    }
}

/// What a tokenizer does beside its list of tokens, in one way of writing.
fn rules(mut json: Value) -> Value {
    if let Some(fields) = json.as_object_mut() {
        VOLATILE.iter().for_each(|key| drop(fields.remove(*key)));
    }
    let scores = json.pointer_mut("/model/vocab").map(Value::take);
    // Of a Unigram model the scores are rules; of others the ids were compared before.
    if let (Some(scores @ Value::Array(_)), Some(model)) = (scores, json.get_mut("model")) {
        model["vocab"] = scores;
    }
    // Older files write a merge as one text, newer ones as a pair.
    for merge in json.pointer_mut("/model/merges").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some((left, right)) = merge.as_str().and_then(|text| text.split_once(' ')) {
            *merge = Value::from(vec![left, right]);
        }
    }
    // The order of added tokens is nothing, so they are named by their ids.
    if let Some(added) = json.get_mut("added_tokens").filter(|added| added.is_array()) {
        let list = added.take();
        let named = list.as_array().into_iter().flatten().map(|token| (token["id"].to_string(), token.clone()));
        *added = Value::Object(named.collect::<Map<_, _>>());
    }
    json
}

/// The first place at which two values differ.
struct Difference<'a> {
    key: String,
    base: &'a Value,
    other: &'a Value,
}

/// Compares in the order of keys. What is not written, `null` and `false` are the same: options that are off.
fn difference<'a>(base: &'a Value, other: &'a Value) -> Option<Difference<'a>> {
    let off = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
    let below = |key: &str, found: Difference<'a>| {
        let key = if found.key.is_empty() { key.to_owned() } else { format!("{key}.{}", found.key) };
        Some(Difference { key, ..found })
    };
    match (base, other) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            let at = |fields: &'a Map<String, Value>, key: &String| fields.get(key).unwrap_or(&Value::Null);
            keys.into_iter().find_map(|key| below(key, difference(at(left, key), at(right, key))?))
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let mut pairs = left.iter().zip(right).enumerate();
            pairs.find_map(|(place, (left, right))| below(&place.to_string(), difference(left, right)?))
        }
        _ if base == other || (off(base) && off(other)) => None,
        _ => Some(Difference { key: String::new(), base, other }),
    }
}

/// A value as it is written, as far as a message has room for it.
fn short(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        value => value.to_string().chars().take(60).collect(),
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

    #[test]
    fn rules_are_compared_and_ways_of_writing_are_not() {
        let base = r#"{"version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [{"id": 2, "content": "<e>", "special": true, "lstrip": false},
                             {"id": 3, "content": "<f>", "special": false}],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b", "b a"]}}"#;
        let same = r#"{"version": "2.0", "padding": {"strategy": "BatchLongest"},
            "added_tokens": [{"id": 3, "content": "<f>"}, {"id": 2, "content": "<e>", "special": true}],
            "pre_tokenizer": {"type": "ByteLevel"},
            "model": {"type": "BPE", "ignore_merges": false, "vocab": {"b": 1, "a": 0}, "merges": [["a", "b"], ["b", "a"]]}}"#;
        let read = |text: &str| super::tests::read(text).unwrap();
        read(base).same(&read(same)).unwrap();
        for (from, to, words) in [
            (
                "\"normalizer\": null",
                "\"normalizer\": {\"type\": \"NFC\"}",
                "`normalizer` is {\"type\":\"NFC\"} here and null there",
            ),
            ("\"special\": true", "\"special\": false", "`added_tokens.2.special` is false here and true there"),
            ("ByteLevel", "Metaspace", "`pre_tokenizer.type` is \"Metaspace\" here"),
            ("\"a b\", \"b a\"", "\"b a\", \"a b\"", "`model.merges.0.0` is \"b\" here and \"a\" there"),
            ("\"a b\", ", "", "`model.merges` is a list of 1 here and a list of 2 there"),
        ] {
            let changed = base.replacen(from, to, 1);
            assert_ne!(changed, base);
            let message = read(base).same(&read(&changed)).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn templates_are_compared() {
        let folder = |template: Option<&str>| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("tokenizer.json"), r#"{"model": {"vocab": {"a": 0}}}"#).unwrap();
            if let Some(template) = template {
                std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
            }
            Vocabulary::read(folder.path()).unwrap()
        };
        let base = folder(Some("{{ messages }}"));
        base.same(&folder(Some("{{ messages }}"))).unwrap();
        folder(None).same(&folder(None)).unwrap();
        for other in [folder(Some("{{ messages }}!")), folder(None)] {
            assert!(base.same(&other).unwrap_err().to_string().contains("chat template"));
        }
    }
}
