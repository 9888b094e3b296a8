//! What a request asks for reaches the engine, is repeated by the response, or is said to change nothing.

use serde_json::{Value, json};

use super::{ask, body, request, tool};
use crate::api::test_support::{Server, usual, validator};
use crate::engine::{Constraint, Prompt, ToolChoice};

#[tokio::test]
async fn every_field_reaches_the_engine() {
    let server = Server::new(usual());
    let fields = json!({
        "reasoning": {"effort": "LOW"}, "max_output_tokens": 100, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1,
        "seed": 4, "presence_penalty": 1.0, "frequency_penalty": -1.0, "logit_bias": {"3": 2.5}, "ignore_eos": true,
        "stop": ["\n", "END"], "text": {"format": {"type": "json_object"}}, "latency_budget_ms": null,
    });
    let whole = body(&server, fields).await;
    assert_eq!((&whole["brevity"]["tier"], &whole["reasoning"]["effort"]), (&json!("terse"), &json!("low")));
    assert_eq!((&whole["temperature"], &whole["top_p"]), (&json!(0.5), &json!(0.9)));
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
async fn the_dial_has_all_its_values() {
    let server = Server::new(usual());
    for (effort, tier, substituted) in [
        ("none", "terse", false),
        ("minimal", "terse", false),
        ("Low", "terse", false),
        ("medium", "base", false),
        ("HIGH", "terse", true),
        ("xhigh", "base", false),
        ("max", "base", false),
    ] {
        for fields in [json!({"reasoning": {"effort": effort}}), json!({"reasoning_effort": effort})] {
            let whole = body(&server, fields).await;
            assert_eq!(whole["reasoning"]["effort"], effort.to_lowercase());
            let report = &whole["brevity"];
            assert_eq!((&report["tier"], &report["substituted"]), (&json!(tier), &json!(substituted)));
        }
    }
    // Without cards there is nothing to choose by, and the default answers.
    let whole = body(&server, json!({"reasoning": {"effort": "auto"}, "latency_budget_ms": 500})).await;
    assert_eq!((&whole["brevity"]["tier"], &whole["reasoning"]["effort"]), (&json!("base"), &json!("medium")));
    let whole = body(&server, json!({"model": "mini:terse"})).await;
    assert_eq!((&whole["model"], &whole["reasoning"]["effort"]), (&json!("brevity-mini:terse"), &Value::Null));
}

#[tokio::test]
async fn a_response_repeats_what_was_asked_for() {
    let server = Server::new(usual());
    let schema = json!({"type": "object", "properties": {"x": {"type": "integer"}}});
    let format = json!({"type": "json_schema", "name": "n", "description": "d", "schema": schema, "strict": true});
    let fields = json!({
        "instructions": "be brief", "metadata": {"a": "b"}, "max_tool_calls": 3, "parallel_tool_calls": false,
        "tools": [tool(), {"type": "function", "name": "g", "description": "e", "parameters": {"type": "object"}, "strict": true}],
        "tool_choice": {"type": "function", "name": "g"}, "text": {"format": format},
    });
    let whole = body(&server, fields.clone()).await;
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(&whole[name], value);
    }
    let asked = server.engine.asked.lock().unwrap();
    assert_eq!(asked[0].constraint, Constraint::JsonSchema(schema));
    let Prompt::Chat(conversation) = &asked[0].prompt else { panic!("no conversation") };
    let tools = conversation.tools.as_ref().unwrap();
    assert_eq!((&tools.choice, tools.parallel, tools.definitions.len()), (&ToolChoice::Function("g".into()), false, 2));
}

#[tokio::test]
async fn what_changes_nothing_is_told() {
    let server = Server::new(usual());
    let fields = json!({
        "repetition_penalty": 1.1, "store": true, "truncation": "auto", "text": {"verbosity": "low"}, "user": "u",
        "metadata": {"a": "b"}, "service_tier": "auto", "reasoning": {"summary": "auto", "context": "auto", "mode": "pro"},
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"], "prompt_cache_key": "k",
        "stream_options": null, "background": false, "previous_response_id": null, "safety_identifier": "s",
    });
    let reply = ask(&server, fields).await;
    let ignored = "repetition_penalty, store, text.verbosity, reasoning.mode, truncation, \
                   include.reasoning.encrypted_content";
    assert_eq!((reply.status.as_u16(), &reply.headers["x-brevity-ignored"]), (200, &ignored.parse().unwrap()));
    assert_eq!((&reply.json()["store"], &reply.json()["truncation"]), (&json!(false), &json!("disabled")));
    for store in [json!(false), json!(null)] {
        let reply = ask(&server, json!({"store": store})).await;
        assert!(reply.status == 200 && !reply.headers.contains_key("x-brevity-ignored"));
    }
}

/// The subset of the specification rejects what our own types would not: the validators are alive.
#[test]
fn the_validators_tell_good_from_bad() {
    let Some(requests) = validator("CreateResponse") else { return };
    assert!(requests.is_valid(&request(json!({"reasoning": {"effort": "max"}, "tools": [tool()]}))));
    assert!(!requests.is_valid(&request(json!({"reasoning": {"effort": "turbo"}}))));
    let Some(events) = validator("ResponseStreamEvent") else { return };
    let mut delta = json!({"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0,
                           "delta": "a", "logprobs": [], "sequence_number": 4});
    assert!(events.is_valid(&delta));
    delta.as_object_mut().unwrap().remove("sequence_number");
    assert!(!events.is_valid(&delta));
}
