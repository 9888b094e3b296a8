//! The identity of a recipe: a hash of everything in it that decides the numbers of a run.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Recipe;
use crate::{Error, Result};

/// Keys that change no number of a training step, or only the order of its additions: names, what says when to stop or
/// save, what fits a run into memory (a run that ran out of it must be able to go on with less), how the result is
/// measured afterwards, and what a run's identity holds beside the recipe (its alpha, the hash of its base).
const WITHOUT_EFFECT: &[&str] = &[
    "/name",
    "/base",
    "/objective/alpha",
    "/rollout/concurrent_sequences",
    "/rollout/cache_tokens",
    "/optimizer/microbatch_tokens",
    "/run",
    "/eval",
    "/behaviours",
    "/compute/device",
    "/compute/path",
    "/compute/memory",
];

impl Recipe {
    /// SHA-256, in hexadecimal, of everything that decides the numbers of a run: equal for two recipes exactly when one
    /// may continue the other's run.
    ///
    /// Left out are `name`, `base` and `objective.alpha` (a run is identified by the hash of its base weights and its
    /// own alpha beside this), `run`, `eval`, `behaviours`, and the keys that only fit a run into a
    /// device and its memory, `rollout.concurrent_sequences`, `rollout.cache_tokens`, `optimizer.microbatch_tokens` and all
    /// of `compute` but the number format (they change rounding).
    ///
    /// # Errors
    /// [`Error::Config`] when a value cannot be expressed as JSON, which no recipe that was read has.
    pub fn fingerprint(&self) -> Result<String> {
        let value = self.identity()?;
        let mut canonical = String::new();
        write_sorted(&value, &mut canonical);
        Ok(hex(&Sha256::digest(canonical.as_bytes())))
    }

    /// What of this recipe would make it refuse to continue a run of `earlier`, a line for each dotted key; empty
    /// exactly when the fingerprints are equal.
    ///
    /// # Errors
    /// As [`Recipe::fingerprint`].
    pub fn differences(&self, earlier: &Self) -> Result<Vec<String>> {
        let (mut now, mut before) = (BTreeMap::new(), BTreeMap::new());
        flatten("", &self.identity()?, &mut now);
        flatten("", &earlier.identity()?, &mut before);
        let absent = || "absent".to_owned();
        let keys: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
        let changed = keys.into_iter().filter(|key| now.get(*key) != before.get(*key));
        Ok(changed
            .map(|key| {
                let (now, before) = (now.get(key).cloned(), before.get(key).cloned());
                format!("`{key}` is {}, was {}", now.unwrap_or_else(absent), before.unwrap_or_else(absent))
            })
            .collect())
    }

    /// The recipe as JSON, without what has no effect on the numbers of a run.
    fn identity(&self) -> Result<Value> {
        let refuse = |error: serde_json::Error| Error::config(format!("recipe `{}`: {error}", self.name));
        let mut value = serde_json::to_value(self).map_err(refuse)?;
        for pointer in WITHOUT_EFFECT {
            if let Some((parent, key)) = pointer.rsplit_once('/')
                && let Some(Value::Object(table)) = value.pointer_mut(parent)
            {
                table.remove(key);
            }
        }
        // A section of which nothing is left is as good as absent.
        if let Value::Object(table) = &mut value {
            table.retain(|_, section| !matches!(section, Value::Object(inner) if inner.is_empty()));
        }
        Ok(value)
    }
}

/// The values of all dotted keys under `value`, lists as one value.
fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(table) => {
            for (key, inner) in table {
                let dotted = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&dotted, inner, into);
            }
        }
        other => {
            into.insert(prefix.to_owned(), other.to_string());
        }
    }
}

/// JSON without spaces and with sorted keys, whatever order the map type of the build keeps.
fn write_sorted(value: &Value, into: &mut String) {
    match value {
        Value::Object(table) => {
            let mut keys: Vec<&String> = table.keys().collect();
            keys.sort();
            into.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    into.push(',');
                }
                into.push_str(&Value::String(key.clone()).to_string());
                into.push(':');
                write_sorted(&table[key], into);
            }
            into.push('}');
        }
        Value::Array(items) => {
            into.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    into.push(',');
                }
                write_sorted(item, into);
            }
            into.push(']');
        }
        scalar => into.push_str(&scalar.to_string()),
    }
}

/// Bytes in lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
