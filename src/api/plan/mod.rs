//! From the fields of a request to an engine's [`crate::engine::Generation`] and a [`crate::routing::Wish`].
//!
//! Every rule on values lives here, each with the field it blames. Pure functions: no state, no I/O. The parts are shared by
//! all endpoints that generate.

pub mod conversation;
pub mod effort;
pub mod format;
pub mod sampling;
pub mod tools;

pub use conversation::conversation;
pub use effort::{EffortFields, asked};
pub use format::constraint;
pub use sampling::SamplingFields;
pub use tools::tools;

use std::collections::BTreeMap;

use super::ApiError;

/// `value` as a count of at least `least`.
fn count(value: i64, least: i64, param: &str) -> Result<usize, ApiError> {
    match usize::try_from(value) {
        Ok(number) if value >= least => Ok(number),
        _ => Err(ApiError::invalid(param, format!("`{param}` is {value}; it is at least {least}"))),
    }
}

/// Letters, digits, `_` and `-`, 1 to 64: OpenAI's rule for names of functions and schemas.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Checks `metadata`: at most 16 pairs, keys of 64 and values of 512 characters.
///
/// # Errors
/// 400 with `metadata`.
pub fn metadata(metadata: &BTreeMap<String, String>) -> Result<(), ApiError> {
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
