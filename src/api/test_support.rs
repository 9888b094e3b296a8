//! A family of three tiers and an engine that says what a test tells it to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use futures::Stream;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Sleep;
use tower::ServiceExt;

use super::admission::Admission;
use super::directory::Directory;
use super::layers::Layers;
use super::limits::Limits;
use super::metrics::Metrics;
use super::router;
use super::server::{Phase, ServerOptions};
use super::state::{AppState, Options, Sources};
use crate::engine::{
    Alternative, Channel, Engine, EngineError, Event, Events, Finish, FinishReason, Generation, Piece, ToolCall, Usage,
};
use crate::family::Effort;
use crate::routing::{Catalogue, CatalogueTier};

#[path = "../../tests/specification.rs"]
mod specification;
pub(crate) use specification::{valid, validator};

/// Bytes of a body.
pub(crate) const MAX_BODY: usize = 4 << 20;

/// What the engine does next in every generation.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Say(Event),
    Fail(EngineError),
    /// Waits, by tokio's clock.
    Wait(Duration),
    /// Waits forever.
    Hang,
    Panic,
}

/// An engine that follows a script.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Said by `generate` itself, before any event.
    pub refusal: Mutex<Option<EngineError>>,
    pub steps: Mutex<Vec<Step>>,
    pub asked: Mutex<Vec<Generation>>,
    pub running: Arc<AtomicUsize>,
    pub probes: AtomicUsize,
    /// Whether probes wait forever.
    pub full: AtomicBool,
    pub broken: Mutex<Option<EngineError>>,
}

struct Playing {
    steps: VecDeque<Step>,
    pause: Option<Pin<Box<Sleep>>>,
    running: Arc<AtomicUsize>,
}

impl Stream for Playing {
    type Item = Result<Event, EngineError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            return match self.steps.front() {
                Some(Step::Hang) => Poll::Pending,
                Some(Step::Panic) => panic!("the script panics"),
                _ => match self.steps.pop_front() {
                    Some(Step::Wait(time)) => {
                        self.pause = Some(Box::pin(tokio::time::sleep(time)));
                        continue;
                    }
                    Some(Step::Say(event)) => Poll::Ready(Some(Ok(event))),
                    Some(Step::Fail(error)) => Poll::Ready(Some(Err(error))),
                    Some(Step::Hang | Step::Panic) | None => Poll::Ready(None),
                },
            };
        }
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Engine for Script {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn context_length(&self, _tier: &str) -> Option<usize> {
        Some(1024)
    }

    async fn generate(&self, generation: Generation) -> Result<Events, EngineError> {
        self.asked.lock().unwrap().push(generation);
        if let Some(refusal) = self.refusal.lock().unwrap().clone() {
            return Err(refusal);
        }
        self.running.fetch_add(1, Ordering::SeqCst);
        let steps = self.steps.lock().unwrap().clone().into();
        Ok(Box::pin(Playing { steps, pause: None, running: self.running.clone() }))
    }

    async fn probe(&self, _tier: &str) -> Result<(), EngineError> {
        self.probes.fetch_add(1, Ordering::SeqCst);
        if self.full.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.broken.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

/// The tiers `terse` (none to low), `lost` (high; not loaded) and `base` (the others).
pub(crate) fn catalogue() -> Catalogue {
    let tier = |name: &str, alpha: f64, is_base: bool, missing: Option<&str>| CatalogueTier {
        name: name.to_owned(),
        alpha,
        is_base,
        missing: missing.map(str::to_owned),
        place: String::new(),
        expected: None,
    };
    let tiers = vec![
        tier("terse", 0.4, false, None),
        tier("lost", 0.1, false, Some("no such folder")),
        tier("base", 0.0, true, None),
    ];
    let stands_for = |effort: Effort| match effort {
        Effort::None | Effort::Minimal | Effort::Low => "terse",
        Effort::High => "lost",
        Effort::Medium | Effort::Xhigh | Effort::Max => "base",
    };
    Catalogue::new("mini", tiers, Effort::ALL.into_iter().map(|e| (e, stands_for(e).to_owned())).collect())
}

pub(crate) fn thought(text: &str) -> Step {
    piece(Channel::Thinking, text)
}

pub(crate) fn said(text: &str) -> Step {
    piece(Channel::Answer, text)
}

fn piece(channel: Channel, text: &str) -> Step {
    Step::Say(Event::Token(Piece { channel, text: text.to_owned(), tokens: 1, logprobs: Vec::new() }))
}

/// A token with its log-probability.
pub(crate) fn scored(thinking: bool, text: &str) -> Step {
    let token = |top| Alternative { token: text.to_owned(), bytes: text.as_bytes().to_vec(), logprob: -0.5, top };
    let channel = if thinking { Channel::Thinking } else { Channel::Answer };
    let logprobs = vec![token(vec![token(Vec::new())])];
    Step::Say(Event::Token(Piece { channel, text: text.to_owned(), tokens: 1, logprobs }))
}

pub(crate) fn started() -> Step {
    Step::Say(Event::Started { prompt_tokens: 5 })
}

pub(crate) fn called(index: usize) -> Step {
    let arguments = r#"{"x":1}"#.to_owned();
    Step::Say(Event::ToolCall(ToolCall { index, id: format!("call_{index}"), name: "f".to_owned(), arguments }))
}

pub(crate) fn finish(reason: FinishReason) -> Finish {
    let usage = Usage { prompt_tokens: 5, completion_tokens: 6, reasoning_tokens: 3, cached_tokens: 2 };
    Finish { reason, usage, forced_close: false, stop: None, fingerprint: Some("fp_1".to_owned()) }
}

pub(crate) fn finished(reason: FinishReason) -> Step {
    Step::Say(Event::Finished(finish(reason)))
}

/// Two thoughts, an answer of two pieces.
pub(crate) fn usual() -> Vec<Step> {
    vec![started(), thought("so "), thought("7"), said(""), said("It is "), said("7 🦀"), finished(FinishReason::Stop)]
}

/// A server without a socket.
pub(crate) struct Server {
    pub engine: Arc<Script>,
    pub state: Arc<AppState>,
    router: Router,
}

pub(crate) struct Reply {
    /// What was asked for.
    path: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Server {
    pub fn new(steps: Vec<Step>) -> Self {
        Self::with(steps, Options::default(), Admission::new(4, 4))
    }

    pub fn with(steps: Vec<Step>, options: Options, admission: Admission) -> Self {
        let engine = Arc::new(Script { steps: Mutex::new(steps), ..Script::default() });
        let counter = AtomicU64::new(0);
        let random = Arc::new(move || (counter.fetch_add(1, Ordering::SeqCst) + 1) << 11);
        let sources = Sources { random, now: Arc::new(|| 1_700_000_000) };
        let metrics = Metrics::new();
        let state = AppState::new(engine.clone(), Directory::bare(catalogue()), admission, metrics.clone(), options);
        let state = Arc::new(state.with_sources(sources));
        let limits = Limits { max_body: MAX_BODY, ..Limits::default() };
        let layers = Layers { limits, metrics, ..Layers::default() };
        Self { engine, router: layers.around(router(state.clone())), state }
    }

    /// Listens on a port until the sender is dropped or told otherwise.
    pub async fn listen(&self) -> (SocketAddr, watch::Sender<Phase>) {
        let server = super::server::Server::bind("127.0.0.1", 0).await.unwrap();
        let (address, (tell, phase)) = (server.address(), watch::channel(Phase::Serving));
        tokio::spawn(server.serve(self.router.clone(), ServerOptions::default(), phase, || {}));
        (address, tell)
    }

    pub async fn send(&self, request: Request<Body>) -> axum::response::Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn reply(&self, request: Request<Body>) -> Reply {
        let path = request.uri().path().to_owned();
        let response = self.send(request).await;
        let (status, headers) = (response.status(), response.headers().clone());
        Reply { path, status, headers, bytes: axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.reply(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.reply(post(path, body)).await
    }

    /// Generations that the engine holds.
    pub fn running(&self) -> usize {
        self.engine.running.load(Ordering::SeqCst)
    }

    pub fn metrics(&self) -> String {
        self.state.metrics.render(0, 0)
    }
}

pub(crate) fn post(path: &str, body: &Value) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(Body::from(body.to_string())).unwrap()
}

impl Reply {
    /// The body, which must be what the specification says.
    pub fn json(&self) -> Value {
        let body = serde_json::from_slice(&self.bytes).unwrap();
        specification::check_body(&self.path, self.status.as_u16(), &body);
        body
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    /// The JSON events of a stream, each what the specification says, and whether `[DONE]` closed it.
    pub fn events(&self) -> (Vec<Value>, bool) {
        let mut events = Vec::new();
        let mut done = false;
        for event in self.text().split_terminator("\n\n").filter(|event| !event.starts_with(':')) {
            assert!(!done, "something comes after the end");
            let (name, event) = match event.strip_prefix("event: ").and_then(|named| named.split_once('\n')) {
                Some((name, event)) => (Some(name), event),
                None => (None, event),
            };
            match event.strip_prefix("data: ").unwrap() {
                "[DONE]" => done = true,
                json => {
                    let event: Value = serde_json::from_str(json).unwrap();
                    specification::check_event(&self.path, &event);
                    assert!(name.is_none_or(|name| event["type"] == name), "{name:?} is not the type of {event}");
                    events.push(event);
                }
            }
        }
        (events, done)
    }
}
