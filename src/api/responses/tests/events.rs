//! Streams: order, numbers, ends of every kind.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};

use super::{PATH, ask, body, request, stream, tool, types};
use crate::api::admission::Admission;
use crate::api::state::Options;
use crate::api::test_support::{Server, Step, called, finished, post, said, started, thought, usual};
use crate::engine::{EngineError, FinishReason};

#[tokio::test]
async fn a_stream_is_written_as_it_stands_in_the_golden_file() {
    let server = Server::new(usual());
    let reply = ask(&server, json!({"stream": true, "seed": 9})).await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/responses-stream.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, reply.text()).unwrap();
    }
    assert_eq!(reply.text(), std::fs::read_to_string(&path).unwrap_or_default());
}

#[tokio::test]
async fn events_come_in_openais_order() {
    let steps = vec![started(), thought("so"), thought(" 7"), said("7"), called(0), finished(FinishReason::ToolCalls)];
    let server = Server::new(steps);
    let events = stream(&server, json!({"tools": [tool()]})).await;
    let expected = [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ];
    assert_eq!(types(&events), expected);
    let places: Vec<u64> = events.iter().filter_map(|event| event["output_index"].as_u64()).collect();
    assert_eq!(places, [[0; 7].as_slice(), &[1; 6], &[2; 4]].concat());
    assert_eq!((&events[17]["name"], &events[17]["arguments"]), (&json!("f"), &json!("{\"x\":1}")));
    assert_eq!((&events[15]["item"]["arguments"], &events[15]["item"]["status"]), (&json!(""), &json!("in_progress")));
}

#[tokio::test]
async fn thoughts_come_as_a_summary_where_one_is_asked_for() {
    let server = Server::new(vec![started(), thought("so 7"), said("7"), finished(FinishReason::Stop)]);
    for name in ["summary", "generate_summary"] {
        let events = stream(&server, json!({"reasoning": {name: "auto"}})).await;
        let expected = [
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
        ];
        assert_eq!(types(&events)[2..8], expected);
        assert!(events[3..7].iter().all(|event| event["summary_index"] == 0 && event["output_index"] == 0));
        let response = &events.last().unwrap()["response"];
        let summary = json!([{"type": "summary_text", "text": "so 7"}]);
        assert_eq!((&response["output"][0]["summary"], &response["output"][0]["content"]), (&summary, &json!([])));
        assert_eq!(response["reasoning"]["summary"], "auto");
    }
}

/// What a client puts together from the deltas is what the response says at its end, and what a body says.
#[tokio::test]
async fn a_stream_says_the_same_as_a_body() {
    let server = Server::new(usual());
    let fields = json!({"seed": 9, "metadata": {"a": "b"}});
    let events = stream(&server, fields.clone()).await;
    let mut texts = [String::new(), String::new()];
    let (mut begun, mut done) = (Vec::new(), Vec::new());
    for event in &events {
        if let Some(delta) = event["delta"].as_str() {
            let index = usize::try_from(event["output_index"].as_u64().unwrap()).unwrap();
            texts[index].push_str(delta);
            assert_eq!(event["item_id"], begun[index]);
        }
        match event["type"].as_str().unwrap() {
            "response.created" | "response.in_progress" => {
                let response = &event["response"];
                assert_eq!((&response["status"], &response["output"]), (&json!("in_progress"), &json!([])));
                assert!(response.get("usage").is_none() && response["brevity"]["forced_close"].is_null());
            }
            "response.output_item.added" => begun.push(event["item"]["id"].clone()),
            "response.output_item.done" => done.push(event["item"].clone()),
            _ => {}
        }
    }
    assert_eq!(texts, ["so 7", "It is 7 🦀"]);
    let last = &events.last().unwrap()["response"];
    assert_eq!(last["output"], json!(done));
    let mut whole = body(&server, fields).await;
    // Another request has another id.
    let id = |value: &Value| value["id"].as_str().unwrap().trim_start_matches("resp_").to_owned();
    whole = serde_json::from_str(&whole.to_string().replace(&id(&whole), &id(last))).unwrap();
    assert_eq!(whole, *last);
}

#[tokio::test]
async fn an_error_on_the_way_ends_the_stream_as_failed() {
    let server = Server::new(vec![started(), said("7"), Step::Fail(EngineError::failed("out of memory"))]);
    let events = stream(&server, json!({})).await;
    let [.., error, failed] = events.as_slice() else { panic!("too few events") };
    assert_eq!(types(&events)[5..], ["error", "failed"]);
    assert_eq!((&error["code"], &error["message"]), (&json!("internal_error"), &json!("out of memory")));
    let response = &failed["response"];
    assert_eq!(response["status"], "failed");
    assert_eq!(response["error"], json!({"code": "server_error", "message": "out of memory"}));
    assert_eq!((&response["output"][0]["status"], response.get("usage")), (&json!("incomplete"), None));
    assert_eq!(response["output"][0]["content"][0]["text"], "7");
    assert_eq!((server.running(), server.state.admission.running()), (0, 0));
    assert_eq!(ask(&server, json!({})).await.status, 500);
    assert!(server.metrics().contains("brevity_request_failures_total{"), "{}", server.metrics());
}

/// A bug in the engine is told in the same way.
#[tokio::test]
async fn a_panic_and_a_missing_end_are_failures() {
    for last in [vec![Step::Panic], vec![]] {
        let server = Server::new([vec![started(), thought("so")], last].concat());
        let events = stream(&server, json!({})).await;
        assert_eq!(types(&events).last(), Some(&"failed"));
        assert_eq!(events.last().unwrap()["response"]["error"]["code"], "server_error");
        assert_eq!(ask(&server, json!({})).await.status, 500);
        assert_eq!((server.running(), server.state.admission.running()), (0, 0));
    }
}

#[tokio::test]
async fn a_deadline_is_a_status_before_the_first_event_and_a_failure_after_it() {
    let options = Options { deadline: Some(Duration::from_millis(20)), ..Options::default() };
    let server = Server::with(vec![Step::Hang], options.clone(), Admission::new(4, 4));
    assert_eq!(ask(&server, json!({"stream": true})).await.status, 408);
    let server = Server::with(vec![started(), said("7"), Step::Hang], options, Admission::new(4, 4));
    let events = stream(&server, json!({})).await;
    let [.., error, failed] = events.as_slice() else { panic!("too few events") };
    assert_eq!((&error["code"], &failed["response"]["error"]["code"]), (&json!("timeout"), &json!("server_error")));
    assert_eq!((server.running(), server.state.admission.running()), (0, 0));
}

#[tokio::test]
async fn who_leaves_a_stream_frees_its_place() {
    let server = Server::with(vec![started(), said("7"), Step::Hang], Options::default(), Admission::new(1, 0));
    let response = server.send(post(PATH, &request(json!({"stream": true})))).await;
    let mut body = response.into_body().into_data_stream();
    assert!(body.next().await.unwrap().is_ok());
    assert_eq!((server.running(), server.state.admission.running()), (1, 1));
    assert_eq!(ask(&server, json!({})).await.status, 429);
    drop(body);
    while server.state.admission.running() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.running(), 0);
}
