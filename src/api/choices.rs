//! The choices of one request: started together, read together, cancelled together.
//!
//! Everything that ends early is cancelled by dropping: a failed choice drops its siblings, a gone client drops [`Choices`],
//! and with it the engine's streams and the permit. Endpoints see events with the place of their choice, nothing else. While
//! a client reads slowly, the engine is heard all the same ([`Choices::read_ahead`]): the permit goes back when the engine is
//! done, and times are those of the engine.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use futures::stream::SelectAll;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ApiError;
use super::access_log::AccessRecord;
use super::admission::Permit;
use super::directory::Measured;
use super::health::ReadingPrompt;
use super::metrics::{Asked, GenerationMetrics};
use super::state::AppState;
use crate::engine::{Channel, EngineError, Event, Events, Generation, Usage};

/// Events that are held at most for a client that does not take them; the engine waits for it then.
const AHEAD: usize = 4096;

/// When a request came and when it must be over.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// When the request came.
    pub arrived: Instant,
    /// When it must be over; `None` for any time.
    pub deadline: Option<Instant>,
}

impl Clock {
    /// Starts now.
    pub fn start(limit: Option<Duration>) -> Self {
        let arrived = Instant::now();
        Self { arrived, deadline: limit.and_then(|limit| arrived.checked_add(limit)) }
    }

    /// `work`, if it is done by the deadline. After the deadline it is not even begun: work that never has to wait would
    /// never be late otherwise.
    ///
    /// # Errors
    /// 408 otherwise.
    pub async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, ApiError> {
        let Some(deadline) = self.deadline else { return Ok(work.await) };
        if self.is_over() {
            return Err(self.late(deadline));
        }
        tokio::time::timeout_at(deadline, work).await.map_err(|_| self.late(deadline))
    }

    /// Whether the deadline has come.
    pub fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    fn late(&self, deadline: Instant) -> ApiError {
        let seconds = deadline.duration_since(self.arrived).as_secs_f64();
        ApiError::deadline(format!("the request was not done within {seconds} s; ask for fewer tokens or less effort"))
    }
}

/// A request that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// When it came and when it must be over.
    pub clock: Clock,
    /// Held until the engine is done with all choices, or they are dropped.
    pub permit: Permit,
    /// The effort's label in the metrics.
    pub asked: Asked,
    /// Its line in the access log.
    pub record: AccessRecord,
}

/// An event and the place of the choice it belongs to.
pub type Indexed = (usize, Event);

/// Running generations of one request.
pub struct Choices {
    streams: SelectAll<std::pin::Pin<Box<dyn Stream<Item = Step> + Send>>>,
    /// What the engine has said and nobody has asked for yet, and when it said it.
    ahead: VecDeque<(Instant, Step)>,
    /// Whether the engine had to wait for the client, so that its times say nothing about the engine.
    held_up: bool,
    counts: Vec<Option<Count>>,
    /// How long the request waited for its turn.
    queue_time: Duration,
    state: Arc<AppState>,
    clock: Clock,
    record: AccessRecord,
    /// `None` once the engine is done.
    permit: Option<Permit>,
}

/// What a choice's stream yields; `None` marks its end.
type Step = (usize, Option<Result<Event, EngineError>>);

/// What is measured of one choice.
struct Count {
    metrics: GenerationMetrics,
    tier: String,
    /// Told of every token.
    heard: Arc<Notify>,
    /// Until the first.
    reading: Option<ReadingPrompt>,
    /// Of what was said so far.
    usage: Usage,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl std::fmt::Debug for Choices {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Choices").field("running", &self.streams.len()).finish()
    }
}

impl Choices {
    /// Starts all `generations` and waits until each is accepted, so that whatever is wrong can still become a status code.
    ///
    /// # Errors
    /// The first error of any of them; the others are cancelled. 408 when the deadline comes first.
    pub async fn start(
        state: &Arc<AppState>,
        generations: Vec<Generation>,
        admitted: Admitted,
    ) -> Result<Self, ApiError> {
        let Admitted { clock, permit, asked, record } = admitted;
        let start = |generation: Generation| async move {
            let metrics = state.metrics.generation(&generation.tier, asked);
            let tier = generation.tier.clone();
            let heard = state.readiness.tokens_of(&tier);
            match begin(state, generation).await {
                Ok((events, prompt_tokens)) => {
                    let reading = Some(state.readiness.reads());
                    let usage = Usage { prompt_tokens, ..Usage::default() };
                    Ok((Count { metrics, tier, heard, reading, usage, first: None, last: None }, events))
                }
                Err(error) => {
                    match error.status.is_server_error() {
                        true => metrics.failed(),
                        false => metrics.refused(),
                    }
                    Err(error)
                }
            }
        };
        let started = clock.within(try_join_all(generations.into_iter().map(start))).await??;
        let queue_time = permit.queue_time();
        state.directory.queued(queue_time, Instant::now());
        let mut choices = Self {
            streams: SelectAll::new(),
            ahead: VecDeque::new(),
            held_up: false,
            counts: Vec::new(),
            queue_time,
            state: state.clone(),
            clock,
            record,
            permit: Some(permit),
        };
        for (index, (count, events)) in started.into_iter().enumerate() {
            count.metrics.queued(queue_time);
            choices.record.add_usage(count.usage);
            choices.counts.push(Some(count));
            let ended = futures::stream::once(async move { (index, None) });
            // A bug of an engine is an error like any other, so that each endpoint tells it in its own way.
            let events = AssertUnwindSafe(events).catch_unwind().map(|event| event.unwrap_or_else(|_| Err(panicked())));
            choices.streams.push(Box::pin(events.map(move |event| (index, Some(event))).chain(ended)));
        }
        Ok(choices)
    }

    /// When the request came and when it must be over.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The next event of any choice; `None` when all have finished.
    ///
    /// # Errors
    /// What the engine failed with, or 408 at the deadline. Nothing comes after an error.
    pub async fn next(&mut self) -> Option<Result<Indexed, ApiError>> {
        loop {
            let clock = self.clock;
            let (at, step) = match clock.within(self.step()).await {
                Ok(step) => step?,
                Err(late) => {
                    self.record.set_failed();
                    self.give_up();
                    return Some(Err(late));
                }
            };
            if let Some(event) = self.take(at, step) {
                return Some(event);
            }
        }
    }

    /// The next event if there is one already and the deadline has not come.
    pub fn ready(&mut self) -> Option<Result<Indexed, ApiError>> {
        loop {
            if self.clock.is_over() {
                return None;
            }
            let (at, step) = self.step().now_or_never()??;
            if let Some(event) = self.take(at, step) {
                return Some(event);
            }
        }
    }

    /// Hears what the engine says while nobody asks for it. Never done: drop it when the client is ready for more.
    pub async fn read_ahead(&mut self) -> Infallible {
        while self.ahead.len() < AHEAD {
            match self.hear().await {
                Some(step) => self.ahead.push_back(step),
                None => return std::future::pending().await,
            }
        }
        self.held_up = true;
        std::future::pending().await
    }

    /// What was said first of all that nobody has asked for, or will be said next.
    async fn step(&mut self) -> Option<(Instant, Step)> {
        match self.ahead.pop_front() {
            Some(step) => Some(step),
            None => self.hear().await,
        }
    }

    /// What the engine says next.
    async fn hear(&mut self) -> Option<(Instant, Step)> {
        let Some(step) = self.streams.next().await else {
            self.permit = None;
            return None;
        };
        if let (index, Some(Ok(Event::Token(_)))) = &step
            && let Some(Some(count)) = self.counts.get_mut(*index)
        {
            count.reading = None;
            count.heard.notify_waiters();
        }
        Some((Instant::now(), step))
    }

    /// Cancels everything that is still running.
    fn give_up(&mut self) {
        self.streams.clear();
        self.ahead.clear();
        self.permit = None;
    }

    /// Measures a step; `None` when it was the expected end of a choice.
    fn take(&mut self, now: Instant, (index, step): Step) -> Option<Result<Indexed, ApiError>> {
        let event = match step {
            None if self.counts.get(index).is_none_or(Option::is_none) => return None,
            None => Err(ApiError::internal(
                "the engine ended an answer without saying why; this is a bug of the server, please report it",
            )),
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(ApiError::from(error)),
        };
        let choices = self.counts.len();
        let count = self.counts.get_mut(index)?;
        match &event {
            Ok(Event::Token(piece)) => {
                if let Some(count) = count {
                    let reasoning_tokens = if piece.channel == Channel::Thinking { piece.tokens } else { 0 };
                    // Noted as they come: whoever leaves does so at any time.
                    let said = Usage { completion_tokens: piece.tokens, reasoning_tokens, ..Usage::default() };
                    self.record.add_usage(said);
                    count.usage.completion_tokens += said.completion_tokens;
                    count.usage.reasoning_tokens += said.reasoning_tokens;
                    match count.last.replace(now) {
                        None => {
                            count.first = Some(now);
                            let to_first = now.duration_since(self.clock.arrived);
                            count.metrics.first_token(to_first);
                            if !self.held_up {
                                let of = Measured { tier: &count.tier, choices };
                                self.state.directory.first_token(of, to_first.saturating_sub(self.queue_time), now);
                            }
                        }
                        Some(last) => count.metrics.next_tokens(piece.tokens, now.duration_since(last)),
                    }
                }
            }
            Ok(Event::Finished(finish)) => {
                if let Some(count) = count.take() {
                    if let (Some(first), Some(last), false) = (count.first, count.last, self.held_up) {
                        let of = Measured { tier: &count.tier, choices };
                        let tokens = finish.usage.completion_tokens;
                        self.state.directory.generated(of, last.duration_since(first), tokens, now);
                    }
                    self.record.correct_usage(count.usage, finish.usage);
                    count.metrics.finished(finish, now.duration_since(self.clock.arrived));
                }
            }
            Ok(Event::Started { .. } | Event::ToolCall(_)) => {}
            Err(_) => {
                if let Some(count) = count.take() {
                    count.metrics.failed();
                }
                self.record.set_failed();
                self.give_up();
            }
        }
        Some(event.map(|event| (index, event)))
    }
}

/// What is left of a generation whose engine panicked.
fn panicked() -> EngineError {
    tracing::error!("an engine panicked; this is a bug of the server, please report it");
    EngineError::failed("the engine panicked on this request; this is a bug of the server, please report it")
}

/// Starts one generation and waits until its prompt is accepted; gives its tokens, where they are known by then.
async fn begin(state: &AppState, generation: Generation) -> Result<(Events, usize), ApiError> {
    let mut events = state.engine.generate(generation).await?;
    match events.next().await {
        Some(Ok(Event::Started { prompt_tokens })) => Ok((events, prompt_tokens)),
        Some(Err(error)) => Err(error.into()),
        Some(Ok(_)) | None => Err(ApiError::internal(
            "the engine took the request and did not start it; this is a bug of the server, please report it",
        )),
    }
}
