//! How many streamed chunks a second the load generator reads, against a server in this process that does nothing but
//! write. `cargo bench --bench load_generator`; with `--profile dev`, the same in seconds of building instead of minutes.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on has failed"
)]

use std::sync::Arc;
use std::time::Duration;

use brevity::load::drive::{Pace, Sample};
use brevity::load::judge::{Knowledge, Prices};
use brevity::load::run::{self, Observer};
use brevity::load::{Client, Judge, Options, Prompt, Server, Settings, Shape};
use brevity_training::tasks::grader::GraderMode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// Chunks of one answer.
const CHUNKS: usize = 1000;
/// Answers in all.
const REQUESTS: usize = 1000;
/// Streams at a time.
const USERS: usize = 16;

struct Silent;

impl Observer for Silent {
    fn on_stage(&mut self, _: Option<usize>, _: &Pace, _: Option<usize>, _: Option<Duration>) {}
    fn on_sample(&mut self, _: &Sample) {}
    fn on_tick(&mut self) {}
    fn should_stop(&self) -> bool {
        false
    }
}

fn main() {
    // Under `cargo test --all-targets` benches are started too, without this flag.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let url = serve();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (finished, records) = runtime.block_on(measure(&url));
    let chunks: usize = records.iter().map(|record| record.chunks).sum();
    assert!(records.iter().all(brevity::load::Record::succeeded));
    let cores = finished.cpu_seconds.unwrap_or(f64::NAN) / finished.seconds;
    println!(
        "{chunks} chunks of {} answers in {:.2} s: {:.0} chunks/s, {cores:.2} cores busy (generator and server)",
        records.len(),
        finished.seconds,
        chunks as f64 / finished.seconds
    );
}

async fn measure(url: &str) -> (run::Finished, Vec<brevity::load::Record>) {
    let prompt = Prompt { id: "p".to_owned(), messages: json!([]), answer: None, level: None };
    let prompts: Arc<[Prompt]> = vec![prompt].into();
    let server = Server::new(url, None).unwrap();
    let options = Options { stream: true, ..Options::default() };
    let client = Arc::new(Client::new(&server, "m", prompts.clone(), vec![None], options));
    let settings = Settings {
        prompts: vec!["p".to_owned()],
        efforts: 1,
        shape: Shape::Steady(Pace::Concurrency(USERS)),
        requests: Some(REQUESTS),
        duration: None,
        warm_up: USERS,
        timeout: Duration::from_secs(60),
        most_in_flight: USERS,
        seed: 0,
    };
    run::warm_up(&client, &settings, &mut Silent).await;
    let epoch = Instant::now();
    let judge = Judge::start(Knowledge {
        prompts,
        efforts: vec!["default".to_owned()],
        grader: GraderMode::Qwen,
        tokenizer: None,
        prices: Prices::default(),
        keep_texts: false,
        epoch,
    });
    let finished = run::run(&client, &settings, (&judge, epoch), &mut Silent).await;
    (finished, judge.finish().unwrap())
}

/// A server on a thread of its own that answers every request with the same stream, one HTTP chunk for each event.
fn serve() -> String {
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
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
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
    });
    format!("http://{}/v1", receiver.recv().unwrap())
}
