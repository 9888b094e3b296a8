//! The engine in this process on the bundled family: tokens a second by concurrency, how many of 300 texts change in
//! company, and memory over 600 answered and 600 cancelled requests. `cargo bench --bench engine`; nothing is asserted.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on has failed"
)]

mod support;

use std::sync::Arc;
use std::time::Instant;

use brevity::engine::mistral::MistralEngine;
use brevity::engine::{Engine, Generation, Usage};
use brevity::eval::Suite;
use futures::StreamExt;
use support::{Answer, answer, answers, ask, long};

/// Texts that are compared.
const TEXTS: usize = 300;

fn main() {
    if !support::is_wanted() {
        return;
    }
    support::runtime().block_on(async {
        let (_, engine) = support::family().await;
        speed(&engine).await;
        company(&engine).await;
        memory(&engine).await;
    });
}

async fn speed(engine: &Arc<MistralEngine>) {
    let tiers = engine.tiers();
    for concurrent in [1, 4, 16, 64] {
        let requests = (0..concurrent * 6).map(|number| long(&tiers, number)).collect();
        let started = Instant::now();
        let tokens: usize =
            answers(engine, requests, concurrent).await.iter().map(|answer| answer.usage.completion_tokens).sum();
        let seconds = started.elapsed().as_secs_f64();
        println!("{concurrent:3} at a time: {:7.0} tokens/s ({tokens} in {seconds:.2} s)", tokens as f64 / seconds);
    }
}

async fn company(engine: &Arc<MistralEngine>) {
    let (tiers, problems) = (engine.tiers(), Suite::MINI.problems(TEXTS.div_ceil(3)).unwrap());
    let request =
        |index: usize| ask(&tiers[index % tiers.len()], &problems[index * 7 % problems.len()].question, index);
    let requests: Vec<Generation> = (0..TEXTS).map(request).collect();
    let alone = answers(engine, requests.clone(), 1).await;
    let together = answers(engine, requests, 64).await;
    let said = |answer: &Answer| -> (String, Usage) { (answer.text.clone(), answer.usage) };
    let differing = alone.iter().zip(&together).filter(|(alone, together)| said(alone) != said(together)).count();
    println!("{differing} of {TEXTS} texts of mixed tiers are others among 64 than alone");
}

async fn memory(engine: &Arc<MistralEngine>) {
    for round in 0..=6 {
        println!("after {:3} answered and as many cancelled: {:6.1} MiB resident", round * 100, resident());
        if round == 6 {
            break;
        }
        for seed in 0..100 {
            let mut cancelled = engine.generate(ask("base", "What is 58 + 68?", seed)).await.unwrap();
            for _ in 0..seed % 10 {
                cancelled.next().await;
            }
            drop(cancelled);
            answer(&**engine, ask("alpha-0.1", "What is 58 + 68?", seed)).await;
        }
    }
}

/// Resident memory of this process in MiB; 0 where the system does not tell.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}
