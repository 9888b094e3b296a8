use serde_json::json;

use crate::api::test_support::{Server, usual};

#[tokio::test]
async fn first() {
    let server = Server::new(usual());
    let body = json!({"model": "mini", "messages": [{"role": "user", "content": "3+4?"}]});
    let reply = server.post("/v1/chat/completions", &body).await;
    println!("{} {:?}\n{}", reply.status, reply.headers, reply.text());
    let body = json!({"model": "mini", "stream": true, "messages": [{"role": "user", "content": "3+4?"}]});
    let reply = server.post("/v1/chat/completions", &body).await;
    println!("{} {:?}\n{}", reply.status, reply.headers, reply.text());
}
