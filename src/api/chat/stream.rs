//! All choices as `chat.completion.chunk` events.
//!
//! Every choice opens with its role and closes with a chunk without text. Tokens are not merged: events that are ready at
//! once share a frame, which saves writes and nothing else.

use axum::response::Response;

use super::Identity;
use super::body::reason;
use super::request::Shape;
use crate::api::choices::{Choices, Indexed, Presence};
use crate::api::sse::{self, Gone, Outlet, Pace};
use crate::api::types::{
    BrevityReport, ChatChunk, ChoiceLogprobs, ChunkChoice, Delta, FunctionCall, ToolCallDelta, UsageObject,
};
use crate::engine::{Channel, Event, Finish, Piece, ToolCall};

/// Turns events into chunks.
struct Writer {
    /// The chunk that is filled again and again.
    chunk: ChatChunk,
    report: BrevityReport,
    shape: Shape,
    usage: UsageObject,
    /// Choices that have not finished.
    open: usize,
    frame: Vec<u8>,
}

/// The stream of a response whose choices have started.
pub(super) fn response(choices: Choices, identity: Identity, shape: Shape, pace: Pace, presence: Presence) -> Response {
    sse::response(pace, move |outlet| async move {
        // A client that is gone is counted by the drop of its presence.
        if produce(choices, Writer::new(identity, shape), outlet).await.is_ok() {
            presence.served();
        }
    })
}

async fn produce(mut choices: Choices, mut writer: Writer, mut outlet: Outlet) -> Result<(), Gone> {
    writer.open();
    outlet.send(writer.take_frame()).await?;
    while let Some(event) = outlet.wait(choices.next()).await? {
        let mut next = Some(event);
        while let Some(event) = next {
            match event {
                Ok(event) => writer.write(event),
                Err(error) => {
                    drop(choices);
                    let mut frame = writer.take_frame();
                    frame.extend(sse::error_event(&error));
                    outlet.send(frame).await?;
                    return outlet.finish().await;
                }
            }
            next = if writer.frame.len() < sse::FRAME_BYTES { choices.ready() } else { None };
        }
        if !writer.frame.is_empty() {
            outlet.send(writer.take_frame()).await?;
        }
    }
    drop(choices);
    writer.close();
    outlet.send(writer.take_frame()).await?;
    outlet.finish().await
}

impl Writer {
    fn new(identity: Identity, shape: Shape) -> Self {
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

    fn take_frame(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.frame)
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
        self.put(index, Delta::default(), None, Some(reason(finish.reason)));
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

    fn put(&mut self, index: usize, delta: Delta, logprobs: Option<ChoiceLogprobs>, finish: Option<&str>) {
        self.chunk.choices.clear();
        self.chunk.choices.push(ChunkChoice { index, delta, logprobs, finish_reason: finish.map(str::to_owned) });
        sse::write_event(&mut self.frame, &self.chunk);
        self.chunk.choices.clear();
        self.chunk.brevity = None;
        self.chunk.system_fingerprint = None;
    }
}
