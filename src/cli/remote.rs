//! What arguments name on the hub, `hf://…`.

use std::path::Path;

use brevity::eval::Suite;
use brevity::family::{Hub, HubFile};
use brevity_training::Error;

use super::Result;
use super::progress::Fetching;

/// The path, if it is an address on the hub.
pub fn address(path: Option<&Path>) -> Option<String> {
    path.and_then(Path::to_str).filter(|path| path.starts_with(HubFile::SCHEME)).map(str::to_owned)
}

/// The suite with its file fetched, where that is on the hub.
///
/// # Errors
/// When the address is none, or the hub does not give what it names.
pub fn suite(suite: &Suite) -> Result<Suite> {
    let Suite::File { preset, path } = suite else { return Ok(suite.clone()) };
    let Some(address) = address(Some(path)) else { return Ok(suite.clone()) };
    let file: HubFile = address.parse().map_err(|why| Error::config(format!("--suite: {why}")))?;
    let path = Hub::from_env().fetch_file(&file, &mut Fetching::default())?;
    Ok(Suite::File { preset: preset.clone(), path })
}
