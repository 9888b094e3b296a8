//! From the engine's two channels to one ordered stream of events.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream;
use mistralrs::Response;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};

use super::host::{Admitted, Host, RETRY_AFTER};
use super::processor::Step;
use super::room::HeldRoom;
use super::running::Running;
use crate::engine::sequence::Assembler;
use crate::engine::{EngineError, Event, Events, FinishReason};

/// One generation on its way. Dropping it closes both channels: the engine frees the sequence at its next step.
struct Answer {
    host: Arc<Host>,
    running: Arc<Running>,
    /// The tokens, from the processor on the engine's thread.
    steps: UnboundedReceiver<Step>,
    /// The engine's own signals: only errors and the reason of its end matter, the text in them is not ours.
    responses: Receiver<Response>,
    assembler: Assembler,
    ready: VecDeque<Event>,
    /// Why the engine ended the sequence, should it know better than the assembler.
    engine_reason: Option<FinishReason>,
    ended: bool,
    /// Room for the prompt, should it never be read.
    _room: HeldRoom,
}

/// The events of a sequence that the engine has taken.
pub fn events(
    host: Arc<Host>,
    admitted: Admitted,
    steps: UnboundedReceiver<Step>,
    assembler: Assembler,
    room: HeldRoom,
) -> Events {
    let Admitted { responses, generation: _, running } = admitted;
    let ready = VecDeque::from([assembler.started()]);
    let answer =
        Answer { host, running, steps, responses, assembler, ready, engine_reason: None, ended: false, _room: room };
    Box::pin(stream::unfold(answer, |mut answer| async { answer.next().await.map(|event| (event, answer)) }))
}

impl Answer {
    async fn next(&mut self) -> Option<Result<Event, EngineError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.advance().await {
                self.end();
                return Some(Err(error));
            }
        }
    }

    /// Waits for the next signal and takes it in.
    async fn advance(&mut self) -> Result<(), EngineError> {
        if self.engine_reason.is_some() {
            // Every token was sent before the reason: what is not in the channel now will not come.
            return match self.steps.try_recv() {
                Ok(step) => self.take(step),
                Err(_) => self.abandoned(),
            };
        }
        tokio::select! {
            biased;
            Some(step) = self.steps.recv() => self.take(step),
            Some(response) = self.responses.recv() => self.hear(response),
            else => self.abandoned(),
        }
    }

    fn take(&mut self, step: Step) -> Result<(), EngineError> {
        let events = self.assembler.push(step?);
        self.ready.extend(events);
        if self.assembler.is_finished() {
            self.end();
        }
        Ok(())
    }

    fn hear(&mut self, response: Response) -> Result<(), EngineError> {
        match response {
            Response::CompletionChunk(chunk) => {
                let reason = chunk.choices.first().and_then(|choice| choice.finish_reason.as_deref());
                self.engine_reason = match reason {
                    None => None,
                    Some("length") => Some(FinishReason::Length),
                    Some("stop") => Some(FinishReason::Stop),
                    Some(other) => {
                        return Err(EngineError::failed(format!("the engine gave up the answer with `{other}`")));
                    }
                };
                Ok(())
            }
            Response::ValidationError(error) => Err(EngineError::Invalid { message: error.to_string(), param: None }),
            Response::InternalError(error) => Err(EngineError::failed(format!("the engine failed: {error}"))),
            Response::CompletionModelError(message, _) | Response::ModelError(message, _) => {
                Err(EngineError::failed(format!("the engine failed: {message}")))
            }
            _ => Err(EngineError::failed("the engine gave an answer of an unknown kind")),
        }
    }

    /// No token will come and the assembler waits for one: the engine has ended the sequence, or has died.
    fn abandoned(&mut self) -> Result<(), EngineError> {
        let Some(reason) = self.engine_reason else {
            self.host.died(&self.running);
            let message = "the engine died while it answered; it restarts, try again".to_owned();
            return Err(EngineError::Unavailable { message, retry_after: Some(RETRY_AFTER) });
        };
        let events = self.assembler.end(reason);
        self.ready.extend(events);
        self.end();
        Ok(())
    }

    /// Lets the engine stop now, even if the reader keeps this for a while.
    fn end(&mut self) {
        self.ended = true;
        self.steps.close();
        self.responses.close();
    }
}
