//! What the server shows when it starts: the family, and a line to copy.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use brevity::family::{Effort, Manifest};
use brevity::report::{Align, Table, number};
use brevity::routing::{EffortWish, Expectation, default_limit};

/// The family as a table: which effort leads where, how right and how long the tier's answers are, which other server
/// computes it. Tiers in `broken` are marked, and so are efforts whose thoughts are limited (as `budgets` say, those of `none`
/// always): the tier was measured without a limit.
pub fn family(
    manifest: &Manifest,
    default_effort: EffortWish,
    budgets: &BTreeMap<Effort, usize>,
    broken: &[&str],
) -> String {
    let mut table = Table::new([
        ("tier", Align::Left),
        ("alpha", Align::Right),
        ("effort", Align::Left),
        ("accuracy", Align::Right),
        ("tokens", Align::Right),
        ("computed by", Align::Left),
    ]);
    for tier in &manifest.tiers {
        let efforts = manifest.effort.iter().filter(|(_, name)| **name == tier.name);
        let effort = |effort: Effort| {
            let default = (EffortWish::Named(effort) == default_effort).then(|| "default".to_owned());
            let limit = default_limit(effort, budgets).map(|limit| match limit {
                0 => "no thoughts: not measured".to_owned(),
                most => format!("at most {} tokens of thought: not measured", number::grouped(most as f64)),
            });
            let marks: Vec<String> = default.into_iter().chain(limit).collect();
            if marks.is_empty() { effort.to_string() } else { format!("{effort} ({})", marks.join(", ")) }
        };
        let mut efforts: Vec<String> = efforts.map(|(name, _)| effort(*name)).collect();
        if broken.contains(&tier.name.as_str()) {
            efforts = vec!["not loaded".to_owned()];
        }
        let expected = manifest.card(tier).and_then(Expectation::of);
        table.push([
            tier.name.clone(),
            tier.alpha.to_string(),
            efforts.join(", "),
            expected.map_or_else(|| "–".to_owned(), |expected| number::percent(expected.accuracy, 1)),
            expected.map_or_else(|| "–".to_owned(), |expected| number::grouped(expected.tokens)),
            tier.upstream.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]);
    }
    let description = match manifest.description.as_str() {
        "" => String::new(),
        description => format!(": {description}"),
    };
    format!("{}{description}\n\n{}", manifest.name, table.without_empty("").to_terminal())
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
    use brevity::family::{Base, Tier, Upstream};

    use super::*;

    #[test]
    fn the_table_shows_every_tier_with_its_efforts() {
        let mut manifest = Manifest::new("family.toml", "two", Base::default());
        manifest.upsert_tier(Tier::new("base", 0.0));
        manifest.upsert_tier(Tier::new("alpha-0.2", 0.2).with_adapter("a", "0"));
        manifest.effort = [(Effort::Low, "alpha-0.2".to_owned()), (Effort::High, "base".to_owned())].into();
        let text = family(&manifest, EffortWish::Named(Effort::High), &BTreeMap::new(), &["alpha-0.2"]);
        assert!(
            text.lines().any(|line| line.split_whitespace().eq(["base", "0", "high", "(default)", "–", "–"])),
            "{text}"
        );
        assert!(
            text.lines().any(|line| line.split_whitespace().eq(["alpha-0.2", "0.2", "not", "loaded", "–", "–"])),
            "{text}"
        );
        assert!(!text.contains("computed by"), "{text}");
        let (url, model) = ("http://gpu:8000/v1".to_owned(), "org/short".to_owned());
        let upstream = Upstream { url, model, ..Upstream::default() };
        manifest.upsert_tier(Tier::new("alpha-0.4", 0.4).with_upstream(upstream));
        let text = family(&manifest, EffortWish::Auto, &BTreeMap::new(), &[]);
        assert!(text.contains("computed by") && text.contains("org/short at http://gpu:8000/v1"), "{text}");
    }

    #[test]
    fn efforts_with_limited_thoughts_do_not_pass_for_measured_ones() {
        let mut manifest = Manifest::new("family.toml", "one", Base::default());
        manifest.upsert_tier(Tier::new("base", 0.0));
        let efforts = [Effort::None, Effort::Low, Effort::High];
        manifest.effort = efforts.map(|effort| (effort, "base".to_owned())).into();
        let budgets = [(Effort::None, 70), (Effort::Low, 2000)].into();
        let text = family(&manifest, EffortWish::Named(Effort::Low), &budgets, &[]);
        let marked =
            "none (no thoughts: not measured), low (default, at most 2,000 tokens of thought: not measured), high";
        assert!(text.contains(marked), "{text}");
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
