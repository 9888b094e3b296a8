//! Fields that change nothing here, checked all the same: a client's mistake shall not wait for another server to be found.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Dialect;
use crate::api::ApiError;
use crate::api::types::ReasoningField;

/// Those that chat and the Responses API share, as sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnusedFields<'a> {
    /// `service_tier`
    pub service_tier: Option<&'a str>,
    /// `metadata`
    pub metadata: Option<&'a BTreeMap<String, String>>,
    /// `safety_identifier`
    pub safety_identifier: Option<&'a str>,
    /// `verbosity`
    pub verbosity: Option<&'a str>,
    /// `store`
    pub store: Option<bool>,
    /// `moderation`
    pub moderation: Option<&'a Value>,
    /// `prompt_cache_options`
    pub prompt_cache_options: Option<&'a Value>,
    /// `prompt_cache_retention`
    pub prompt_cache_retention: Option<&'a Value>,
    /// `reasoning`
    pub reasoning: Option<&'a ReasoningField>,
}

impl UnusedFields<'_> {
    /// Checks them all and names those that would change something elsewhere.
    ///
    /// # Errors
    /// 400 with the field.
    pub fn check(&self, dialect: &Dialect) -> Result<Vec<&'static str>, ApiError> {
        word("service_tier", self.service_tier, &["auto", "default"])?;
        if let Some(metadata) = self.metadata {
            check_metadata(metadata)?;
        }
        if self.safety_identifier.is_some_and(|id| id.chars().count() > 64) {
            return Err(ApiError::invalid("safety_identifier", "`safety_identifier` has more than 64 characters"));
        }
        word(dialect.verbosity, self.verbosity, &["low", "medium", "high"])?;
        let reasoning = self.reasoning.cloned().unwrap_or_default();
        let summaries = ["auto", "concise", "detailed"];
        word("reasoning.summary", reasoning.summary.as_deref(), &summaries)?;
        word("reasoning.generate_summary", reasoning.generate_summary.as_deref(), &summaries)?;
        word("reasoning.context", reasoning.context.as_deref(), &["auto", "current_turn", "all_turns"])?;
        let fields = [
            ("store", self.store == Some(true)),
            (dialect.verbosity, self.verbosity.is_some()),
            ("reasoning.summary", reasoning.summary.is_some() && !dialect.summaries),
            ("reasoning.generate_summary", reasoning.generate_summary.is_some() && !dialect.summaries),
            ("reasoning.context", reasoning.context.is_some_and(|context| context != "auto")),
            ("reasoning.mode", reasoning.mode.is_some_and(|mode| mode != "standard")),
            ("moderation", present(self.moderation)),
            ("prompt_cache_options", present(self.prompt_cache_options)),
            ("prompt_cache_retention", present(self.prompt_cache_retention)),
        ];
        Ok(fields.into_iter().filter_map(|(name, set)| set.then_some(name)).collect())
    }
}

/// Whether a field that may be anything is sent, and not as null.
pub fn present(value: Option<&Value>) -> bool {
    value.is_some_and(|value| !value.is_null())
}

/// Refuses a `value` that is none of `known`.
///
/// # Errors
/// 400 with `param`.
pub fn word(param: &str, value: Option<&str>, known: &[&str]) -> Result<(), ApiError> {
    match value {
        Some(other) if !known.contains(&other) => {
            let other: String = other.chars().take(40).collect();
            let known = known.join("`, `");
            Err(ApiError::invalid(param, format!("`{param}` is `{other}`; here it is one of `{known}`")))
        }
        _ => Ok(()),
    }
}

/// At most 16 pairs, keys of 64 and values of 512 characters.
fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), ApiError> {
    let fault = |message: String| Err(ApiError::invalid("metadata", message));
    if metadata.len() > 16 {
        return fault(format!("`metadata` has {} pairs; it has at most 16", metadata.len()));
    }
    for (key, value) in metadata {
        if key.chars().count() > 64 {
            return fault(format!(
                "`metadata` has the key `{}`; keys have at most 64 characters",
                key.chars().take(40).collect::<String>()
            ));
        }
        if value.chars().count() > 512 {
            return fault(format!("`metadata.{key}` is too long; values have at most 512 characters"));
        }
    }
    Ok(())
}
