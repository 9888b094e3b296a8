//! Whether results may go where they should, looked at before any work begins.
//!
//! What somebody else made is never written over: a folder is used when it is new, empty, or can be shown to come from
//! the same recipe.

use std::path::{Path, PathBuf};

use brevity::family::{MANIFEST, Manifest};
use brevity_training::Error;
use brevity_training::methods::identity;
use brevity_training::recipe::{Recipe, Stage};
use brevity_training::trainer::{Plan, RunFolder, RunIdentity};

use super::{Work, dry_run, tier_name};
use crate::cli::{Failure, Result, place};

/// What a family's folder may hold before it has a manifest.
const OF_A_FAMILY: [&str; 4] = ["base", "curves", "README.md", ".gitignore"];

/// How a run's folder is looked at.
type Look = fn(&Path, &RunIdentity, &Recipe) -> brevity_training::Result<()>;

/// Checks the folders of a run, and that what it writes fits.
///
/// # Errors
/// As [`may_begin`]; when one cannot be written or is in use, or the disk has too little room.
pub fn prepare(work: &Work<'_>) -> Result<()> {
    // Opened, so that a run that another process uses is found before the first begins.
    folders(work, |run, identity, recipe| RunFolder::open(run, identity, recipe).map(drop))?;
    place::writable(&work.out, "--out")?;
    place::writable(&work.runs, "--runs")?;
    has_room(work)
}

/// Checks the folders of a run without touching them.
///
/// # Errors
/// When one belongs to something else.
pub fn may_begin(work: &Work<'_>) -> Result<()> {
    folders(work, RunFolder::check)
}

fn folders(work: &Work<'_>, look: Look) -> Result<()> {
    match work.recipe.stage {
        Stage::Sft => model(work, look),
        Stage::Rl => family(work, look),
    }
}

/// The folders of a model that is trained with supervision.
fn model(work: &Work<'_>, look: Look) -> Result<()> {
    let began = runs_may_go_on(work, &work.runs, 0.0, look)?;
    if !began && !is_empty(&work.out)? {
        let message = format!(
            "`{}` is not empty, and no run in `{}` made what is there",
            work.out.display(),
            work.runs.display()
        );
        return Err(Failure::from(Error::config(message)).hint("name another folder with --out, or empty this one"));
    }
    Ok(())
}

/// The folders of a family and of every run.
fn family(work: &Work<'_>, look: Look) -> Result<()> {
    let own = |name: &str| OF_A_FAMILY.contains(&name) || name.starts_with("alpha-");
    let names = names(&work.out)?;
    let has_manifest = names.iter().any(|name| name == MANIFEST);
    let manifest = has_manifest.then(|| Manifest::load(&work.manifest())).transpose()?;
    let is_listed = |name: &str| manifest.iter().flat_map(|manifest| &manifest.tiers).any(|tier| tier.name == name);
    if let Some(foreign) = names.iter().find(|name| !has_manifest && !own(name)) {
        let message = format!("`{}` holds `{foreign}` and no family", work.out.display());
        return Err(Failure::from(Error::config(message)).hint("name another folder with --out"));
    }
    for &alpha in &work.recipe.objective.alpha {
        let began = runs_may_go_on(work, &work.run(alpha), alpha, look)?;
        if !began && !is_listed(&tier_name(alpha)) && !is_empty(&work.tier(alpha))? {
            let message = format!(
                "`{}` is not empty, but neither does a family.toml list it nor is there a run of it in `{}`",
                work.tier(alpha).display(),
                work.run(alpha).display()
            );
            return Err(Failure::from(Error::config(message)).hint("name another folder with --out, or empty this one"));
        }
        if work.tier(alpha).exists() && !work.tier(alpha).is_dir() {
            let message =
                format!("`{}` is a file, where tier {} should go", work.tier(alpha).display(), tier_name(alpha));
            return Err(Failure::from(Error::config(message)).hint("name another folder with --out"));
        }
    }
    Ok(())
}

/// Sees that what will be written fits on the disk: two checkpoints of every run that has not begun, a third while the
/// newest is written, and what is trained where nothing is yet.
fn has_room(work: &Work<'_>) -> Result<()> {
    let plan = Plan::for_recipe(work.recipe, &dry_run::shape(work.recipe)?);
    let of_a_run = plan.files.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let two_checkpoints =
        plan.files.iter().find(|(name, _)| name.starts_with("checkpoint")).map_or(0, |(_, bytes)| *bytes);
    let places: Vec<(PathBuf, PathBuf)> = match work.recipe.stage {
        Stage::Sft => vec![(work.runs.clone(), work.out.join("model.safetensors"))],
        Stage::Rl => work.recipe.objective.alpha.iter().map(|&alpha| (work.run(alpha), work.tier(alpha))).collect(),
    };
    let begin = places.iter().filter(|(run, _)| !run.join("run.json").is_file()).count() as u64;
    let results = places.iter().filter(|(_, result)| !result.exists()).count() as u64;
    let of_runs = begin * of_a_run + two_checkpoints / 2;
    let of_results = results * plan.result_bytes();
    place::has_room(&[(&work.runs, "--runs", of_runs), (&work.out, "--out", of_results)])
}

/// Whether there is a run to be continued; refuses one of another recipe, and a folder that holds something else.
fn runs_may_go_on(work: &Work<'_>, run: &Path, alpha: f64, look: Look) -> Result<bool> {
    let began = run.join("run.json").is_file();
    // A folder of runs for several alphas is not the folder of one: files in it that no run made are somebody's.
    if began || (run.exists() && !run.is_dir()) || !is_empty(run)? {
        let looked = look(run, &identity(work.recipe, alpha)?, work.recipe);
        looked.map_err(|error| Failure::from(error).hint("name another folder with --runs"))?;
    }
    Ok(began)
}

fn is_empty(folder: &Path) -> Result<bool> {
    Ok(names(folder)?.is_empty())
}

/// The names in a folder; none where there is no folder. Left-overs of writing do not count.
fn names(folder: &Path) -> Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        names.push(entry.map_err(Error::io("read", folder))?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !name.starts_with(".writing-"));
    names.sort();
    Ok(names)
}
