//! The endpoint as clients see it: bodies, events, faults.

mod bodies;
mod events;
mod faults;
mod settings;

use serde_json::{Value, json};

use crate::api::test_support::{Reply, Server};

const PATH: &str = "/v1/responses";

/// A small request with these fields added or replaced.
fn request(fields: Value) -> Value {
    let mut body = json!({"model": "mini", "input": "3+4?"});
    if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
        body.extend(fields);
    }
    body
}

async fn ask(server: &Server, fields: Value) -> Reply {
    server.post(PATH, &request(fields)).await
}

/// The body of a response.
async fn body(server: &Server, fields: Value) -> Value {
    let reply = ask(server, fields).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// The events of a stream, in the order of their numbers.
async fn stream(server: &Server, mut fields: Value) -> Vec<Value> {
    fields["stream"] = json!(true);
    let reply = ask(server, fields).await;
    assert_eq!((reply.status.as_u16(), &reply.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    let (events, done) = reply.events();
    assert!(!done, "the last event says that it is the last");
    assert!(events.iter().enumerate().all(|(number, event)| event["sequence_number"] == number));
    events
}

/// The types of events, without the `response.` in front of them.
fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().trim_start_matches("response.")).collect()
}

/// A tool `f` that takes an object.
fn tool() -> Value {
    json!({"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": null})
}
