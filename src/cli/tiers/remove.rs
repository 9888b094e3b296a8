//! `serve tiers remove`: a tier leaves the family, its files only when asked.

use std::path::{Path, PathBuf};

use brevity::family::{Manifest, Tier};
use brevity_training::Error;
use clap::Args;

use super::Family;
use crate::cli::{Failure, Result, progress};

/// Take a tier out of the family; its files stay
///
/// Efforts that led to it go to the tier with the nearest alpha, or are spread anew where nobody placed them.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name of the tier
    #[arg(value_name = "NAME")]
    name: String,

    /// Delete its folder too, if it lies in the family's own
    #[arg(long)]
    delete: bool,
}

/// Removes the tier.
///
/// # Errors
/// When there is no such tier or no other one, or its folder may not or cannot be deleted.
pub fn run(family: &Family<'_>, arguments: &Arguments) -> Result<()> {
    // Whether the folder may be deleted is settled before anything changes.
    let manifest = family.editable()?;
    let folder = if arguments.delete { deletable(&manifest, manifest.tier(&arguments.name)?)? } else { None };
    let removed = family.change(|manifest| Ok(manifest.remove_tier(&arguments.name)?))?;
    if let Some(folder) = &folder {
        std::fs::remove_dir_all(folder).map_err(Error::io("delete", folder))?;
        progress::say(&format!("{} was removed, `{}` deleted", removed.name, folder.display()));
    } else {
        let place = removed.folder().map(|folder| manifest.resolve(folder)).filter(|place| place.exists());
        let stays = place.map(|place| format!("; its files stay in `{}`", place.display())).unwrap_or_default();
        progress::say(&format!("{} was removed{stays}", removed.name));
    }
    Ok(())
}

/// The folder of a tier if nothing else needs it: inside the family's own, and neither holding nor lying in another tier's.
fn deletable(manifest: &Manifest, tier: &Tier) -> Result<Option<PathBuf>> {
    let kept = |why: String| {
        Err(Failure::from(Error::config(why)).hint("remove the tier without --delete, and the files by hand"))
    };
    let Some(folder) = tier.folder().map(|folder| manifest.resolve(folder)) else {
        return kept(format!("`{}` has no folder of its own", tier.name));
    };
    if !folder.exists() {
        return Ok(None);
    }
    let whole = |path: &Path| path.canonicalize().map_err(Error::io("find", path));
    let (found, home) = (whole(&folder)?, whole(manifest.path())?);
    if home.parent().is_none_or(|home| !found.starts_with(home) || found == home) {
        return kept(format!("`{}` lies outside the family's folder", folder.display()));
    }
    let others = manifest.tiers.iter().filter(|other| other.name != tier.name).filter_map(Tier::folder);
    for other in others.chain(manifest.base.path.as_deref()) {
        let place = manifest.resolve(other);
        if whole(&place).is_ok_and(|other| other.starts_with(&found) || found.starts_with(&other)) {
            return kept(format!("`{}` also belongs to `{}`", folder.display(), place.display()));
        }
    }
    Ok(Some(folder))
}
