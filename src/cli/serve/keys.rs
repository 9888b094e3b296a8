//! Keys from options and from a file.

use brevity::api::auth::ApiKeys;
use brevity_training::files;
use secrecy::SecretString;

use super::arguments::Access;
use crate::cli::{Failure, Result};

/// The keys that `options` name, directly and in a file.
///
/// # Errors
/// When the file cannot be read or has no key in it, or a key cannot be used.
pub fn keys(options: &Access) -> Result<ApiKeys> {
    let mut entries: Vec<SecretString> = options.api_key.clone();
    if let Some(path) = &options.api_key_file {
        let from_file = ApiKeys::entries_of(&files::read_text(path)?);
        if from_file.is_empty() {
            // Whoever names a file wants a lock: an empty one must not open the door.
            let message = format!("`{}` has no API key in it", path.display());
            return Err(Failure::usage(message).hint("write one a line, as `NAME=KEY`"));
        }
        entries.extend(from_file);
    }
    Ok(ApiKeys::new(&entries)?.guarding_metrics(options.guard_metrics))
}
