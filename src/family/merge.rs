//! A tier between two tiers: their weights interpolated, a position of the dial without training.

use std::path::{Path, PathBuf};

use brevity_training::model::{DType, Device, LoraAdapter, ModelConfig, interpolate_files, weight_files};
use brevity_training::{Error, Result, files};
use serde_json::{Map, Value};

use super::draft::Draft;
use super::{Checker, Kind, Tier, TierTraining, TierWeights, hash};

/// Keys of `config.json` that say nothing about the mathematics.
const INFORMATION: [&str; 5] = ["_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache"];

/// What is wished for.
#[derive(Debug, Clone, PartialEq)]
pub struct Merge<'a> {
    /// The first tier.
    pub a: &'a Tier,
    /// The second.
    pub b: &'a Tier,
    /// Share of the first, in (0, 1); the second has the rest.
    pub share: f64,
    /// Name of the new tier.
    pub name: &'a str,
    /// Whether an adapter is stored in bf16: half the size, each weight rounded to 8 significant bits.
    pub bf16: bool,
    /// The command that repeats it.
    pub command: String,
}

/// Writes the tier between two tiers into `folder`, whole or not at all, and returns its entry; its folder in that entry is
/// `folder`'s own name, as for a folder beside the manifest.
///
/// Two adapters of the ranks r₁ and r₂ give one of rank r₁ + r₂ whose change of every weight is the interpolation of theirs,
/// exactly (before rounding to bf16, where that is wished); with the base, an adapter is scaled. Checkpoints are interpolated tensor by tensor and keep names, shapes and
/// dtypes of the first. The new alpha is the weighted mean.
///
/// # Errors
/// [`Error::Config`] when the share is outside (0, 1), the tiers are one and the same, or an adapter should be mixed with a
/// checkpoint; as [`Checker::tier`] for a tier that is broken; [`Error::Format`] when weights do not fit each other;
/// [`Error::Io`] when something cannot be written.
pub fn merge(checker: &mut Checker<'_>, wish: &Merge<'_>, folder: &Path) -> Result<Tier> {
    let began = std::time::Instant::now();
    let Merge { a, b, share, name, bf16, command } = wish;
    if !(*share > 0.0 && *share < 1.0) {
        return Err(Error::config(format!(
            "the share {share} is outside (0, 1): the result would be one of the two tiers"
        )));
    }
    if a.name == b.name {
        return Err(Error::config(format!("between `{}` and itself there is nothing", a.name)));
    }
    let draft = Draft::beside(folder)?;
    let (first, second) = (checker.tier(a)?, checker.tier(b)?);
    let is_adapter = match (first.kind, second.kind) {
        (Kind::Base | Kind::Adapter, Kind::Base | Kind::Adapter) => true,
        (Kind::Base | Kind::Checkpoint, Kind::Base | Kind::Checkpoint) => false,
        _ => {
            return Err(Error::config(format!(
                "`{}` is {} and `{}` is {}: an adapter and a checkpoint cannot be mixed; merge two tiers of one kind, or one with the base",
                a.name,
                first.kind.with_article(),
                b.name,
                second.kind.with_article()
            )));
        }
    };
    let dtype = if *bf16 { DType::BF16 } else { DType::F32 };
    if is_adapter {
        adapters(checker, [(&first, *share), (&second, 1.0 - share)], dtype, draft.path())?;
    } else if *bf16 {
        return Err(Error::config("bf16 is for adapters: a merged checkpoint has the format of the first"));
    } else {
        checkpoints(&first, &second, *share, &draft)?;
    }
    let sha256 = hash::weights_sha256(draft.path())?;
    draft.finish()?;
    let (of, took) = (format!("{share} {} {} {dtype:?}", first.sha256, second.sha256), began.elapsed().as_secs_f64());
    let training = TierTraining::untrained("merge", &of, took, command, &checker.base().sha256);
    let place = PathBuf::from(folder.file_name().unwrap_or(folder.as_os_str()));
    // The mean of two decimals such as 0.1 and 0.2 should read 0.15 in a manifest, not 0.15000000000000002.
    let alpha = ((share * a.alpha + (1.0 - share) * b.alpha) * 1e9).round() / 1e9;
    let tier = Tier { training: Some(training), ..Tier::new(name, alpha) };
    Ok(if is_adapter { tier.with_adapter(place, sha256) } else { tier.with_checkpoint(place, sha256) })
}

fn adapters(checker: &Checker<'_>, parts: [(&TierWeights, f64); 2], dtype: DType, folder: &Path) -> Result<()> {
    let base = &checker.base().folder;
    let config = ModelConfig::read(base)?;
    let mut read = Vec::new();
    for (tier, factor) in parts {
        // The base changes nothing.
        if tier.kind == Kind::Adapter {
            read.push((LoraAdapter::load(&tier.folder, &config, &Device::Cpu)?, factor));
        }
    }
    let parts: Vec<(&LoraAdapter, f64)> = read.iter().map(|(adapter, factor)| (adapter, *factor)).collect();
    LoraAdapter::sum(&parts)?.save_as(folder, &base.display().to_string(), dtype)
}

fn checkpoints(a: &TierWeights, b: &TierWeights, share: f64, draft: &Draft) -> Result<()> {
    same_config(&a.folder, &b.folder)?;
    interpolate_files(&weight_files(&a.folder)?, &weight_files(&b.folder)?, share, draft.path())?;
    draft.copy_settings(&a.folder)
}

/// Checks that two models compute the same function of their weights.
fn same_config(a: &Path, b: &Path) -> Result<()> {
    // Trainers write the same settings in layouts of their own.
    if let (Ok(first), Ok(second)) = (ModelConfig::read(a), ModelConfig::read(b))
        && first == second
    {
        return Ok(());
    }
    let read = |folder: &Path| -> Result<Map<String, Value>> { files::read_json(&folder.join("config.json")) };
    let (first, second) = (read(a)?, read(b)?);
    let keys = first.keys().chain(second.keys()).filter(|key| !INFORMATION.contains(&key.as_str()));
    match keys.into_iter().find(|key| first.get(*key) != second.get(*key)) {
        Some(key) => Err(Error::format(
            b.join("config.json"),
            format!(
                "`{key}` differs from `{}`: weights of different models do not mix",
                a.join("config.json").display()
            ),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
