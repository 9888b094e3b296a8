//! What HTTP costs: the engine of one process called directly, and the same engine behind the real server on 127.0.0.1, in
//! turns. Prints tokens a second and the time to the first text of both, at 1, 4, 16 and 64 requests at a time, tiers
//! mixed, all streamed. `cargo bench --bench http_overhead [-- rounds]`; nothing is asserted.
//!
//! The clients share the machine's cores with the server and the engine. So they are as lean as clients get: one socket for
//! each, requests written beforehand, and of every event only that it came; the usage chunk alone is read as JSON.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on has failed"
)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use brevity::api;
use brevity::api::admission::Admission;
use brevity::api::directory::Directory;
use brevity::api::layers::Layers;
use brevity::api::metrics::Metrics;
use brevity::api::server::{Phase, Server, ServerOptions};
use brevity::api::state::{AppState, Options};
use brevity::engine::mistral::MistralEngine;
use brevity::engine::{ByTier, Generation, Prompt};
use brevity::family::Manifest;
use brevity::report::{Align, Table, number};
use brevity::routing::Catalogue;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Requests that each client makes in a round.
const EACH: usize = 4;

/// Rounds of each kind, unless the command line says otherwise.
const ROUNDS: usize = 9;

fn main() {
    if !support::is_wanted() {
        return;
    }
    // As `serve` does; lines of the access log are made and thrown away.
    tracing_subscriber::fmt().with_env_filter("warn,brevity=info").with_writer(std::io::sink).init();
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    support::runtime().block_on(measure(rounds));
}

async fn measure(rounds: usize) {
    let (manifest, engine) = support::family().await;
    let tiers = engine.tiers();
    let (_phase, address) = serve(&manifest, engine.clone()).await;
    let mut table = Table::new([
        ("at a time", Align::Right),
        ("direct", Align::Right),
        ("HTTP", Align::Right),
        ("share", Align::Right),
        ("of rounds", Align::Right),
        ("first, direct", Align::Right),
        ("HTTP", Align::Right),
        ("added", Align::Right),
        ("of rounds", Align::Right),
    ]);
    for concurrent in [1, 4, 16, 64] {
        let requests: Vec<Generation> = (0..concurrent * EACH).map(|number| support::long(&tiers, number)).collect();
        let wire: Arc<[Vec<u8>]> = requests.iter().map(written).collect();
        let requests: Arc<[Generation]> = requests.into();
        let mut pairs = Vec::new();
        // The first round warms up both, and takes turns with itself in who comes first.
        for round in 0..=rounds {
            let pair = if round % 2 == 0 {
                let direct = direct(&engine, &requests, concurrent).await;
                (direct, over_http(address, &wire, concurrent).await)
            } else {
                let http = over_http(address, &wire, concurrent).await;
                (direct(&engine, &requests, concurrent).await, http)
            };
            assert_eq!(pair.0.tokens, pair.1.tokens, "both did the same work");
            if round > 0 {
                pairs.push(pair);
            }
        }
        table.push(row(concurrent, &pairs));
    }
    print!("{}", table.to_terminal());
    println!(
        "medians of {rounds} rounds; tokens a second, and milliseconds to the first text; `of rounds` is the range over rounds"
    );
}

fn row(concurrent: usize, pairs: &[(Round, Round)]) -> Vec<String> {
    let of = |figure: &dyn Fn(&(Round, Round)) -> f64| -> Vec<f64> {
        let mut values: Vec<f64> = pairs.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let share = of(&|(direct, http)| http.speed() / direct.speed());
    let added = of(&|(direct, http)| http.first - direct.first);
    let range = |values: &[f64], text: &dyn Fn(f64) -> String| {
        format!("{} to {}", text(values[0]), text(values[values.len() - 1]))
    };
    let milliseconds = |seconds: f64| format!("{:.2}", seconds * 1e3);
    vec![
        concurrent.to_string(),
        number::grouped(median(&of(&|(direct, _)| direct.speed()))),
        number::grouped(median(&of(&|(_, http)| http.speed()))),
        number::percent(median(&share), 1),
        range(&share, &|share| number::percent(share, 1)),
        milliseconds(median(&of(&|(direct, _)| direct.first))),
        milliseconds(median(&of(&|(_, http)| http.first))),
        milliseconds(median(&added)),
        range(&added, &milliseconds),
    ]
}

/// The middle of sorted values.
fn median(values: &[f64]) -> f64 {
    values[values.len() / 2]
}

/// What a round took.
struct Round {
    tokens: usize,
    seconds: f64,
    /// Median of the times to the first text, in seconds.
    first: f64,
}

impl Round {
    fn new(answers: Vec<(Duration, usize)>, took: Duration) -> Self {
        let mut firsts: Vec<f64> = answers.iter().map(|(first, _)| first.as_secs_f64()).collect();
        firsts.sort_by(f64::total_cmp);
        let tokens = answers.iter().map(|(_, tokens)| tokens).sum();
        Self { tokens, seconds: took.as_secs_f64(), first: median(&firsts) }
    }

    fn speed(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }
}

/// All requests to the engine itself, `concurrent` at a time.
async fn direct(engine: &Arc<MistralEngine>, requests: &Arc<[Generation]>, concurrent: usize) -> Round {
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let workers = (0..concurrent).map(|_| {
        let (engine, requests, next) = (engine.clone(), requests.clone(), next.clone());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answer = support::answer(&*engine, request.clone()).await;
                answers.push((answer.first, answer.usage.completion_tokens));
            }
            answers
        })
    });
    let answers = join_all(workers).await.into_iter().flat_map(Result::unwrap).collect();
    Round::new(answers, began.elapsed())
}

/// All requests through the server, `concurrent` at a time, on connections that are open already.
async fn over_http(address: SocketAddr, requests: &Arc<[Vec<u8>]>, concurrent: usize) -> Round {
    let mut clients = Vec::new();
    for _ in 0..concurrent {
        clients.push(Client::connect(address).await);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let workers = clients.into_iter().map(|mut client| {
        let (requests, next) = (requests.clone(), next.clone());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                answers.push(client.ask(request).await);
            }
            answers
        })
    });
    let answers = join_all(workers).await.into_iter().flat_map(Result::unwrap).collect();
    Round::new(answers, began.elapsed())
}

/// Serves the family with what stands around the engine in `serve`; the server ends with the phase.
async fn serve(manifest: &Manifest, engine: Arc<MistralEngine>) -> (watch::Sender<Phase>, SocketAddr) {
    let engine = ByTier::default().with(engine.tiers(), engine);
    let metrics = Metrics::new();
    let directory = Directory::new(Catalogue::from_manifest(manifest, |_| None), manifest);
    let state =
        AppState::new(Arc::new(engine), directory, Admission::new(64, 256), metrics.clone(), Options::default());
    let router = Layers { metrics, ..Layers::default() }.around(api::router(Arc::new(state)));
    let server = Server::bind("127.0.0.1", 0).await.unwrap();
    let address = server.address();
    let (tell, phase) = watch::channel(Phase::Serving);
    tokio::spawn(server.serve(router, ServerOptions::default(), phase, || {}));
    (tell, address)
}

/// A generation as a request for a stream, ready to be sent.
fn written(generation: &Generation) -> Vec<u8> {
    let Prompt::Chat(conversation) = &generation.prompt else { panic!("a chat is asked for") };
    let body = json!({
        "model": format!("mini:{}", generation.tier),
        "messages": conversation.messages,
        "seed": generation.sampling.seed,
        "ignore_eos": generation.sampling.ignore_eos,
        "max_completion_tokens": generation.max_tokens,
        "stream": true,
        "stream_options": {"include_usage": true},
    })
    .to_string();
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A connection that is kept, and what was read from it.
struct Client {
    socket: TcpStream,
    bytes: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, bytes: Vec::with_capacity(1 << 20) }
    }

    /// Time to the first text, and the tokens that the server counted.
    async fn ask(&mut self, request: &[u8]) -> (Duration, usize) {
        let began = Instant::now();
        self.socket.write_all(request).await.unwrap();
        self.bytes.clear();
        let mut first = None;
        // The end of the last chunk of the encoding, which is sent with or after the end of the stream.
        while !self.bytes.ends_with(b"\r\n0\r\n\r\n") {
            assert_ne!(self.socket.read_buf(&mut self.bytes).await.unwrap(), 0, "the server hung up");
            // The first event has the role only.
            if first.is_none() && count(&self.bytes, b"data: ") > 1 {
                first = Some(began.elapsed());
            }
        }
        let text = std::str::from_utf8(&self.bytes).unwrap();
        let mut events = text.lines().filter_map(|line| line.strip_prefix("data: ")).rev();
        assert_eq!(events.next(), Some("[DONE]"), "{text}");
        let usage: Value = serde_json::from_str(events.next().unwrap()).unwrap();
        let tokens = usage["usage"]["completion_tokens"].as_u64().unwrap();
        (first.unwrap(), usize::try_from(tokens).unwrap())
    }
}

/// How often `needle` is in `haystack`.
fn count(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).filter(|window| *window == needle).count()
}
