use super::*;
use crate::engine::Logprobs;
use crate::engine::Shared;

fn settings(dialect: Dialect) -> Upstream {
    Upstream { url: "http://host/v1".to_owned(), model: "org/short".to_owned(), dialect, ..Upstream::default() }
}

fn generation(prompt: Prompt) -> Generation {
    Generation {
        tier: "short".to_owned(),
        prompt,
        sampling: Sampling { seed: 7, ..Sampling::default() },
        thinking: Thinking::Free,
        max_tokens: None,
        stop: Vec::new(),
        logprobs: None,
        constraint: Constraint::Free,
        shared: Shared::default(),
    }
}

fn user(text: &str) -> Message {
    Message { role: "user".to_owned(), content: text.to_owned(), ..Message::default() }
}

fn hello() -> Prompt {
    Prompt::Chat(Conversation { messages: vec![user("hello")], tools: None })
}

#[test]
fn vllm_is_told_every_value() {
    let request = request(&settings(Dialect::Vllm), &generation(hello())).unwrap();
    assert_eq!((request.path, request.start), ("chat/completions", Start::Turn));
    assert_eq!(
        request.body,
        json!({
            "model": "org/short", "messages": [{"role": "user", "content": "hello"}],
            "stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true},
            "seed": 7, "temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0,
            "presence_penalty": 0.0, "frequency_penalty": 0.0,
            "chat_template_kwargs": {"enable_thinking": true, "thinking": true},
        })
    );
}

#[test]
fn openai_is_told_only_what_it_knows() {
    let plain = request(&settings(Dialect::Openai), &generation(hello())).unwrap();
    assert_eq!(
        plain.body,
        json!({
            "model": "org/short", "messages": [{"role": "user", "content": "hello"}],
            "stream": true, "stream_options": {"include_usage": true}, "seed": 7,
        })
    );
    let closed = Generation { thinking: Thinking::Closed, ..generation(hello()) };
    assert_eq!(request(&settings(Dialect::Openai), &closed).unwrap().body["reasoning_effort"], "none");
    for (sampling, param) in [
        (Sampling { top_k: Some(5), ..Sampling::default() }, "top_k"),
        (Sampling { min_p: 0.1, ..Sampling::default() }, "min_p"),
        (Sampling { ignore_eos: true, ..Sampling::default() }, "ignore_eos"),
    ] {
        let error = request(&settings(Dialect::Openai), &Generation { sampling, ..generation(hello()) }).unwrap_err();
        assert!(matches!(error, EngineError::Invalid { param: Some(p), .. } if p == param), "{error:?}");
    }
}

#[test]
fn everything_that_is_asked_for_is_sent() {
    let call = json!({"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}});
    let messages = vec![
        Message { role: "developer".to_owned(), content: "be brief".to_owned(), ..Message::default() },
        Message {
            role: "assistant".to_owned(),
            reasoning_content: Some("hm".to_owned()),
            tool_calls: vec![call],
            ..Message::default()
        },
        Message {
            role: "tool".to_owned(),
            content: "2".to_owned(),
            tool_call_id: Some("c1".to_owned()),
            name: Some("add".to_owned()),
            ..Message::default()
        },
    ];
    let tools = Tools {
        definitions: vec![json!({"type": "function", "function": {"name": "add"}})],
        choice: ToolChoice::Function("add".to_owned()),
        parallel: false,
    };
    let full = Generation {
        sampling: Sampling {
            temperature: 0.5,
            top_p: 0.9,
            top_k: Some(40),
            min_p: 0.05,
            seed: u64::MAX,
            presence_penalty: 0.5,
            frequency_penalty: -0.5,
            logit_bias: [(7, -100.0)].into(),
            ignore_eos: true,
        },
        thinking: Thinking::Budget(64),
        max_tokens: Some(256),
        stop: vec!["END".to_owned(), String::new()],
        logprobs: Some(Logprobs { top: 3 }),
        constraint: Constraint::JsonSchema(json!({"type": "object"})),
        ..generation(Prompt::Chat(Conversation { messages, tools: Some(tools) }))
    };
    let with_budget = Upstream {
        budget_field: Some("thinking_token_budget".to_owned()),
        extra_body: json!({"priority": 3, "model": "other", "chat_template_kwargs": {"style": "dry"}})
            .as_object()
            .unwrap()
            .clone(),
        ..settings(Dialect::Vllm)
    };
    let sent = request(&with_budget, &full).unwrap();
    assert_eq!(
        sent.body,
        json!({
            "model": "org/short", "priority": 3, "stream": true,
            "stream_options": {"include_usage": true, "continuous_usage_stats": true},
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "assistant", "content": null, "reasoning_content": "hm",
                 "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{\"a\":1}"}}]},
                {"role": "tool", "content": "2", "tool_call_id": "c1", "name": "add"},
            ],
            "tools": [{"type": "function", "function": {"name": "add"}}],
            "tool_choice": {"type": "function", "function": {"name": "add"}}, "parallel_tool_calls": false,
            "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": i64::MAX, "ignore_eos": true,
            "presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.0, "logit_bias": {"7": -100.0},
            "max_completion_tokens": 256, "max_tokens": 256, "logprobs": true, "top_logprobs": 3,
            "response_format": {"type": "json_schema", "json_schema": {
                "name": "answer", "strict": true, "schema": {"type": "object"}}},
            "chat_template_kwargs": {"enable_thinking": true, "thinking": true, "style": "dry"},
            "thinking_token_budget": 64,
        }),
        "stop strings are not sent while thoughts may come"
    );
    let error = request(&settings(Dialect::Vllm), &full).unwrap_err();
    assert!(matches!(error, EngineError::Invalid { param: Some("max_reasoning_tokens"), .. }), "{error:?}");
    let full = Generation { thinking: Thinking::Closed, ..full };
    let opened = Upstream { opens_thinking: true, ..with_budget.clone() };
    assert_eq!(request(&opened, &full).unwrap().start, Start::Turn, "held to the format from the first token");
    let free = Generation { constraint: Constraint::Free, ..full.clone() };
    assert_eq!(request(&opened, &free).unwrap().start, Start::Thoughts);
    let error = request(&Upstream { budget_field: None, ..opened }, &full).unwrap_err();
    assert!(matches!(error, EngineError::Invalid { param: Some("reasoning_effort"), .. }), "{error:?}");
    let closed = request(&with_budget, &full).unwrap();
    assert_eq!((&closed.body["stop"], &closed.body["thinking_token_budget"]), (&json!(["END"]), &json!(0)));
    assert_eq!(closed.body["chat_template_kwargs"]["enable_thinking"], json!(false));
}

#[test]
fn text_is_continued_as_it_is() {
    let text = Generation {
        logprobs: Some(Logprobs { top: 0 }),
        stop: vec!["\n".to_owned()],
        thinking: Thinking::Budget(5),
        ..generation(Prompt::Text("1 + 1 =".to_owned()))
    };
    let sent = request(&settings(Dialect::Vllm), &text).unwrap();
    assert_eq!((sent.path, sent.start), ("completions", Start::Answer));
    assert_eq!((&sent.body["prompt"], &sent.body["logprobs"]), (&json!("1 + 1 ="), &json!(0)));
    assert_eq!((&sent.body["max_tokens"], &sent.body["stop"]), (&Value::Null, &json!(["\n"])));
    assert!(sent.body.get("messages").is_none() && sent.body.get("chat_template_kwargs").is_none());
    let open =
        Generation { prompt: Prompt::Text("<think>a</think>b<think>".to_owned()), thinking: Thinking::Free, ..text };
    let sent = request(&settings(Dialect::Vllm), &open).unwrap();
    // Marks are text like any other, and stop strings are looked for behind them too.
    assert_eq!((sent.start, &sent.body["stop"]), (Start::Answer, &json!(["\n"])));
}
