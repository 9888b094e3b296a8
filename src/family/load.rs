//! A family ready to be served: every tier found good, or said to be broken and why.

use std::fmt;

use brevity_training::{Error, Result};

use super::hub::{Downloads, Hub};
use super::{BaseWeights, Checker, Manifest, Opened, Source, TierWeights};

/// What became of one tier.
#[derive(Debug, Clone, PartialEq)]
pub enum TierOutcome {
    /// Its weights are here and good.
    Ready(TierWeights),
    /// It cannot be served.
    Broken(BrokenTier),
}

/// A tier that cannot be served.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokenTier {
    /// Its name.
    pub name: String,
    /// What is wrong, with which file, and what to do.
    pub reason: String,
}

/// A family and what became of its tiers.
#[derive(Debug, Clone)]
pub struct LoadedFamily {
    /// The manifest. Its effort map may lead to broken tiers: who routes takes the nearest one that is ready.
    pub manifest: Manifest,
    /// The base that adapters sit on; good.
    pub base: BaseWeights,
    /// Every tier of the manifest, in its order: the base first, then by ascending alpha.
    pub tiers: Vec<TierOutcome>,
    /// What does not prevent serving but should be known: cards that were measured on other weights.
    pub warnings: Vec<String>,
}

impl LoadedFamily {
    /// The tiers that can be served.
    pub fn ready(&self) -> impl Iterator<Item = &TierWeights> {
        self.tiers.iter().filter_map(|tier| match tier {
            TierOutcome::Ready(tier) => Some(tier),
            TierOutcome::Broken(_) => None,
        })
    }

    /// The tiers that cannot.
    pub fn broken(&self) -> impl Iterator<Item = &BrokenTier> {
        self.tiers.iter().filter_map(|tier| match tier {
            TierOutcome::Ready(_) => None,
            TierOutcome::Broken(tier) => Some(tier),
        })
    }
}

/// Finds the family at `source`, fetches what is on the hub, and checks everything: files, hashes, configurations, shapes,
/// the base of every tier, tokenizers. Headers and hashes are read, no weights are loaded.
///
/// With `allow_partial` broken tiers are reported in the result; without, they are an error.
///
/// # Errors
/// When there is no family, the base is broken, no tier is good, or one is broken and `allow_partial` is not set; the
/// message names every broken tier, the file, and what to do.
pub fn load(source: &Source, allow_partial: bool, hub: &Hub, downloads: &mut dyn Downloads) -> Result<LoadedFamily> {
    let opened = source.open(hub, downloads)?;
    check(opened, allow_partial, hub, downloads)
}

/// [`load`] for a manifest that was opened before.
///
/// # Errors
/// As [`load`].
pub fn check(opened: Opened, allow_partial: bool, hub: &Hub, downloads: &mut dyn Downloads) -> Result<LoadedFamily> {
    let of_family = |error: &dyn fmt::Display| Error::config(format!("family `{}`: {error}", opened.manifest.name));
    let mut checker = Checker::new(&opened, hub, downloads).map_err(|error| of_family(&error))?;
    let mut warnings = Vec::new();
    let mut tiers = Vec::new();
    for tier in &opened.manifest.tiers {
        tiers.push(match checker.tier(tier) {
            Ok(found) => {
                if found.is_card_stale() {
                    warnings.push(format!(
                        "tier `{}`: its card was measured on other weights; measure it again with `serve eval --tier {} --write-cards`",
                        tier.name, tier.name
                    ));
                }
                TierOutcome::Ready(found)
            }
            Err(error) => {
                TierOutcome::Broken(BrokenTier { name: tier.name.clone(), reason: error.to_string() })
            }
        });
    }
    let base = checker.base().clone();
    let loaded = LoadedFamily { manifest: opened.manifest.clone(), base, tiers, warnings };
    let reasons: Vec<&str> = loaded.broken().map(|tier| tier.reason.as_str()).collect();
    let reasons = reasons.join("\n  ");
    if loaded.ready().next().is_none() {
        return Err(of_family(&format!("no tier can be served:\n  {reasons}")));
    }
    if !allow_partial && !reasons.is_empty() {
        return Err(of_family(&format!("not every tier can be served:\n  {reasons}")));
    }
    Ok(loaded)
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
