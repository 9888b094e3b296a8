//! The headers that say who answered and what was ignored.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::types::BrevityReport;

/// Bytes of one header at most.
const LONGEST: usize = 1024;

/// `x-brevity-tier`, `-alpha`, `-effort`, `-reason`, and `-ignored` where something was.
pub fn report(report: &BrevityReport, ignored: &[String]) -> HeaderMap {
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
    if !ignored.is_empty() {
        put("x-brevity-ignored", &ignored.join(", "));
    }
    headers
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
}
