//! `serve tiers show`: everything that the manifest knows of one tier.

use brevity::family::Tier;
use brevity::report::{Align, Table, number};
use clap::Args;

use super::{Family, efforts, list};
use crate::cli::{Result, progress};

/// Show everything that is known of one tier
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name of the tier
    #[arg(value_name = "NAME")]
    name: String,
}

/// Prints the tier.
///
/// # Errors
/// When the family cannot be read or has no such tier.
pub fn run(family: &Family<'_>, arguments: &Arguments) -> Result<()> {
    let opened = family.open()?;
    let manifest = &opened.manifest;
    let tier = manifest.tier(&arguments.name)?;
    let sha256 = if tier.is_base() { &manifest.base.sha256 } else { &tier.sha256 };
    let mut lines = vec![
        ("tier", tier.name.clone()),
        ("alpha", tier.alpha.to_string()),
        ("efforts", efforts(manifest, &tier.name)),
        ("kind", list::kind(tier).to_owned()),
    ];
    if let Some(upstream) = &tier.upstream {
        lines.push(("server", upstream.url.clone()));
        lines.push(("model", upstream.model.clone()));
        lines.push(("key", upstream.api_key_env.as_ref().map_or("none".to_owned(), |env| format!("in {env}"))));
        lines.push((
            "budget",
            upstream.budget_field.as_ref().map_or("refused".to_owned(), |name| format!("as `{name}`")),
        ));
    } else {
        let folder = if tier.is_base() { manifest.base.path.as_deref() } else { tier.folder() };
        let hub = if tier.is_base() { &manifest.base.hub } else { &tier.hub };
        let place = folder.map(|folder| manifest.resolve(folder).display().to_string()).or_else(|| hub.clone());
        lines.push(("weights", place.unwrap_or_default()));
        lines.push(("sha256", sha256.clone().unwrap_or_else(|| "not listed".to_owned())));
        lines.push(("size", list::size(&opened, tier)));
    }
    if let Some(training) = &tier.training {
        lines.push(("recipe", training.recipe.clone()));
        lines.push(("steps", number::grouped(training.steps as f64)));
        lines.push(("seed", training.seed.to_string()));
        lines.push(("took", format!("{} s", number::grouped(training.wall_seconds))));
        lines.push(("command", training.command.clone()));
        lines.extend(training.base_sha256.iter().map(|base| ("trained from", base.clone())));
    }
    let text: String =
        lines.iter().map(|(key, value)| format!("{key:<14}{value}").trim_end().to_owned() + "\n").collect();
    progress::print(&format!("{text}{}", card(tier, sha256.as_deref(), &family.measuring(manifest))));
    Ok(())
}

/// The card as a line and a table.
fn card(tier: &Tier, sha256: Option<&str>, measuring: &str) -> String {
    let Some(card) = &tier.card else {
        return match &tier.upstream {
            None => format!("card          none, measure it with `{measuring}`\n"),
            Some(_) => "card          none, measure it through a server with `serve load-test`\n".to_owned(),
        };
    };
    let stale = sha256.is_some_and(|sha256| sha256 != card.weights_sha256);
    let mut table = Table::new([
        ("level", Align::Left),
        ("problems", Align::Right),
        ("accuracy", Align::Right),
        ("95 %", Align::Right),
        ("tokens", Align::Right),
        ("p50", Align::Right),
        ("p95", Align::Right),
        ("cut off", Align::Right),
    ]);
    for level in &card.levels {
        table.push([
            level.level.clone(),
            level.problems.to_string(),
            number::percent(level.accuracy, 1),
            format!("{:.1}–{:.1}", level.accuracy_low * 100.0, level.accuracy_high * 100.0),
            number::grouped(level.tokens_mean),
            number::grouped(level.tokens_p50),
            number::grouped(level.tokens_p95),
            number::percent(level.truncated, 1),
        ]);
    }
    format!(
        "card          {} on {}, {}, seed {}{}\n\n{}",
        card.dataset,
        card.date,
        card.sampling(),
        card.seed,
        if stale { " (of other weights than listed: measure it again)" } else { "" },
        table.to_terminal()
    )
}
