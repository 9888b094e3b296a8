use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ask, request};
use crate::api::admission::Admission;
use crate::api::state::{Options, ReasoningNames};
use crate::api::test_support::{Server, Step, called, finish, finished, said, scored, started, thought, usual, valid};
use crate::engine::{Constraint, Event, FinishReason, Logprobs, Prompt, Thinking};

#[tokio::test]
async fn a_response_has_openais_shape_and_our_report() {
    let server = Server::new(usual());
    let reply = ask(&server, json!({"seed": 9})).await;
    assert_eq!(reply.status, 200);
    let body = reply.json();
    let expected = json!({
        "id": "chatcmpl-00000000000008000000000000001000",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "brevity-mini:base",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "It is 7 🦀", "refusal": null,
                        "reasoning_content": "so 7", "reasoning": "so 7"},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11,
                  "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 3}},
        "system_fingerprint": "fp_1",
        "brevity": {"tier": "base", "alpha": 0.0, "effort": "medium", "substituted": false,
                    "reason": body["brevity"]["reason"], "seed": 9, "forced_close": false},
    });
    assert_eq!(body, expected);
    for (name, value) in [("x-brevity-tier", "base"), ("x-brevity-alpha", "0"), ("x-brevity-effort", "medium")] {
        assert_eq!(reply.headers[name], value);
    }
    assert!(!reply.headers["x-brevity-reason"].is_empty() && !reply.headers.contains_key("x-brevity-ignored"));
    assert_eq!(server.running(), 0);
}

#[tokio::test]
async fn a_stream_is_written_as_it_stands_in_the_golden_file() {
    let server = Server::new(usual());
    let reply = ask(&server, json!({"stream": true, "seed": 9, "stream_options": {"include_usage": true}})).await;
    assert_eq!((reply.status.as_u16(), &reply.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chat-stream.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, reply.text()).unwrap();
    }
    assert_eq!(reply.text(), std::fs::read_to_string(&path).unwrap_or_default());
}

/// What a client puts together from the chunks of one choice.
fn assembled(events: &[Value], index: usize) -> (String, String, Vec<String>) {
    let (mut content, mut thoughts, mut reasons) = (String::new(), String::new(), Vec::new());
    for choice in events.iter().flat_map(|event| event["choices"].as_array().unwrap()).filter(|c| c["index"] == index) {
        content.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        thoughts.push_str(choice["delta"]["reasoning_content"].as_str().unwrap_or_default());
        reasons.extend(choice["finish_reason"].as_str().map(str::to_owned));
    }
    (content, thoughts, reasons)
}

#[tokio::test]
async fn a_stream_says_the_same_as_a_body() {
    let server = Server::new(usual());
    let reply = ask(&server, json!({"stream": true, "n": 2})).await;
    let (events, done) = reply.events();
    assert!(done);
    for event in &events {
        assert_eq!((&event["id"], &event["model"]), (&events[0]["id"], &json!("brevity-mini:base")));
        assert!(event.get("usage").is_none(), "usage was not asked for");
    }
    for index in 0..2 {
        let expected = ("It is 7 🦀".to_owned(), "so 7".to_owned(), vec!["stop".to_owned()]);
        assert_eq!(assembled(&events, index), expected);
        let mut choice = events.iter().filter(|event| event["choices"][0]["index"] == index);
        let first = choice.next().unwrap();
        assert_eq!(first["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        assert!(choice.all(|event| event["choices"][0]["delta"].get("role").is_none()), "the role comes once");
    }
    let told: Vec<bool> = events.iter().map(|event| event.get("brevity").is_some()).collect();
    assert_eq!(told.iter().filter(|told| **told).count(), 2);
    assert!(told[0] && told[told.len() - 1], "the first and the last chunk say who answers");
    assert!(events[0]["brevity"]["forced_close"].is_null());
    assert_eq!(events[told.len() - 1]["brevity"]["forced_close"], false);
    let last = &events[told.len() - 1]["choices"][0];
    assert_eq!((&last["delta"], &last["finish_reason"]), (&json!({}), &json!("stop")));
}

#[tokio::test]
async fn usage_comes_once_when_asked_for() {
    let server = Server::new(usual());
    let reply = ask(&server, json!({"stream": true, "n": 3, "stream_options": {"include_usage": true}})).await;
    let (mut events, done) = reply.events();
    assert!(done);
    let last = events.pop().unwrap();
    assert_eq!(last["choices"], json!([]));
    let usage = &last["usage"];
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"], &usage["total_tokens"]),
        (&json!(5), &json!(18), &json!(23))
    );
    assert!(last.get("brevity").is_some());
    for event in &events {
        assert!(event.get("usage").is_some_and(Value::is_null), "{event}");
    }
}

#[tokio::test]
async fn choices_have_places_and_seeds_of_their_own() {
    let server = Server::new(usual());
    let body = ask(&server, json!({"n": 3, "seed": -1})).await.json();
    let places: Vec<u64> = body["choices"].as_array().unwrap().iter().map(|c| c["index"].as_u64().unwrap()).collect();
    assert_eq!(places, [0, 1, 2]);
    let asked = server.engine.asked.lock().unwrap();
    let mut seeds: Vec<u64> = asked.iter().map(|generation| generation.sampling.seed).collect();
    seeds.sort_unstable();
    assert_eq!(seeds, [0, 1, u64::MAX]);
}

#[tokio::test]
async fn a_seed_that_was_drawn_is_told_and_repeats_the_answer() {
    let server = Server::new(usual());
    let told = ask(&server, json!({})).await.json()["brevity"]["seed"].clone();
    ask(&server, json!({"seed": told})).await;
    let asked = server.engine.asked.lock().unwrap();
    assert_eq!(asked[0].sampling.seed, asked[1].sampling.seed);
}

#[tokio::test]
async fn thoughts_have_the_names_that_were_chosen() {
    for (names, content, other) in [
        (ReasoningNames::Both, true, true),
        (ReasoningNames::ReasoningContent, true, false),
        (ReasoningNames::Reasoning, false, true),
    ] {
        let options = Options { reasoning_names: names, ..Options::default() };
        let server = Server::with(usual(), options, Admission::new(4, 4));
        let message = ask(&server, json!({})).await.json()["choices"][0]["message"].clone();
        let stream = ask(&server, json!({"stream": true})).await;
        assert_eq!(message.get("reasoning_content").is_some(), content);
        assert_eq!(message.get("reasoning").is_some(), other);
        assert_eq!(stream.text().contains("\"reasoning_content\":"), content);
        assert_eq!(stream.text().contains("\"reasoning\":"), other);
    }
}

#[tokio::test]
async fn thoughts_can_be_hidden_and_are_counted_all_the_same() {
    for fields in [json!({"include_reasoning": false}), json!({"reasoning": {"exclude": true}})] {
        let server = Server::new(usual());
        let reply = ask(&server, fields.clone()).await;
        assert!(!reply.text().contains("so 7") && !reply.text().contains("reasoning_content\""));
        assert_eq!(reply.json()["usage"]["completion_tokens_details"]["reasoning_tokens"], 3);
        let mut stream = fields;
        stream["stream"] = json!(true);
        let (events, _) = ask(&server, stream).await.events();
        assert_eq!(assembled(&events, 0), ("It is 7 🦀".into(), String::new(), vec!["stop".into()]));
    }
}

/// Thinking that never closes.
#[tokio::test]
async fn thoughts_that_are_cut_off_never_become_an_answer() {
    let server = Server::new(vec![started(), thought("hmm"), thought(" hmm"), finished(FinishReason::Length)]);
    let body = ask(&server, json!({"max_tokens": 2})).await.json();
    let choice = &body["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(""), &json!("length")));
    assert_eq!(choice["message"]["reasoning_content"], "hmm hmm");
    let (events, _) = ask(&server, json!({"max_tokens": 2, "stream": true})).await.events();
    assert_eq!(assembled(&events, 0), (String::new(), "hmm hmm".into(), vec!["length".into()]));

    let mut closed = finish(FinishReason::Stop);
    closed.forced_close = true;
    let server = Server::new(vec![started(), thought("hmm"), said("7"), Step::Say(Event::Finished(closed))]);
    let body = ask(&server, json!({"max_reasoning_tokens": 1})).await.json();
    assert_eq!(
        (&body["brevity"]["forced_close"], &body["choices"][0]["message"]["content"]),
        (&json!(true), &json!("7"))
    );
    assert_eq!(server.engine.asked.lock().unwrap()[0].thinking, Thinking::Budget(1));
}

#[tokio::test]
async fn calls_come_whole() {
    let steps = vec![started(), called(0), called(1), finished(FinishReason::ToolCalls)];
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let server = Server::new(steps);
    let body = ask(&server, json!({"tools": tools})).await.json();
    let choice = &body["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&Value::Null, &json!("tool_calls")));
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}});
    assert_eq!(choice["message"]["tool_calls"][1], call);
    let (events, _) = ask(&server, json!({"tools": tools, "stream": true})).await.events();
    let deltas: Vec<&Value> =
        events.iter().filter_map(|event| event["choices"][0]["delta"].get("tool_calls")).collect();
    assert_eq!((deltas.len(), &deltas[1][0]["index"], &deltas[1][0]["id"]), (2, &json!(1), &json!("call_1")));
    let asked = server.engine.asked.lock().unwrap();
    let Prompt::Chat(conversation) = &asked[0].prompt else { panic!("no conversation") };
    assert_eq!(conversation.tools.as_ref().unwrap().definitions, *tools.as_array().unwrap());
}

#[tokio::test]
async fn log_probabilities_are_those_of_the_answer() {
    let server = Server::new(vec![started(), scored(true, "th"), scored(false, "an"), finished(FinishReason::Stop)]);
    let fields = json!({"logprobs": true, "top_logprobs": 1});
    let body = ask(&server, fields.clone()).await.json();
    let expected = json!({"content": [{"token": "an", "logprob": -0.5, "bytes": [97, 110],
        "top_logprobs": [{"token": "an", "logprob": -0.5, "bytes": [97, 110]}]}], "refusal": null});
    assert_eq!(body["choices"][0]["logprobs"], expected);
    let mut fields = fields;
    fields["stream"] = json!(true);
    let (events, _) = ask(&server, fields).await.events();
    let scores: Vec<&Value> = events.iter().map(|e| &e["choices"][0]["logprobs"]).filter(|l| !l.is_null()).collect();
    assert_eq!(scores, [&expected]);
    assert_eq!(server.engine.asked.lock().unwrap()[0].logprobs, Some(Logprobs { top: 1 }));
}

#[tokio::test]
async fn every_field_reaches_the_engine() {
    let server = Server::new(usual());
    let fields = json!({
        "reasoning_effort": "LOW", "max_completion_tokens": 100, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1,
        "seed": 4, "presence_penalty": 1.0, "frequency_penalty": -1.0, "logit_bias": {"3": 2.5}, "ignore_eos": true,
        "stop": ["\n", "END"], "response_format": {"type": "json_object"}, "latency_budget_ms": null,
    });
    let body = ask(&server, fields).await.json();
    assert_eq!(body["brevity"]["tier"], "terse");
    let asked = server.engine.asked.lock().unwrap();
    let (asked, sampling) = (&asked[0], &asked[0].sampling);
    assert_eq!(
        (asked.tier.as_str(), asked.max_tokens, &asked.constraint),
        ("terse", Some(100), &Constraint::JsonObject)
    );
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p), (0.5, 0.9, Some(5), 0.1));
    assert_eq!((sampling.seed, sampling.presence_penalty, sampling.frequency_penalty), (4, 1.0, -1.0));
    assert_eq!((sampling.logit_bias[&3], sampling.ignore_eos), (2.5, true));
    assert_eq!(asked.stop, ["\n", "END"]);
}

#[tokio::test]
async fn thinking_is_switched_off_as_in_other_servers() {
    for fields in [
        json!({"chat_template_kwargs": {"enable_thinking": false, "style": "dry"}}),
        json!({"enable_thinking": false}),
        json!({"thinking": {"type": "disabled"}}),
    ] {
        let server = Server::new(usual());
        let reply = ask(&server, fields.clone()).await;
        let ignored = reply.headers.get("x-brevity-ignored").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(ignored.is_some(), fields.to_string().contains("style"), "{ignored:?}");
        assert!(ignored.is_none_or(|told| told == "chat_template_kwargs.style"));
        assert_eq!(reply.json()["brevity"]["effort"], "none", "{fields}");
        assert_eq!(server.engine.asked.lock().unwrap()[0].thinking, Thinking::Closed);
    }
}

#[tokio::test]
async fn what_changes_nothing_is_told() {
    let server = Server::new(usual());
    let fields = json!({
        "repetition_penalty": 1.1, "store": true, "verbosity": "low", "user": "u", "metadata": {"a": "b"},
        "service_tier": "auto", "stream_options": null, "parallel_tool_calls": false,
    });
    let reply = ask(&server, fields).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.headers["x-brevity-ignored"]),
        (200, &"repetition_penalty, store, verbosity".parse().unwrap())
    );
}

#[tokio::test]
async fn what_changes_nothing_is_counted_where_it_is_too_much() {
    let server = Server::new(usual());
    let tools = json!([{"type": "function", "function": {"name": "f", "strict": true}}]);
    let reply = ask(&server, json!({"tools": tools})).await;
    assert_eq!(reply.headers["x-brevity-ignored"], "tools.0.function.strict");
    let fields: serde_json::Map<String, Value> = (0..200).map(|i| (format!("unheard_of_{i:03}"), json!(i))).collect();
    let reply = ask(&server, Value::Object(fields)).await;
    let told = reply.headers["x-brevity-ignored"].to_str().unwrap();
    let (named, more) = told.rsplit_once(" and ").unwrap();
    let named = named.split(", ").count();
    assert_eq!(more, format!("{} more", 200 - named), "{told}");
}

/// An effort whose tier is not loaded.
#[tokio::test]
async fn another_tier_never_answers_in_silence() {
    let server = Server::new(usual());
    let reply = ask(&server, json!({"reasoning_effort": "high"})).await;
    let report = &reply.json()["brevity"];
    assert_eq!((&report["substituted"], &report["effort"]), (&json!(true), &json!("high")));
    assert!(report["reason"].as_str().unwrap().contains("lost"), "{report}");
    assert_eq!(reply.headers["x-brevity-tier"], report["tier"].as_str().unwrap());
    let reply = ask(&server, json!({"model": "mini:lost"})).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn models_tiers_and_health_are_told() {
    let server = Server::new(usual());
    let list = server.get("/v1/models").await.json();
    let ids: Vec<&str> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["brevity-mini", "brevity-mini:terse", "brevity-mini:base"]);
    assert_eq!((&list["data"][1]["alpha"], &list["data"][1]["context_length"]), (&json!(0.4), &json!(1024)));
    let model = server.get("/v1/models/brevity-mini:terse").await.json();
    assert_eq!(model, list["data"][1]);
    assert_eq!(server.get("/v1/models/brevity-mini%3Aterse").await.json(), model);
    assert_eq!(server.get("/v1/models/mini:low").await.json()["tier"], "terse");
    for missing in ["/v1/models/gpt-4", "/v1/models/org/name", "/v1/models/mini:lost"] {
        let reply = server.get(missing).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
    }
    let tiers = server.get("/v1/tiers").await.json();
    assert_eq!((&tiers["default_effort"], &tiers["effort"]["low"]), (&json!("medium"), &json!("terse")));
    let lost = tiers["tiers"].as_array().unwrap().iter().find(|tier| tier["name"] == "lost").unwrap();
    assert_eq!((&lost["loaded"], &lost["problem"]), (&json!(false), &json!("no such folder")));
    assert_eq!(server.get("/health").await.json()["status"], "ok");
    assert!(server.get("/metrics").await.text().contains("brevity_"));
    let document = server.get("/openapi.json").await.json();
    assert!(document["paths"]["/v1/chat/completions"]["post"].is_object());
    let page = server.get("/docs/").await;
    assert!(page.status.is_success() && page.text().contains("swagger"), "{}", page.status);
    let script = server.get("/docs/swagger-initializer.js").await;
    assert!(script.text().contains("\"validatorUrl\": \"none\""), "{}", script.text());
}

#[tokio::test]
async fn readiness_is_asked_of_the_engine_and_remembered() {
    let server = Server::new(usual());
    assert_eq!(server.get("/ready").await.status, 200);
    assert_eq!(server.get("/ready").await.status, 200);
    assert_eq!(server.engine.probes.load(Ordering::SeqCst), 1);
    server.state.admission.drain();
    let reply = server.get("/ready").await;
    assert_eq!(reply.status, 503);
    assert!(reply.headers.contains_key("retry-after"));

    let server = Server::new(usual());
    *server.engine.broken.lock().unwrap() = Some(crate::engine::EngineError::failed("out of memory"));
    let reply = server.get("/ready").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (503, &json!("service_unavailable")));
    assert!(reply.text().contains("out of memory"));
    assert_eq!(server.get("/health").await.status, 200);
}

/// All places are taken, and the probe does not get one.
#[tokio::test(start_paused = true)]
async fn a_busy_engine_is_ready_and_a_silent_one_is_not() {
    let mut steps = vec![started()];
    for _ in 0..100 {
        steps.extend([Step::Wait(Duration::from_secs(2)), thought("hm")]);
    }
    steps.push(Step::Hang);
    let server = Server::new(steps.clone());
    server.engine.full.store(true, Ordering::SeqCst);
    let mut long = Box::pin(ask(&server, json!({})));
    assert!(futures::poll!(&mut long).is_pending());
    tokio::select! {
        _ = &mut long => panic!("it never ends"),
        reply = server.get("/ready") => assert_eq!(reply.status, 200),
    }
    // The engine still holds the request and says nothing more; and another tier's token is not this one's.
    let silent = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        server.get("/ready").await
    };
    tokio::select! {
        _ = &mut long => panic!("it never ends"),
        reply = silent => assert_eq!(reply.status, 503),
    }
    drop(long);
    let server = Server::new(steps);
    server.engine.full.store(true, Ordering::SeqCst);
    let mut terse = Box::pin(ask(&server, json!({"reasoning_effort": "low"})));
    tokio::select! {
        _ = &mut terse => panic!("it never ends"),
        reply = server.get("/ready") => assert_eq!(reply.status, 503),
    }
}

/// The subset of the specification rejects what our own types would not: the validator is alive.
#[test]
fn the_validator_tells_good_from_bad() {
    valid("CreateChatCompletionRequest", &request(json!({})));
    let Some(validator) = crate::api::test_support::validator("CreateChatCompletionRequest") else { return };
    assert!(validator.is_valid(&request(json!({"reasoning_effort": "max"}))));
    assert!(!validator.is_valid(&request(json!({"reasoning_effort": "turbo"}))));
    assert!(!validator.is_valid(&request(json!({"n": 0}))));
}
