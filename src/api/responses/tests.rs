//! The endpoint as clients see it: bodies, events, faults.

mod bodies;
mod events;
mod faults;
mod settings;

use serde_json::{Value, json};

use crate::api::test_support::{Reply, Server, valid};

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

/// The body of a response, which must be one.
async fn body(server: &Server, fields: Value) -> Value {
    let reply = ask(server, fields).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body = reply.json();
    valid("Response", &body);
    body
}

/// The events of a stream, each named after its type, numbered, and as the specification has it.
fn told(reply: &Reply) -> Vec<Value> {
    let read = |(number, event): (usize, &str)| {
        let (name, data) = event.split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        assert_eq!(data["sequence_number"], number);
        valid("ResponseStreamEvent", &data);
        data
    };
    reply.text().split_terminator("\n\n").enumerate().map(read).collect()
}

async fn stream(server: &Server, mut fields: Value) -> Vec<Value> {
    fields["stream"] = json!(true);
    let reply = ask(server, fields).await;
    assert_eq!((reply.status.as_u16(), &reply.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    told(&reply)
}

/// The types of events, without the `response.` in front of them.
fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().trim_start_matches("response.")).collect()
}

/// A tool `f` that takes an object.
fn tool() -> Value {
    json!({"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": null})
}
