//! The choices of one request: started together, read together, cancelled together.
//!
//! Everything that ends early is cancelled by dropping: a failed choice drops its siblings, a gone client drops [`Choices`],
//! and with it the engine's streams and the permit. Endpoints see events with the place of their choice, nothing else.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use futures::stream::SelectAll;
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::Instant;

use super::ApiError;
use super::access_log::AccessRecord;
use super::admission::Permit;
use super::metrics::{Asked, GenerationMetrics};
use super::state::AppState;
use crate::engine::{EngineError, Event, Events, Generation};

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

    /// `work`, if it is done by the deadline.
    ///
    /// # Errors
    /// 408 otherwise.
    pub async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, ApiError> {
        match self.deadline {
            None => Ok(work.await),
            Some(deadline) => tokio::time::timeout_at(deadline, work).await.map_err(|_| {
                let seconds = deadline.duration_since(self.arrived).as_secs_f64();
                ApiError::timeout(format!(
                    "the request was not done within {seconds} s; ask for fewer tokens or less effort, or try again"
                ))
            }),
        }
    }
}

/// A request that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// When it came and when it must be over.
    pub clock: Clock,
    /// Held until all choices are done or dropped.
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
    counts: Vec<Option<Count>>,
    state: Arc<AppState>,
    clock: Clock,
    record: AccessRecord,
    _permit: Permit,
}

/// What a choice's stream yields; `None` marks its end.
type Step = (usize, Option<Result<Event, EngineError>>);

/// What is measured of one choice.
struct Count {
    metrics: GenerationMetrics,
    tier: String,
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
            match begin(state, generation).await {
                Ok(events) => Ok((Count { metrics, tier, first: None, last: None }, events)),
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
        let (streams, counts) = (SelectAll::new(), Vec::new());
        let mut choices = Self { streams, counts, state: state.clone(), clock, record, _permit: permit };
        for (index, (count, events)) in started.into_iter().enumerate() {
            count.metrics.queued(queue_time);
            choices.counts.push(Some(count));
            let ended = futures::stream::once(async move { (index, None) });
            // A bug of an engine is an error like any other, so that each endpoint tells it in its own way.
            let events = AssertUnwindSafe(events).catch_unwind().map(|event| event.unwrap_or_else(|_| Err(panicked())));
            choices.streams.push(Box::pin(events.map(move |event| (index, Some(event))).chain(ended)));
        }
        Ok(choices)
    }

    /// The next event of any choice; `None` when all have finished.
    ///
    /// # Errors
    /// What the engine failed with, or 408 at the deadline. Nothing comes after an error.
    pub async fn next(&mut self) -> Option<Result<Indexed, ApiError>> {
        loop {
            let step = match self.clock.within(self.streams.next()).await {
                Ok(step) => step?,
                Err(late) => {
                    self.streams.clear();
                    return Some(Err(late));
                }
            };
            if let Some(event) = self.take(step) {
                return Some(event);
            }
        }
    }

    /// The next event if there is one already.
    pub fn ready(&mut self) -> Option<Result<Indexed, ApiError>> {
        loop {
            let step = self.streams.next().now_or_never()??;
            if let Some(event) = self.take(step) {
                return Some(event);
            }
        }
    }

    /// Measures a step; `None` when it was the expected end of a choice.
    fn take(&mut self, (index, step): Step) -> Option<Result<Indexed, ApiError>> {
        let event = match step {
            None if self.counts.get(index).is_none_or(Option::is_none) => return None,
            None => Err(ApiError::internal("the engine ended an answer without saying why; try again")),
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(ApiError::from(error)),
        };
        let count = self.counts.get_mut(index)?;
        match &event {
            Ok(Event::Token(piece)) => {
                if let Some(count) = count {
                    let now = Instant::now();
                    match count.last.replace(now) {
                        None => {
                            count.first = Some(now);
                            count.metrics.first_token(now.duration_since(self.clock.arrived));
                        }
                        Some(last) => count.metrics.next_tokens(piece.tokens, now.duration_since(last)),
                    }
                }
            }
            Ok(Event::Finished(finish)) => {
                if let Some(count) = count.take() {
                    if let (Some(first), Some(last)) = (count.first, count.last) {
                        let to_first = first.duration_since(self.clock.arrived);
                        let tokens = finish.usage.completion_tokens;
                        self.state.directory.observe(&count.tier, to_first, last.duration_since(first), tokens);
                    }
                    self.record.add_usage(finish.usage);
                    count.metrics.finished(finish, self.clock.arrived.elapsed());
                }
            }
            Ok(Event::Started { .. } | Event::ToolCall(_)) => {}
            Err(_) => {
                if let Some(count) = count.take() {
                    count.metrics.failed();
                }
                self.streams.clear();
            }
        }
        Some(event.map(|event| (index, event)))
    }
}

/// What is left of a generation whose engine panicked.
fn panicked() -> EngineError {
    tracing::error!("an engine panicked; this is a bug of the server, please report it");
    EngineError::failed("the server failed on this request; try again")
}

/// Starts one generation and waits until its prompt is accepted.
async fn begin(state: &AppState, generation: Generation) -> Result<Events, ApiError> {
    let mut events = state.engine.generate(generation).await?;
    match events.next().await {
        Some(Ok(Event::Started { .. })) => Ok(events),
        Some(Err(error)) => Err(error.into()),
        Some(Ok(_)) | None => Err(ApiError::internal("the engine took the request and did not start it; try again")),
    }
}
