//! Faults of clients: each ends in the envelope, with the status and the field that are to blame.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::{PATH, ask, request};
use crate::api::test_support::{MAX_BODY, Reply, Server, finished, said, started, usual};
use crate::engine::{EngineError, FinishReason};

async fn raw(server: &Server, content_type: Option<&str>, body: impl Into<Body>) -> Reply {
    let request = Request::post(PATH);
    let request = match content_type {
        Some(content_type) => request.header("content-type", content_type),
        None => request,
    };
    server.reply(request.body(body.into()).unwrap()).await
}

fn check(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert!(reply.json()["error"].is_object());
}

#[tokio::test]
async fn bodies_that_are_no_object() {
    let server = Server::new(usual());
    let bodies: [&[u8]; 10] = [
        b"",
        b"{",
        b"{\"model\": \"mini\", \"messages\": [{\"ro",
        b"nonsense",
        b"\"text\"",
        b"[]",
        b"7",
        b"null",
        b"{\"model\": \"\xff\xfe\"}",
        b"{\"model\": \"\\ud800\", \"messages\": []}",
    ];
    for body in bodies {
        let reply = raw(&server, Some("application/json"), body.to_vec()).await;
        check(&reply, 400);
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    }
    let bomb = format!("{{\"messages\": {}", "[".repeat(200_000));
    check(&raw(&server, Some("application/json"), bomb).await, 400);
    assert!(server.engine.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn content_types() {
    let server = Server::new(usual());
    let body = request(json!({})).to_string();
    for good in
        [None, Some("application/json"), Some("Application/JSON; charset=utf-8"), Some("application/vnd.api+json")]
    {
        assert_eq!(raw(&server, good, body.clone()).await.status, 200, "{good:?}");
    }
    for wrong in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        check(&raw(&server, Some(wrong), body.clone()).await, 415);
    }
}

/// A body above the limit, as the routes see it behind their layers.
#[tokio::test]
async fn bodies_that_are_too_large() {
    let server = Server::new(usual());
    check(&raw(&server, Some("application/json"), " ".repeat(MAX_BODY + 1)).await, 413);
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist() {
    let server = Server::new(usual());
    check(&server.get("/v1/nothing").await, 404);
    check(&server.get(PATH).await, 405);
    let reply = server.reply(Request::delete("/health").body(Body::empty()).unwrap()).await;
    check(&reply, 405);
}

/// Status, field and code.
#[tokio::test]
async fn values_that_cannot_be_used() {
    let server = Server::new(usual());
    let user = |content: serde_json::Value| json!([{"role": "user", "content": content}]);
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let schema = |schema: serde_json::Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}});
    for (fields, status, param) in [
        (json!({"model": "gpt-4"}), 404, "model"),
        (json!({"model": 3}), 400, "model"),
        (json!({"reasoning_effort": "turbo"}), 400, "reasoning_effort"),
        (json!({"reasoning_effort": 3}), 400, "reasoning_effort"),
        (json!({"reasoning_effort": true}), 400, "reasoning_effort"),
        (json!({"reasoning_effort": "low", "latency_budget_ms": 5}), 400, "latency_budget_ms"),
        (json!({"max_reasoning_tokens": 4, "thinking": {"budget_tokens": 5}}), 400, "thinking.budget_tokens"),
        (
            json!({"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": false}}),
            400,
            "chat_template_kwargs.enable_thinking",
        ),
        (json!({"chat_template_kwargs": {"thinking": "no"}}), 400, "chat_template_kwargs.thinking"),
        (json!({"chat_template_kwargs": "no"}), 400, "chat_template_kwargs"),
        (json!({"messages": []}), 400, "messages"),
        (json!({"messages": [{"content": "x"}]}), 400, "messages[0].role"),
        (json!({"messages": user(json!(null))}), 400, "messages[0].content"),
        (json!({"messages": user(json!(7))}), 400, "messages[0].content"),
        (
            json!({"messages": user(json!([{"type": "image_url", "image_url": {"url": "x"}}]))}),
            400,
            "messages[0].content[0].type",
        ),
        (json!({"max_completion_tokens": 0}), 400, "max_completion_tokens"),
        (json!({"max_tokens": -1}), 400, "max_tokens"),
        (json!({"max_completion_tokens": 5, "max_tokens": 6}), 400, "max_tokens"),
        (json!({"max_completion_tokens": 1e30}), 400, "max_completion_tokens"),
        (json!({"temperature": -1}), 400, "temperature"),
        (json!({"top_p": 2}), 400, "top_p"),
        (json!({"n": 0}), 400, "n"),
        (json!({"n": 129}), 400, "n"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), 400, "stop"),
        (json!({"stop": ""}), 400, "stop"),
        (json!({"top_logprobs": 3}), 400, "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), 400, "top_logprobs"),
        (json!({"logit_bias": {"hello": 1}}), 400, "logit_bias"),
        (json!({"stream_options": {"include_usage": true}}), 400, "stream_options"),
        (schema(json!({"type": "strnig"})), 400, "response_format.json_schema.schema"),
        (schema(json!({"$ref": "#"})), 400, "response_format.json_schema.schema"),
        (schema(json!({"enum": vec!["word"; 100_000]})), 400, "response_format.json_schema.schema"),
        (json!({"tools": [{"type": "function"}]}), 400, "tools[0].function"),
        (
            json!({"tools": tools, "tool_choice": {"type": "function", "function": {"name": "g"}}}),
            400,
            "tool_choice.function.name",
        ),
        (json!({"functions": []}), 400, "functions"),
        (json!({"function_call": "auto"}), 400, "function_call"),
        (json!({"modalities": ["text", "audio"]}), 400, "modalities"),
        (json!({"audio": {"voice": "x"}}), 400, "audio"),
        (json!({"web_search_options": {}}), 400, "web_search_options"),
        (json!({"service_tier": "priority"}), 400, "service_tier"),
        (json!({"verbosity": "loud"}), 400, "verbosity"),
        (json!({"metadata": {"k": "v".repeat(513)}}), 400, "metadata"),
        (json!({"safety_identifier": "x".repeat(65)}), 400, "safety_identifier"),
    ] {
        let reply = ask(&server, fields).await;
        check(&reply, status);
        assert_eq!(reply.json()["error"]["param"], param, "{}", reply.text());
    }
    assert!(server.engine.asked.lock().unwrap().is_empty());
}

/// The other half: much and odd is not wrong.
#[tokio::test]
async fn odd_conversations_are_taken() {
    let server = Server::new(usual());
    let many = vec![json!({"role": "user", "content": "x"}); 10_000];
    assert_eq!(ask(&server, json!({"messages": many})).await.status, 200);
    for messages in [
        json!([{"role": "system", "content": "only"}]),
        json!([{"role": "user", "content": ""}]),
        json!([{"role": "user", "content": "\u{0}\u{7f}🦀"}]),
    ] {
        assert_eq!(ask(&server, json!({"messages": messages})).await.status, 200);
    }
}

/// More tokens than any context has are clamped to it.
#[tokio::test]
async fn limits_beyond_the_context_are_clamped() {
    let server = Server::new(usual());
    assert_eq!(ask(&server, json!({"max_completion_tokens": 1_i64 << 40})).await.status, 200);
    assert_eq!(server.engine.asked.lock().unwrap()[0].max_tokens, Some(1024));
}

/// And what else an engine refuses: a status code, streaming or not.
#[tokio::test]
async fn refusals_of_the_engine_come_before_the_stream() {
    let server = Server::new(usual());
    for (refusal, status, code) in [
        (
            EngineError::TooLong { tier: "base".into(), prompt: 2000, or_more: false, limit: 1024 },
            400,
            Some("context_length_exceeded"),
        ),
        (EngineError::invalid("logit_bias", "no such token"), 400, Some("invalid_value")),
        (
            EngineError::Unavailable { message: "restarting".into(), retry_after: None },
            503,
            Some("service_unavailable"),
        ),
        (EngineError::failed("broken"), 500, Some("internal_error")),
    ] {
        *server.engine.refusal.lock().unwrap() = Some(refusal);
        for stream in [false, true] {
            let reply = ask(&server, json!({"stream": stream, "n": 2})).await;
            check(&reply, status);
            assert_eq!(reply.json()["error"]["code"].as_str(), code);
        }
    }
    assert_eq!(server.running(), 0);
}

/// Characters come whole, and every event is text of its own.
#[tokio::test]
async fn every_chunk_is_whole_text() {
    let steps = vec![started(), said("🦀"), said(""), said("\u{0}\n\r\u{2028}"), finished(FinishReason::Stop)];
    let server = Server::new(steps);
    let reply = ask(&server, json!({"stream": true})).await;
    assert!(reply.text().lines().all(|line| line.is_empty() || line.starts_with("data: ")));
    let (events, done) = reply.events();
    assert!(done);
    let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "🦀\u{0}\n\r\u{2028}");
}
