//! What is seen of one request while it runs: moments, text, counts, and how it ended.
//!
//! Moments are those of the client. Everything a stream brought before it failed is kept, so that a report can say how
//! far failed requests came. Nothing is computed here; that happens after the run, away from the clock.

use std::fmt;

use tokio::time::Instant;

use super::chunk::{Chunk, Usage, error_message};
use super::gaps::Gaps;

/// Most characters of an error message that are kept.
const MESSAGE: usize = 300;

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// No connection could be made.
    Connect,
    /// The whole exchange took longer than it was given.
    Timeout,
    /// The server answered with another status than success.
    Status(u16),
    /// The stream began well and then brought an error.
    ErrorEvent,
    /// The stream ended without `[DONE]`, and without a word why the answer ended.
    Truncated,
    /// What came was not JSON, or not a completion.
    InvalidJson,
    /// The connection broke, or HTTP itself was malformed.
    Transport,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => formatter.write_str("connect"),
            Self::Timeout => formatter.write_str("timeout"),
            Self::Status(status) => write!(formatter, "http {status}"),
            Self::ErrorEvent => formatter.write_str("error event"),
            Self::Truncated => formatter.write_str("truncated stream"),
            Self::InvalidJson => formatter.write_str("invalid json"),
            Self::Transport => formatter.write_str("transport"),
        }
    }
}

/// A failure and what was said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its kind, by which failures are counted.
    pub kind: ErrorKind,
    /// The first words of the message.
    pub message: String,
}

impl Failure {
    /// A failure; long messages are cut.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string().chars().take(MESSAGE).collect() }
    }
}

/// One request from its sending to its end.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// When it was handed to the network.
    pub sent: Instant,
    /// When the head of the response came.
    pub first_byte: Option<Instant>,
    /// When the first text came, thought or answer.
    pub first_token: Option<Instant>,
    /// When the first text of the answer came.
    pub first_answer_token: Option<Instant>,
    /// When it ended, well or not.
    pub ended: Instant,
    /// When chunks with text came.
    pub gaps: Gaps,
    /// Chunks of any kind.
    pub chunks: usize,
    /// Chunks with text.
    pub text_chunks: usize,
    /// Those of them with thoughts.
    pub reasoning_chunks: usize,
    /// HTTP status.
    pub status: Option<u16>,
    /// Why the generation ended, in the server's words.
    pub finish_reason: Option<String>,
    /// Token counts, if the server gave any.
    pub usage: Option<Usage>,
    /// The thoughts.
    pub reasoning: String,
    /// The answer.
    pub answer: String,
    /// The model that the server named.
    pub model: Option<String>,
    /// `system_fingerprint`.
    pub fingerprint: Option<String>,
    /// Whether a thinking budget closed the thoughts, as the server says; the last word counts.
    pub forced_close: Option<bool>,
    /// Whether `[DONE]` came.
    pub done: bool,
    /// How it failed, if it did; the first failure stays.
    pub failure: Option<Failure>,
}

impl Exchange {
    /// A request that is sent now.
    pub fn begin(now: Instant) -> Self {
        Self {
            sent: now,
            first_byte: None,
            first_token: None,
            first_answer_token: None,
            ended: now,
            gaps: Gaps::default(),
            chunks: 0,
            text_chunks: 0,
            reasoning_chunks: 0,
            status: None,
            finish_reason: None,
            usage: None,
            reasoning: String::new(),
            answer: String::new(),
            model: None,
            fingerprint: None,
            forced_close: None,
            done: false,
            failure: None,
        }
    }

    /// Notes a failure, unless there is one already.
    pub fn fail(&mut self, kind: ErrorKind, message: impl fmt::Display) {
        if self.failure.is_none() {
            self.failure = Some(Failure::new(kind, message));
        }
    }

    /// Takes the data of one event of the stream, which arrived at `now`. Nothing counts after `[DONE]` or a failure.
    pub fn event(&mut self, data: &[u8], now: Instant) {
        if self.done || self.failure.is_some() {
            return;
        }
        if data == b"[DONE]" {
            self.done = true;
            return;
        }
        match Chunk::parse(data) {
            Ok(chunk) => self.take(&chunk, now),
            Err(error) => self.fail(ErrorKind::InvalidJson, format_args!("{error} in `{}`", shown(data))),
        }
    }

    /// Takes the body of an answer that was not streamed; it has no moments of tokens.
    pub fn whole(&mut self, data: &[u8], now: Instant) {
        match Chunk::parse(data) {
            Ok(chunk) => {
                self.take(&chunk, now);
                (self.first_token, self.first_answer_token, self.gaps) = (None, None, Gaps::default());
                self.done = true;
            }
            Err(error) => self.fail(ErrorKind::InvalidJson, format_args!("{error} in `{}`", shown(data))),
        }
    }

    fn take(&mut self, chunk: &Chunk<'_>, now: Instant) {
        self.chunks += 1;
        if let Some(error) = &chunk.error {
            self.fail(ErrorKind::ErrorEvent, error_message(error));
            return;
        }
        let (thoughts, answer) = (chunk.thoughts(), chunk.answer());
        if !thoughts.is_empty() || !answer.is_empty() {
            self.text_chunks += 1;
            self.first_token.get_or_insert(now);
            self.gaps.chunk(now);
            if answer.is_empty() {
                self.reasoning_chunks += 1;
            } else {
                self.first_answer_token.get_or_insert(now);
            }
            self.reasoning.push_str(thoughts);
            self.answer.push_str(answer);
        }
        if let Some(reason) = chunk.finish_reason() {
            self.finish_reason = Some(reason.to_owned());
        }
        if chunk.usage.is_some() {
            self.usage = chunk.usage;
        }
        self.forced_close = chunk.forced_close().or(self.forced_close);
        if self.model.is_none() {
            self.model = chunk.model().map(str::to_owned);
        }
        if self.fingerprint.is_none() {
            self.fingerprint = chunk.fingerprint().map(str::to_owned);
        }
    }
}

/// The beginning of `data`, for a message.
fn shown(data: &[u8]) -> String {
    String::from_utf8_lossy(data.get(..data.len().min(120)).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn delta(body: &str) -> String {
        format!("{{\"model\":\"m\",\"choices\":[{{\"delta\":{{{body}}},\"finish_reason\":null}}],\"usage\":null}}")
    }

    #[test]
    fn moments_are_those_of_text_not_of_chunks() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut exchange = Exchange::begin(start);
        let events = [
            (10, delta("\"role\":\"assistant\",\"content\":null")),
            (20, delta("\"content\":\"\"")),
            (30, delta("\"reasoning_content\":\"a\",\"reasoning\":\"a\"")),
            (70, delta("\"reasoning_content\":\"b\"")),
            (80, delta("\"content\":\"c\"")),
            (90, "{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}".to_owned()),
            (95, "[DONE]".to_owned()),
            (99, delta("\"content\":\"late\"")),
        ];
        for (milliseconds, data) in &events {
            exchange.event(data.as_bytes(), at(*milliseconds));
        }
        assert_eq!((exchange.first_token, exchange.first_answer_token), (Some(at(30)), Some(at(80))));
        assert_eq!(exchange.gaps.each().collect::<Vec<_>>(), [(0.04, 1), (0.01, 1)]);
        assert_eq!((exchange.chunks, exchange.text_chunks, exchange.reasoning_chunks), (6, 3, 2));
        assert_eq!((exchange.reasoning.as_str(), exchange.answer.as_str()), ("ab", "c"));
        assert_eq!(exchange.finish_reason.as_deref(), Some("stop"));
        assert!(exchange.done && exchange.failure.is_none());
    }

    #[test]
    fn the_first_failure_stays() {
        let now = Instant::now();
        let mut exchange = Exchange::begin(now);
        exchange.event(delta("\"content\":\"c\"").as_bytes(), now);
        exchange.event(b"{\"error\":{\"message\":\"out of memory\"}}", now);
        exchange.event(b"nonsense", now);
        let failure = exchange.failure.unwrap();
        assert_eq!((failure.kind, failure.message.as_str()), (ErrorKind::ErrorEvent, "out of memory"));
        assert_eq!(exchange.answer, "c");
        let mut exchange = Exchange::begin(now);
        exchange.event(b"{\"choices\":", now);
        assert_eq!(exchange.failure.unwrap().kind, ErrorKind::InvalidJson);
    }

    #[test]
    fn whole_answers_have_text_but_no_moments() {
        let now = Instant::now();
        let mut exchange = Exchange::begin(now);
        exchange.whole(b"{\"choices\":[{\"message\":{\"content\":\"4\"},\"finish_reason\":\"stop\"}]}", now);
        assert_eq!((exchange.answer.as_str(), exchange.first_token, exchange.done), ("4", None, true));
    }
}
