//! What the output is made of.

use serde_json::{Value, json};

use super::{PATH, ask, body, stream, tool, types};
use crate::api::test_support::{Server, Step, called, finish, finished, said, scored, started, thought, usual};
use crate::engine::{Event, FinishReason, Logprobs, Prompt, Thinking};

#[tokio::test]
async fn a_response_has_openais_shape_and_our_report() {
    let server = Server::new(usual());
    let reply = ask(&server, json!({"seed": 9})).await;
    let body = reply.json();
    let id = "00000000000008000000000000001000";
    let expected = json!({
        "id": format!("resp_{id}"),
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "completed_at": 1_700_000_000,
        "error": null,
        "incomplete_details": null,
        "model": "brevity-mini:base",
        "output": [
            {"type": "reasoning", "id": format!("rs_{id}00"), "summary": [], "status": "completed",
             "content": [{"type": "reasoning_text", "text": "so 7"}]},
            {"type": "message", "id": format!("msg_{id}01"), "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "It is 7 🦀", "annotations": [], "logprobs": []}]},
        ],
        "instructions": null,
        "max_output_tokens": null,
        "max_tool_calls": null,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_logprobs": 0,
        "reasoning": {"effort": "medium", "summary": null},
        "text": {"format": {"type": "text"}},
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": true,
        "metadata": {},
        "previous_response_id": null,
        "store": false,
        "background": false,
        "truncation": "disabled",
        "service_tier": "default",
        "usage": {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
                  "output_tokens": 6, "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 11},
        "system_fingerprint": "fp_1",
        "brevity": {"tier": "base", "alpha": 0.0, "effort": "medium", "substituted": false,
                    "reason": body["brevity"]["reason"], "seed": 9, "forced_close": false},
    });
    assert_eq!(body, expected);
    for (name, value) in [("x-brevity-tier", "base"), ("x-brevity-alpha", "0"), ("x-brevity-effort", "medium")] {
        assert_eq!(reply.headers[name], value);
    }
    assert!(!reply.headers["x-brevity-reason"].is_empty() && !reply.headers.contains_key("x-brevity-ignored"));
    assert_eq!((server.running(), server.state.admission.running()), (0, 0));
    assert!(server.metrics().contains("vllm:generation_tokens_total{model_name=\"base\"} 6"), "{}", server.metrics());
}

/// The output of one request in the input of the next, as clients without a store do it.
#[tokio::test]
async fn a_conversation_goes_on_by_sending_its_items_back() {
    let steps = vec![started(), thought("hm"), said("look"), called(0), called(1), finished(FinishReason::ToolCalls)];
    let server = Server::new(steps);
    let output = body(&server, json!({"tools": [tool()]})).await["output"].clone();
    let mut input = vec![json!({"role": "user", "content": "3+4?"})];
    input.extend(output.as_array().unwrap().clone());
    for call in ["call_0", "call_1"] {
        input.push(json!({"type": "function_call_output", "call_id": call, "output": "7"}));
    }
    let reply = ask(&server, json!({"instructions": "be brief", "input": input, "tools": [tool()]})).await;
    assert!(!reply.headers.contains_key("x-brevity-ignored"), "{:?}", reply.headers);
    assert_eq!(reply.json()["instructions"], "be brief");
    let asked = server.engine.asked.lock().unwrap();
    let Prompt::Chat(conversation) = &asked[1].prompt else { panic!("no conversation") };
    let turns = &conversation.messages;
    let roles: Vec<&str> = turns.iter().map(|turn| turn.role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "tool"]);
    assert_eq!((turns[2].content.as_str(), turns[2].reasoning_content.as_deref()), ("look", Some("hm")));
    assert_eq!((turns[2].tool_calls.len(), turns[4].tool_call_id.as_deref()), (2, Some("call_1")));
    // Templates get tools in the one form they know.
    let definition = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    assert_eq!(conversation.tools.as_ref().unwrap().definitions, [definition]);
}

#[tokio::test]
async fn calls_are_items_after_the_answer() {
    let call = |index: usize| {
        json!({"type": "function_call", "id": format!("fc_000000000000100000000000000018000{index}"), "status": "completed",
               "call_id": format!("call_{index}"), "name": "f", "arguments": "{\"x\":1}"})
    };
    let server = Server::new(vec![started(), called(0), called(1), finished(FinishReason::ToolCalls)]);
    let whole = body(&server, json!({"tools": [tool()]})).await;
    assert_eq!((&whole["output"], &whole["status"]), (&json!([call(0), call(1)]), &json!("completed")));
    let server = Server::new(vec![started(), said("look"), called(0), finished(FinishReason::ToolCalls)]);
    let whole = body(&server, json!({"tools": [tool()]})).await;
    let kinds: Vec<&Value> = whole["output"].as_array().unwrap().iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["message", "function_call"]);
}

/// Thinking that never closes, an answer that is cut, and a filter.
#[tokio::test]
async fn what_is_cut_off_is_incomplete() {
    for (last, reason, why, kind) in [
        (thought(" hmm"), FinishReason::Length, "max_output_tokens", "reasoning"),
        (said("It"), FinishReason::Length, "max_output_tokens", "message"),
        (said("It"), FinishReason::ContentFilter, "content_filter", "message"),
    ] {
        let server = Server::new(vec![started(), thought("hmm"), last, finished(reason)]);
        let whole = body(&server, json!({"max_output_tokens": 2})).await;
        assert_eq!((&whole["status"], &whole["completed_at"]), (&json!("incomplete"), &Value::Null));
        assert_eq!((&whole["incomplete_details"], &whole["max_output_tokens"]), (&json!({"reason": why}), &json!(2)));
        let item = whole["output"].as_array().unwrap().last().unwrap();
        assert_eq!((&item["type"], &item["status"]), (&json!(kind), &json!("incomplete")));
        assert_eq!(whole["usage"]["output_tokens_details"]["reasoning_tokens"], 3);
        let events = stream(&server, json!({"max_output_tokens": 2})).await;
        assert_eq!(types(&events).last(), Some(&"incomplete"));
        assert_eq!(events.last().unwrap()["response"]["incomplete_details"]["reason"], why);
        assert_eq!(server.engine.asked.lock().unwrap()[0].max_tokens, Some(2));
    }
}

#[tokio::test]
async fn a_turn_without_a_word_is_an_empty_answer() {
    for steps in
        [vec![started(), finished(FinishReason::Stop)], vec![started(), thought("hm"), finished(FinishReason::Stop)]]
    {
        let server = Server::new(steps);
        let whole = body(&server, json!({})).await;
        let last = whole["output"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["type"], &last["content"][0]["text"]), (&json!("message"), &json!("")));
        let events = stream(&server, json!({})).await;
        assert_eq!(
            events.last().unwrap()["response"]["output"].as_array().unwrap().len(),
            whole["output"].as_array().unwrap().len()
        );
    }
}

#[tokio::test]
async fn a_budget_closes_the_thoughts() {
    for fields in [
        json!({"reasoning": {"max_tokens": 1}}),
        json!({"max_reasoning_tokens": 1}),
        json!({"thinking_token_budget": 1}),
        json!({"thinking_budget": 1}),
        json!({"chat_template_kwargs": {"thinking_budget": 1}}),
        json!({"thinking": {"type": "enabled", "budget_tokens": 1}}),
    ] {
        let mut closed = finish(FinishReason::Stop);
        closed.forced_close = true;
        let server = Server::new(vec![started(), thought("hmm"), said("7"), Step::Say(Event::Finished(closed))]);
        let whole = body(&server, fields).await;
        assert_eq!((&whole["status"], &whole["brevity"]["forced_close"]), (&json!("completed"), &json!(true)));
        assert_eq!(whole["output"][1]["content"][0]["text"], "7");
        assert_eq!(server.engine.asked.lock().unwrap()[0].thinking, Thinking::Budget(1));
    }
}

#[tokio::test]
async fn thoughts_can_be_hidden_and_are_counted_all_the_same() {
    for fields in [json!({"include_reasoning": false}), json!({"reasoning": {"exclude": true}})] {
        let server = Server::new(usual());
        let whole = body(&server, fields.clone()).await;
        assert_eq!((whole["output"].as_array().unwrap().len(), &whole["output"][0]["type"]), (1, &json!("message")));
        assert_eq!(whole["usage"]["output_tokens_details"]["reasoning_tokens"], 3);
        let events = stream(&server, fields).await;
        assert!(!types(&events).iter().any(|kind| kind.starts_with("reasoning")), "{:?}", types(&events));
    }
}

#[tokio::test]
async fn log_probabilities_are_those_of_the_answer() {
    let server = Server::new(vec![started(), scored(true, "th"), scored(false, "an"), finished(FinishReason::Stop)]);
    let fields = json!({"include": ["message.output_text.logprobs"], "top_logprobs": 1});
    let whole = body(&server, fields.clone()).await;
    let expected = json!([{"token": "an", "logprob": -0.5, "bytes": [97, 110],
        "top_logprobs": [{"token": "an", "logprob": -0.5, "bytes": [97, 110]}]}]);
    assert_eq!((&whole["output"][1]["content"][0]["logprobs"], &whole["top_logprobs"]), (&expected, &json!(1)));
    let events = stream(&server, fields).await;
    let of = |kind: &str| events.iter().find(|event| event["type"] == kind).unwrap();
    assert_eq!(of("response.output_text.delta")["logprobs"], expected);
    assert_eq!(of("response.output_text.done")["logprobs"], expected);
    assert_eq!(server.engine.asked.lock().unwrap()[0].logprobs, Some(Logprobs { top: 1 }));
    // What a response says of itself can be sent back.
    assert_eq!(body(&server, json!({"top_logprobs": 0})).await["output"][1]["content"][0]["logprobs"], json!([]));
}

#[tokio::test]
async fn nothing_is_stored() {
    let server = Server::new(usual());
    let id = body(&server, json!({})).await["id"].as_str().unwrap().to_owned();
    for method in ["GET", "DELETE"] {
        let request = axum::http::Request::builder().method(method).uri(format!("{PATH}/{id}"));
        let reply = server.reply(request.body(axum::body::Body::empty()).unwrap()).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (404, &json!("not_found")));
        assert!(reply.text().contains("nothing is stored"), "{}", reply.text());
    }
}
