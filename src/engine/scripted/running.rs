//! One scripted generation on its way: logits toward the script, and the faults on the road.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use brevity_training::thoughts::Thoughts;
use futures::stream;
use tokio::sync::Semaphore;

use super::{Fault, Script};
use crate::engine::sequence::{LocalModel, Sequence};
use crate::engine::{EngineError, Event, Events};

/// The logit of the token that the script wants; others have 0, so that a bias of 100 still moves it.
const WANTED: f32 = 30.0;

/// Tokens after which a generation without pauses lets other tasks run.
const BURST: usize = 64;

pub(super) struct Running {
    sequence: Sequence,
    /// Ids of the answer, reached when the thoughts are closed, by the script or by a budget.
    answer: Vec<u32>,
    /// Ids that are to come.
    ahead: VecDeque<u32>,
    /// Whether the thoughts are still being said.
    thinking: bool,
    end: u32,
    logits: Vec<f32>,
    said: usize,
    script: Script,
    ready: VecDeque<Event>,
    over: bool,
    /// Held only to be dropped.
    _count: Count,
}

/// Counts a running generation until it is dropped.
struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Running {
    pub fn new(
        model: &LocalModel,
        mut sequence: Sequence,
        script: Script,
        fingerprint: String,
        running: &Arc<AtomicUsize>,
    ) -> Result<Self, EngineError> {
        let encode = |text: &str| {
            model
                .codec()
                .encode(text)
                .map_err(|error| EngineError::failed(format!("cannot tokenise the script: {error}")))
        };
        let answer = encode(&script.answer)?;
        let opens = !sequence.assembler.is_answering() && !sequence.assembler.is_thinking();
        let thinking = sequence.assembler.is_thinking() || (opens && !script.thinking.is_empty());
        let ahead = if thinking {
            let open = if opens { Thoughts::OPEN } else { "" };
            encode(&format!("{open}{}{}", script.thinking, Thoughts::CLOSE))?.into()
        } else {
            answer.iter().copied().collect()
        };
        sequence.assembler = sequence.assembler.with_fingerprint(Some(fingerprint));
        running.fetch_add(1, Ordering::SeqCst);
        let started = sequence.assembler.started();
        Ok(Self {
            answer,
            ahead,
            thinking,
            end: model.end_ids()[0],
            logits: vec![0.0; model.vocabulary_size()],
            said: 0,
            script,
            ready: VecDeque::from([started]),
            over: false,
            sequence,
            _count: Count(Arc::clone(running)),
        })
    }

    /// The events; a gate is passed before the first token.
    pub fn events(self, gate: Option<Arc<Semaphore>>) -> Events {
        Box::pin(stream::unfold((self, gate), |(mut running, mut gate)| async move {
            loop {
                if let Some(event) = running.ready.pop_front() {
                    return Some((Ok(event), (running, gate)));
                }
                if running.over || running.sequence.assembler.is_finished() {
                    return None;
                }
                if let Some(gate) = gate.take() {
                    // A permit is for one generation, and used up by it.
                    if let Ok(permit) = gate.acquire().await {
                        permit.forget();
                    }
                }
                match running.script.fault {
                    Some(Fault::Hangs { after }) if running.said >= after => std::future::pending::<()>().await,
                    Some(Fault::Disconnects { after }) if running.said >= after => return None,
                    Some(Fault::Failed { after, ref error }) if running.said >= after => {
                        let error = error.clone();
                        running.over = true;
                        return Some((Err(error), (running, gate)));
                    }
                    _ => {}
                }
                if !running.script.delay.is_zero() {
                    tokio::time::sleep(running.script.delay).await;
                } else if running.said % BURST == BURST - 1 {
                    tokio::task::yield_now().await;
                }
                if let Err(error) = running.step() {
                    running.over = true;
                    return Some((Err(error), (running, gate)));
                }
            }
        }))
    }

    /// Says one token.
    fn step(&mut self) -> Result<(), EngineError> {
        let wanted = self.ahead.pop_front().unwrap_or(self.end);
        self.logits[wanted as usize] = WANTED;
        let chosen = self.sequence.sampler.choose(&self.logits);
        self.logits[wanted as usize] = 0.0;
        if let Some(error) = self.sequence.sampler.failure() {
            return Err(error);
        }
        self.said += 1;
        self.ready.extend(self.sequence.assembler.push(chosen));
        if self.thinking && self.sequence.assembler.is_answering() {
            self.thinking = false;
            self.ahead = self.answer.iter().copied().collect();
        }
        Ok(())
    }
}
