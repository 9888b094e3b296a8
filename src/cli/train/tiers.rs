//! Reinforcement learning: one run for every alpha, and its entry in the family's manifest.

use brevity::family::{Base, HubId, Manifest, Tier, TierTraining, hash, relative};
use brevity_training::Error;
use brevity_training::methods::rl;
use brevity_training::recipe::{Recipe, TuningMode};

use super::{Work, curves, destination, devices, interrupted, stop_between, tier_name};
use crate::cli::progress::{self, Reinforced};
use crate::cli::tiers::unreached;
use crate::cli::{Failure, Result, command};

/// Trains every tier that is not finished.
///
/// # Errors
/// When something does not fit, cannot be read or written, or somebody asked to stop.
pub fn train(work: &Work<'_>) -> Result<()> {
    let recipes = work.devices.recipes(work.recipe)?;
    destination::prepare(work)?;
    let manifest = manifest(work)?;
    let fingerprint = work.recipe.fingerprint()?;
    let mut waiting = Vec::new();
    for &alpha in &work.recipe.objective.alpha {
        if !is_finished(work, &manifest, alpha, &fingerprint)? {
            waiting.push(alpha);
            continue;
        }
        let (name, tier, run) = (tier_name(alpha), work.tier(alpha), work.run(alpha));
        let (tier, run) = (tier.display(), run.display());
        progress::say(&format!("{name} was finished before; to train it again, remove `{tier}` and `{run}`"));
    }
    devices::spread(&recipes, waiting, |recipe, alpha| train_one(work, recipe, alpha, &fingerprint))?;
    let tiers = self::manifest(work)?.tiers;
    // A merged tier has no steps and no curve.
    let has_steps = |tier: &&Tier| tier.training.as_ref().is_none_or(|training| training.steps > 0);
    let alphas: Vec<f64> =
        tiers.iter().filter(|tier| !tier.is_base()).filter(has_steps).map(|tier| tier.alpha).collect();
    curves::draw_family(work, &alphas)?;
    progress::say(&format!("family: {}", work.manifest().display()));
    Ok(())
}

/// Trains the tier of `alpha` with the recipe as it is on one device, and lists it in the family.
fn train_one(work: &Work<'_>, recipe: &Recipe, alpha: f64, fingerprint: &str) -> Result<()> {
    stop_between(work)?;
    let name = tier_name(alpha);
    let mut observer = Reinforced::new(&name, recipe.run.steps as u64);
    let trained = rl::train(recipe, alpha, &work.run(alpha), &work.tier(alpha), &mut observer);
    observer.finish();
    trained.map_err(|error| interrupted(error, &work.run(alpha)))?;
    // Read now: another process or device may have finished a tier of this family in the meantime.
    let lock = Manifest::lock(&work.manifest())?;
    let mut manifest = manifest(work)?;
    let base_sha256 = manifest.base.sha256.clone();
    manifest.upsert_tier(tier(work, alpha, fingerprint, base_sha256)?);
    manifest.save()?;
    drop(lock);
    curves::draw_run(work, alpha)?;
    progress::say(&format!("{name} is finished: {}", work.tier(alpha).display()));
    unreached(&manifest, &name).iter().for_each(|told| progress::say(told));
    Ok(())
}

/// The manifest in OUT, or a new one with the base as its first tier.
fn manifest(work: &Work<'_>) -> Result<Manifest> {
    let Some(base) = &work.recipe.base else {
        return Err(Error::config("reinforcement learning needs `base`, the folder of the model to start from").into());
    };
    let place = work.manifest();
    let sha256 = hash::weights_sha256(base)?;
    if place.exists() {
        // The folders of its tiers need not be there: a tier whose folder was removed is trained again.
        let manifest = Manifest::load(&place)?;
        if manifest.base.sha256.as_ref() != Some(&sha256) {
            let message = format!("the family in `{}` has another base than `{}`", work.out.display(), base.display());
            return Err(Failure::from(Error::config(message)).hint("name another folder with --out"));
        }
        return Ok(manifest);
    }
    let hub = work.base_hub.as_ref().map(HubId::to_string);
    let path = if hub.is_none() { Some(relative(base, &work.out)?) } else { None };
    let base = Base { path, hub, sha256: Some(sha256) };
    let mut manifest = Manifest::new(place, &work.recipe.name, base);
    manifest.description = format!("Effort tiers trained with the recipe {}.", work.recipe.name);
    manifest.upsert_tier(Tier::new("base", 0.0));
    Ok(manifest)
}

/// Whether the manifest's tier of this alpha is what this recipe would train; refuses a tier of another recipe.
fn is_finished(work: &Work<'_>, manifest: &Manifest, alpha: f64, fingerprint: &str) -> Result<bool> {
    let name = tier_name(alpha);
    let folder = work.tier(alpha);
    let Some(tier) = manifest.tiers.iter().find(|tier| tier.name == name).filter(|_| folder.is_dir()) else {
        return Ok(false);
    };
    let training = tier.training.as_ref().filter(|training| training.fingerprint == fingerprint);
    let Some(training) = training else {
        let message = format!("the tier {name} in `{}` was trained with another recipe", work.out.display());
        return Err(Failure::from(Error::config(message))
            .hint(format!("name another folder with --out, or remove `{}` to train it anew", folder.display())));
    };
    let is_whole = hash::weights_sha256(&folder).ok() == tier.sha256;
    Ok(is_whole && training.steps >= work.recipe.run.steps as u64)
}

/// The entry of a tier that has just been trained.
fn tier(work: &Work<'_>, alpha: f64, fingerprint: &str, base_sha256: Option<String>) -> Result<Tier> {
    let name = tier_name(alpha);
    let sha256 = hash::weights_sha256(&work.tier(alpha))?;
    let training = TierTraining {
        recipe: work.file.display().to_string(),
        fingerprint: fingerprint.to_owned(),
        steps: work.recipe.run.steps as u64,
        seed: work.recipe.seed,
        wall_seconds: curves::wall_seconds(&work.run(alpha))?,
        command: command::typed(),
        base_sha256,
    };
    let tier = Tier { training: Some(training), ..Tier::new(&name, alpha) };
    Ok(match work.recipe.tuning.mode {
        TuningMode::Lora => tier.with_adapter(name, sha256),
        TuningMode::Full => tier.with_checkpoint(name, sha256),
    })
}
