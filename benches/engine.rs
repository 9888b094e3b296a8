//! The engine in this process on the bundled family: tokens a second by concurrency, how many of 300 texts change in
//! company, and memory over 600 answered and 600 cancelled requests. `cargo bench --bench engine`; nothing is asserted.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on has failed"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use brevity::engine::mistral::{EngineSpec, MistralEngine, Weights};
use brevity::engine::{
    Constraint, Conversation, Engine, Event, Generation, Message, Prompt, Sampling, Thinking, Usage,
};
use brevity::eval::Suite;
use brevity::family::Manifest;
use futures::{StreamExt, stream};

/// Texts that are compared.
const TEXTS: usize = 300;

fn main() {
    // Under `cargo test --all-targets` benches are started too, without this flag.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    for (name, value) in [("MISTRALRS_CPU_KV_F32", "1"), ("RAYON_NUM_THREADS", "1"), ("CANDLE_NUM_THREADS", "1")] {
        // SAFETY: no other thread exists yet that could read the environment at the same time.
        unsafe { std::env::set_var(name, value) };
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = Arc::new(family().await);
        speed(&engine).await;
        company(&engine).await;
        memory(&engine).await;
    });
}

async fn family() -> MistralEngine {
    let manifest = Manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini/family.toml")).unwrap();
    let mut spec = EngineSpec::new(manifest.resolve(manifest.base.path.as_deref().expect("a folder")));
    spec.max_running = 64;
    for tier in &manifest.tiers {
        let weights = tier.adapter.as_deref().map(|folder| Weights::Adapter(manifest.resolve(folder)));
        spec = spec.with_tier(&tier.name, weights.unwrap_or(Weights::Base), tier.sha256.clone());
    }
    MistralEngine::load(spec).await.unwrap()
}

fn ask(tier: &str, question: &str, seed: usize) -> Generation {
    let message = Message { role: "user".to_owned(), content: question.to_owned(), ..Message::default() };
    Generation {
        tier: tier.to_owned(),
        prompt: Prompt::Chat(Conversation { messages: vec![message], tools: None }),
        sampling: Sampling { seed: seed as u64, ..Sampling::default() },
        thinking: Thinking::Free,
        max_tokens: None,
        stop: Vec::new(),
        logprobs: None,
        constraint: Constraint::Free,
    }
}

/// All text of a generation, and what it took.
async fn answer(engine: &MistralEngine, generation: Generation) -> (String, Usage) {
    let mut events = engine.generate(generation).await.unwrap();
    let (mut text, mut usage) = (String::new(), Usage::default());
    while let Some(event) = events.next().await {
        match event.unwrap() {
            Event::Token(piece) => text.push_str(&piece.text),
            Event::Finished(finish) => usage = finish.usage,
            Event::Started { .. } | Event::ToolCall(_) => {}
        }
    }
    (text, usage)
}

/// The answers to `requests`, `concurrent` at a time, in their order.
async fn answers(engine: &Arc<MistralEngine>, requests: Vec<Generation>, concurrent: usize) -> Vec<(String, Usage)> {
    let one = |request| {
        let engine = engine.clone();
        async move { tokio::spawn(async move { answer(&engine, request).await }).await.unwrap() }
    };
    stream::iter(requests).map(one).buffered(concurrent).collect().await
}

async fn speed(engine: &Arc<MistralEngine>) {
    let tiers = engine.tiers();
    for concurrent in [1, 4, 16, 64] {
        let request = |index: usize| {
            let mut request = ask(&tiers[index % tiers.len()], "What is 58 + 68?", index);
            request.sampling.ignore_eos = true;
            request.max_tokens = Some(200);
            request
        };
        let requests = (0..concurrent * 6).map(request).collect();
        let started = Instant::now();
        let tokens: usize =
            answers(engine, requests, concurrent).await.iter().map(|(_, usage)| usage.completion_tokens).sum();
        let seconds = started.elapsed().as_secs_f64();
        println!("{concurrent:3} at a time: {:7.0} tokens/s ({tokens} in {seconds:.2} s)", tokens as f64 / seconds);
    }
}

async fn company(engine: &Arc<MistralEngine>) {
    let (tiers, problems) = (engine.tiers(), Suite::Mini.problems(TEXTS.div_ceil(3)).unwrap());
    let request =
        |index: usize| ask(&tiers[index % tiers.len()], &problems[index * 7 % problems.len()].question, index);
    let requests: Vec<Generation> = (0..TEXTS).map(request).collect();
    let alone = answers(engine, requests.clone(), 1).await;
    let together = answers(engine, requests, 64).await;
    let differing = alone.iter().zip(&together).filter(|(alone, together)| alone != together).count();
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
            answer(engine, ask("alpha-0.1", "What is 58 + 68?", seed)).await;
        }
    }
}

/// Resident memory of this process in MiB; 0 where the system does not tell.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}
