use futures::StreamExt;

use super::*;
use crate::engine::{
    Channel, Constraint, Conversation, Event, Finish, FinishReason, Message, Prompt, Sampling, Shared, Thinking,
    ToolChoice, Tools,
};

fn ask(tier: &str, content: &str) -> Generation {
    let message = Message { role: "user".into(), content: content.into(), ..Message::default() };
    Generation {
        tier: tier.into(),
        prompt: Prompt::Chat(Conversation { messages: vec![message], tools: None }),
        sampling: Sampling::default(),
        thinking: Thinking::Free,
        max_tokens: None,
        stop: Vec::new(),
        logprobs: None,
        constraint: Constraint::Free,
        shared: Shared::default(),
    }
}

#[derive(Debug, Default)]
struct Heard {
    thinking: String,
    answer: String,
    calls: usize,
    finish: Option<Finish>,
    error: Option<EngineError>,
}

async fn hear(mut events: Events) -> Heard {
    let mut heard = Heard::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Started { .. }) => {}
            Ok(Event::Token(piece)) if piece.channel == Channel::Thinking => heard.thinking.push_str(&piece.text),
            Ok(Event::Token(piece)) => heard.answer.push_str(&piece.text),
            Ok(Event::ToolCall(_)) => heard.calls += 1,
            Ok(Event::Finished(finish)) => heard.finish = Some(finish),
            Err(error) => heard.error = Some(error),
        }
    }
    heard
}

async fn answer(engine: &Scripted, generation: Generation) -> Heard {
    hear(engine.generate(generation).await.unwrap()).await
}

#[tokio::test]
async fn a_script_is_said_through_sampler_and_assembler() {
    let engine = Scripted::builder().script("low", Script::new("2 + 3 = 5.", "It is 5.")).build().unwrap();
    let heard = answer(&engine, ask("low", "2 + 3")).await;
    assert_eq!((heard.thinking.as_str(), heard.answer.as_str()), ("2 + 3 = 5.", "It is 5."));
    let finish = heard.finish.unwrap();
    assert_eq!((finish.reason, finish.fingerprint.as_deref()), (FinishReason::Stop, Some("scripted-low")));
    let mut generation = ask("low", "2 + 3");
    generation.thinking = Thinking::Budget(2);
    generation.stop = vec!["5".into()];
    let heard = answer(&engine, generation).await;
    assert_eq!((heard.thinking.as_str(), heard.answer.as_str()), ("2 + ", "It is "));
    assert!(heard.finish.unwrap().forced_close);
    let mut generation = ask("low", "2 + 3");
    generation.thinking = Thinking::Closed;
    let heard = answer(&engine, generation).await;
    assert_eq!((heard.thinking.as_str(), heard.answer.as_str()), ("", "It is 5."));
}

#[tokio::test]
async fn derived_scripts_tell_tiers_prompts_and_seeds_apart() {
    let engine = Scripted::builder().tiers(["low", "high"]).build().unwrap();
    let first = answer(&engine, ask("low", "2")).await;
    assert_eq!(first.answer, answer(&engine, ask("low", "2")).await.answer);
    assert_ne!(first.answer, answer(&engine, ask("high", "2")).await.answer);
    assert_ne!(first.answer, answer(&engine, ask("low", "3")).await.answer);
    let mut seeded = ask("low", "2");
    seeded.sampling.seed = 1;
    assert_ne!(first.answer, answer(&engine, seeded).await.answer);
    assert!(matches!(engine.generate(ask("medium", "2")).await.err(), Some(EngineError::UnknownTier(_))));
    assert!(!first.thinking.is_empty());
}

#[tokio::test]
async fn faults_happen_where_they_are_written() {
    let error = || EngineError::failed("broken on purpose");
    let script = || Script::new("", "12345");
    let engine = Scripted::builder()
        .script("refused", script().with_fault(Fault::Refused(error())))
        .script("failed", script().with_fault(Fault::Failed { after: 3, error: error() }))
        .script("gone", script().with_fault(Fault::Disconnects { after: 3 }))
        .script("hangs", script().with_fault(Fault::Hangs { after: 3 }))
        .build()
        .unwrap();
    assert!(engine.generate(ask("refused", "2")).await.is_err());
    let heard = answer(&engine, ask("failed", "2")).await;
    assert_eq!(heard.answer, "12");
    assert!(heard.error.is_some() && heard.finish.is_none());
    let heard = answer(&engine, ask("gone", "2")).await;
    assert_eq!(heard.answer, "12");
    assert!(heard.error.is_none() && heard.finish.is_none());
    assert_eq!(engine.running(), 0);
    let mut events = engine.generate(ask("hangs", "2")).await.unwrap();
    for _ in 0..4 {
        assert!(events.next().await.unwrap().is_ok());
    }
    assert!(futures::poll!(events.next()).is_pending());
    assert_eq!(engine.running(), 1);
    drop(events);
    assert_eq!(engine.running(), 0);
    engine.set_unavailable(Some(EngineError::Unavailable { message: "starting".into(), retry_after: None }));
    assert!(engine.probe("gone").await.is_err() && engine.generate(ask("gone", "2")).await.is_err());
    engine.set_unavailable(None);
    assert!(engine.probe("gone").await.is_ok());
}

#[tokio::test]
async fn a_gate_holds_generations_until_they_are_let_through() {
    let engine = Scripted::builder().script("low", Script::new("", "1")).gated().build().unwrap();
    let mut first = engine.generate(ask("low", "2")).await.unwrap();
    let mut second = engine.generate(ask("low", "2")).await.unwrap();
    for events in [&mut first, &mut second] {
        assert!(matches!(events.next().await, Some(Ok(Event::Started { .. }))));
        assert!(futures::poll!(events.next()).is_pending());
    }
    engine.release(1);
    assert_eq!(hear(first).await.answer, "1");
    assert!(futures::poll!(second.next()).is_pending());
    assert_eq!(engine.running(), 1);
    engine.release(1);
    assert_eq!(hear(second).await.answer, "1");
}

#[tokio::test]
async fn tools_reach_the_template_and_their_calls_come_back() {
    let call = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    let engine = Scripted::builder().script("low", Script::new("hm", call)).build().unwrap();
    let mut generation = ask("low", "2");
    let Prompt::Chat(conversation) = &mut generation.prompt else { unreachable!() };
    let definitions = vec![serde_json::json!({"type": "function", "function": {"name": "now"}})];
    conversation.tools = Some(Tools { definitions, choice: ToolChoice::Auto, parallel: true });
    conversation.messages.push(Message { role: "tool".into(), content: "12".into(), ..Message::default() });
    let heard = answer(&engine, generation).await;
    assert_eq!((heard.calls, heard.answer.as_str()), (1, ""));
    assert_eq!(heard.finish.unwrap().reason, FinishReason::ToolCalls);
}
