//! From token ids to events: whole characters, thoughts apart from the answer, stop strings, tool calls, counts.
//!
//! The machine between an engine and everything above it; it draws nothing and waits for nothing. Nothing is trimmed,
//! except that newlines between the mark that closes the thoughts and the first text of the answer are left out.

use std::collections::VecDeque;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::sampler::Chosen;
use super::thinking::{Beginning, Phase, Split, Splitter};
use super::tool_calls::{Calls, Part};
use super::vocabulary::Vocabulary;
use crate::engine::text::{Characters, Stops};
use crate::engine::{Alternative, Channel, Event, Finish, FinishReason, Piece, ToolCall, Usage};

/// Turns the chosen tokens of one sequence into [`Event`]s.
#[derive(Debug)]
pub struct Assembler {
    vocabulary: Arc<Vocabulary>,
    splitter: Splitter,
    split: Split,
    usage: Usage,
    max_tokens: usize,
    ignore_eos: bool,
    forced_close: bool,
    fingerprint: Option<String>,
    finished: bool,
    thoughts: Characters,
    answer: Answer,
}

/// The text of the answer on its way out.
#[derive(Debug)]
struct Answer {
    characters: Characters,
    /// Newlines are dropped until other text comes.
    at_start: bool,
    calls: Option<Calls>,
    stops: Stops,
    /// Bytes of text decoded so far.
    decoded: usize,
    /// Log-probabilities that wait for their token's text, each with the place where that starts.
    waiting: VecDeque<(usize, Alternative)>,
    /// What the ids of tool calls are derived from.
    call_key: [u8; 32],
    called: usize,
    parallel: bool,
    must_call: bool,
}

/// What an assembler is made of.
pub(super) struct AssemblerParts<'a> {
    pub vocabulary: Arc<Vocabulary>,
    pub beginning: Beginning,
    pub prompt: &'a [u32],
    pub seed: u64,
    pub max_tokens: usize,
    pub stop: &'a [String],
    pub ignore_eos: bool,
    /// Whether calls are looked for, and whether several are taken.
    pub calls: Option<bool>,
    /// Whether the answer has to be calls.
    pub must_call: bool,
}

impl Assembler {
    pub(super) fn new(parts: AssemblerParts<'_>) -> Self {
        let mut call_key = [0; 32];
        if parts.calls.is_some() {
            let mut hash = Sha256::new();
            hash.update(parts.seed.to_le_bytes());
            parts.prompt.iter().for_each(|id| hash.update(id.to_le_bytes()));
            call_key = hash.finalize().into();
        }
        Self {
            splitter: Splitter::new(Arc::clone(&parts.vocabulary), parts.beginning),
            vocabulary: parts.vocabulary,
            split: Split::default(),
            usage: Usage { prompt_tokens: parts.prompt.len(), ..Usage::default() },
            max_tokens: parts.max_tokens,
            ignore_eos: parts.ignore_eos,
            forced_close: false,
            fingerprint: None,
            finished: false,
            thoughts: Characters::default(),
            answer: Answer {
                characters: Characters::default(),
                at_start: parts.beginning.just_closed,
                calls: parts.calls.map(|_| Calls::default()),
                stops: Stops::new(parts.stop),
                decoded: 0,
                waiting: VecDeque::new(),
                call_key,
                called: 0,
                parallel: parts.calls.unwrap_or(true),
                must_call: parts.must_call,
            },
        }
    }

    /// Names the weights that answer, for the event at the end.
    #[must_use]
    pub fn with_fingerprint(mut self, fingerprint: Option<String>) -> Self {
        self.fingerprint = fingerprint;
        self
    }

    /// Says how many tokens of the prompt came from a cache.
    #[must_use]
    pub fn with_cached_tokens(mut self, tokens: usize) -> Self {
        self.usage.cached_tokens = tokens;
        self
    }

    /// The first event.
    pub fn started(&self) -> Event {
        Event::Started { prompt_tokens: self.usage.prompt_tokens }
    }

    /// Whether [`Event::Finished`] was given out; nothing follows it.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether the next token belongs to the thoughts.
    pub fn is_thinking(&self) -> bool {
        self.splitter.phase() == Phase::Thinking
    }

    /// Whether the answer has begun; neither this nor [`Assembler::is_thinking`] holds while a model may still open its
    /// thoughts itself.
    pub fn is_answering(&self) -> bool {
        self.splitter.phase() == Phase::Answer
    }

    /// Counts so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Takes the next token. Every token but the ones after the end gives at least one event.
    pub fn push(&mut self, chosen: Chosen) -> Vec<Event> {
        let mut events = Vec::with_capacity(1);
        if self.finished {
            return events;
        }
        self.usage.completion_tokens += 1;
        self.forced_close |= chosen.forced;
        if self.vocabulary.is_end(chosen.id) && !self.ignore_eos {
            self.flush(1, FinishReason::Stop, &mut events);
            return events;
        }
        let before = self.splitter.phase();
        self.splitter.push(chosen.id, &mut self.split);
        let after = self.splitter.phase();
        // The marks themselves are neither thought nor said.
        if (before == Phase::Thinking || after == Phase::Thinking) && !self.split.mark {
            self.usage.reasoning_tokens += 1;
        }
        let entry = if self.split.mark { None } else { self.entry(&chosen) };
        let (mut tokens, mut entry) = (1, entry);
        if before == Phase::Thinking || after == Phase::Thinking {
            let mut text = self.thoughts.push(&self.split.thinking);
            if self.split.closed {
                text.push_str(self.thoughts.finish());
                self.answer.at_start = true;
            }
            let logprobs = entry.take().into_iter().collect();
            events.push(Event::Token(Piece { channel: Channel::Thinking, text, tokens, logprobs }));
            tokens = 0;
        }
        let mut ended = false;
        if tokens == 1 || !self.split.answer.is_empty() {
            let bytes = std::mem::take(&mut self.split.answer);
            let text = self.answer.decode(&bytes, entry);
            self.split.answer = bytes;
            ended = self.say(text, tokens, &mut events);
        }
        if !ended && self.usage.completion_tokens >= self.max_tokens {
            self.flush(0, FinishReason::Length, &mut events);
        }
        events
    }

    /// Ends the sequence where it is, because the engine does; gives out what was held back.
    pub fn end(&mut self, reason: FinishReason) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.finished {
            self.flush(0, reason, &mut events);
        }
        events
    }

    /// Sends answer text on through calls and stops; `true` when that ended the sequence.
    fn say(&mut self, text: String, mut tokens: usize, events: &mut Vec<Event>) -> bool {
        let parts = match &mut self.answer.calls {
            Some(calls) => calls.push(&text),
            None => vec![Part::Text(text)],
        };
        self.show(parts, &mut tokens, events) || {
            self.answer.piece(String::new(), &mut tokens, false, events);
            false
        }
    }

    fn show(&mut self, parts: Vec<Part>, tokens: &mut usize, events: &mut Vec<Event>) -> bool {
        for part in parts {
            match part {
                Part::Text(text) => {
                    let waiting = self.answer.stops.held() + text.len();
                    let (text, stop) = self.answer.stops.push(&text);
                    if stop.is_some() {
                        self.answer.stopped(waiting - text.len());
                        self.answer.piece(text, tokens, false, events);
                        self.finish(FinishReason::Stop, stop, events);
                        return true;
                    }
                    self.answer.piece(text, tokens, false, events);
                }
                Part::Call(name, arguments) => {
                    let rest = self.answer.stops.finish();
                    self.answer.piece(rest, tokens, false, events);
                    events.push(Event::ToolCall(self.answer.call(name, arguments)));
                    if !self.answer.parallel {
                        self.answer.waiting.clear();
                        self.answer.piece(String::new(), tokens, false, events);
                        self.finish(FinishReason::Stop, None, events);
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Gives out everything that was held back, and the end.
    fn flush(&mut self, mut tokens: usize, reason: FinishReason, events: &mut Vec<Event>) {
        self.splitter.finish(&mut self.split);
        if self.splitter.phase() == Phase::Thinking {
            let mut text = self.thoughts.push(&self.split.thinking);
            text.push_str(self.thoughts.finish());
            if tokens > 0 || !text.is_empty() {
                events.push(Event::Token(Piece { channel: Channel::Thinking, text, tokens, logprobs: Vec::new() }));
            }
            self.finish(reason, None, events);
            return;
        }
        let mut text = self.answer.decode(&std::mem::take(&mut self.split.answer), None);
        let broken = self.answer.characters.finish();
        self.answer.decoded += broken.len();
        text.push_str(broken);
        let parts = match &mut self.answer.calls {
            Some(calls) => {
                let mut parts = calls.push(&text);
                // Of an answer that has to be calls, what is no whole call is a part of one.
                let must_call = self.answer.must_call;
                parts.extend(calls.finish().into_iter().filter(|part| !must_call || matches!(part, Part::Call(..))));
                parts
            }
            None => vec![Part::Text(text)],
        };
        if self.show(parts, &mut tokens, events) {
            return;
        }
        let rest = self.answer.stops.finish();
        self.answer.piece(rest, &mut tokens, true, events);
        self.finish(reason, None, events);
    }

    fn finish(&mut self, reason: FinishReason, stop: Option<String>, events: &mut Vec<Event>) {
        self.finished = true;
        let called = reason == FinishReason::Stop && self.answer.called > 0;
        events.push(Event::Finished(Finish {
            reason: if called { FinishReason::ToolCalls } else { reason },
            usage: self.usage,
            forced_close: self.forced_close,
            stop,
            fingerprint: self.fingerprint.clone(),
        }));
    }

    fn entry(&self, chosen: &Chosen) -> Option<Alternative> {
        let alternative = |id: u32, logprob: f32, top: Vec<Alternative>| {
            let bytes = self.vocabulary.bytes(id).to_vec();
            Alternative { token: String::from_utf8_lossy(&bytes).into_owned(), bytes, logprob, top }
        };
        let top = chosen.top.iter().map(|&(id, logprob)| alternative(id, logprob, Vec::new())).collect();
        chosen.logprob.map(|logprob| alternative(chosen.id, logprob, top))
    }
}

impl Answer {
    /// New text of the answer; `entry` waits until the text of its token is given out.
    fn decode(&mut self, bytes: &[u8], entry: Option<Alternative>) -> String {
        let mut text = self.characters.push(bytes);
        let mut swallowed = false;
        if self.at_start {
            let kept = text.trim_start_matches(['\n', '\r']).len();
            swallowed = kept == 0 && !text.is_empty() && self.characters.waiting() == 0;
            text.drain(..text.len() - kept);
            self.at_start = text.is_empty();
        }
        if let Some(entry) = entry.filter(|_| !swallowed) {
            self.waiting.push_back((self.decoded, entry));
        }
        self.decoded += text.len();
        text
    }

    /// Emits a piece if there is anything in it: text, tokens to count, or log-probabilities whose text is out.
    fn piece(&mut self, text: String, tokens: &mut usize, last: bool, events: &mut Vec<Event>) {
        let held = self.stops.held() + self.calls.as_ref().map_or(0, Calls::held);
        let shown = self.decoded.saturating_sub(held);
        let mut logprobs = Vec::new();
        while self.waiting.front().is_some_and(|&(start, _)| last || start < shown) {
            logprobs.extend(self.waiting.pop_front().map(|(_, entry)| entry));
        }
        if !text.is_empty() || *tokens > 0 || !logprobs.is_empty() {
            let tokens = std::mem::take(tokens);
            events.push(Event::Token(Piece { channel: Channel::Answer, text, tokens, logprobs }));
        }
    }

    /// A stop string was found `rest` bytes before the end: tokens that begin there or later have no place in the answer.
    fn stopped(&mut self, rest: usize) {
        let held = self.calls.as_ref().map_or(0, Calls::held);
        let shown = self.decoded.saturating_sub(held + rest);
        self.waiting.retain(|&(start, _)| start < shown);
    }

    fn call(&mut self, name: String, arguments: String) -> ToolCall {
        let index = self.called;
        self.called += 1;
        let hash = Sha256::new_with_prefix(self.call_key).chain_update((index as u64).to_le_bytes()).finalize();
        let id = hash.iter().take(12).fold("call_".to_owned(), |id, byte| format!("{id}{byte:02x}"));
        ToolCall { index, id, name, arguments }
    }
}
