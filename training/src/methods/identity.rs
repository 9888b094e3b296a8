//! Whose a run is: everything that two processes must agree on for one to continue the other's work.

use crate::Result;
use crate::model::{settings_hash, weights_hash};
use crate::recipe::Recipe;
use crate::trainer::{RunIdentity, hash_file};

/// The identity of the run of `recipe` at `alpha` (0 for supervised learning), its base and its data as they are on disk.
///
/// # Errors
/// When the base's files or the data file cannot be read.
pub fn identity(recipe: &Recipe, alpha: f64) -> Result<RunIdentity> {
    let base = recipe.base.as_deref();
    Ok(RunIdentity {
        recipe: recipe.fingerprint()?,
        alpha,
        base: base.map_or(Ok(String::new()), weights_hash)?,
        base_settings: base.map(settings_hash).transpose()?,
        data: recipe.data.file().map(hash_file).transpose()?,
    })
}
