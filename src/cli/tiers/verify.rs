//! `serve tiers verify`: whether every tier can be served.

use brevity::family::{TierOutcome, check};
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
    let mut faults = 0;
    for tier in &loaded.tiers {
        let line = match tier {
            TierOutcome::Ready(tier) if tier.is_card_stale() => {
                faults += 1;
                format!(
                    "tier `{}`: its card was measured on other weights; measure it again with `serve eval --tier {} --write-cards`",
                    tier.name, tier.name
                )
            }
            TierOutcome::Ready(tier) => format!("ok: {} ({}, sha256 {})", tier.name, tier.kind.name(), tier.sha256),
            TierOutcome::Broken(tier) => {
                faults += 1;
                tier.reason.clone()
            }
        };
        progress::print(&format!("{line}\n"));
    }
    match faults {
        0 => Ok(()),
        faults => {
            let message = format!("{faults} of {} tiers have a fault", loaded.tiers.len());
            Err(Failure::from(Error::config(message)))
        }
    }
}
