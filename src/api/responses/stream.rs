//! A response put together from an engine's events, and told event by event where it is streamed.
//!
//! Items come one after the other: an item is open while text of its kind comes, and closed by text of the other kind, a
//! call, or the end. Tokens are not merged.

use super::request::Shape;
use crate::api::ApiError;
use crate::api::answer::{Identity, Writer};
use crate::api::choices::Indexed;
use crate::api::plan::RESPONSES;
use crate::api::sse;
use crate::api::state::Sources;
use crate::api::types::responses::{
    EventBody, FunctionCallItem, IncompleteDetails, ItemStatus, MessageItem, OutputItem, OutputPart, ReasoningItem,
    ResponseFailure, ResponseStatus, SummaryPlace, TextPlace,
};
use crate::api::types::{ResponseEvent, ResponseObject, TokenLogprob};
use crate::engine::{Channel, Event, Finish, FinishReason, Piece, ToolCall};

/// Turns an engine's events into items, and items into events.
pub(super) struct Events {
    response: ResponseObject,
    /// The text that is being written.
    open: Option<Text>,
    feed: Feed,
    show_thinking: bool,
    /// Whether thoughts are told in the place of a summary.
    summarizes: bool,
    logprobs: bool,
    sources: Sources,
}

/// Thoughts or an answer on their way.
struct Text {
    channel: Channel,
    /// Thoughts in the place of a summary.
    is_summary: bool,
    id: String,
    text: String,
    logprobs: Vec<TokenLogprob>,
}

/// Numbers events and writes them; writes nothing where the response comes whole.
struct Feed {
    streams: bool,
    next: usize,
    frame: Vec<u8>,
}

impl Feed {
    fn tell(&mut self, body: EventBody<'_>) {
        if self.streams {
            let name = body.name();
            sse::write_named_event(&mut self.frame, name, &ResponseEvent { body, sequence_number: self.next });
            self.next += 1;
        }
    }
}

impl Text {
    fn item(&self, content: Vec<OutputPart>, status: ItemStatus) -> OutputItem {
        let id = self.id.clone();
        match self.channel {
            Channel::Thinking if self.is_summary => {
                OutputItem::Reasoning(ReasoningItem { id, summary: content, content: Vec::new(), status })
            }
            Channel::Thinking => OutputItem::Reasoning(ReasoningItem { id, summary: Vec::new(), content, status }),
            Channel::Answer => OutputItem::Message(MessageItem { id, role: "assistant", content, status }),
        }
    }

    /// All text so far, which is taken out.
    fn part(&mut self) -> OutputPart {
        let text = std::mem::take(&mut self.text);
        match self.channel {
            Channel::Thinking if self.is_summary => OutputPart::SummaryText { text },
            Channel::Thinking => OutputPart::ReasoningText { text },
            Channel::Answer => {
                OutputPart::OutputText { text, annotations: [], logprobs: std::mem::take(&mut self.logprobs) }
            }
        }
    }
}

impl Events {
    pub fn new(identity: Identity, shape: Shape, sources: Sources) -> Self {
        let response = ResponseObject {
            id: identity.id,
            object: "response",
            created_at: identity.created,
            status: ResponseStatus::InProgress,
            completed_at: None,
            error: None,
            incomplete_details: None,
            model: identity.model,
            output: Vec::new(),
            settings: shape.settings,
            usage: None,
            system_fingerprint: None,
            brevity: identity.report,
        };
        let feed = Feed { streams: shape.stream, next: 0, frame: Vec::new() };
        let Shape { show_thinking, logprobs, .. } = shape;
        let summarizes = response.settings.reasoning.summary.is_some();
        Self { response, open: None, feed, show_thinking, summarizes, logprobs, sources }
    }

    /// The whole response.
    pub fn whole(self) -> ResponseObject {
        self.response
    }

    /// The id of the next item: that of the response, with the item's kind and place.
    fn item_id(&self, prefix: &str) -> String {
        let own = self.response.id.trim_start_matches("resp_");
        format!("{prefix}_{own}{:02x}", self.response.output.len())
    }

    fn piece(&mut self, piece: Piece) {
        let Piece { channel, text, logprobs, .. } = piece;
        let logprobs: Vec<TokenLogprob> = match channel {
            Channel::Answer if self.logprobs => logprobs.into_iter().map(Into::into).collect(),
            Channel::Answer | Channel::Thinking => Vec::new(),
        };
        let hidden = channel == Channel::Thinking && !self.show_thinking;
        if hidden || text.is_empty() && logprobs.is_empty() {
            return;
        }
        let mut open = self.opened(channel);
        let output_index = self.response.output.len();
        let place = TextPlace { item_id: &open.id, output_index, content_index: 0 };
        self.feed.tell(match channel {
            Channel::Thinking if open.is_summary => {
                EventBody::SummaryDelta { place: of_summary(&open.id, output_index), delta: &text }
            }
            Channel::Thinking => EventBody::ReasoningDelta { place, delta: &text },
            Channel::Answer => EventBody::TextDelta { place, delta: &text, logprobs: &logprobs },
        });
        open.text.push_str(&text);
        open.logprobs.extend(logprobs);
        self.open = Some(open);
    }

    /// The open text of this channel, begun where there is none.
    fn opened(&mut self, channel: Channel) -> Text {
        match self.open.take() {
            Some(open) if open.channel == channel => return open,
            other => self.open = other,
        }
        self.close_text(ItemStatus::Completed);
        let id = self.item_id(if channel == Channel::Thinking { "rs" } else { "msg" });
        let is_summary = channel == Channel::Thinking && self.summarizes;
        let mut open = Text { channel, is_summary, id, text: String::new(), logprobs: Vec::new() };
        let output_index = self.response.output.len();
        self.feed.tell(EventBody::ItemAdded { output_index, item: &open.item(Vec::new(), ItemStatus::InProgress) });
        let part = open.part();
        let place = TextPlace { item_id: &open.id, output_index, content_index: 0 };
        self.feed.tell(match is_summary {
            true => EventBody::SummaryPartAdded { place: of_summary(&open.id, output_index), part: &part },
            false => EventBody::PartAdded { place, part: &part },
        });
        open
    }

    fn close_text(&mut self, status: ItemStatus) {
        let Some(mut open) = self.open.take() else { return };
        let part = open.part();
        let output_index = self.response.output.len();
        let place = TextPlace { item_id: &open.id, output_index, content_index: 0 };
        let summary = of_summary(&open.id, output_index);
        self.feed.tell(match &part {
            OutputPart::SummaryText { text } => EventBody::SummaryDone { place: summary, text },
            OutputPart::ReasoningText { text } => EventBody::ReasoningDone { place, text },
            OutputPart::OutputText { text, logprobs, .. } => EventBody::TextDone { place, text, logprobs },
        });
        self.feed.tell(match open.is_summary {
            true => EventBody::SummaryPartDone { place: summary, part: &part },
            false => EventBody::PartDone { place, part: &part },
        });
        self.add(open.item(vec![part], status));
    }

    /// Adds a whole item to the output.
    fn add(&mut self, item: OutputItem) {
        self.feed.tell(EventBody::ItemDone { output_index: self.response.output.len(), item: &item });
        self.response.output.push(item);
    }

    fn call(&mut self, call: ToolCall) {
        self.close_text(ItemStatus::Completed);
        let output_index = self.response.output.len();
        let (id, status) = (self.item_id("fc"), ItemStatus::InProgress);
        let ToolCall { id: call_id, name, arguments, .. } = call;
        let begun = FunctionCallItem { id, call_id, name, arguments: String::new(), status };
        self.feed.tell(EventBody::ItemAdded { output_index, item: &OutputItem::FunctionCall(begun.clone()) });
        let FunctionCallItem { id: item_id, name, .. } = &begun;
        self.feed.tell(EventBody::ArgumentsDelta { item_id, output_index, delta: &arguments });
        self.feed.tell(EventBody::ArgumentsDone { item_id, output_index, name, arguments: &arguments });
        self.add(OutputItem::FunctionCall(FunctionCallItem { arguments, status: ItemStatus::Completed, ..begun }));
    }

    fn finish(&mut self, finish: Finish) {
        let cut = match finish.reason {
            FinishReason::Stop | FinishReason::ToolCalls => None,
            FinishReason::Length => Some("max_output_tokens"),
            FinishReason::ContentFilter => Some("content_filter"),
        };
        if finish.reason == FinishReason::Stop && self.response.output.iter().all(is_thought) {
            // A turn that ended without a word is an empty answer, so that nobody takes the thoughts for one.
            self.open = Some(self.opened(Channel::Answer));
        }
        self.close_text(if cut.is_none() { ItemStatus::Completed } else { ItemStatus::Incomplete });
        let response = &mut self.response;
        response.status = if cut.is_none() { ResponseStatus::Completed } else { ResponseStatus::Incomplete };
        response.completed_at = cut.is_none().then(|| (self.sources.now)());
        response.incomplete_details = cut.map(|reason| IncompleteDetails { reason });
        response.usage = Some(finish.usage.into());
        response.system_fingerprint = finish.fingerprint;
        response.brevity.forced_close = Some(finish.forced_close);
    }
}

/// The only part of a summary.
fn of_summary(item_id: &str, output_index: usize) -> SummaryPlace<'_> {
    SummaryPlace { item_id, output_index, summary_index: 0 }
}

fn is_thought(item: &OutputItem) -> bool {
    matches!(item, OutputItem::Reasoning(_))
}

impl Writer for Events {
    fn frame(&mut self) -> &mut Vec<u8> {
        &mut self.feed.frame
    }

    fn open(&mut self) {
        self.feed.tell(EventBody::Created { response: &self.response });
        self.feed.tell(EventBody::InProgress { response: &self.response });
    }

    fn write(&mut self, (_, event): Indexed) {
        match event {
            Event::Started { .. } => {}
            Event::Token(piece) => self.piece(piece),
            Event::ToolCall(call) => self.call(call),
            Event::Finished(finish) => self.finish(finish),
        }
    }

    /// The error by its own name, then the response with one of the few that OpenAI has for responses.
    fn fail(&mut self, error: &ApiError) {
        let ApiError { status, code, param, message, .. } = RESPONSES.blame(error.clone());
        self.feed.tell(EventBody::Error { code, message: &message, param: param.as_deref() });
        let code = match status.as_u16() {
            429 => "rate_limit_exceeded",
            400..=407 => "invalid_prompt",
            _ => "server_error",
        };
        if let Some(mut open) = self.open.take() {
            let part = open.part();
            self.response.output.push(open.item(vec![part], ItemStatus::Incomplete));
        }
        self.response.status = ResponseStatus::Failed;
        self.response.error = Some(ResponseFailure { code, message });
        self.feed.tell(EventBody::Failed { response: &self.response });
    }

    fn close(&mut self) {
        let response = &self.response;
        self.feed.tell(match response.status {
            ResponseStatus::Incomplete => EventBody::Incomplete { response },
            _ => EventBody::Completed { response },
        });
    }
}
