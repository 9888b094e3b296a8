//! A family whose adapters are checkpoints: each one's change added to a copy of the base's weights.
//!
//! An engine may compute a checkpoint faster than a base with an adapter beside it; the price is the memory of a model for
//! every tier.

use std::path::Path;

use brevity_training::model::{Device, Folded, LoraAdapter, ModelConfig, fold_files, weight_files};
use brevity_training::{Error, Result};

use super::draft::Draft;
use super::hub::{Downloads, Hub};
use super::{
    BaseWeights, Checker, Kind, MANIFEST, Manifest, Opened, Tier, TierWeights, file_name, hash, relative, size_on_disk,
};

/// Is told how far [`fold`] is.
pub trait Folding {
    /// A tier begins; its weights take so many bytes.
    fn begin(&mut self, tier: &str, bytes: u64);

    /// So many more of the bytes are done; `false` ends the work.
    fn done(&mut self, bytes: u64) -> bool;

    /// The tier is whole.
    fn end(&mut self, tier: &str, folded: &Folded);
}

/// Writes a family into the folder `out`, whole or not at all: `opened` with the adapters that `only` names as checkpoints
/// in folders of their own, with all of them where it names none. The other tiers and the base stay where they are. Cards
/// of the folded tiers are left out, for they were measured on other weights.
///
/// # Errors
/// [`Error::Config`] when `out` exists, `only` names a tier that is not there or no adapter, or there is no adapter at all;
/// as [`Checker`] for a tier that is broken; [`Error::Interrupted`]; [`Error::Io`] when something cannot be written.
pub fn fold(
    opened: &Opened,
    only: &[String],
    out: &Path,
    (hub, downloads): (&Hub, &mut dyn Downloads),
    folding: &mut dyn Folding,
) -> Result<Manifest> {
    let draft = Draft::beside(out)?;
    let mut checker = Checker::new(opened, hub, downloads)?;
    let base = checker.base().clone();
    for name in only {
        let tier = opened.manifest.tier(name)?;
        let kind = checker.tier(tier)?.kind;
        if kind != Kind::Adapter {
            return Err(Error::config(format!("`{name}` is {}: only an adapter can be folded", kind.with_article())));
        }
    }
    let mut manifest = opened.manifest.clone();
    manifest.tiers.clear();
    if manifest.base.hub.is_none() {
        manifest.base.path = Some(relative(&base.folder, draft.path())?);
        manifest.base.sha256 = Some(base.sha256.clone());
    }
    let mut count = 0;
    for tier in &opened.manifest.tiers {
        let tier = match tier.upstream {
            Some(_) => tier.clone(),
            None => {
                let found = checker.tier(tier)?;
                let is_chosen = only.is_empty() || only.contains(&tier.name);
                if found.kind == Kind::Adapter && is_chosen {
                    count += 1;
                    let sha256 = one(&base, &found, &draft.path().join(file_name(&tier.name)), folding)?;
                    Tier { card: None, ..tier.clone() }.with_checkpoint(file_name(&tier.name), sha256)
                } else {
                    moved(tier, &found, draft.path())?
                }
            }
        };
        manifest.tiers.push(tier);
    }
    if count == 0 {
        return Err(Error::config(format!("family `{}` has no adapter that could be folded", manifest.name)));
    }
    manifest.move_to(draft.path().join(MANIFEST));
    manifest.save()?;
    draft.finish()?;
    manifest.move_to(out.join(MANIFEST));
    Ok(manifest)
}

/// Writes one adapter as a checkpoint into `folder` and returns the hash of its weights.
fn one(base: &BaseWeights, tier: &TierWeights, folder: &Path, folding: &mut dyn Folding) -> Result<String> {
    folding.begin(&tier.name, size_on_disk(&base.folder));
    let draft = Draft::beside(folder)?;
    let adapter = LoraAdapter::load(&tier.folder, &ModelConfig::read(&base.folder)?, &Device::Cpu)?;
    let folded = fold_files(&weight_files(&base.folder)?, &adapter, draft.path(), &mut |bytes| folding.done(bytes))?;
    draft.copy_settings(&base.folder)?;
    let sha256 = hash::weights_sha256(draft.path())?;
    draft.finish()?;
    folding.end(&tier.name, &folded);
    Ok(sha256)
}

/// The tier as a manifest in `home` names it.
fn moved(tier: &Tier, found: &TierWeights, home: &Path) -> Result<Tier> {
    let mut tier = tier.clone();
    for folder in [&mut tier.adapter, &mut tier.checkpoint].into_iter().flatten() {
        *folder = relative(&found.folder, home)?;
    }
    Ok(tier)
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
