//! All choices as `chat.completion.chunk` events.
//!
//! Every choice opens with its role and closes with a chunk without text. Tokens are not merged: events that are ready at
//! once share a frame, which saves writes and nothing else.

use super::request::Shape;
use crate::api::answer::{Identity, Writer};
use crate::api::choices::Indexed;
use crate::api::sse;
use crate::api::types::{
    BrevityReport, ChatChunk, ChoiceLogprobs, ChunkChoice, Delta, FunctionCall, ToolCallDelta, UsageObject,
};
use crate::engine::{Channel, Event, Finish, Piece, ToolCall};

/// Turns events into chunks.
pub(super) struct Chunks {
    /// The chunk that is filled again and again.
    chunk: ChatChunk,
    report: BrevityReport,
    shape: Shape,
    usage: UsageObject,
    /// Choices that have not finished.
    open: usize,
    frame: Vec<u8>,
}

impl Chunks {
    pub(super) fn new(identity: Identity, shape: Shape) -> Self {
        let chunk = ChatChunk {
            id: identity.id,
            object: "chat.completion.chunk".to_owned(),
            created: identity.created,
            model: identity.model,
            choices: Vec::with_capacity(1),
            usage: shape.include_usage.then_some(None),
            system_fingerprint: None,
            brevity: None,
        };
        let usage = UsageObject::default();
        Self { chunk, report: identity.report, shape, usage, open: shape.n, frame: Vec::new() }
    }

    fn token(&mut self, index: usize, piece: Piece) {
        match piece.channel {
            Channel::Thinking if self.shape.show_thinking && !piece.text.is_empty() => {
                let (reasoning_content, reasoning) = self.shape.names.spread(piece.text);
                self.put(index, Delta { reasoning_content, reasoning, ..Delta::default() }, None, None);
            }
            Channel::Answer if !piece.text.is_empty() || !piece.logprobs.is_empty() => {
                let content = piece.logprobs.into_iter().map(Into::into).collect();
                let logprobs = self.shape.logprobs.then_some(ChoiceLogprobs { content, refusal: None });
                self.put(index, Delta { content: Some(piece.text), ..Delta::default() }, logprobs, None);
            }
            Channel::Thinking | Channel::Answer => {}
        }
    }

    fn call(&mut self, index: usize, call: ToolCall) {
        let function = FunctionCall { name: call.name, arguments: call.arguments };
        let call = ToolCallDelta { index: call.index, id: call.id, kind: "function".to_owned(), function };
        self.put(index, Delta { tool_calls: vec![call], ..Delta::default() }, None, None);
    }

    fn finish(&mut self, index: usize, finish: Finish) {
        self.usage.add(finish.usage);
        let forced = self.report.forced_close.unwrap_or(false) || finish.forced_close;
        self.report.forced_close = Some(forced);
        self.open = self.open.saturating_sub(1);
        if self.open == 0 && !self.shape.include_usage {
            self.chunk.brevity = Some(self.report.clone());
        }
        self.chunk.system_fingerprint = finish.fingerprint;
        self.put(index, Delta::default(), None, Some(finish.reason.name()));
    }

    fn put(&mut self, index: usize, delta: Delta, logprobs: Option<ChoiceLogprobs>, finish: Option<&str>) {
        self.chunk.choices.clear();
        self.chunk.choices.push(ChunkChoice { index, delta, logprobs, finish_reason: finish.map(str::to_owned) });
        sse::write_event(&mut self.frame, &self.chunk);
        self.chunk.choices.clear();
        self.chunk.brevity = None;
        self.chunk.system_fingerprint = None;
    }
}

impl Writer for Chunks {
    fn frame(&mut self) -> &mut Vec<u8> {
        &mut self.frame
    }

    /// The role of every choice; the first chunk says who answers.
    fn open(&mut self) {
        for index in 0..self.shape.n {
            self.chunk.brevity = (index == 0).then(|| self.report.clone());
            let delta = Delta { role: Some("assistant".to_owned()), content: Some(String::new()), ..Delta::default() };
            self.put(index, delta, None, None);
        }
    }

    fn write(&mut self, (index, event): Indexed) {
        match event {
            Event::Started { .. } => {}
            Event::Token(piece) => self.token(index, piece),
            Event::ToolCall(call) => self.call(index, call),
            Event::Finished(finish) => self.finish(index, finish),
        }
    }

    /// The usage, where it is wanted, and the end.
    fn close(&mut self) {
        if self.shape.include_usage {
            self.chunk.usage = Some(Some(self.usage));
            self.chunk.brevity = Some(self.report.clone());
            sse::write_event(&mut self.frame, &self.chunk);
        }
        self.frame.extend_from_slice(sse::DONE);
    }
}
