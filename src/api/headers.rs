//! The headers that say who answered and what was ignored.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::extract::Ignored;
use super::types::BrevityReport;

/// Bytes of one header at most.
const LONGEST: usize = 1024;
/// Bytes that are left for the number of what does not fit.
const ROOM: usize = 32;

/// `x-brevity-tier`, `-alpha`, `-effort`, `-reason`, and `-ignored` where something was.
pub fn report(report: &BrevityReport, ignored: &Ignored) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::try_from(ascii(value)) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    put("x-brevity-tier", &report.tier);
    put("x-brevity-alpha", &report.alpha.to_string());
    if let Some(effort) = &report.effort {
        put("x-brevity-effort", effort);
    }
    put("x-brevity-reason", &report.reason);
    if !ignored.named.is_empty() {
        put("x-brevity-ignored", &list(ignored));
    }
    headers
}

/// The paths as far as they fit into a header, and how many do not.
fn list(ignored: &Ignored) -> String {
    let mut text = String::new();
    for (place, path) in ignored.named.iter().enumerate() {
        let path = ascii(path);
        let start = if place == 0 { "" } else { ", " };
        if text.len() + start.len() + path.len() > LONGEST - ROOM {
            let more = ignored.named.len() - place + ignored.more;
            return if place == 0 { format!("{more} in all") } else { format!("{text} and {more} more") };
        }
        text.push_str(start);
        text.push_str(&path);
    }
    if ignored.more > 0 { format!("{text} and {} more", ignored.more) } else { text }
}

/// `text` as a header may carry it: ASCII without control characters, the Greek letter of the tiers spelled out.
fn ascii(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            'α' => safe.push_str("alpha"),
            '–' | '—' => safe.push('-'),
            '≥' => safe.push_str(">="),
            '≤' => safe.push_str("<="),
            ' '..='~' => safe.push(character),
            _ if character.is_control() => safe.push(' '),
            _ => safe.push('?'),
        }
        if safe.len() >= LONGEST {
            safe.truncate(LONGEST);
            break;
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_said_fits_into_a_header() {
        assert_eq!(ascii("α = 0.1\r\nx-evil: 1 — ü"), "alpha = 0.1  x-evil: 1 - ?");
        assert_eq!(ascii(&"x".repeat(5000)).len(), LONGEST);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let ignored = |named: &[&str], more: usize| {
            list(&Ignored { named: named.iter().map(|&path| path.to_owned()).collect(), more })
        };
        assert_eq!(ignored(&["store", "verbosity"], 0), "store, verbosity");
        assert_eq!(ignored(&["store", "verbosity"], 3), "store, verbosity and 3 more");
        let long = "x".repeat(600);
        assert_eq!(ignored(&["store", &long, &long, "a"], 5), format!("store, {long} and 7 more"));
        assert_eq!(ignored(&[&"x".repeat(2000)], 0), "1 in all");
        assert!(ignored(&["y".repeat(LONGEST - ROOM).as_str(), "z"], usize::MAX - 9).len() <= LONGEST);
    }
}
