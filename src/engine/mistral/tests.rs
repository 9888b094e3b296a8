//! The engine on the bundled family: what every tier says, alone and in company, and what survives which accident.

mod answers;
mod architectures;
mod batches;
mod life;
mod tiers;

use std::path::Path;
use std::sync::Once;

use brevity_training::tasks::mini::{self, Level};
use futures::StreamExt;

use super::*;
use crate::engine::{
    Alternative, Channel, Conversation, Event, Finish, Generation, Message, Prompt, Sampling, Thinking,
};
use crate::family::Manifest;

/// Everything a generation said.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    prompt_tokens: usize,
    thinking: String,
    content: String,
    logprobs: Vec<Alternative>,
    finish: Finish,
}

fn manifest() -> Manifest {
    Manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini/family.toml")).unwrap()
}

fn weights(manifest: &Manifest, tier: &str) -> Weights {
    let tier = manifest.tier(tier).unwrap();
    tier.adapter.as_deref().map_or(Weights::Base, |folder| Weights::Adapter(manifest.resolve(folder)))
}

/// The bundled family without its tiers.
fn bare() -> (Manifest, EngineSpec) {
    static ENVIRONMENT: Once = Once::new();
    // SAFETY: only tests of this engine read these variables, and all of them come through here first.
    ENVIRONMENT.call_once(|| unsafe {
        std::env::set_var("MISTRALRS_CPU_KV_F32", "1");
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            std::env::set_var("RAYON_NUM_THREADS", "1");
        }
    });
    let manifest = manifest();
    let spec = EngineSpec::new(manifest.resolve(manifest.base.path.as_deref().unwrap()));
    (manifest, spec)
}

/// The bundled family.
async fn family(max_running: usize) -> MistralEngine {
    let (manifest, mut spec) = bare();
    spec.max_running = max_running;
    for tier in &manifest.tiers {
        spec = spec.with_tier(&tier.name, weights(&manifest, &tier.name), tier.sha256.clone());
    }
    MistralEngine::load(spec).await.unwrap()
}

/// Held-out questions of the mini suite, `per_level` of each level.
fn questions(per_level: usize) -> Vec<String> {
    let sets = Level::ALL.into_iter().flat_map(|level| mini::test_set(level, per_level, 0));
    sets.map(|problem| problem.question().to_owned()).collect()
}

/// What `tier` is to say to `question`; greedy.
fn ask(tier: &str, question: &str) -> Generation {
    let message = Message { role: "user".to_owned(), content: question.to_owned(), ..Message::default() };
    Generation {
        tier: tier.to_owned(),
        prompt: Prompt::Chat(Conversation { messages: vec![message], tools: None }),
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        thinking: Thinking::Free,
        max_tokens: None,
        stop: Vec::new(),
        logprobs: None,
        constraint: Constraint::Free,
        shared: Shared::default(),
    }
}

async fn answer(engine: &MistralEngine, generation: Generation) -> Result<Answer, EngineError> {
    collect(engine.generate(generation).await?).await
}

async fn collect(mut events: Events) -> Result<Answer, EngineError> {
    let Some(Ok(Event::Started { prompt_tokens })) = events.next().await else { panic!("not started") };
    let (mut thinking, mut content, mut logprobs, mut tokens) = (String::new(), String::new(), Vec::new(), 0);
    loop {
        match events.next().await.expect("an end")? {
            Event::Token(piece) => {
                match piece.channel {
                    Channel::Thinking => thinking.push_str(&piece.text),
                    Channel::Answer => content.push_str(&piece.text),
                }
                tokens += piece.tokens;
                logprobs.extend(piece.logprobs);
            }
            Event::Finished(finish) => {
                assert!(events.next().await.is_none(), "something after the end");
                assert_eq!(tokens, finish.usage.completion_tokens);
                return Ok(Answer { prompt_tokens, thinking, content, logprobs, finish });
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}
