//! The tier that answers is the tier that was asked for: many requests of all efforts at a time, over HTTP, say what each
//! says alone.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::server::{Running, family};
use crate::support::Workspace;

/// How many requests there are.
const REQUESTS: usize = 300;
/// How many of them are in flight at a time.
const TOGETHER: usize = 64;
const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/// What a client sees of one answer.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    tier: String,
    thoughts: Value,
    content: Value,
    finish: Value,
    tokens: Value,
}

/// The request of this number: effort, problem and seed are its own.
fn request(number: usize) -> Value {
    let (left, right) = (17 + number * 13 % 83, 2 + number * 7 % 19);
    let sign = ["+", "-", "*"][number / EFFORTS.len() % 3];
    json!({
        "model": "brevity-mini", "reasoning_effort": EFFORTS[number % EFFORTS.len()], "seed": number, "temperature": 1.0,
        "max_completion_tokens": 96, "messages": [{"role": "user", "content": format!("What is {left} {sign} {right}?")}],
    })
}

fn ask(server: &Running, number: usize) -> Said {
    let body = request(number).to_string();
    let answer = server.ask("POST", "/v1/chat/completions", &["content-type: application/json"], &body);
    assert_eq!(answer.status, 200, "{}", answer.head);
    let told = answer.json();
    let header = answer.head.lines().find_map(|line| line.strip_prefix("x-brevity-tier: ")).unwrap();
    assert_eq!(told["brevity"]["tier"], header);
    let choice = &told["choices"][0];
    Said {
        tier: header.to_owned(),
        thoughts: choice["message"]["reasoning_content"].clone(),
        content: choice["message"]["content"].clone(),
        finish: choice["finish_reason"].clone(),
        tokens: told["usage"]["completion_tokens"].clone(),
    }
}

/// Asks everything one by one, then many at a time, and compares.
fn compare(arguments: &[&str]) {
    let family = family();
    // A line for every request would fill the pipe of the log, which nobody reads, and stop the server.
    let fixed = ["--family", &family, "--max-running", "64", "--port", "0", "--log", "error"];
    let server = Running::launch(Workspace::new().command(&[&fixed[..], arguments].concat()));
    let tiers = server.ask("GET", "/v1/tiers", &[], "").json();
    let alone: Vec<Said> = (0..REQUESTS).map(|number| ask(&server, number)).collect();
    for (number, said) in alone.iter().enumerate() {
        assert_eq!(tiers["effort"][EFFORTS[number % EFFORTS.len()]], said.tier, "the manifest's tier answers");
    }
    let next = AtomicUsize::new(0);
    let differing = Mutex::new(Vec::new());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(expected) = alone.get(number) else { return };
            let said = ask(&server, number);
            if said != *expected {
                differing.lock().unwrap().push((number, expected.clone(), said));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..TOGETHER {
            scope.spawn(work);
        }
    });
    let differing = differing.into_inner().unwrap();
    assert!(differing.is_empty(), "{} of {REQUESTS} answers differ in company: {differing:#?}", differing.len());
    let distinct: std::collections::BTreeSet<String> = alone.iter().map(|said| said.content.to_string()).collect();
    assert!(distinct.len() > REQUESTS / 4, "{} different answers would hide a mix-up", distinct.len());
}

#[test]
fn company_changes_no_answer() {
    compare(&["--engine", "scripted"]);
}

#[cfg(feature = "mistral")]
#[test]
fn company_changes_no_answer_of_the_model() {
    compare(&["--engine", "mistral"]);
}
