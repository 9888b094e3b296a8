//! What HTTP costs: the engine of one process called directly, and the same engine behind the real server on 127.0.0.1, in
//! turns. Prints tokens a second, the time to the first text and the processor time of both, at 1, 4, 16 and 64 requests at
//! a time, tiers mixed, all streamed. `cargo bench --bench http_overhead [-- rounds [at-a-time…]]`; nothing is asserted.
//!
//! The clients share the machine's cores with the server and the engine. So they are as lean as clients get: one socket for
//! each, requests written beforehand, and of every event only that it came; the usage chunk alone is read as JSON. They have
//! a thread of their own, so that their processor time is told from the server's. Before each request a client waits for a
//! random moment, as users do who do not know of each other: clients that ask in the very moment in which the engine's step
//! ends would measure who is in time for the next one, which is a whole step for all tokens of 64 answers. All answers are of
//! one length: the engine decodes only sequences of nearly equal length together.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on has failed"
)]

mod support;

use std::net::SocketAddr;
use std::pin::Pin;
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
use brevity::load::cpu;
use brevity::report::{Align, Table, number};
use brevity::routing::Catalogue;
use futures::future::join_all;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Requests of a round, or as many as make this many for every client.
const REQUESTS: usize = 64;
const EACH: usize = 3;

/// Rounds of each kind, unless the command line says otherwise.
const ROUNDS: usize = 9;

/// Requests at a time, unless the command line says otherwise.
const CONCURRENCIES: [usize; 4] = [1, 4, 16, 64];

/// Longest time that a client waits before it asks.
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    if !support::is_wanted() {
        return;
    }
    // As `serve` does; lines of the access log are made and thrown away.
    tracing_subscriber::fmt().with_env_filter("warn,brevity=info").with_writer(std::io::sink).init();
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let rounds = numbers.next().unwrap_or(ROUNDS);
    let concurrencies: Vec<usize> = numbers.collect();
    let concurrencies = if concurrencies.is_empty() { CONCURRENCIES.to_vec() } else { concurrencies };
    support::runtime().block_on(measure(rounds, &concurrencies));
}

async fn measure(rounds: usize, concurrencies: &[usize]) {
    let (manifest, engine) = support::family().await;
    let tiers = engine.tiers();
    let (_phase, address) = serve(&manifest, engine.clone()).await;
    let mut table = Table::new(COLUMNS.map(|name| (name, Align::Right)));
    for &concurrent in concurrencies {
        let count = REQUESTS.max(concurrent * EACH);
        let requests: Vec<Generation> = (0..count).map(|number| support::long(&tiers, number)).collect();
        let wire: Arc<[Vec<u8>]> = requests.iter().map(written).collect();
        let requests: Arc<[Generation]> = requests.into();
        let direct =
            || round(concurrent, count, |_| Box::new(Direct { engine: engine.clone(), requests: requests.clone() }));
        let http =
            || round(concurrent, count, |_| Box::new(OverHttp { address, requests: wire.clone(), client: None }));
        let mut pairs = Vec::new();
        // The first round warms up both, and takes turns with itself in who comes first.
        for round in 0..=rounds {
            let pair = if round % 2 == 0 { (direct(), http()) } else { swap(http(), direct()) };
            assert_eq!(pair.0.tokens, pair.1.tokens, "both did the same work");
            if round > 0 {
                pairs.push(pair);
            }
        }
        table.push(row(concurrent, &pairs));
    }
    print!("{}", table.to_terminal());
    println!(
        "medians of {rounds} rounds, ranges from the lower to the upper quartile; tokens a second, milliseconds to the first \
         text, microseconds of processor time a token (engine and consumers; engine and server; clients)"
    );
}

const COLUMNS: [&str; 12] = [
    "at a time",
    "direct",
    "HTTP",
    "share",
    "quartiles",
    "first, direct",
    "HTTP",
    "added",
    "quartiles",
    "processor, direct",
    "HTTP",
    "clients",
];

fn swap(first: Round, second: Round) -> (Round, Round) {
    (second, first)
}

fn row(concurrent: usize, pairs: &[(Round, Round)]) -> Vec<String> {
    let of = |figure: &dyn Fn(&(Round, Round)) -> f64| -> Vec<f64> {
        let mut values: Vec<f64> = pairs.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let share = of(&|(direct, http)| http.speed() / direct.speed());
    let added = of(&|(direct, http)| http.first - direct.first);
    let quartiles = |values: &[f64], text: &dyn Fn(f64) -> String| {
        let at = |quarter: usize| text(values[(values.len() - 1) * quarter / 4]);
        format!("{} to {}", at(1), at(3))
    };
    let milliseconds = |seconds: f64| format!("{:.2}", seconds * 1e3);
    let microseconds = |seconds: f64| format!("{:.0}", seconds * 1e6);
    vec![
        concurrent.to_string(),
        number::grouped(median(&of(&|(direct, _)| direct.speed()))),
        number::grouped(median(&of(&|(_, http)| http.speed()))),
        number::percent(median(&share), 1),
        quartiles(&share, &|share| number::percent(share, 1)),
        milliseconds(median(&of(&|(direct, _)| direct.first))),
        milliseconds(median(&of(&|(_, http)| http.first))),
        milliseconds(median(&added)),
        quartiles(&added, &milliseconds),
        microseconds(median(&of(&|(direct, _)| direct.server + direct.clients))),
        microseconds(median(&of(&|(_, http)| http.server))),
        microseconds(median(&of(&|(_, http)| http.clients))),
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
    /// Seconds of processor time a token: of the clients' thread, and of all other threads.
    clients: f64,
    server: f64,
}

impl Round {
    fn speed(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }
}

/// Somebody who asks, and says how long the first text took and how many tokens came.
trait Ask {
    fn ask(&mut self, number: usize) -> Pin<Box<dyn Future<Output = (Duration, usize)> + '_>>;
}

/// Asks the engine itself.
struct Direct {
    engine: Arc<MistralEngine>,
    requests: Arc<[Generation]>,
}

impl Ask for Direct {
    fn ask(&mut self, number: usize) -> Pin<Box<dyn Future<Output = (Duration, usize)> + '_>> {
        Box::pin(async move {
            let answer = support::answer(&*self.engine, self.requests[number].clone()).await;
            (answer.first, answer.usage.completion_tokens)
        })
    }
}

/// Asks the server, on a connection that is kept.
struct OverHttp {
    address: SocketAddr,
    requests: Arc<[Vec<u8>]>,
    client: Option<Client>,
}

impl Ask for OverHttp {
    fn ask(&mut self, number: usize) -> Pin<Box<dyn Future<Output = (Duration, usize)> + '_>> {
        Box::pin(async move {
            let client = match &mut self.client {
                Some(client) => client,
                none => none.insert(Client::connect(self.address).await),
            };
            client.ask(&self.requests[number]).await
        })
    }
}

/// All `count` requests, `concurrent` at a time, asked from one thread.
fn round(concurrent: usize, count: usize, client: impl Fn(usize) -> Box<dyn Ask> + Send + Sync) -> Round {
    let all_before = cpu::seconds().unwrap();
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let next = AtomicUsize::new(0);
        let client = &client;
        let next = &next;
        let worker = |number: usize| async move {
            let (mut client, mut answers) = (client(number), Vec::new());
            let mut rng = ChaCha8Rng::seed_from_u64(number as u64);
            loop {
                tokio::time::sleep(rng.random_range(Duration::ZERO..PAUSE)).await;
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return answers;
                }
                answers.push(client.ask(number).await);
            }
        };
        let before = thread_seconds();
        let began = Instant::now();
        let answers = runtime.block_on(join_all((0..concurrent).map(worker)));
        (answers.into_iter().flatten().collect::<Vec<_>>(), began.elapsed(), thread_seconds() - before)
    };
    // The runtime of the server and the engine goes on on its own threads.
    let (answers, took, clients) = std::thread::scope(|scope| scope.spawn(ask).join().unwrap());
    let all = cpu::seconds().unwrap() - all_before;
    let mut firsts: Vec<f64> = answers.iter().map(|(first, _)| first.as_secs_f64()).collect();
    firsts.sort_by(f64::total_cmp);
    let tokens = answers.iter().map(|(_, tokens)| tokens).sum::<usize>();
    let each = |seconds: f64| seconds / tokens as f64;
    Round {
        tokens,
        seconds: took.as_secs_f64(),
        first: median(&firsts),
        clients: each(clients),
        server: each(all - clients),
    }
}

/// Processor time of this thread in seconds.
fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for a `timespec`, which the call fills in.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
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
