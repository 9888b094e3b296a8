//! `serve tiers set-default` and `set-effort`: which effort leads where.

use brevity::family;
use clap::Args;

use super::Family;
use crate::cli::{Result, progress};

/// Choose the effort of requests that name none
#[derive(Debug, Args)]
pub struct Default {
    /// One of none, minimal, low, medium, high, xhigh, max
    #[arg(value_name = "EFFORT")]
    effort: family::Effort,
}

/// Choose the tier that an effort leads to
#[derive(Debug, Args)]
pub struct Effort {
    /// One of none, minimal, low, medium, high, xhigh, max
    #[arg(value_name = "EFFORT")]
    effort: family::Effort,

    /// Name of the tier
    #[arg(value_name = "TIER")]
    tier: String,
}

/// Runs `serve tiers set-default`.
///
/// # Errors
/// When the family cannot be read or written.
pub fn set_default(family: &Family<'_>, arguments: &Default) -> Result<()> {
    let tier = family.change(|manifest| {
        manifest.default_effort = arguments.effort;
        Ok(manifest.effort.get(&arguments.effort).cloned().unwrap_or_default())
    })?;
    progress::say(&format!("the default effort is {} now, which leads to {tier}", arguments.effort));
    Ok(())
}

/// Runs `serve tiers set-effort`.
///
/// # Errors
/// When there is no such tier, or the family cannot be read or written.
pub fn set_effort(family: &Family<'_>, arguments: &Effort) -> Result<()> {
    let Effort { effort, tier } = arguments;
    let before = family.change(|manifest| {
        let before = manifest.effort.get(effort).cloned();
        manifest.set_effort(*effort, tier)?;
        Ok(before)
    })?;
    if before.as_ref() == Some(tier) {
        progress::say(&format!("effort {effort} led to {tier} already"));
    }
    Ok(())
}
