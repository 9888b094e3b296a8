//! Faults of clients: each ends in the envelope, with the status and the field that are to blame.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::{PATH, ask, request, tool};
use crate::api::test_support::{Reply, Server, usual};
use crate::engine::EngineError;

fn check(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert!(reply.json()["error"].is_object());
}

/// Status and field.
#[tokio::test]
async fn values_that_cannot_be_used() {
    let server = Server::new(usual());
    let format = |format: serde_json::Value| json!({"text": {"format": format}});
    let schema = |schema: serde_json::Value| format(json!({"type": "json_schema", "name": "n", "schema": schema}));
    let choice = |choice: serde_json::Value| json!({"tools": [tool()], "tool_choice": choice});
    for (fields, status, param) in [
        (json!({"model": "gpt-4"}), 404, "model"),
        (json!({"model": 3}), 400, "model"),
        (json!({"input": null}), 400, "input"),
        (json!({"input": []}), 400, "input"),
        (json!({"input": 7}), 400, "input"),
        (json!({"input": [{"role": "robot", "content": "x"}]}), 400, "input[0].role"),
        (json!({"input": [{"role": "user", "content": 7}]}), 400, "input[0].content"),
        (json!({"input": [{"type": "item_reference", "id": "msg_1"}]}), 400, "input[0].type"),
        (json!({"input": [{"type": "function_call_output", "output": "x"}]}), 400, "input[0].call_id"),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}),
            400,
            "input[0].content[0].type",
        ),
        (json!({"instructions": ["x"]}), 400, "instructions"),
        (json!({"previous_response_id": "resp_1"}), 400, "previous_response_id"),
        (json!({"conversation": "conv_1"}), 400, "conversation"),
        (json!({"conversation": {"id": "conv_1"}}), 400, "conversation"),
        (json!({"prompt": {"id": "pmpt_1"}}), 400, "prompt"),
        (json!({"background": true}), 400, "background"),
        (json!({"context_management": [{"type": "compaction"}]}), 400, "context_management"),
        (json!({"reasoning": {"effort": "turbo"}}), 400, "reasoning.effort"),
        (json!({"reasoning": {"effort": 3}}), 400, "reasoning.effort"),
        (json!({"reasoning_effort": "turbo"}), 400, "reasoning_effort"),
        (json!({"reasoning": {"effort": "low"}, "reasoning_effort": "high"}), 400, "reasoning.effort"),
        (json!({"model": "mini:low", "reasoning": {"effort": "high"}}), 400, "reasoning.effort"),
        (json!({"reasoning": {"effort": "low"}, "latency_budget_ms": 5}), 400, "latency_budget_ms"),
        (json!({"reasoning": {"max_tokens": -1}}), 400, "reasoning.max_tokens"),
        (json!({"reasoning": {"max_tokens": 4}, "thinking": {"budget_tokens": 5}}), 400, "thinking.budget_tokens"),
        (json!({"reasoning": {"summary": "long"}}), 400, "reasoning.summary"),
        (json!({"reasoning": {"generate_summary": "long"}}), 400, "reasoning.generate_summary"),
        (json!({"reasoning": {"context": "none"}}), 400, "reasoning.context"),
        (json!({"max_output_tokens": 0}), 400, "max_output_tokens"),
        (json!({"max_output_tokens": 1e30}), 400, "max_output_tokens"),
        (json!({"temperature": -1}), 400, "temperature"),
        (json!({"top_p": 2}), 400, "top_p"),
        (json!({"stop": ""}), 400, "stop"),
        (json!({"top_logprobs": 3}), 400, "top_logprobs"),
        (json!({"include": ["message.output_text.logprobs"], "top_logprobs": 21}), 400, "top_logprobs"),
        (json!({"include": ["message.output_text.logprobs", "everything"]}), 400, "include[1]"),
        (json!({"stream_options": {"include_obfuscation": true}}), 400, "stream_options"),
        (format(json!({"type": "xml"})), 400, "text.format.type"),
        (format(json!({"type": "text", "schema": {}})), 400, "text.format"),
        (format(json!({"type": "json_schema", "name": "n"})), 400, "text.format.schema"),
        (format(json!({"type": "json_schema", "schema": {}})), 400, "text.format.name"),
        (format(json!({"type": "json_schema", "name": "a b", "schema": {}})), 400, "text.format.name"),
        (schema(json!({"type": "strnig"})), 400, "text.format.schema"),
        (schema(json!({"$ref": "#"})), 400, "text.format.schema"),
        (json!({"text": {"verbosity": "loud"}}), 400, "text.verbosity"),
        (json!({"tools": [{"type": "web_search"}]}), 400, "tools[0].type"),
        (json!({"tools": [tool(), {"type": "mcp", "server_label": "x"}]}), 400, "tools[1].type"),
        (json!({"tools": [{"type": "function"}]}), 400, "tools[0].name"),
        (json!({"tools": [tool(), tool()]}), 400, "tools[1].name"),
        (json!({"tools": [{"type": "function", "name": "f", "parameters": {"type": 3}}]}), 400, "tools[0].parameters"),
        (json!({"tool_choice": "required"}), 400, "tool_choice"),
        (choice(json!("sometimes")), 400, "tool_choice"),
        (choice(json!({"type": "web_search"})), 400, "tool_choice"),
        (choice(json!({"type": "function", "name": "g"})), 400, "tool_choice.name"),
        (choice(json!({"type": "function", "function": {"name": "f"}})), 400, "tool_choice.name"),
        (choice(json!({"type": "allowed_tools", "mode": "auto", "tools": []})), 400, "tool_choice.tools"),
        (json!({"service_tier": "priority"}), 400, "service_tier"),
        (json!({"truncation": "some"}), 400, "truncation"),
        (json!({"metadata": {"k": "v".repeat(513)}}), 400, "metadata"),
        (json!({"safety_identifier": "x".repeat(65)}), 400, "safety_identifier"),
    ] {
        let reply = ask(&server, fields).await;
        check(&reply, status);
        assert_eq!(reply.json()["error"]["param"], param, "{}", reply.text());
    }
    assert!(server.engine.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_unknown_effort_is_answered_with_those_that_are_known() {
    let server = Server::new(usual());
    let reply = ask(&server, json!({"reasoning": {"effort": "turbo"}})).await;
    let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("`none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`, `auto`"), "{message}");
}

#[tokio::test]
async fn bodies_and_methods_that_cannot_be_read() {
    let server = Server::new(usual());
    for body in ["", "{", "[]", "null", "{\"model\": \"mini\"}", "{\"input\": \"x\"}"] {
        let request = Request::post(PATH).header("content-type", "application/json");
        check(&server.reply(request.body(Body::from(body)).unwrap()).await, 400);
    }
    let text = Request::post(PATH).header("content-type", "text/plain");
    check(&server.reply(text.body(Body::from(request(json!({})).to_string())).unwrap()).await, 415);
    check(&server.get(PATH).await, 405);
}

/// What an engine refuses is a status code before any event, and in the words of this endpoint.
#[tokio::test]
async fn refusals_of_the_engine_blame_the_field_that_was_sent() {
    let server = Server::new(usual());
    let invalid = |param, message: &str| EngineError::invalid(param, message);
    for (refusal, status, param) in [
        (EngineError::TooLong { tier: "base".into(), prompt: 2000, or_more: false, limit: 1024 }, 400, Some("input")),
        (invalid("response_format", "the schema in `response_format` is too large"), 400, Some("text.format")),
        (invalid("max_reasoning_tokens", "no budget"), 400, Some("max_reasoning_tokens")),
        (EngineError::Unavailable { message: "restarting".into(), retry_after: None }, 503, None),
        (EngineError::failed("broken"), 500, None),
    ] {
        *server.engine.refusal.lock().unwrap() = Some(refusal);
        for stream in [false, true] {
            let reply = ask(&server, json!({"stream": stream})).await;
            check(&reply, status);
            assert_eq!(reply.json()["error"]["param"].as_str(), param);
            assert!(!reply.text().contains("response_format"), "{}", reply.text());
        }
    }
    assert_eq!(server.running(), 0);
}
