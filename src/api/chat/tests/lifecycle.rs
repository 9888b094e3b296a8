//! Errors on the way, clients that leave, deadlines: what was begun is let go of.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use serde_json::json;

use super::{PATH, ask, request};
use crate::api::admission::Admission;
use crate::api::state::Options;
use crate::api::test_support::{Server, Step, finished, post, said, started, thought, usual, valid};
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
    valid("ErrorResponse", last);
    assert_eq!((last["error"]["message"].as_str(), done), (Some("out of memory"), false));
    assert_eq!(before.last().unwrap()["choices"][0]["delta"]["content"], "7");
    assert_eq!(server.running(), 0);
    // The same without a stream can still be a status.
    let reply = ask(&server, json!({})).await;
    assert_eq!(reply.status, 500);
    valid("ErrorResponse", &reply.json());
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

/// Streaming: the body is dropped after the first frame.
#[tokio::test]
async fn who_leaves_a_stream_frees_its_place() {
    let server = Server::with(hanging(), Options::default(), Admission::new(1, 0));
    let response = server.send(post(PATH, &request(json!({"stream": true, "n": 2})))).await;
    let mut body = response.into_body().into_data_stream();
    assert!(body.next().await.unwrap().is_ok());
    assert_eq!((server.running(), server.state.admission.running()), (2, 1));
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
        valid("ErrorResponse", &reply.json());
    }
    let server = Server::with(hanging(), options, Admission::new(4, 4));
    assert_eq!(ask(&server, json!({})).await.status, 408);
    let (events, done) = ask(&server, json!({"stream": true})).await.events();
    assert_eq!((&events.last().unwrap()["error"]["code"], done), (&json!("timeout"), false));
    assert_eq!((server.running(), server.state.admission.running()), (0, 0));
}

#[tokio::test]
async fn one_failed_choice_fails_the_others() {
    let server = Server::new(vec![started(), Step::Fail(EngineError::failed("broken"))]);
    assert_eq!(ask(&server, json!({"n": 5})).await.status, 500);
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
