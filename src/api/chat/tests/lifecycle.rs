//! Errors on the way, clients that leave, deadlines: what was begun is let go of.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{PATH, ask, request};
use crate::api::access_log::AccessRecord;
use crate::api::admission::Admission;
use crate::api::state::Options;
use crate::api::test_support::{Server, Step, finished, post, said, started, thought, usual};
use crate::engine::{EngineError, FinishReason};

fn hanging() -> Vec<Step> {
    vec![started(), thought("so"), said("7"), Step::Hang]
}

#[tokio::test]
async fn an_error_after_the_first_token_ends_the_stream_without_done() {
    let server = Server::new(vec![started(), said("7"), Step::Fail(EngineError::failed("out of memory"))]);
    let reply = ask(&server, json!({"stream": true})).await;
    assert_eq!(reply.status, 200);
    let (events, done) = reply.events();
    let (last, before) = events.split_last().unwrap();
    assert_eq!((last["error"]["message"].as_str(), done), (Some("out of memory"), false));
    assert_eq!(before.last().unwrap()["choices"][0]["delta"]["content"], "7");
    assert_eq!(server.running(), 0);
    // The same without a stream can still be a status.
    let reply = ask(&server, json!({})).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (500, &json!("internal_error")));
    assert!(server.metrics().contains("brevity_request_failures_total{"), "{}", server.metrics());
}

#[tokio::test]
async fn an_answer_without_an_end_is_an_error() {
    let server = Server::new(vec![started(), said("7")]);
    assert_eq!(ask(&server, json!({})).await.status, 500);
    let (events, done) = ask(&server, json!({"stream": true})).await.events();
    assert!(events.last().unwrap().get("error").is_some() && !done);
}

/// Seen from here: a bug in the engine fails one request.
#[tokio::test]
async fn a_panic_fails_its_own_request() {
    let server = Server::new(vec![started(), said("7"), Step::Panic]);
    assert_eq!(ask(&server, json!({})).await.status, 500);
    let (events, done) = ask(&server, json!({"stream": true})).await.events();
    assert!(events.last().unwrap()["error"]["type"] == "server_error" && !done);
    assert_eq!((server.running(), server.state.admission.running()), (0, 0));
}

#[tokio::test]
async fn what_was_said_to_somebody_who_left_is_counted() {
    for (steps, stays) in [(hanging(), false), (vec![started(), thought("so"), said("7")], true)] {
        let server = Server::new(steps);
        let record = AccessRecord::default();
        let mut asked = post(PATH, &request(json!({"stream": true})));
        asked.extensions_mut().insert(record.clone());
        let mut body = server.send(asked).await.into_body().into_data_stream();
        if stays {
            while body.next().await.is_some() {}
        } else {
            assert!(body.next().await.unwrap().is_ok());
            while record.usage().completion_tokens < 2 {
                tokio::task::yield_now().await;
            }
        }
        drop(body);
        let usage = record.usage();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens), (5, 2, 1), "{stays}");
    }
}

/// Streaming: the body is dropped after the first frame.
#[tokio::test]
async fn who_leaves_a_stream_frees_its_place() {
    let server = Server::with(hanging(), Options::default(), Admission::new(2, 0));
    let response = server.send(post(PATH, &request(json!({"stream": true, "n": 2})))).await;
    let mut body = response.into_body().into_data_stream();
    assert!(body.next().await.unwrap().is_ok());
    assert_eq!((server.running(), server.state.admission.running()), (2, 2), "every choice has a place");
    drop(body);
    while server.state.admission.running() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.running(), 0);
    assert!(server.metrics().contains("brevity_client_disconnects_total 1"), "{}", server.metrics());
}

/// Not streaming: the handler is dropped in the middle; then one that waits in the queue.
#[tokio::test]
async fn who_leaves_before_the_answer_frees_its_place() {
    let server = Server::with(hanging(), Options::default(), Admission::new(1, 1));
    let mut first = Box::pin(server.send(post(PATH, &request(json!({})))));
    assert!(first.as_mut().now_or_never().is_none());
    assert_eq!((server.running(), server.state.admission.running()), (1, 1));
    let mut second = Box::pin(server.send(post(PATH, &request(json!({"stream": true})))));
    assert!(second.as_mut().now_or_never().is_none());
    assert_eq!(server.state.admission.waiting(), 1);
    let full = ask(&server, json!({})).await;
    assert_eq!(full.status, 429);
    assert!(full.headers.contains_key("retry-after"));
    drop(second);
    assert_eq!(server.state.admission.waiting(), 0);
    drop(first);
    assert_eq!((server.running(), server.state.admission.running()), (0, 0));
    assert!(server.metrics().contains("brevity_client_disconnects_total 2"), "{}", server.metrics());
}

/// Over a real socket, where nothing but the closed connection says it. The engine says nothing meanwhile, so no step is
/// computed between the end of the connection and the end of the generation.
#[tokio::test]
async fn a_closed_connection_frees_its_place_before_another_token() {
    for stream in [false, true] {
        let server = Server::with(hanging(), Options::default(), Admission::new(1, 0));
        let (address, _tell) = server.listen().await;
        let mut socket = TcpStream::connect(address).await.unwrap();
        let body = request(json!({"stream": stream})).to_string();
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        socket.write_all((head + &body).as_bytes()).await.unwrap();
        if stream {
            socket.read_exact(&mut [0; 100]).await.unwrap();
        }
        while server.running() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.state.admission.running(), 1);
        drop(socket);
        while server.running() + server.state.admission.running() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Prefill: the engine has not started when the client leaves.
#[tokio::test]
async fn who_leaves_during_prefill_frees_its_place() {
    let server = Server::with(vec![Step::Hang], Options::default(), Admission::new(1, 0));
    let mut waiting = Box::pin(server.send(post(PATH, &request(json!({"stream": true})))));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert_eq!(server.running(), 1);
    drop(waiting);
    assert_eq!((server.running(), server.state.admission.running()), (0, 0));
}

#[tokio::test]
async fn a_deadline_is_a_status_before_the_first_event_and_an_event_after_it() {
    let options = Options { deadline: Some(Duration::from_millis(20)), ..Options::default() };
    let server = Server::with(vec![Step::Hang], options.clone(), Admission::new(4, 4));
    for stream in [false, true] {
        let reply = ask(&server, json!({"stream": stream})).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (408, &json!("timeout")));
        assert_eq!(reply.headers["x-should-retry"], "false", "it would take as long again");
    }
    let server = Server::with(hanging(), options, Admission::new(4, 4));
    assert_eq!(ask(&server, json!({})).await.status, 408);
    let (events, done) = ask(&server, json!({"stream": true})).await.events();
    assert_eq!((&events.last().unwrap()["error"]["code"], done), (&json!("timeout"), false));
    assert_eq!((server.running(), server.state.admission.running()), (0, 0));
}

/// The engine never has to be waited for, and so cannot be found waiting when the deadline comes.
#[tokio::test]
async fn a_deadline_comes_even_if_the_engine_is_always_ready() {
    let options = Options { deadline: Some(Duration::ZERO), ..Options::default() };
    let server = Server::with(usual(), options, Admission::new(4, 4));
    for stream in [false, true] {
        let reply = ask(&server, json!({"stream": stream})).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (408, &json!("timeout")));
        assert_eq!(reply.headers["x-should-retry"], "false");
    }
    assert_eq!((server.running(), server.state.admission.running()), (0, 0));
}

/// Answers that are too large for the frames between the engine and a client that reads nothing.
fn large(last: Step) -> Vec<Step> {
    let text = "x".repeat(20 << 10);
    let mut steps = vec![started()];
    for _ in 0..60 {
        steps.extend([Step::Wait(Duration::from_millis(10)), said(&text)]);
    }
    steps.push(last);
    steps
}

/// A client that asks for a stream and reads nothing for now.
async fn lazy(server: &Server) -> axum::body::BodyDataStream {
    let response = server.send(post(PATH, &request(json!({"stream": true})))).await;
    assert_eq!((response.status().as_u16(), server.state.admission.running()), (200, 1));
    response.into_body().into_data_stream()
}

async fn rest(mut body: axum::body::BodyDataStream) -> String {
    let mut text = String::new();
    while let Some(frame) = body.next().await {
        text.push_str(std::str::from_utf8(&frame.unwrap()).unwrap());
    }
    text
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_no_place_once_the_engine_is_done() {
    let server = Server::with(large(finished(FinishReason::Stop)), Options::default(), Admission::new(1, 0));
    let body = lazy(&server).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((server.running(), server.state.admission.running()), (0, 0));
    let text = rest(body).await;
    assert_eq!(text.matches(&"x".repeat(20 << 10)).count(), 60, "nothing is lost");
    assert!(text.ends_with("data: [DONE]\n\n"));
    // And the engine's speed is its own: 0.59 s for the five tokens after the first that the script counts.
    let family = server.state.directory.family();
    let speed = family.tiers.iter().find(|tier| tier.name == "base").unwrap().tokens_per_second.unwrap();
    assert!((speed - 5.0 / 0.59).abs() < 0.1, "{speed} tokens a second");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_no_place_beyond_the_deadline() {
    let options = Options {
        deadline: Some(Duration::from_secs(30)),
        stall_timeout: Duration::from_secs(600),
        ..Options::default()
    };
    let server = Server::with(large(Step::Hang), options, Admission::new(1, 0));
    let body = lazy(&server).await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!((server.running(), server.state.admission.running()), (1, 1));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((server.running(), server.state.admission.running()), (0, 0));
    let text = rest(body).await;
    let (_, last) = text.trim_end().rsplit_once("\n\n").unwrap();
    assert!(last.starts_with("data: {\"error\":") && last.contains("\"code\":\"timeout\""), "{last}");
}

/// Steady tokens of which the client sees none.
#[tokio::test(start_paused = true)]
async fn hidden_thoughts_do_not_silence_a_stream() {
    let mut steps = vec![started()];
    for _ in 0..35 {
        steps.extend([Step::Wait(Duration::from_secs(1)), thought("hm")]);
    }
    steps.extend([said("7"), finished(FinishReason::Stop)]);
    let server = Server::new(steps);
    let reply = ask(&server, json!({"stream": true, "include_reasoning": false})).await;
    assert_eq!(reply.text().matches(": keep-alive\n\n").count(), 2, "{}", reply.text());
    assert!(reply.events().1);
}

#[tokio::test]
async fn more_choices_than_places_are_refused_and_name_the_limit() {
    let server = Server::with(usual(), Options::default(), Admission::new(3, 4));
    assert_eq!(ask(&server, json!({"n": 3})).await.status, 200);
    let reply = ask(&server, json!({"n": 4})).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["param"]), (400, &json!("n")));
    assert!(reply.text().contains("from 1 to 3"), "{}", reply.text());
    let prompts = json!({"model": "mini", "prompt": ["a", "b", "c", "d"]});
    let reply = server.post("/v1/completions", &prompts).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["param"]), (400, &json!("prompt")));
}

#[tokio::test]
async fn one_failed_choice_fails_the_others() {
    let server = Server::new(vec![started(), Step::Fail(EngineError::failed("broken"))]);
    assert_eq!(ask(&server, json!({"n": 4})).await.status, 500);
    assert_eq!(server.running(), 0);
}

#[tokio::test]
async fn a_draining_server_takes_nothing_new() {
    let server = Server::new(usual());
    server.state.admission.drain();
    let reply = ask(&server, json!({})).await;
    assert_eq!(reply.status, 503);
    assert!(reply.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn generations_are_counted() {
    let server = Server::new(usual());
    ask(&server, json!({"reasoning_effort": "low", "n": 2})).await;
    let server_metrics = server.metrics();
    assert!(server_metrics.contains("vllm:generation_tokens_total{model_name=\"terse\"} 12"), "{server_metrics}");
    assert!(server_metrics.contains("tier=\"terse\""));
    assert!(!server_metrics.contains("finished_reason=\"abort\""));
    let server = Server::new(vec![started(), finished(FinishReason::Length)]);
    ask(&server, json!({"stream": true})).await;
    assert!(server.metrics().contains("finished_reason=\"length\""), "{}", server.metrics());
}
