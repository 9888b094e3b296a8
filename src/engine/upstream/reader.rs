//! From the other server's chunks to events. Pure: no sockets, no clock.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use super::body::Start;
use super::chunk::{CallDelta, Choice, Chunk};
use super::text::Splitter;
use crate::engine::text::Stops;
use crate::engine::{
    Alternative, Channel, EngineError, Event, Finish, FinishReason, Generation, Piece, Prompt, Thinking, ToolCall,
    Usage,
};

/// Tokens that a server may need beyond a budget to close the thoughts, for closing texts of several words.
const SLACK: usize = 64;

/// Follows one stream of chunks.
pub(super) struct Reader {
    tier: String,
    limit: Limit,
    /// Tokens that were asked for at most.
    most: Option<usize>,
    splitter: Splitter,
    stops: Stops,
    calls: BTreeMap<usize, Call>,
    /// What the server counted, as far as it told.
    told: Option<Usage>,
    /// Tokens counted here: by the server's running count, else by entries of log-probabilities, else one a chunk.
    tokens: usize,
    thought: usize,
    started: bool,
    ended: Option<(FinishReason, Option<String>)>,
    fingerprint: Option<String>,
    finished: bool,
}

/// What was promised about thoughts, and is checked because servers may overlook it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    None,
    Closed,
    Budget(usize),
}

/// A tool call as far as it has come.
#[derive(Default)]
struct Call {
    id: Option<String>,
    name: String,
    arguments: String,
}

impl Reader {
    pub fn new(generation: &Generation, start: Start) -> Self {
        let limit = match (&generation.prompt, generation.thinking) {
            (Prompt::Chat(_), Thinking::Closed) => Limit::Closed,
            (_, Thinking::Budget(tokens)) => Limit::Budget(tokens),
            _ => Limit::None,
        };
        Self {
            tier: generation.tier.clone(),
            limit,
            most: generation.max_tokens,
            splitter: Splitter::new(start),
            stops: Stops::new(&generation.stop),
            calls: BTreeMap::new(),
            told: None,
            tokens: 0,
            thought: 0,
            started: false,
            ended: None,
            fingerprint: None,
            finished: false,
        }
    }

    /// Whether [`Event::Finished`] was given; nothing more needs to be read.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The events of `chunk`.
    ///
    /// # Errors
    /// [`EngineError::Failed`] when the server ends the answer in a way that is no end, or thinks although it must not.
    pub fn push(&mut self, chunk: Chunk, events: &mut VecDeque<Event>) -> Result<(), EngineError> {
        let before = self.told.unwrap_or_default();
        if let Some(usage) = &chunk.usage {
            self.told = Some(usage.over(before));
        }
        if chunk.system_fingerprint.is_some() {
            self.fingerprint = chunk.system_fingerprint;
        }
        if !self.started {
            self.started = true;
            events.push_back(Event::Started { prompt_tokens: self.told.unwrap_or_default().prompt_tokens });
        }
        // A count that came with this chunk is exact, of all tokens so far: what was counted without one is part of it.
        let counted =
            chunk.usage.as_ref().and(self.told).map(|told| told.completion_tokens.saturating_sub(self.tokens));
        for choice in chunk.choices.into_iter().take(1) {
            self.choice(choice, counted, events)?;
        }
        // A server that does not know the limit's name goes on.
        if !self.finished && self.ended.is_none() && self.most.is_some_and(|most| self.tokens > most) {
            self.finish(FinishReason::Length, None, events);
        }
        Ok(())
    }

    fn choice(
        &mut self,
        choice: Choice,
        counted: Option<usize>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), EngineError> {
        if self.ended.is_some() {
            return Ok(());
        }
        let delta = choice.delta.unwrap_or_default();
        let logprobs = choice.logprobs.map(|body| body.into_alternatives()).unwrap_or_default();
        let content = [choice.text, delta.content, delta.refusal].into_iter().flatten().collect::<String>();
        let mut thoughts = delta.reasoning_content.or(delta.reasoning).unwrap_or_default();
        let calls = delta.tool_calls.unwrap_or_default();
        let something = !content.is_empty() || !thoughts.is_empty() || !calls.is_empty();
        let tokens = counted.unwrap_or(if something { logprobs.len().max(1) } else { 0 });
        self.tokens += tokens;
        if !thoughts.is_empty() {
            self.splitter.separated();
        }
        let split = if content.is_empty() { Default::default() } else { self.splitter.push(&content) };
        thoughts.push_str(&split.thoughts);
        let thinking = !thoughts.is_empty() || split.closed || (!content.is_empty() && self.splitter.may_think());
        // A chunk on the border belongs to the answer it has already reached.
        let channel = if split.answer.is_empty() && thinking { Channel::Thinking } else { Channel::Answer };
        if channel == Channel::Thinking {
            self.thought += tokens;
        }
        self.check(&thoughts)?;
        for part in calls {
            self.call(part);
        }
        let (answer, stop) = self.stops.push(&split.answer);
        self.pieces(thoughts, answer, channel, tokens, logprobs, events);
        if stop.is_some() {
            self.finish(FinishReason::Stop, stop, events);
            return Ok(());
        }
        if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
            let stop = choice.stop_reason.and_then(|stop| stop.as_str().map(str::to_owned));
            self.ended = Some((self.reason(&reason)?, stop));
            let rest = self.splitter.finish();
            let (answer, stop) = self.stops.push(&rest.answer);
            if stop.is_some() {
                self.ended = Some((FinishReason::Stop, stop));
            }
            let answer = answer + &self.stops.finish();
            self.pieces(rest.thoughts, answer, Channel::Answer, 0, Vec::new(), events);
            self.flush_calls(events)?;
        }
        Ok(())
    }

    /// The server has said that nothing follows (`[DONE]`, or a clean end of the stream).
    ///
    /// # Errors
    /// [`EngineError::Failed`] when the answer had not ended.
    pub fn end(&mut self, events: &mut VecDeque<Event>) -> Result<(), EngineError> {
        match self.ended.take() {
            Some((reason, stop)) => {
                self.finish(reason, stop, events);
                Ok(())
            }
            None => Err(self.failed("ended the stream in the middle of an answer")),
        }
    }

    fn finish(&mut self, reason: FinishReason, stop: Option<String>, events: &mut VecDeque<Event>) {
        self.finished = true;
        let mut usage = self.told.unwrap_or_default();
        usage.completion_tokens = usage.completion_tokens.max(self.tokens);
        if usage.reasoning_tokens == 0 {
            usage.reasoning_tokens = self.thought.min(usage.completion_tokens);
        }
        let forced_close = matches!(self.limit, Limit::Budget(limit) if self.thought > 0 && self.thought >= limit);
        let fingerprint = self.fingerprint.take();
        events.push_back(Event::Finished(Finish { reason, usage, forced_close, stop, fingerprint }));
    }

    /// Pieces for what is certain now; tokens and log-probabilities go with the last one, in `channel`.
    fn pieces(
        &self,
        thoughts: String,
        answer: String,
        channel: Channel,
        tokens: usize,
        logprobs: Vec<Alternative>,
        events: &mut VecDeque<Event>,
    ) {
        let mut parts = Vec::new();
        if !thoughts.is_empty() {
            parts.push((Channel::Thinking, thoughts));
        }
        if !answer.is_empty() {
            parts.push((Channel::Answer, answer));
        }
        let counted = tokens > 0 || !logprobs.is_empty();
        if counted && parts.last().is_none_or(|(last, _)| *last != channel) {
            parts.push((channel, String::new()));
        }
        let mut counts = Some((tokens, logprobs));
        let last = parts.len();
        for (place, (channel, text)) in parts.into_iter().enumerate() {
            let (tokens, logprobs) = if place + 1 == last { counts.take() } else { None }.unwrap_or_default();
            events.push_back(Event::Token(Piece { channel, text, tokens, logprobs }));
        }
    }

    /// Whether the server keeps what was promised about thoughts.
    fn check(&self, thoughts: &str) -> Result<(), EngineError> {
        match self.limit {
            Limit::Closed if !thoughts.trim().is_empty() => Err(self.failed(
                "thinks although its thoughts were closed; say in family.toml how it closes them: by a `budget_field`, or for a tier of its own by `extra_body = { chat_template_kwargs = { enable_thinking = false } }`",
            )),
            Limit::Budget(limit) if self.thought > limit.saturating_add(SLACK) => Err(self.failed(&format!(
                "went on thinking beyond its budget of {limit} tokens; start it so that it enforces the `budget_field` of family.toml"
            ))),
            _ => Ok(()),
        }
    }

    fn call(&mut self, part: CallDelta) {
        let last = self.calls.keys().next_back().copied();
        let index = part.index.unwrap_or(match (&part.id, last) {
            (Some(_), Some(last)) => last + 1,
            (_, last) => last.unwrap_or(0),
        });
        let call = self.calls.entry(index).or_default();
        call.id = part.id.filter(|id| !id.is_empty()).or(call.id.take());
        if let Some(function) = part.function {
            call.name.push_str(&function.name.unwrap_or_default());
            call.arguments.push_str(&function.arguments.unwrap_or_default());
        }
    }

    fn flush_calls(&mut self, events: &mut VecDeque<Event>) -> Result<(), EngineError> {
        for (index, call) in std::mem::take(&mut self.calls).into_values().enumerate() {
            if call.name.is_empty() {
                return Err(self.failed("called a tool without a name"));
            }
            let id = call.id.unwrap_or_else(|| format!("call_{index}"));
            events.push_back(Event::ToolCall(ToolCall { index, id, name: call.name, arguments: call.arguments }));
        }
        Ok(())
    }

    fn reason(&self, reason: &str) -> Result<FinishReason, EngineError> {
        match reason {
            "stop" => Ok(FinishReason::Stop),
            "length" => Ok(FinishReason::Length),
            "tool_calls" | "function_call" => Ok(FinishReason::ToolCalls),
            "content_filter" => Ok(FinishReason::ContentFilter),
            other => {
                Err(self.failed(&format!("gave up the answer with `{}`", other.chars().take(40).collect::<String>())))
            }
        }
    }

    /// Whether the server has said how the answer ended, so that only its numbers may follow.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// The server of this tier did `what`.
    pub fn failed(&self, what: &str) -> EngineError {
        EngineError::Failed { message: format!("the server of tier `{}` {what}", self.tier), upstream: true }
    }
}

/// The message of an error event, if `chunk` is one.
pub(super) fn error_of(chunk: &Chunk) -> Option<String> {
    let message = |value: &Value| value.get("message").or(Some(value)).and_then(Value::as_str).map(str::to_owned);
    match &chunk.error {
        Some(Value::Null | Value::Bool(false)) | None if chunk.object.as_deref() == Some("error") => {
            Some(chunk.message.clone().unwrap_or_default())
        }
        Some(Value::Null | Value::Bool(false)) | None => None,
        Some(error) => Some(message(error).unwrap_or_default()),
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
