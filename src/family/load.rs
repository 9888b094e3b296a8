//! A family ready to be served: every tier found good, or said to be broken and why.

use std::fmt;

use brevity_training::{Error, Result};

use super::hub::{Downloads, Hub};
use super::{BaseWeights, Checker, Manifest, Opened, RemoteTier, Source, Tier, TierWeights};

/// What became of one tier.
#[derive(Debug, Clone)]
pub enum TierOutcome {
    /// Its weights are here and good.
    Local(TierWeights),
    /// Another server computes it.
    Remote(RemoteTier),
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
    /// The base that adapters sit on; good. `None` where other servers compute all tiers.
    pub base: Option<BaseWeights>,
    /// Every tier of the manifest, in its order: the base first, then by ascending alpha.
    pub tiers: Vec<TierOutcome>,
    /// What does not prevent serving but should be known: cards that were measured on other weights.
    pub warnings: Vec<String>,
}

impl LoadedFamily {
    /// The tiers that can be served from this machine.
    pub fn local(&self) -> impl Iterator<Item = &TierWeights> {
        self.tiers.iter().filter_map(|tier| match tier {
            TierOutcome::Local(tier) => Some(tier),
            TierOutcome::Remote(_) | TierOutcome::Broken(_) => None,
        })
    }

    /// The tiers that other servers compute.
    pub fn remote(&self) -> impl Iterator<Item = &RemoteTier> {
        self.tiers.iter().filter_map(|tier| match tier {
            TierOutcome::Remote(tier) => Some(tier),
            TierOutcome::Local(_) | TierOutcome::Broken(_) => None,
        })
    }

    /// The tiers that cannot be served.
    pub fn broken(&self) -> impl Iterator<Item = &BrokenTier> {
        self.tiers.iter().filter_map(|tier| match tier {
            TierOutcome::Broken(tier) => Some(tier),
            TierOutcome::Local(_) | TierOutcome::Remote(_) => None,
        })
    }
}

/// Finds the family at `source`, fetches what is on the hub, and checks everything: files, hashes, configurations, shapes,
/// the base of every tier, tokenizers. Headers and hashes are read, no weights are loaded. Of tiers that other servers
/// compute, only the key is looked for; where they compute all, the base is not looked at. In a family from the hub they are
/// broken.
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
    let mut checker = match opened.manifest.tiers.iter().all(|tier| tier.upstream.is_some()) {
        true => None,
        false => Some(Checker::new(&opened, hub, downloads).map_err(|error| of_family(&error))?),
    };
    let mut warnings = Vec::new();
    let mut tiers = Vec::new();
    for tier in &opened.manifest.tiers {
        let found = find(tier, opened.origin.is_some(), checker.as_mut());
        if let Ok(TierOutcome::Local(weights)) = &found
            && weights.is_card_stale()
        {
            warnings.push(format!(
                "tier `{}`: its card was measured on other weights; measure it again with `serve eval --tier {} --write-cards`",
                tier.name, tier.name
            ));
        }
        let broken =
            |error: Error| TierOutcome::Broken(BrokenTier { name: tier.name.clone(), reason: error.to_string() });
        tiers.push(found.unwrap_or_else(broken));
    }
    let base = checker.map(|checker| checker.base().clone());
    let loaded = LoadedFamily { manifest: opened.manifest.clone(), base, tiers, warnings };
    let reasons: Vec<&str> = loaded.broken().map(|tier| tier.reason.as_str()).collect();
    let reasons = reasons.join("\n  ");
    if loaded.broken().count() == loaded.tiers.len() {
        return Err(of_family(&format!("no tier can be served:\n  {reasons}")));
    }
    if !allow_partial && !reasons.is_empty() {
        return Err(of_family(&format!("not every tier can be served:\n  {reasons}")));
    }
    Ok(loaded)
}

/// One tier, wherever it is computed; `checker` is there unless that is elsewhere for all tiers.
///
/// A manifest that somebody else wrote may not choose where prompts go, nor which variable of the environment goes with them.
fn find(tier: &Tier, is_downloaded: bool, checker: Option<&mut Checker<'_>>) -> Result<TierOutcome> {
    match (&tier.upstream, checker) {
        (Some(upstream), _) if is_downloaded => Err(Error::config(format!(
            "tier `{}`: a family from the hub may not send prompts to {}; if that is wanted, write a family.toml of your own \
             with this tier",
            tier.name, upstream.url
        ))),
        (None, Some(checker)) => Ok(TierOutcome::Local(checker.tier(tier)?)),
        (Some(upstream), _) => {
            let variable = |name: &str| std::env::var(name).ok();
            Ok(TierOutcome::Remote(RemoteTier::new(&tier.name, upstream, variable)?))
        }
        (None, None) => Err(Error::config(format!("tier `{}`: there is no base to check it against", tier.name))),
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
