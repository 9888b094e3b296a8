//! `serve tiers add`: weights that are there already become a tier.

use std::path::Path;

use brevity::family::{Checker, Effort, Hub, Manifest, Opened, Source, Tier, TierWeights, relative};
use brevity_training::Error;
use clap::Args;

use super::Family;
use crate::cli::progress::{self, Fetching};
use crate::cli::{Failure, Result, train};

/// Add an adapter or a checkpoint as a tier
///
/// The weights stay where they are; family.toml gets their place and hash. They are checked against the base first. A
/// repository on the hub is fetched and listed with the commit that was found.
#[derive(Debug, Args)]
pub struct Arguments {
    /// PEFT folder of an adapter, Hugging Face folder of a checkpoint, or `organisation/name[@revision]` on the hub
    #[arg(value_name = "FOLDER")]
    folder: Source,

    /// Name of the tier; also its model name in requests
    #[arg(long, value_name = "NAME")]
    name: String,

    /// Strength of the length penalty it was trained with, in [0, 1); orders the tiers from thorough to terse
    #[arg(long, value_name = "A", value_parser = train::alpha)]
    alpha: f64,
}

/// Adds the tier.
///
/// # Errors
/// When the name is taken, or the weights are broken or do not fit the base.
pub fn run(family: &Family<'_>, arguments: &Arguments) -> Result<()> {
    let manifest = family.editable()?;
    is_free(&manifest, &arguments.name)?;
    let measuring = family.measuring(&manifest);
    let tier = Tier::new(&arguments.name, arguments.alpha);
    let mut tier = match &arguments.folder {
        Source::Folder(folder) => local(tier, folder, &manifest)?,
        Source::Hub(id) => Tier { hub: Some(format!("{}@{}", id.name(), family.hub.find(id)?.commit)), ..tier },
    };
    let found = checked(&Opened::local(manifest), &tier, &family.hub)?;
    let kind = found.kind.name();
    tier.sha256 = Some(found.sha256);
    family.change(|manifest| {
        is_free(manifest, &tier.name)?;
        manifest.upsert_tier(tier);
        Ok(())
    })?;
    progress::say(&format!("{} was added ({kind}); measure it with `{measuring}`", arguments.name));
    Ok(())
}

/// Refuses a name that a tier has, or that says something else where a model is named.
///
/// # Errors
/// When one has it, or it is an effort's.
pub fn is_free(manifest: &Manifest, name: &str) -> Result<()> {
    if name.parse::<Effort>().is_ok() || name.eq_ignore_ascii_case("auto") {
        let message = format!("`{name}` is an effort: `{}:{name}` would mean the tier that it leads to", manifest.name);
        return Err(Failure::from(Error::config(message)).hint("choose another name with --name"));
    }
    if manifest.tiers.iter().any(|tier| tier.name == name) {
        let message = format!("family `{}` has a tier `{name}` already", manifest.name);
        return Err(
            Failure::from(Error::config(message)).hint("choose another name with --name, or remove that tier first")
        );
    }
    Ok(())
}

fn local(tier: Tier, folder: &Path, manifest: &Manifest) -> Result<Tier> {
    if !folder.is_dir() {
        return Err(Error::config(format!("there is no folder `{}`", folder.display())).into());
    }
    let home = manifest.path().parent().filter(|home| !home.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let seen = relative(folder, home)?;
    let has = |name: &str| folder.join(name).is_file();
    if !has("config.json") && !has("adapter_config.json") {
        let message = format!("`{}` holds neither config.json nor adapter_config.json", folder.display());
        return Err(Failure::from(Error::config(message)).hint("name the folder of a PEFT adapter or of a model"));
    }
    Ok(if has("config.json") { Tier { checkpoint: Some(seen), ..tier } } else { Tier { adapter: Some(seen), ..tier } })
}

/// The tier's weights, after they were found to fit.
fn checked(opened: &Opened, tier: &Tier, hub: &Hub) -> Result<TierWeights> {
    let mut fetching = Fetching::default();
    Ok(Checker::new(opened, hub, &mut fetching)?.tier(tier)?)
}
