//! From the bytes of a response to events, as they come.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use eventsource_stream::{EventStreamError, Eventsource};
use futures::{Stream, StreamExt, stream};
use reqwest::Response;

use super::chunk::Chunk;
use super::config::Server;
use super::reader::{Reader, error_of};
use super::refusal::causes;
use crate::engine::{EngineError, Event, Events};

/// Bytes of one event at most: far more than a token with its log-probabilities, or a call of a tool, ever has.
const LONGEST_EVENT: usize = 16 << 20;

type Item = Result<eventsource_stream::Event, EventStreamError<Broken>>;
type Source = Pin<Box<dyn Stream<Item = Item> + Send>>;

/// Why no more bytes come.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// The connection is lost.
    #[error(transparent)]
    Transport(#[from] reqwest::Error),
    /// Somebody has to keep an event until it is whole.
    #[error("an event has more than {LONGEST_EVENT} bytes")]
    TooLong,
}

/// The length of the event that is on its way, and where in it the stream stands.
#[derive(Debug, Default)]
struct Length {
    bytes: usize,
    /// Whether nothing stands on this line yet.
    blank: bool,
    /// Whether the last byte was a carriage return, of which a line feed may be the other half.
    returned: bool,
}

impl Length {
    /// Goes on by `part`; whether the event is still short enough.
    fn take(&mut self, part: &[u8]) -> bool {
        for &byte in part {
            self.bytes += 1;
            let second_half = byte == b'\n' && self.returned;
            self.returned = byte == b'\r';
            match byte {
                b'\n' if second_half => {}
                b'\n' | b'\r' => {
                    // An empty line ends an event.
                    if self.blank {
                        self.bytes = 0;
                    }
                    self.blank = true;
                }
                _ => self.blank = false,
            }
            if self.bytes > LONGEST_EVENT {
                return false;
            }
        }
        true
    }
}

/// The same bytes, as long as no event is too long.
fn bounded(parts: impl Stream<Item = reqwest::Result<Bytes>>) -> impl Stream<Item = Result<Bytes, Broken>> {
    let mut length = Length::default();
    parts.map(move |part| {
        let part = part?;
        if length.take(&part) { Ok(part) } else { Err(Broken::TooLong) }
    })
}

struct State {
    server: Arc<Server>,
    /// The response; dropped (and with it the connection, unless it is at its end) once nothing more is wanted.
    source: Option<Source>,
    reader: Reader,
    ready: VecDeque<Event>,
}

/// The events of a successful response.
pub(super) fn events(server: Arc<Server>, response: Response, reader: Reader) -> Events {
    let source: Source = Box::pin(bounded(response.bytes_stream()).eventsource());
    let state = State { server, source: Some(source), reader, ready: VecDeque::new() };
    Box::pin(stream::unfold(state, |mut state| async move { state.next().await.map(|event| (event, state)) }))
}

impl State {
    async fn next(&mut self) -> Option<Result<Event, EngineError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let item = self.source.as_mut()?.next().await;
            let result = self.take(item);
            if result.is_err() || self.reader.is_finished() {
                self.source = None;
            }
            if let Err(error) = result {
                // What came before the failure was given out already, chunk by chunk.
                self.ready.clear();
                return Some(Err(error));
            }
        }
    }

    fn take(&mut self, item: Option<Item>) -> Result<(), EngineError> {
        let event = match item {
            None => return self.reader.end(&mut self.ready),
            Some(Ok(event)) => event,
            Some(Err(EventStreamError::Transport(Broken::TooLong))) => {
                return Err(self.reader.failed(&format!("sent an event of more than {LONGEST_EVENT} bytes")));
            }
            // Some servers close without the last line, and all of the answer is here.
            Some(Err(EventStreamError::Transport(Broken::Transport(_)))) if self.reader.has_ended() => {
                return self.reader.end(&mut self.ready);
            }
            Some(Err(EventStreamError::Transport(Broken::Transport(error)))) => {
                tracing::warn!(tier = %self.server.tier.name, error = %causes(&error), "the upstream server's stream broke");
                let what = if error.is_timeout() { "fell silent" } else { "was lost" };
                return Err(self.reader.failed(&format!("{what} in the middle of an answer")));
            }
            Some(Err(error)) => {
                tracing::warn!(tier = %self.server.tier.name, %error, "the upstream server's stream cannot be read");
                return Err(self.reader.failed("sent a stream that is no event stream"));
            }
        };
        if event.data.trim() == "[DONE]" {
            return self.reader.end(&mut self.ready);
        }
        let chunk: Chunk = match serde_json::from_str(&event.data) {
            Ok(chunk) => chunk,
            Err(error) if event.event != "error" => {
                tracing::warn!(tier = %self.server.tier.name, %error, "a chunk of the upstream server cannot be read");
                return Err(self.reader.failed("sent a chunk that is no chat completion chunk"));
            }
            Err(_) => Chunk { error: Some(event.data.clone().into()), ..Chunk::default() },
        };
        match error_of(&chunk) {
            Some(message) => {
                let message = self.server.clean(&message);
                Err(self.reader.failed(&format!("failed in the middle of an answer: {message}")))
            }
            None => self.reader.push(chunk, &mut self.ready),
        }
    }
}

/// The first `limit` bytes of a body, as text; what cannot be read is left out.
pub(super) async fn beginning(response: Response, limit: usize) -> String {
    let mut bytes: Vec<u8> = Vec::new();
    let mut body = response.bytes_stream();
    while let Some(Ok(part)) = body.next().await {
        let part: Bytes = part;
        let room = limit.saturating_sub(bytes.len()).min(part.len());
        bytes.extend_from_slice(part.get(..room).unwrap_or_default());
        if bytes.len() >= limit {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether all of `count` times `part` comes through.
    async fn passes(part: &str, count: usize) -> bool {
        let part = Bytes::from(part.to_owned());
        let parts = bounded(stream::iter((0..count).map(|_| Ok(part.clone()))));
        let results: Vec<Result<Bytes, Broken>> = parts.collect().await;
        results.iter().all(Result::is_ok)
    }

    #[tokio::test]
    async fn an_event_has_a_bound_and_a_stream_has_none() {
        let line = format!("data: {}", "x".repeat(1 << 20));
        for end in ["\n\n", "\r\n\r\n", "\r\r"] {
            assert!(passes(&format!("{line}{end}"), 20).await, "{end:?}");
        }
        assert!(passes(&line, 15).await);
        for end in ["", "\n", "\r\n", "\r"] {
            assert!(!passes(&format!("{line}{end}"), 20).await, "{end:?}");
        }
    }
}
