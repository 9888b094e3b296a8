use serde_json::json;

use super::*;
use crate::engine::{Constraint, Conversation, Logprobs, Sampling, Shared};

fn generation(thinking: Thinking, stop: &[&str]) -> Generation {
    Generation {
        tier: "short".to_owned(),
        prompt: Prompt::Chat(Conversation::default()),
        sampling: Sampling::default(),
        thinking,
        max_tokens: None,
        stop: stop.iter().map(|&stop| stop.to_owned()).collect(),
        logprobs: Some(Logprobs { top: 1 }),
        constraint: Constraint::Free,
        shared: Shared::default(),
    }
}

fn read(reader: &mut Reader, chunks: &[Value]) -> Result<Vec<Event>, EngineError> {
    let mut events = VecDeque::new();
    for chunk in chunks {
        if reader.is_finished() {
            return Ok(events.into());
        }
        reader.push(serde_json::from_value(chunk.clone()).unwrap(), &mut events)?;
    }
    if !reader.is_finished() {
        reader.end(&mut events)?;
    }
    Ok(events.into())
}

fn delta(delta: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn text(content: &str) -> Value {
    delta(json!({"content": content}))
}

fn ending(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

fn usage(prompt: usize, completion: usize) -> Value {
    json!({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0}})
}

fn piece(channel: Channel, text: &str, tokens: usize) -> Event {
    Event::Token(Piece { channel, text: text.to_owned(), tokens, logprobs: Vec::new() })
}

fn finish(events: &[Event]) -> &Finish {
    match events.last() {
        Some(Event::Finished(finish)) => finish,
        other => panic!("{other:?}"),
    }
}

fn said(events: &[Event], wanted: Channel) -> String {
    let pieces = events.iter().filter_map(|event| match event {
        Event::Token(Piece { channel, text, .. }) if *channel == wanted => Some(text.as_str()),
        _ => None,
    });
    pieces.collect()
}

#[test]
fn thoughts_are_read_under_both_names_and_between_marks() {
    let separated = |name: &str| {
        vec![
            delta(json!({"role": "assistant", "content": ""})),
            delta(json!({name: "hm"})),
            text("\n\nyes"),
            ending("stop"),
            usage(5, 3),
        ]
    };
    let inline = vec![text("<think>"), text("hm"), text("</think>"), text("\n\nyes"), ending("stop"), usage(5, 5)];
    for (chunks, reasoning) in [(separated("reasoning_content"), 1), (separated("reasoning"), 1), (inline, 3)] {
        let events = read(&mut Reader::new(&generation(Thinking::Free, &[]), Start::Turn), &chunks).unwrap();
        assert_eq!(events[0], Event::Started { prompt_tokens: 0 });
        assert_eq!(
            (said(&events, Channel::Thinking), said(&events, Channel::Answer)),
            ("hm".to_owned(), "yes".to_owned())
        );
        let finish = finish(&events);
        assert_eq!(
            (finish.reason, finish.usage.prompt_tokens, finish.usage.reasoning_tokens),
            (FinishReason::Stop, 5, reasoning)
        );
        assert!(!finish.forced_close);
    }
}

#[test]
fn running_counts_are_exact_and_details_win() {
    let with = |mut chunk: Value, completion: usize| {
        chunk["usage"] = json!({"prompt_tokens": 9, "completion_tokens": completion});
        chunk
    };
    let mut last = usage(9, 8);
    last["usage"]["completion_tokens_details"] = json!({"reasoning_tokens": 4});
    last["usage"]["prompt_tokens_details"] = json!({"cached_tokens": 6});
    last["system_fingerprint"] = json!("fp_1");
    let chunks = [
        with(delta(json!({"role": "assistant"})), 0),
        with(delta(json!({"reasoning": "two tokens"})), 2),
        with(text("five"), 7),
        with(ending("length"), 8),
        last,
    ];
    let events = read(&mut Reader::new(&generation(Thinking::Free, &[]), Start::Turn), &chunks).unwrap();
    let expected = Finish {
        reason: FinishReason::Length,
        usage: Usage { prompt_tokens: 9, completion_tokens: 8, reasoning_tokens: 4, cached_tokens: 6 },
        forced_close: false,
        stop: None,
        fingerprint: Some("fp_1".to_owned()),
    };
    assert_eq!(
        events,
        [
            Event::Started { prompt_tokens: 9 },
            piece(Channel::Thinking, "two tokens", 2),
            piece(Channel::Answer, "five", 5),
            piece(Channel::Answer, "", 1),
            Event::Finished(expected),
        ]
    );
}

#[test]
fn stops_end_the_answer_and_never_the_thoughts() {
    let chunks = [text("<think>a END b</think>"), text("yes E"), text("ND no"), ending("stop")];
    let mut reader = Reader::new(&generation(Thinking::Free, &["END"]), Start::Turn);
    let events = read(&mut reader, &chunks).unwrap();
    assert!(reader.is_finished());
    assert_eq!(
        (said(&events, Channel::Thinking), said(&events, Channel::Answer)),
        ("a END b".to_owned(), "yes ".to_owned())
    );
    let finish = finish(&events);
    assert_eq!(
        (finish.reason, finish.stop.as_deref(), finish.usage.completion_tokens),
        (FinishReason::Stop, Some("END"), 3)
    );
    // A server that found the stop string itself says which.
    let mut end = ending("stop");
    end["choices"][0]["stop_reason"] = json!("END");
    let events =
        read(&mut Reader::new(&generation(Thinking::Closed, &["END"]), Start::Turn), &[text("yes E"), end]).unwrap();
    assert_eq!(
        (said(&events, Channel::Answer), self::finish(&events).stop.as_deref()),
        ("yes E".to_owned(), Some("END"))
    );
}

#[test]
fn tool_calls_come_whole_and_last() {
    let call = |parts: Value| delta(json!({"tool_calls": [parts]}));
    let chunks = [
        text("calling"),
        call(json!({"index": 0, "id": "a", "type": "function", "function": {"name": "add", "arguments": ""}})),
        call(json!({"index": 0, "function": {"arguments": "{\"x\""}})),
        call(json!({"index": 0, "function": {"arguments": ":1}"}})),
        call(json!({"index": 1, "function": {"name": "sub", "arguments": "{}"}})),
        ending("tool_calls"),
    ];
    let events = read(&mut Reader::new(&generation(Thinking::Free, &[]), Start::Turn), &chunks).unwrap();
    let calls: Vec<&Event> = events.iter().filter(|event| matches!(event, Event::ToolCall(_))).collect();
    let call = |index, id: &str, name: &str, arguments: &str| {
        Event::ToolCall(ToolCall { index, id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() })
    };
    assert_eq!(calls, [&call(0, "a", "add", "{\"x\":1}"), &call(1, "call_1", "sub", "{}")]);
    assert_eq!(finish(&events).reason, FinishReason::ToolCalls);
    let nameless = [delta(json!({"tool_calls": [{"index": 0, "id": "a"}]})), ending("tool_calls")];
    assert!(read(&mut Reader::new(&generation(Thinking::Free, &[]), Start::Turn), &nameless).is_err());
}

#[test]
fn log_probabilities_of_both_endpoints() {
    let mut chat = text("ab");
    chat["choices"][0]["logprobs"] = json!({"content": [
        {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}]},
        {"token": "b", "logprob": -0.25, "bytes": null, "top_logprobs": []},
    ]});
    let completion = json!({"choices": [{"index": 0, "text": "ab", "finish_reason": null, "logprobs": {
        "tokens": ["a", "b"], "token_logprobs": [-0.5, -0.25], "text_offset": [0, 1],
        "top_logprobs": [{"c": -2.0, "a": -0.5}, null],
    }}]});
    for (chunk, tops) in [(chat, 1), (completion, 2)] {
        let events =
            read(&mut Reader::new(&generation(Thinking::Free, &[]), Start::Answer), &[chunk, ending("stop")]).unwrap();
        let Event::Token(Piece { tokens: 2, logprobs, .. }) = &events[1] else { panic!("{events:?}") };
        let pairs: Vec<(&str, f32)> = logprobs.iter().map(|entry| (entry.token.as_str(), entry.logprob)).collect();
        assert_eq!(pairs, [("a", -0.5), ("b", -0.25)]);
        assert_eq!((logprobs[0].top.len(), logprobs[0].top[0].token.as_str()), (tops, "a"));
        assert_eq!(logprobs[1].bytes, b"b");
    }
}

#[test]
fn promises_about_thoughts_are_checked() {
    let thoughts = |count: usize| -> Vec<Value> {
        let thought = std::iter::repeat_n(delta(json!({"reasoning": "hm "})), count);
        thought.chain([text("yes"), ending("stop")]).collect()
    };
    let run = |thinking, count| read(&mut Reader::new(&generation(thinking, &[]), Start::Turn), &thoughts(count));
    let error = run(Thinking::Closed, 1).unwrap_err();
    assert!(matches!(&error, EngineError::Failed { upstream: true, .. }), "{error:?}");
    assert!(!finish(&run(Thinking::Budget(5), 4).unwrap()).forced_close);
    assert!(finish(&run(Thinking::Budget(5), 6).unwrap()).forced_close);
    assert!(run(Thinking::Budget(5), 5 + SLACK).is_ok());
    let error = run(Thinking::Budget(5), 6 + SLACK).unwrap_err().to_string();
    assert!(error.contains("beyond its budget of 5 tokens"), "{error}");
    let blank = [delta(json!({"reasoning": "\n\n"})), text("yes"), ending("stop")];
    assert!(read(&mut Reader::new(&generation(Thinking::Closed, &[]), Start::Turn), &blank).is_ok());
}

#[test]
fn an_answer_that_did_not_end_is_an_error() {
    let run = |chunks: &[Value]| read(&mut Reader::new(&generation(Thinking::Free, &[]), Start::Turn), chunks);
    assert!(run(&[text("yes")]).unwrap_err().to_string().contains("in the middle of an answer"));
    assert!(run(&[text("yes"), ending("abort")]).unwrap_err().to_string().contains("gave up the answer with `abort`"));
    assert_eq!(finish(&run(&[ending("content_filter")]).unwrap()).reason, FinishReason::ContentFilter);
}

#[test]
fn error_events_come_in_many_shapes() {
    for (chunk, message) in [
        (json!({"error": {"message": "boom", "type": "server_error"}}), Some("boom")),
        (json!({"error": "boom"}), Some("boom")),
        (json!({"error": {"code": 5}}), Some("")),
        (json!({"object": "error", "message": "boom"}), Some("boom")),
        (json!({"error": null, "choices": []}), None),
        (json!({"object": "chat.completion.chunk", "choices": []}), None),
    ] {
        let chunk: Chunk = serde_json::from_value(chunk).unwrap();
        assert_eq!(error_of(&chunk).as_deref(), message);
    }
}

#[test]
fn a_count_that_comes_with_the_end_is_of_all_that_was_said() {
    let mut end = ending("stop");
    end["usage"] = usage(7, 3)["usage"].clone();
    let mut reader = Reader::new(&generation(Thinking::Free, &[]), Start::Turn);
    let events = read(&mut reader, &[text("a"), text(" b"), text(" c"), end]).unwrap();
    let pieces: usize = events
        .iter()
        .map(|event| match event {
            Event::Token(piece) => piece.tokens,
            _ => 0,
        })
        .sum();
    assert_eq!((pieces, finish(&events).usage.completion_tokens, finish(&events).usage.prompt_tokens), (3, 3, 7));
}

#[test]
fn a_server_that_overlooks_the_limit_is_held_to_it() {
    let mut limited = generation(Thinking::Free, &[]);
    limited.max_tokens = Some(2);
    let chunks = [text("a"), text("b"), text("c"), text("d"), ending("stop")];
    let events = read(&mut Reader::new(&limited, Start::Turn), &chunks).unwrap();
    assert_eq!((finish(&events).reason, said(&events, Channel::Answer).as_str()), (FinishReason::Length, "abc"));
    let within = [text("a"), text("b"), ending("length"), usage(5, 2)];
    let events = read(&mut Reader::new(&limited, Start::Turn), &within).unwrap();
    assert_eq!((finish(&events).reason, finish(&events).usage.prompt_tokens), (FinishReason::Length, 5));
}
