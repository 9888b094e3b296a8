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

type Source = Pin<Box<dyn Stream<Item = Result<eventsource_stream::Event, EventStreamError<reqwest::Error>>> + Send>>;

struct State {
    server: Arc<Server>,
    /// The response; dropped (and with it the connection, unless it is at its end) once nothing more is wanted.
    source: Option<Source>,
    reader: Reader,
    ready: VecDeque<Event>,
}

/// The events of a successful response.
pub(super) fn events(server: Arc<Server>, response: Response, reader: Reader) -> Events {
    let source: Source = Box::pin(response.bytes_stream().eventsource());
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

    fn take(
        &mut self,
        item: Option<Result<eventsource_stream::Event, EventStreamError<reqwest::Error>>>,
    ) -> Result<(), EngineError> {
        let event = match item {
            None => return self.reader.end(&mut self.ready),
            Some(Ok(event)) => event,
            Some(Err(EventStreamError::Transport(error))) => {
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
