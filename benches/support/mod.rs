//! What benchmarks of the engine share: the bundled family in this process, requests for it, and their answers.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use brevity::engine::mistral::{EngineSpec, MistralEngine, Weights};
use brevity::engine::{
    Constraint, Conversation, Engine, Event, Generation, Message, Prompt, Sampling, Shared, Thinking, Usage,
};
use brevity::family::Manifest;
use futures::{StreamExt, stream};

/// Tokens of a request whose answer is as long as is wanted.
pub const TOKENS: usize = 200;

/// Whether this process shall measure: under `cargo test --all-targets` benches are started too, without this flag.
pub fn is_wanted() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// A runtime, with the engine's pools sized as `serve` sizes them for small models. Call it before anything else.
pub fn runtime() -> tokio::runtime::Runtime {
    for (name, value) in [("MISTRALRS_CPU_KV_F32", "1"), ("RAYON_NUM_THREADS", "1"), ("CANDLE_NUM_THREADS", "1")] {
        // SAFETY: no other thread exists yet that could read the environment at the same time.
        unsafe { std::env::set_var(name, value) };
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// The bundled family's manifest and its engine, decoding 64 sequences at a time.
pub async fn family() -> (Manifest, Arc<MistralEngine>) {
    let manifest = Manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini/family.toml")).unwrap();
    let mut spec = EngineSpec::new(manifest.resolve(manifest.base.path.as_deref().expect("a folder")));
    spec.max_running = 64;
    for tier in &manifest.tiers {
        let weights = tier.adapter.as_deref().map(|folder| Weights::Adapter(manifest.resolve(folder)));
        spec = spec.with_tier(&tier.name, weights.unwrap_or(Weights::Base), tier.sha256.clone());
    }
    (manifest, Arc::new(MistralEngine::load(spec).await.unwrap()))
}

/// A question to a tier.
pub fn ask(tier: &str, question: &str, seed: usize) -> Generation {
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
        shared: Shared::default(),
    }
}

/// The request of this number whose answer has [`TOKENS`] tokens, whatever the model says; one tier after the other.
pub fn long(tiers: &[String], number: usize) -> Generation {
    let mut request = ask(&tiers[number % tiers.len()], "What is 58 + 68?", number);
    request.sampling.ignore_eos = true;
    request.max_tokens = Some(TOKENS);
    request
}

/// What a request got.
pub struct Answer {
    /// Thoughts and answer.
    pub text: String,
    /// What it took.
    pub usage: Usage,
    /// From the call to the first text.
    pub first: Duration,
}

/// The answer to one request.
pub async fn answer(engine: &dyn Engine, generation: Generation) -> Answer {
    let began = Instant::now();
    let mut events = engine.generate(generation).await.unwrap();
    let (mut text, mut usage, mut first) = (String::new(), Usage::default(), None);
    while let Some(event) = events.next().await {
        match event.unwrap() {
            Event::Token(piece) => {
                if !piece.text.is_empty() {
                    first.get_or_insert_with(|| began.elapsed());
                }
                text.push_str(&piece.text);
            }
            Event::Finished(finish) => usage = finish.usage,
            Event::Started { .. } | Event::ToolCall(_) => {}
        }
    }
    Answer { text, usage, first: first.unwrap_or_default() }
}

/// The answers to `requests`, `concurrent` at a time, in their order.
pub async fn answers<E: Engine>(engine: &Arc<E>, requests: Vec<Generation>, concurrent: usize) -> Vec<Answer> {
    let one = |request| {
        let engine = engine.clone();
        async move { tokio::spawn(async move { answer(&*engine, request).await }).await.unwrap() }
    };
    stream::iter(requests).map(one).buffered(concurrent).collect().await
}
