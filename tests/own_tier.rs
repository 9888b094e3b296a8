//! The tier that answers is the tier that was asked for, however many others are asked at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::server::Running;
use crate::support::Workspace;

/// The tier of every effort in the bundled family.
const EFFORTS: [(&str, &str); 7] = [
    ("none", "alpha-0.4"),
    ("minimal", "alpha-0.2"),
    ("low", "alpha-0.15"),
    ("medium", "alpha-0.1"),
    ("high", "alpha-0.05"),
    ("xhigh", "base"),
    ("max", "base"),
];

/// What an answer says, and the fingerprint of the weights that say it.
type Said = (String, String);

/// The answer to the question of this number, at an effort of its own.
fn said(server: &Running, number: usize, stream: bool) -> Said {
    let (effort, tier) = EFFORTS[number % EFFORTS.len()];
    let messages = json!([{"role": "user", "content": format!("What is {number} + 13?")}]);
    let answer =
        server.chat(json!({"messages": messages, "reasoning_effort": effort, "seed": number, "stream": stream}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.head.contains(&format!("x-brevity-tier: {tier}\r\n")), "{}", answer.head);
    let (part, bodies) = match stream {
        true => ("delta", answer.events().filter_map(|event| serde_json::from_str(event).ok()).collect()),
        false => ("message", vec![answer.json()]),
    };
    let (mut thoughts, mut content, mut fingerprint) = (String::new(), String::new(), String::new());
    for body in bodies {
        let message = &body["choices"][0][part];
        thoughts.push_str(message["reasoning_content"].as_str().unwrap_or_default());
        content.push_str(message["content"].as_str().unwrap_or_default());
        fingerprint.push_str(body["system_fingerprint"].as_str().unwrap_or_default());
    }
    (format!("{thoughts}</think>{content}"), fingerprint)
}

/// How many of `requests` answers, given `at_once` at a time, are not what the tier says when it is asked alone.
fn differing(server: &Running, requests: usize, at_once: usize) -> usize {
    let alone: Vec<Said> = (0..requests).map(|number| said(server, number, false)).collect();
    let (next, differing) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((text, fingerprint)) = alone.get(number) else { return };
            let (other, others_fingerprint) = said(server, number, number % 2 == 0);
            assert_eq!(&others_fingerprint, fingerprint, "another tier answered");
            differing.fetch_add(usize::from(other != *text), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| (0..at_once).for_each(|_| drop(scope.spawn(work))));
    differing.into_inner()
}

#[test]
fn every_answer_is_from_its_own_tier() {
    let server = Running::start(&Workspace::new(), &["--log", "warn"]);
    assert_eq!(differing(&server, 350, 32), 0);
}

/// With real weights. Rounding differs between batch sizes by about 1e-6, so a draw may once in many thousand tokens fall on
/// the other side of a boundary; tiers or caches mixed up would show in most texts.
#[cfg(feature = "mistral")]
#[test]
fn every_answer_is_from_its_own_weights() {
    let space = Workspace::new();
    let server =
        Running::launch(space.command(&["--family", &crate::server::family(), "--port", "0", "--log", "warn"]));
    let differing = differing(&server, 210, 64);
    assert!(differing <= 2, "{differing} of 210 texts differ");
}

/// The same weights, once with the adapters beside the base and once as checkpoints: what is most likely is the same.
#[cfg(feature = "mistral")]
#[test]
fn a_folded_family_answers_as_its_adapters_do() {
    let family = crate::server::family();
    let space = Workspace::new();
    space.succeed(&["tiers", "fold", "alpha-0.1", "alpha-0.4", "--family", &family, "--out", "folded"]);
    let servers = [family.as_str(), "folded"]
        .map(|family| Running::launch(space.command(&["--family", family, "--port", "0", "--log", "warn"])));
    for (number, effort) in ["none", "medium", "low", "none", "medium"].into_iter().enumerate() {
        let messages = json!([{"role": "user", "content": format!("What is {} + 13?", 20 + number)}]);
        let question = json!({"messages": messages, "reasoning_effort": effort, "temperature": 0});
        let [adapter, checkpoint] = servers.each_ref().map(|server| {
            let answer = server.chat(question.clone());
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert!(answer.head.contains("x-brevity-tier: "), "{}", answer.head);
            answer.json()["choices"][0]["message"].clone()
        });
        assert_eq!(adapter, checkpoint, "{effort}");
    }
}
