//! What the server shows when it starts: the family, and a line to copy.

use std::fmt::Write as _;
use std::net::SocketAddr;

use brevity::family::{Effort, Manifest, Tier};
use brevity::report::{Align, Table, number};
use brevity::routing::EffortWish;

/// The family as a table: which effort leads where, how right and how long the tier's answers are. Tiers in `broken` are
/// marked.
pub fn family(manifest: &Manifest, default_effort: EffortWish, broken: &[&str]) -> String {
    let mut table = Table::new([
        ("tier", Align::Left),
        ("alpha", Align::Right),
        ("effort", Align::Left),
        ("accuracy", Align::Right),
        ("tokens", Align::Right),
    ]);
    for tier in &manifest.tiers {
        let efforts = manifest.effort.iter().filter(|(_, name)| **name == tier.name);
        let effort = |effort: Effort| match EffortWish::Named(effort) == default_effort {
            true => format!("{effort} (default)"),
            false => effort.to_string(),
        };
        let mut efforts: Vec<String> = efforts.map(|(name, _)| effort(*name)).collect();
        if broken.contains(&tier.name.as_str()) {
            efforts = vec!["not loaded".to_owned()];
        }
        let (accuracy, tokens) = measured(tier).unzip();
        table.push([
            tier.name.clone(),
            tier.alpha.to_string(),
            efforts.join(", "),
            accuracy.map_or_else(|| "–".to_owned(), |accuracy| number::percent(accuracy, 1)),
            tokens.map_or_else(|| "–".to_owned(), number::grouped),
        ]);
    }
    let description = match manifest.description.as_str() {
        "" => String::new(),
        description => format!(": {description}"),
    };
    format!("{}{description}\n\n{}", manifest.name, table.to_terminal())
}

/// Accuracy and mean tokens over all levels of the tier's card, each response counted once.
fn measured(tier: &Tier) -> Option<(f64, f64)> {
    let levels = &tier.card.as_ref()?.levels;
    let responses: usize = levels.iter().map(|level| level.responses).sum();
    let mean = |value: fn(&brevity::family::LevelCard) -> f64| {
        levels.iter().map(|level| value(level) * level.responses as f64).sum::<f64>() / responses as f64
    };
    (responses > 0).then(|| (mean(|level| level.accuracy), mean(|level| level.tokens_mean)))
}

/// Where the server is, and how to ask it something.
pub fn address(address: SocketAddr, model: &str, needs_key: bool) -> String {
    let host = match address.ip() {
        ip if ip.is_unspecified() => format!("127.0.0.1:{}", address.port()),
        _ => address.to_string(),
    };
    let key = if needs_key { " -H 'authorization: Bearer KEY'" } else { "" };
    let mut text = format!("\nlistening on http://{address}, documentation at http://{host}/docs; try\n\n");
    let body = format!(
        r#"{{"model": "{model}", "reasoning_effort": "low", "messages": [{{"role": "user", "content": "What is 17 + 25?"}}]}}"#
    );
    // Writing to a string cannot fail.
    let _ =
        writeln!(text, "  curl http://{host}/v1/chat/completions -H 'content-type: application/json'{key} -d '{body}'");
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use brevity::family::Base;

    use super::*;

    #[test]
    fn the_table_shows_every_tier_with_its_efforts() {
        let mut manifest = Manifest::new("family.toml", "two", Base::default());
        manifest.upsert_tier(Tier::new("base", 0.0));
        manifest.upsert_tier(Tier::new("alpha-0.2", 0.2).with_adapter("a", "0"));
        manifest.effort = [(Effort::Low, "alpha-0.2".to_owned()), (Effort::High, "base".to_owned())].into();
        let text = family(&manifest, EffortWish::Named(Effort::High), &["alpha-0.2"]);
        assert!(
            text.lines().any(|line| line.split_whitespace().eq(["base", "0", "high", "(default)", "–", "–"])),
            "{text}"
        );
        assert!(
            text.lines().any(|line| line.split_whitespace().eq(["alpha-0.2", "0.2", "not", "loaded", "–", "–"])),
            "{text}"
        );
    }

    #[test]
    fn the_bundled_family_has_its_numbers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini/family.toml");
        let manifest = Manifest::load(&path).unwrap();
        for tier in &manifest.tiers {
            let (accuracy, tokens) = measured(tier).unwrap();
            let levels = &tier.card.as_ref().unwrap().levels;
            let within = |value: f64, of: fn(&brevity::family::LevelCard) -> f64| {
                let least = levels.iter().map(of).fold(f64::INFINITY, f64::min);
                let most = levels.iter().map(of).fold(0.0, f64::max);
                (least..=most).contains(&value)
            };
            assert!(within(accuracy, |level| level.accuracy) && within(tokens, |level| level.tokens_mean));
        }
    }

    #[test]
    fn the_line_to_copy_leads_to_this_server() {
        let text = address("0.0.0.0:9000".parse().unwrap(), "mini", true);
        assert!(text.contains("listening on http://0.0.0.0:9000,"), "{text}");
        assert!(text.contains("curl http://127.0.0.1:9000/v1/chat/completions"), "{text}");
        assert!(text.contains("Bearer KEY"), "{text}");
        let body = text.split_once("-d '").unwrap().1.trim_end().trim_end_matches('\'');
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["model"], "mini");
    }
}
