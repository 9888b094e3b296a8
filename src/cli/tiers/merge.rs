//! `serve tiers merge`: a tier between two tiers.

use brevity::family::{self, Checker, Merge, Opened};
use clap::Args;

use super::{Family, add};
use crate::cli::progress::{self, Fetching};
use crate::cli::{Result, command, place};

/// Make a tier between two tiers by interpolating their weights, without training
///
/// Two adapters give an adapter whose rank is the sum of theirs and whose effect is exactly the interpolation; the base and
/// an adapter give the adapter scaled down; two checkpoints give a checkpoint. The new alpha is the weighted mean.
#[derive(Debug, Args)]
pub struct Arguments {
    /// First tier
    #[arg(value_name = "A")]
    a: String,

    /// Second tier
    #[arg(value_name = "B")]
    b: String,

    /// Share of A, between 0 and 1; B has the rest
    #[arg(long, value_name = "W", default_value_t = 0.5, value_parser = share)]
    weight: f64,

    /// Store an adapter in bf16: half the size, each weight rounded to 8 significant bits
    #[arg(long)]
    bf16: bool,

    /// Name of the new tier and of its folder beside family.toml
    #[arg(long, value_name = "NAME")]
    name: String,
}

/// Merges and adds the tier.
///
/// # Errors
/// When a tier is unknown or broken, they do not fit each other, or the name is taken.
pub fn run(family: &Family<'_>, arguments: &Arguments) -> Result<()> {
    let manifest = family.editable()?;
    add::is_free(&manifest, &arguments.name)?;
    let (a, b) = (manifest.tier(&arguments.a)?.clone(), manifest.tier(&arguments.b)?.clone());
    let measuring = family.measuring(&manifest);
    let folder = manifest.resolve(std::path::Path::new(&place::file_name(&arguments.name)));
    let Arguments { weight: share, bf16, .. } = *arguments;
    let wish = Merge { a: &a, b: &b, share, name: &arguments.name, bf16, command: command::typed() };
    let (opened, mut fetching) = (Opened::local(manifest), Fetching::default());
    let tier = family::merge(&mut Checker::new(&opened, &family.hub, &mut fetching)?, &wish, &folder)?;
    let alpha = tier.alpha;
    family.change(|manifest| {
        add::is_free(manifest, &tier.name)?;
        manifest.upsert_tier(tier);
        Ok(())
    })?;
    let name = &arguments.name;
    progress::say(&format!("{name} was made (α = {alpha}) in `{}`; measure it with `{measuring}`", folder.display()));
    Ok(())
}

fn share(text: &str) -> std::result::Result<f64, String> {
    match text.trim().parse() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("expected a number between 0 and 1; at 0 or 1 the result would be one of the two tiers".to_owned()),
    }
}
