//! From the fields of a request to an engine's [`crate::engine::Generation`] and a [`crate::routing::Wish`].
//!
//! Every rule on values lives here, each with the field it blames. Pure functions: no state, no I/O. The parts are shared by
//! all endpoints that generate.

pub mod conversation;
pub mod dialect;
pub mod effort;
pub mod format;
pub mod items;
pub mod sampling;
pub mod tools;
pub mod unused;

pub use conversation::conversation;
pub use dialect::{CHAT, Dialect, RESPONSES};
pub use effort::{EffortFields, asked};
pub use format::constraint;
pub use items::turns;
pub use sampling::SamplingFields;
pub use tools::tools;
pub use unused::UnusedFields;

use super::ApiError;

/// `value` as a count of at least `least`.
///
/// # Errors
/// 400 with `param`.
pub fn count(value: i64, least: i64, param: &str) -> Result<usize, ApiError> {
    match usize::try_from(value) {
        Ok(number) if value >= least => Ok(number),
        _ => Err(ApiError::invalid(param, format!("`{param}` is {value}; it is at least {least}"))),
    }
}

/// Letters, digits, `_` and `-`, 1 to 64: OpenAI's rule for names of functions and schemas.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
