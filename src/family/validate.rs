//! What a manifest must fulfil, and messages that say where it does not and what to write instead.

use std::collections::BTreeSet;

use super::hash::is_sha256;
use super::hub::HubId;
use super::{Effort, Manifest, Tier};

/// Every fault of `manifest`, each beginning with its key.
pub(super) fn faults(manifest: &Manifest) -> Vec<String> {
    let mut faults = Vec::new();
    if manifest.name.trim().is_empty() {
        faults.push("name: empty, requests need a name to ask for".to_owned());
    }
    base(manifest, &mut faults);
    let mut names = BTreeSet::new();
    for entry in &manifest.tiers {
        if !names.insert(entry.name.as_str()) {
            faults.push(format!("tier \"{}\" name: used twice, rename one of them", entry.name));
        }
        tier(entry, &mut faults);
    }
    let bases: Vec<String> =
        manifest.tiers.iter().filter(|tier| tier.is_base()).map(|tier| format!("\"{}\"", tier.name)).collect();
    if bases.len() > 1 {
        faults.push(format!(
            "tier: {} all name neither adapter nor checkpoint nor hub, only one tier can be the base itself",
            bases.join(", ")
        ));
    }
    efforts(manifest, &names, &mut faults);
    budgets(manifest, &mut faults);
    faults
}

fn base(manifest: &Manifest, faults: &mut Vec<String>) {
    let base = &manifest.base;
    match (&base.path, &base.hub) {
        (Some(_), Some(_)) => faults.push("base: both `path` and `hub`, keep one".to_owned()),
        (None, None) if !manifest.tiers.is_empty() && manifest.tiers.iter().all(|tier| tier.upstream.is_some()) => {}
        (None, None) => faults.push("base: neither `path` nor `hub`, write one".to_owned()),
        (Some(_), None) if base.sha256.is_none() => {
            faults.push("base.sha256: missing, write the output of `sha256sum` for its weights".to_owned());
        }
        (None, Some(id)) => hub("base.hub", id, faults),
        (Some(_), None) => {}
    }
    sha256("base.sha256", base.sha256.as_deref(), faults);
}

fn tier(tier: &Tier, faults: &mut Vec<String>) {
    let key = |name: &str| format!("tier \"{}\" {name}", tier.name);
    if tier.name.trim().is_empty() {
        faults.push("tier name: empty, name it after its alpha, such as \"alpha-0.1\"".to_owned());
    }
    if !(0.0..1.0).contains(&tier.alpha) {
        faults.push(format!(
            "{}: {} is outside [0, 1), at 1 a long correct answer would earn nothing",
            key("alpha"),
            tier.alpha
        ));
    }
    let places = [
        ("adapter", tier.adapter.is_some()),
        ("checkpoint", tier.checkpoint.is_some()),
        ("hub", tier.hub.is_some()),
        ("upstream", tier.upstream.is_some()),
    ];
    let places: Vec<&str> = places.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    if let [first, second, ..] = places.as_slice() {
        faults.push(format!("{}: both `{first}` and `{second}`, keep one", key(first)));
    }
    if let Some(id) = &tier.hub {
        hub(&key("hub"), id, faults);
    }
    if let Some(upstream) = &tier.upstream {
        let found = upstream.faults().into_iter();
        faults.extend(found.map(|(name, message)| format!("{}: {message}", key(&format!("upstream.{name}")))));
    }
    if tier.device.is_some() && tier.upstream.is_some() {
        faults.push(format!("{}: another server computes this tier; remove the key", key("device")));
    }
    match (tier.is_base(), &tier.sha256) {
        (false, None) if tier.upstream.is_some() => {}
        (false, None) => {
            faults.push(format!("{}: missing, write the output of `sha256sum` for its weights", key("sha256")));
        }
        (true, Some(_)) => {
            faults.push(format!(
                "{}: this tier is the base itself, whose hash is base.sha256; remove the key",
                key("sha256")
            ));
        }
        _ => sha256(&key("sha256"), tier.sha256.as_deref(), faults),
    }
    if let Some(seconds) =
        tier.training.as_ref().map(|training| training.wall_seconds).filter(|s| !(s.is_finite() && *s >= 0.0))
    {
        faults.push(format!("{}: {seconds} is no duration in seconds", key("training.wall_seconds")));
    }
    if let Some(base) = tier.training.as_ref().and_then(|training| training.base_sha256.as_deref()) {
        sha256(&key("training.base_sha256"), Some(base), faults);
    }
    if let Some(card) = &tier.card {
        faults.extend(
            card.faults().into_iter().map(|(name, message)| format!("{}: {message}", key(&format!("card.{name}")))),
        );
        sha256(&key("card.weights_sha256"), Some(&card.weights_sha256), faults);
    }
}

fn efforts(manifest: &Manifest, names: &BTreeSet<&str>, faults: &mut Vec<String>) {
    if manifest.tiers.is_empty() {
        faults.push("tier: none, add at least the base with `[[tier]]`, `name = \"base\"`, `alpha = 0.0`".to_owned());
        return;
    }
    let missing: Vec<String> =
        Effort::ALL.iter().filter(|effort| !manifest.effort.contains_key(effort)).map(|e| format!("`{e}`")).collect();
    if !missing.is_empty() {
        faults.push(format!("effort: no tier for {}, write one for each", missing.join(", ")));
    }
    for (effort, name) in &manifest.effort {
        if !names.contains(name.as_str()) {
            let known = nearest(name, names.iter().copied());
            faults.push(format!("effort.{effort}: there is no tier `{name}`{known}"));
        }
    }
}

fn hub(key: &str, id: &str, faults: &mut Vec<String>) {
    if let Err(message) = id.parse::<HubId>() {
        faults.push(format!("{key}: {message}"));
    }
}

/// More effort may not mean less room to think: the dial would turn backwards.
fn budgets(manifest: &Manifest, faults: &mut Vec<String>) {
    let pairs = manifest.budget.iter().zip(manifest.budget.iter().skip(1));
    for ((less, more_tokens), (more, fewer_tokens)) in pairs.filter(|((_, first), (_, second))| first > second) {
        faults.push(format!(
            "budget.{more}: {fewer_tokens} tokens are fewer than the {more_tokens} of `{less}`, write at least as many"
        ));
    }
}

fn sha256(key: &str, value: Option<&str>, faults: &mut Vec<String>) {
    if let Some(value) = value.filter(|value| !is_sha256(value)) {
        faults.push(format!("{key}: `{value}` is no SHA-256, it has 64 digits of 0-9 and a-f"));
    }
}

/// The end of a message about the unknown word `wrong`: `, did you mean ...?` when a known word is near, else all known words.
pub(crate) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(wrong, word), word))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, word)| *distance * 2 <= word.chars().count().max(2));
    match near {
        Some((_, word)) => format!(", did you mean `{word}`?"),
        None if known.is_empty() => String::new(),
        None => format!(", known are `{}`", known.join("`, `")),
    }
}

/// What the TOML reader found wrong in `text`, with its line, and for an unknown key the nearest known one.
pub(super) fn explain(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
    let message = error.message();
    // The reader's own message lists the unknown word first and then every known one, all in backticks.
    let mut words = message.split('`').skip(1).step_by(2);
    let kind = [("unknown field", "key"), ("unknown variant", "value")]
        .into_iter()
        .find(|(start, _)| message.starts_with(start));
    match (kind, words.next()) {
        (Some((_, kind)), Some(wrong)) => format!("{place}unknown {kind} `{wrong}`{}", nearest(wrong, words)),
        _ => format!("{place}{message}"),
    }
}
