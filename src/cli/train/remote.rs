//! What a recipe names on the hub, fetched before any work begins.

use std::path::Path;

use brevity::family::{Hub, HubFile, HubId};
use brevity_training::Error;
use brevity_training::recipe::Recipe;

use crate::cli::Result;
use crate::cli::progress::Fetching;
use crate::cli::remote::address;

/// Fetches the base (`hf://organisation/name[@revision]`) and the data file (`hf://datasets/…`) that are on the hub, puts into
/// the recipe where they lie now, and returns the base's repository at the commit that was fetched.
///
/// # Errors
/// When an address is none, or the hub does not give what it names.
pub fn fetch(recipe: &mut Recipe) -> Result<Option<HubId>> {
    let (hub, mut fetching) = (Hub::from_env(), Fetching::default());
    if let Some(address) = address(recipe.data.path.as_deref()) {
        let file: HubFile = address.parse().map_err(|why| Error::config(format!("data.path: {why}")))?;
        recipe.data.fetched = Some(hub.fetch_file(&file, &mut fetching)?);
    }
    let Some(address) = address(recipe.base.as_deref()) else { return Ok(None) };
    let id: HubId = address[HubFile::SCHEME.len()..].parse().map_err(|why| Error::config(format!("base: {why}")))?;
    let found = hub.find(&id)?;
    recipe.base = Some(hub.folder(&found, Path::new(""), &mut fetching)?);
    recipe.base_name = Some(id.name().to_owned());
    Ok(Some(id.at(&found.commit)))
}
