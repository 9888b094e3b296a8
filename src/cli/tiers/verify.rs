//! `serve tiers verify`: whether every tier can be served.

use brevity::family::check;
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
    for tier in loaded.ready().filter(|tier| !tier.is_card_stale()) {
        progress::print(&format!("ok: {} ({}, sha256 {})\n", tier.name, tier.kind.name(), tier.sha256));
    }
    let faults: Vec<&String> = loaded.broken().map(|tier| &tier.reason).chain(&loaded.warnings).collect();
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
