//! All choices collected into one `chat.completion`.

use super::request::Shape;
use crate::api::ApiError;
use crate::api::answer::Identity;
use crate::api::choices::Choices;
use crate::api::types::{
    ChatChoice, ChatMessage, ChatResponse, ChoiceLogprobs, FunctionCall, ToolCallObject, UsageObject,
};
use crate::engine::{Channel, Event, Finish, FinishReason, ToolCall};

/// What one choice has said so far.
#[derive(Default)]
struct Draft {
    thoughts: String,
    answer: String,
    logprobs: ChoiceLogprobs,
    calls: Vec<ToolCallObject>,
    finish: Option<Finish>,
}

/// Waits for all choices.
///
/// # Errors
/// What the first failed choice failed with.
pub(super) async fn collect(mut choices: Choices, identity: Identity, shape: Shape) -> Result<ChatResponse, ApiError> {
    let mut drafts: Vec<Draft> = (0..shape.n).map(|_| Draft::default()).collect();
    while let Some(event) = choices.next().await {
        let (index, event) = event?;
        if let Some(draft) = drafts.get_mut(index) {
            draft.take(event);
        }
    }
    let mut usage = UsageObject::default();
    let mut report = identity.report;
    let mut fingerprint = None;
    let mut forced = false;
    for finish in drafts.iter().filter_map(|draft| draft.finish.as_ref()) {
        usage.add(finish.usage);
        forced |= finish.forced_close;
        fingerprint = fingerprint.or_else(|| finish.fingerprint.clone());
    }
    report.forced_close = Some(forced);
    Ok(ChatResponse {
        id: identity.id,
        object: "chat.completion".to_owned(),
        created: identity.created,
        model: identity.model,
        choices: drafts.into_iter().enumerate().map(|(index, draft)| draft.choice(index, shape)).collect(),
        usage,
        system_fingerprint: fingerprint,
        brevity: report,
    })
}

impl Draft {
    fn take(&mut self, event: Event) {
        match event {
            Event::Started { .. } => {}
            Event::Token(piece) => match piece.channel {
                Channel::Thinking => self.thoughts.push_str(&piece.text),
                Channel::Answer => {
                    self.answer.push_str(&piece.text);
                    self.logprobs.content.extend(piece.logprobs.into_iter().map(Into::into));
                }
            },
            Event::ToolCall(call) => self.calls.push(object(call)),
            Event::Finished(finish) => self.finish = Some(finish),
        }
    }

    fn choice(self, index: usize, shape: Shape) -> ChatChoice {
        let only_calls = !self.calls.is_empty() && self.answer.is_empty();
        let thoughts = (shape.show_thinking && !self.thoughts.is_empty()).then_some(self.thoughts);
        let (reasoning_content, reasoning) = thoughts.map_or((None, None), |text| shape.names.spread(text));
        ChatChoice {
            index,
            message: ChatMessage {
                role: "assistant".to_owned(),
                content: (!only_calls).then_some(self.answer),
                refusal: None,
                reasoning_content,
                reasoning,
                tool_calls: self.calls,
            },
            logprobs: shape.logprobs.then_some(self.logprobs),
            finish_reason: self.finish.map_or(FinishReason::Stop, |finish| finish.reason).name().to_owned(),
        }
    }
}

fn object(call: ToolCall) -> ToolCallObject {
    let function = FunctionCall { name: call.name, arguments: call.arguments };
    ToolCallObject { id: call.id, kind: "function".to_owned(), function }
}
