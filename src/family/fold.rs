//! A family whose adapters are checkpoints: each one's change added to a copy of the base's weights.
//!
//! An engine may compute a checkpoint in ways that it has not for a base with an adapter beside it; the price is the memory
//! of a model for every tier. First everything is looked at ([`Fold::new`]), then everything is written ([`Fold::write`]).
//! No engine is known here, and nothing is measured.

use std::path::{Path, PathBuf};
use std::time::Instant;

use brevity_training::model::{Device, LoraAdapter, ModelConfig, fold_files, weight_files};
use brevity_training::{Error, Result};

use super::draft::Draft;
use super::hub::{Downloads, Hub};
use super::{
    BaseWeights, Checker, Kind, MANIFEST, Manifest, Opened, Tier, TierTraining, TierWeights, file_name, hash, relative,
    size_on_disk,
};

/// Is told how far [`Fold::write`] is.
pub trait Folding {
    /// A tier begins; its weights take so many bytes.
    fn begin(&mut self, tier: &str, bytes: u64);

    /// So many more of the bytes are done; `false` ends the work.
    fn done(&mut self, bytes: u64) -> bool;

    /// The tier is whole; its rounding, as [`fold_files`] tells it.
    fn end(&mut self, tier: &str, rounding: f64);
}

/// What will be folded, and was found good.
#[derive(Debug)]
pub struct Fold {
    manifest: Manifest,
    base: BaseWeights,
    tiers: Vec<Part>,
}

/// What becomes of a tier.
#[derive(Debug)]
enum Part {
    /// Listed as it is.
    Stays(Tier),
    /// Listed as it is, but for where its folder is seen from.
    Moves(Tier, PathBuf),
    /// Folded.
    Folds(Tier, Box<TierWeights>),
}

impl Fold {
    /// Looks at the adapters of `opened` that `only` names, at all of them where it names none, and at their base, which must
    /// be of an architecture that can be trained.
    ///
    /// # Errors
    /// [`Error::Config`] when `only` names a tier that is not there or is no adapter, when there is no adapter at all, or when
    /// two tiers would get the same folder; as [`Checker`] for a base or tier that is broken.
    pub fn new(opened: &Opened, only: &[String], hub: &Hub, downloads: &mut dyn Downloads) -> Result<Self> {
        let manifest = opened.manifest.clone();
        for name in only {
            manifest.tier(name)?;
        }
        let mut checker = Checker::new(opened, hub, downloads)?;
        let mut tiers: Vec<Part> = Vec::new();
        for tier in &manifest.tiers {
            let is_named = only.contains(&tier.name);
            let part =
                if tier.upstream.is_some() || tier.is_base() || (tier.hub.is_some() && !is_named && !only.is_empty()) {
                    Part::Stays(tier.clone())
                } else {
                    let found = checker.tier(tier)?;
                    match found.kind {
                        Kind::Adapter if is_named || only.is_empty() => Part::Folds(tier.clone(), Box::new(found)),
                        _ if tier.hub.is_some() => Part::Stays(tier.clone()),
                        _ => Part::Moves(tier.clone(), found.folder),
                    }
                };
            if let (true, Part::Stays(_) | Part::Moves(..)) = (is_named, &part) {
                let message = format!("`{}` is no adapter, and only an adapter can be folded", tier.name);
                return Err(Error::config(message));
            }
            tiers.push(part);
        }
        let fold = Self { base: checker.base().clone(), manifest, tiers };
        fold.check_names()?;
        Ok(fold)
    }

    /// The tiers that are folded.
    fn chosen(&self) -> impl Iterator<Item = &Tier> {
        self.tiers.iter().filter_map(|part| match part {
            Part::Folds(tier, _) => Some(tier),
            Part::Stays(_) | Part::Moves(..) => None,
        })
    }

    fn check_names(&self) -> Result<()> {
        let names: Vec<&str> = self.chosen().map(|tier| tier.name.as_str()).collect();
        if names.is_empty() {
            let message = format!("family `{}` has no adapter that could be folded", self.manifest.name);
            return Err(Error::config(message));
        }
        for (index, name) in names.iter().enumerate() {
            let folder = file_name(name);
            if let Some(other) = names[..index].iter().find(|other| file_name(other) == folder) {
                let message =
                    format!("`{other}` and `{name}` would both get the folder `{folder}`; fold them one by one");
                return Err(Error::config(message));
            }
            if [".", "..", MANIFEST].contains(&folder.as_str()) {
                return Err(Error::config(format!("no folder can be named after the tier `{name}`; rename the tier")));
            }
        }
        Ok(())
    }

    /// Bytes that [`Fold::write`] takes on disk, but for small files.
    pub fn bytes(&self) -> u64 {
        self.chosen().count() as u64 * size_on_disk(&self.base.folder)
    }

    /// Writes the family into the folder `out`, whole or not at all. The base, and tiers that are not folded, stay where they
    /// are and are referred to. Cards of folded tiers are left out, for they were measured on other weights; as their
    /// training stands `command`, which made them of the adapters.
    ///
    /// # Errors
    /// [`Error::Config`] when `out` exists; [`Error::Format`] for weights that [`fold_files`] refuses; [`Error::Interrupted`]
    /// when `folding` says so; [`Error::Io`] when something cannot be written.
    pub fn write(self, out: &Path, command: &str, folding: &mut dyn Folding) -> Result<Manifest> {
        let Self { mut manifest, base, tiers } = self;
        let draft = Draft::beside(out)?;
        if manifest.base.hub.is_none() {
            manifest.base.path = Some(relative(&base.folder, draft.path())?);
            manifest.base.sha256 = Some(base.sha256.clone());
        }
        manifest.tiers.clear();
        for part in tiers {
            let tier = match part {
                Part::Stays(tier) => tier,
                Part::Moves(tier, folder) => moved(tier, &relative(&folder, draft.path())?),
                Part::Folds(tier, found) => {
                    let began = Instant::now();
                    let sha256 = one(&base, &found, &draft.path().join(file_name(&tier.name)), folding)?;
                    let (of, took) = (format!("{} {}", base.sha256, found.sha256), began.elapsed().as_secs_f64());
                    let training = TierTraining::untrained("fold", &of, took, command, &base.sha256);
                    let place = file_name(&tier.name);
                    Tier { card: None, training: Some(training), ..tier }.with_checkpoint(place, sha256)
                }
            };
            manifest.tiers.push(tier);
        }
        manifest.move_to(draft.path().join(MANIFEST));
        manifest.save()?;
        draft.finish()?;
        manifest.move_to(out.join(MANIFEST));
        Ok(manifest)
    }
}

/// Writes one adapter as a checkpoint into `folder` and returns the hash of its weights.
fn one(base: &BaseWeights, tier: &TierWeights, folder: &Path, folding: &mut dyn Folding) -> Result<String> {
    folding.begin(&tier.name, size_on_disk(&base.folder));
    let draft = Draft::beside(folder)?;
    let adapter = LoraAdapter::load(&tier.folder, &ModelConfig::read(&base.folder)?, &Device::Cpu)?;
    let weights = weight_files(&base.folder)?;
    let rounding = fold_files(&weights, &adapter, draft.path(), &mut |bytes| folding.done(bytes))?;
    draft.copy_settings(&base.folder)?;
    let sha256 = hash::weights_sha256(draft.path())?;
    draft.finish()?;
    folding.end(&tier.name, rounding);
    Ok(sha256)
}

/// The tier with its weights in `place`.
fn moved(mut tier: Tier, place: &Path) -> Tier {
    for folder in [&mut tier.adapter, &mut tier.checkpoint].into_iter().flatten() {
        place.clone_into(folder);
    }
    tier
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
