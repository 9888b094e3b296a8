//! How many streamed chunks a second the load generator reads, and who took the processor for them: against the real server
//! with the scripted engine, which runs at full speed, and against a peer that does nothing but write.
//! `cargo bench --bench load_generator`; with `--profile dev`, the same in seconds of building instead of minutes.
//!
//! Both servers are processes of their own, so that the generator's processor time is told from theirs.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on has failed"
)]

#[path = "../tests/load/scripted.rs"]
mod scripted;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use brevity::engine::scripted::{Script, Scripted};
use brevity::family::Effort;
use brevity::load::cpu;
use brevity::load::drive::{Pace, Sample};
use brevity::load::judge::{Knowledge, Listener, Prices};
use brevity::load::run::{self, Observer};
use brevity::load::{Client, Judge, Judged, Options, Prompt, Record, Server, Settings, Shape};
use brevity_training::tasks::grader::GraderMode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// Chunks of one answer, or nearly.
const CHUNKS: usize = 1000;
/// Answers in all.
const REQUESTS: usize = 1000;
/// Streams at a time.
const USERS: usize = 16;
/// Asks this program to be one of the servers.
const SERVE: &str = "--serve=";

struct Silent;

impl Observer for Silent {
    fn on_stage(&mut self, _: Option<usize>, _: &Pace, _: Option<usize>, _: Option<Duration>) {}
    fn on_sample(&mut self, _: &Sample) {}
    fn on_tick(&mut self) {}
    fn should_stop(&self) -> bool {
        false
    }
}

impl Listener for Silent {
    fn on_record(&mut self, _: &Record) -> brevity_training::Result<()> {
        Ok(())
    }
    fn on_end(self) -> brevity_training::Result<()> {
        Ok(())
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(kind) = arguments.iter().find_map(|argument| argument.strip_prefix(SERVE)) {
        return serve(kind);
    }
    // Under `cargo test --all-targets` benches are started too, without this flag.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    println!("{USERS} streams at a time; cores busy of the generator and of the server, which is a process of its own");
    for (kind, name) in [("scripted", "the server with the scripted engine"), ("canned", "a peer that only writes")] {
        let mut peer = Peer::start(kind);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(measure(&peer.url, USERS));
        let before = peer.cpu_seconds();
        let (finished, judged) = runtime.block_on(measure(&peer.url, REQUESTS));
        let server = (peer.cpu_seconds() - before) / finished.seconds;
        let chunks: usize = judged.records.iter().map(|record| record.chunks).sum();
        assert!(judged.records.iter().all(Record::succeeded), "{:?}", judged.records.first());
        let generator = finished.cpu_seconds.unwrap_or(f64::NAN) / finished.seconds;
        println!(
            "{name}: {chunks} chunks of {} answers in {:.2} s: {:.0} chunks/s, generator {generator:.2}, server {server:.2}",
            judged.records.len(),
            finished.seconds,
            chunks as f64 / finished.seconds
        );
    }
}

async fn measure(url: &str, requests: usize) -> (run::Finished, Judged) {
    let messages = json!([{ "role": "user", "content": "1 + 1" }]);
    let prompt = Prompt { id: "p".to_owned(), messages, answer: None, level: None };
    let prompts: Arc<[Prompt]> = vec![prompt].into();
    let server = Server::new(url, None).unwrap();
    let options = Options { stream: true, ..Options::default() };
    let client = Arc::new(Client::new(&server, "scripted", prompts.clone(), vec![None], options));
    let settings = Settings {
        prompts: vec!["p".to_owned()],
        efforts: 1,
        shape: Shape::Steady(Pace::Concurrency(USERS)),
        requests: Some(requests),
        duration: None,
        warm_up: Some(0),
        timeout: Duration::from_secs(60),
        most_in_flight: USERS,
        seed: 0,
    };
    let epoch = Instant::now();
    let knowledge = Knowledge {
        prompts,
        efforts: vec!["default".to_owned()],
        grader: GraderMode::Qwen,
        tokenizer: None,
        prices: Prices::default(),
        keep_texts: false,
        epoch,
    };
    let judge = Judge::start(knowledge, Silent);
    let finished = run::run(&client, &settings, (&judge, epoch), &mut Silent).await;
    (finished, judge.finish().unwrap())
}

/// A server in a process of its own, which ends with this one.
struct Peer {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    url: String,
}

impl Peer {
    fn start(kind: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(format!("{SERVE}{kind}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut peer = Self { process, input, output, url: String::new() };
        peer.url = peer.line();
        peer
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Processor time of the process so far.
    fn cpu_seconds(&mut self) -> f64 {
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
        self.line().parse().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.input.take();
        let _ = self.process.wait();
    }
}

/// Is a server: prints its address, then its processor time for every line that it reads, and ends with its input.
fn serve(kind: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let url = match kind {
        "scripted" => {
            let half = "1 + 2 = 3. ".repeat(CHUNKS / 2 / 10);
            let engine = Scripted::builder().script("base", Script::new(&half, &half)).build().unwrap();
            runtime.block_on(scripted::serve(engine, &Effort::ALL.map(|effort| (effort, "base")), &[]))
        }
        _ => runtime.block_on(canned()),
    };
    println!("{url}");
    for _ in std::io::stdin().lines() {
        println!("{}", cpu::seconds().unwrap_or(f64::NAN));
    }
}

/// Answers every request with the same stream, one HTTP chunk for each event.
async fn canned() -> String {
    let event = |data: String| {
        let event = format!("data: {data}\n\n");
        format!("{:x}\r\n{event}\r\n", event.len())
    };
    let delta = |text: &str, finish: &str| {
        event(format!(
            "{{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",\
             \"choices\":[{{\"index\":0,\"delta\":{{\"reasoning_content\":\"{text}\",\"reasoning\":\"{text}\"}},\"logprobs\":null,\
             \"finish_reason\":{finish}}}],\"usage\":null}}"
        ))
    };
    let mut answer =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    (0..CHUNKS - 1).for_each(|_| answer.push_str(&delta(" token", "null")));
    answer.push_str(&delta("", "\"stop\""));
    answer.push_str(&event("[DONE]".to_owned()));
    answer.push_str("0\r\n\r\n");
    let answer: Arc<[u8]> = answer.into_bytes().into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 64 << 10];
                // Requests are small and come one at a time: a read holds a whole one.
                while socket.read(&mut request).await.is_ok_and(|read| read > 0) {
                    if socket.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}
