//! A server that behaves as the effort says, and remembers what it was asked.

use std::convert::Infallible;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Response, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use serde_json::{Value, json};

/// What a request asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The last message.
    pub prompt: String,
    /// `reasoning_effort`.
    pub effort: String,
    /// `seed`.
    pub seed: u64,
}

struct Memory {
    requests: Mutex<Vec<Asked>>,
    changed: Condvar,
    /// Of a server that refuses all but one at a time.
    places: tokio::sync::Semaphore,
}

/// The server; it ends with the process, or when it is dropped.
pub struct Fake {
    url: String,
    memory: Arc<Memory>,
    _runtime: tokio::runtime::Runtime,
}

impl Fake {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let places = tokio::sync::Semaphore::new(1);
        let memory = Arc::new(Memory { requests: Mutex::default(), changed: Condvar::new(), places });
        let app = Router::new()
            .route("/v1/models", get(|| async { Json(json!({ "object": "list", "data": [{ "id": "fake-model" }] })) }))
            .route("/v1/chat/completions", post(complete))
            .with_state(memory.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { url, memory, _runtime: runtime }
    }

    /// Where its API begins.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Asked> {
        self.memory.requests.lock().unwrap().clone()
    }

    /// Waits until the requests so far are as they should be; a minute at most.
    pub fn wait_for(&self, holds: impl Fn(&[Asked]) -> bool) {
        let requests = self.memory.requests.lock().unwrap();
        let waited = self.memory.changed.wait_timeout_while(requests, Duration::from_secs(60), |seen| !holds(seen));
        assert!(!waited.unwrap().1.timed_out(), "the requests that were waited for never came");
    }
}

async fn complete(State(memory): State<Arc<Memory>>, Json(body): Json<Value>) -> Response<Body> {
    let asked = Asked {
        prompt: body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned(),
        effort: body["reasoning_effort"].as_str().unwrap_or("low").to_owned(),
        seed: body["seed"].as_u64().unwrap(),
    };
    let effort = asked.effort.clone();
    memory.requests.lock().unwrap().push(asked);
    memory.changed.notify_all();
    match effort.as_str() {
        "high" => stream(good(12)),
        // Two at a time are too many.
        "full" => match memory.places.try_acquire() {
            Ok(_place) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                stream(good(3))
            }
            Err(_) => json_response(
                StatusCode::SERVICE_UNAVAILABLE,
                json!({ "error": { "message": "one at a time", "type": "server_error", "param": null, "code": null } }),
            ),
        },
        "status" => json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            json!({ "error": { "message": "the server is full", "type": "server_error", "param": null, "code": null } }),
        ),
        "error-event" => {
            stream([&good(3)[..2], &[event(&json!({ "error": { "message": "out of memory" } }))]].concat())
        }
        "truncated" => stream(good(3)[..3].to_vec()),
        "garbage" => stream(vec!["data: {\"choices\": [\n\n".to_owned()]),
        "cut" => {
            let parts = good(3).into_iter().take(2).map(|part| Ok(Bytes::from(part)));
            let broken = futures::stream::once(async { Err(std::io::Error::other("cable")) });
            response(Body::from_stream(futures::stream::iter(parts).chain(broken)))
        }
        "hanging" => {
            std::future::pending::<()>().await;
            unreachable!()
        }
        "silent" => {
            let parts = good(3).into_iter().take(2).map(|part| Ok::<_, Infallible>(Bytes::from(part)));
            response(Body::from_stream(futures::stream::iter(parts).chain(futures::stream::pending())))
        }
        "unusual" if body["stream"] == true => stream(unusual()),
        _ if body["stream"] == true => stream(good(3)),
        _ => json_response(
            StatusCode::OK,
            json!({
                "object": "chat.completion", "model": "fake-model",
                "choices": [{ "index": 0, "message": { "role": "assistant", "content": "\\boxed{7}", "reasoning": "hm" },
                    "finish_reason": "stop", "logprobs": null }],
                "usage": usage(3)
            }),
        ),
    }
}

fn usage(thoughts: u64) -> Value {
    json!({ "prompt_tokens": 9, "completion_tokens": thoughts + 2, "total_tokens": thoughts + 11,
        "completion_tokens_details": { "reasoning_tokens": thoughts } })
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn chunk(delta: Value, finish: Value) -> String {
    event(&json!({ "id": "c", "object": "chat.completion.chunk", "model": "fake-model", "usage": null,
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] }))
}

/// A stream as it should be, with so many thoughts, under both of their names.
fn good(thoughts: u64) -> Vec<String> {
    let mut events = vec![chunk(json!({ "role": "assistant", "content": null }), Value::Null)];
    events.extend((0..thoughts).map(|_| chunk(json!({ "reasoning_content": "hm ", "reasoning": "hm " }), Value::Null)));
    events.push(chunk(json!({ "content": "\\boxed{7}" }), Value::Null));
    events.push(chunk(json!({}), json!("stop")));
    events.push(event(&json!({ "object": "chat.completion.chunk", "choices": [], "usage": usage(thoughts) })));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

/// A stream that is right in its own way.
fn unusual() -> Vec<String> {
    let thought = json!({ "choices": [{ "delta": { "reasoning": "hm " } }] });
    let answer = json!({ "choices": [{ "delta": { "content": "\\boxed{7}" }, "finish_reason": "stop" }] });
    let mut text = ": keep-alive\r\n\r\n".to_owned();
    for data in [&thought, &thought, &thought, &answer] {
        text.push_str(&format!("event: chunk\r\ndata:{data}\r\n\r\n"));
    }
    // It closes without `[DONE]`, as some servers do. Cut where no event ends.
    text.as_bytes().chunks(7).map(|part| String::from_utf8(part.to_vec()).unwrap()).collect()
}

fn stream(parts: Vec<String>) -> Response<Body> {
    response(Body::from_stream(futures::stream::iter(parts.into_iter().map(Ok::<_, Infallible>))))
}

fn response(body: Body) -> Response<Body> {
    Response::builder().header(header::CONTENT_TYPE, "text/event-stream").body(body).unwrap()
}

fn json_response(status: StatusCode, body: Value) -> Response<Body> {
    let builder = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    builder.body(Body::from(body.to_string())).unwrap()
}
