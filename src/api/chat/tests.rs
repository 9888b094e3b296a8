//! The endpoint as clients see it: shapes, streams, faults, and who is let go of when.

mod faults;
mod lifecycle;
mod shapes;

use serde_json::{Value, json};

use crate::api::test_support::{Reply, Server};

const PATH: &str = "/v1/chat/completions";

/// A small request with these fields added or replaced.
fn request(fields: Value) -> Value {
    let mut body = json!({"model": "mini", "messages": [{"role": "user", "content": "3+4?"}]});
    if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
        body.extend(fields);
    }
    body
}

async fn ask(server: &Server, fields: Value) -> Reply {
    server.post(PATH, &request(fields)).await
}
