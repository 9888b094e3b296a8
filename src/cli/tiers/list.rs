//! `serve tiers list`: the family at a glance. Nothing is hashed or fetched but the manifest.

use brevity::family::{Effort, Manifest, Opened, Tier, size_on_disk};
use brevity::report::{Align, Table, number};
use brevity::routing::{Expectation, default_limit, ignored_cards};
use brevity_training::trainer;

use super::{Family, efforts};
use crate::cli::{Result, progress};

/// Where a value is not known.
const UNKNOWN: &str = "–";

/// Prints a row for every tier.
///
/// # Errors
/// When the family cannot be read.
pub fn run(family: &Family<'_>) -> Result<()> {
    let opened = family.open()?;
    let manifest = &opened.manifest;
    let mut table = Table::new([
        ("tier", Align::Left),
        ("alpha", Align::Right),
        ("efforts", Align::Left),
        ("accuracy", Align::Right),
        ("tokens", Align::Right),
        ("kind", Align::Left),
        ("size", Align::Right),
        ("computed by", Align::Left),
    ]);
    for tier in &manifest.tiers {
        let expected = manifest.card(tier).and_then(Expectation::of);
        table.push([
            tier.name.clone(),
            tier.alpha.to_string(),
            efforts(manifest, &tier.name),
            expected.map_or_else(|| UNKNOWN.to_owned(), |expected| number::percent(expected.accuracy, 1)),
            expected.map_or_else(|| UNKNOWN.to_owned(), |expected| number::grouped(expected.tokens)),
            kind(tier).to_owned(),
            size(&opened, tier),
            tier.upstream.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]);
    }
    let text = format!("{}: {}\n\n{}", manifest.name, manifest.description, table.without_empty("").to_terminal());
    let ignored: String = ignored_cards(manifest).iter().map(|ignored| format!("{ignored}\n")).collect();
    progress::print(&format!("{text}\n{}\n{ignored}", footnote(manifest)));
    Ok(())
}

/// What the table's figures are, and which efforts they are not of.
fn footnote(manifest: &Manifest) -> String {
    let limited = |effort: Effort| {
        let limit = default_limit(effort, &manifest.budget).filter(|_| manifest.effort.contains_key(&effort))?;
        Some(match limit {
            0 => format!("{effort} (no thoughts)"),
            most => format!("{effort} (at most {} tokens of thought)", number::grouped(most as f64)),
        })
    };
    let limited: Vec<String> = Effort::ALL.into_iter().filter_map(limited).collect();
    let unmeasured = match limited.is_empty() {
        true => String::new(),
        false => format!("; not measured: {}", limited.join(", ")),
    };
    format!("* the default; accuracy and tokens are means over the levels of the card{unmeasured}")
}

/// What the manifest says of a tier's weights.
pub fn kind(tier: &Tier) -> &'static str {
    match (tier.adapter.is_some(), tier.checkpoint.is_some(), tier.hub.is_some()) {
        (true, ..) => "adapter",
        (_, true, _) => "checkpoint",
        (.., true) => "on the hub",
        _ if tier.upstream.is_some() => "upstream",
        _ => "base",
    }
}

/// Bytes of a tier's weights on this machine.
pub fn size(opened: &Opened, tier: &Tier) -> String {
    let manifest = &opened.manifest;
    let folder = if tier.is_base() { manifest.base.path.as_deref() } else { tier.folder() };
    match folder.map(|folder| size_on_disk(&manifest.resolve(folder))) {
        None | Some(0) => UNKNOWN.to_owned(),
        Some(bytes) => trainer::bytes(bytes),
    }
}

#[cfg(test)]
mod tests {
    use brevity::family::Base;

    use super::*;

    #[test]
    fn efforts_with_limited_thoughts_are_said_to_be_unmeasured() {
        let mut manifest = Manifest::new("family.toml", "one", Base::default());
        let plain = "* the default; accuracy and tokens are means over the levels of the card";
        assert_eq!(footnote(&manifest), plain);
        manifest.effort = Effort::ALL.map(|effort| (effort, "base".to_owned())).into();
        manifest.budget = [(Effort::Low, 2000)].into();
        assert_eq!(
            footnote(&manifest),
            format!("{plain}; not measured: none (no thoughts), low (at most 2,000 tokens of thought)")
        );
    }
}
