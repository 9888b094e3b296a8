//! `serve tiers verify`: whether every tier can be served.

use brevity::engine::upstream::{Patience, UpstreamEngine};
use brevity::engine::{Engine, EngineError};
use brevity::family::{RemoteTier, check};
use brevity_training::Error;

use super::Family;
use crate::cli::progress::{self, Fetching};
use crate::cli::{Failure, Result};

/// Checks every tier and prints a line for each.
///
/// # Errors
/// When the family cannot be read or a tier has a fault.
pub fn run(family: &Family<'_>) -> Result<()> {
    let opened = family.open()?;
    let loaded = check(opened, true, &family.hub, &mut Fetching::default())?;
    for tier in loaded.local().filter(|tier| !tier.is_card_stale()) {
        progress::print(&format!("ok: {} ({}, sha256 {})\n", tier.name, tier.kind.name(), tier.sha256));
    }
    let mut faults: Vec<String> = loaded.broken().map(|tier| tier.reason.clone()).collect();
    faults.extend_from_slice(&loaded.warnings);
    let remote: Vec<&RemoteTier> = loaded.remote().collect();
    for (tier, answer) in remote.iter().zip(probe(&remote)?) {
        match answer {
            Ok(()) => progress::print(&format!("ok: {} (upstream, {})\n", tier.name, tier.settings)),
            Err(error) => faults.push(format!("tier `{}`: {error}", tier.name)),
        }
    }
    for fault in &faults {
        progress::print(&format!("{fault}\n"));
    }
    match faults.len() {
        0 => Ok(()),
        count => {
            let message = format!("{count} of {} tiers have a fault", loaded.tiers.len());
            Err(Failure::from(Error::config(message)))
        }
    }
}

/// Asks every tier's server for one token.
fn probe(tiers: &[&RemoteTier]) -> Result<Vec<std::result::Result<(), EngineError>>> {
    let engine = UpstreamEngine::new(tiers.iter().copied().cloned(), Patience::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let mut answers = Vec::new();
        for tier in tiers {
            answers.push(engine.probe(&tier.name).await);
        }
        answers
    }))
}
