//! The endpoint as clients see it.

use serde_json::{Value, json};

use crate::api::test_support::{Reply, Server, Step, finished, said, scored, started};
use crate::engine::{EngineError, FinishReason, Prompt, Thinking};

fn request(fields: Value) -> Value {
    let mut body = json!({"model": "mini", "prompt": "1 + 1 ="});
    if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
        body.extend(fields);
    }
    body
}

async fn ask(server: &Server, fields: Value) -> Reply {
    server.post("/v1/completions", &request(fields)).await
}

fn text() -> Vec<Step> {
    vec![started(), said(" "), said("2"), finished(FinishReason::Length)]
}

#[tokio::test]
async fn a_text_is_continued() {
    let server = Server::new(text());
    let reply = ask(&server, json!({"seed": 9})).await;
    let body = reply.json();
    assert_eq!((&body["object"], &body["model"]), (&json!("text_completion"), &json!("brevity-mini:base")));
    let choice = json!({"index": 0, "text": " 2", "logprobs": null, "finish_reason": "length"});
    assert_eq!(body["choices"], json!([choice]));
    assert_eq!((&body["usage"]["total_tokens"], &body["brevity"]["seed"]), (&json!(11), &json!(9)));
    assert_eq!(reply.headers["x-brevity-tier"], "base");
    let asked = server.engine.asked.lock().unwrap();
    assert_eq!((asked[0].max_tokens, asked[0].thinking), (Some(16), Thinking::Free));
    assert!(matches!(&asked[0].prompt, Prompt::Text(text) if text == "1 + 1 ="));
}

#[tokio::test]
async fn choices_of_several_prompts_are_prompt_major() {
    let server = Server::new(text());
    let body = ask(&server, json!({"prompt": ["a", "b"], "n": 2, "best_of": 2, "echo": true})).await.json();
    let texts: Vec<&str> = body["choices"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["a 2", "a 2", "b 2", "b 2"]);
    assert_eq!((&body["usage"]["prompt_tokens"], &body["usage"]["completion_tokens"]), (&json!(10), &json!(24)));
}

#[tokio::test]
async fn a_stream_says_the_same_as_a_body() {
    let server = Server::new(text());
    let fields = json!({"prompt": ["a", "b"], "echo": true, "stream": true, "stream_options": {"include_usage": true}});
    let (events, done) = ask(&server, fields).await.events();
    assert!(done);
    let (last, before) = events.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["prompt_tokens"]), (&json!([]), &json!(10)));
    for (index, whole) in [(0, "a 2"), (1, "b 2")] {
        let choices = before.iter().map(|event| &event["choices"][0]).filter(|choice| choice["index"] == index);
        let text: String = choices.clone().map(|choice| choice["text"].as_str().unwrap()).collect();
        let reasons: Vec<&str> = choices.filter_map(|choice| choice["finish_reason"].as_str()).collect();
        assert_eq!((text.as_str(), reasons), (whole, vec!["length"]));
    }
    assert!(before.iter().all(|event| event.get("usage").is_some_and(Value::is_null)));
}

#[tokio::test]
async fn log_probabilities_have_the_old_form() {
    let server = Server::new(vec![started(), scored(false, "an"), scored(false, "d"), finished(FinishReason::Stop)]);
    let body = ask(&server, json!({"logprobs": 1})).await.json();
    let expected = json!({"tokens": ["an", "d"], "token_logprobs": [-0.5, -0.5], "text_offset": [0, 2],
        "top_logprobs": [{"an": -0.5}, {"d": -0.5}]});
    assert_eq!(body["choices"][0]["logprobs"], expected);
}

#[tokio::test]
async fn faults_blame_their_field() {
    let server = Server::new(text());
    for (fields, param) in [
        (json!({"prompt": [1, 2]}), "prompt"),
        (json!({"prompt": [[1, 2]]}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": null}), "prompt"),
        (json!({"prompt": vec!["a"; 65], "n": 2}), "prompt"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"n": 0}), "n"),
        (json!({"best_of": 3}), "best_of"),
        (json!({"suffix": "x"}), "suffix"),
        (json!({"logprobs": 6}), "logprobs"),
        (json!({"logprobs": 1, "echo": true}), "echo"),
        (json!({"stop": ""}), "stop"),
        (json!({"temperature": 3}), "temperature"),
        (json!({"stream_options": {}}), "stream_options"),
        (json!({"reasoning_effort": "turbo"}), "reasoning_effort"),
    ] {
        let reply = ask(&server, fields).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["param"]), (400, &json!(param)), "{}", reply.text());
    }
    assert!(server.engine.asked.lock().unwrap().is_empty());
}

/// Too long a prompt is too long a `prompt` here.
#[tokio::test]
async fn refusals_of_the_engine_blame_the_prompt() {
    let server = Server::new(text());
    for (refusal, code) in [
        (
            EngineError::TooLong { tier: "base".into(), prompt: 2000, or_more: false, limit: 1024 },
            "context_length_exceeded",
        ),
        (EngineError::invalid("messages", "too long"), "invalid_value"),
    ] {
        *server.engine.refusal.lock().unwrap() = Some(refusal);
        let error = ask(&server, json!({})).await.json()["error"].clone();
        assert_eq!((&error["param"], &error["code"]), (&json!("prompt"), &json!(code)));
    }
}

#[tokio::test]
async fn an_error_on_the_way_ends_the_stream_without_done() {
    let server = Server::new(vec![started(), said("2"), Step::Fail(EngineError::failed("out of memory"))]);
    let (events, done) = ask(&server, json!({"stream": true})).await.events();
    assert_eq!((&events.last().unwrap()["error"]["message"], done), (&json!("out of memory"), false));
    assert_eq!(ask(&server, json!({})).await.status, 500);
    assert_eq!((server.running(), server.state.admission.running()), (0, 0));
}
