//! What all generating endpoints do alike: route and wait, then answer with one body or with a stream of events.
//!
//! An endpoint brings a checked plan and a [`Writer`] that turns events into its own chunks. Who is cancelled when, and what
//! an error in the middle of a stream does, is decided here, once.

use axum::Extension;
use axum::http::HeaderMap;
use axum::response::Response;

use super::ApiError;
use super::access_log::AccessRecord;
use super::choices::{Admitted, Choices, Clock, Indexed};
use super::metrics::Asked;
use super::sse::{self, Gone, Outlet, Pace};
use super::state::AppState;
use super::types::BrevityReport;
use crate::engine::{Generation, Shared};
use crate::routing::{Route, Wish};

/// What all chunks and bodies of one response say about it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its id.
    pub id: String,
    /// When it began, in seconds since 1970.
    pub created: u64,
    /// The model name of the tier that answers.
    pub model: String,
    /// Who answers and why.
    pub report: BrevityReport,
}

/// A tier that has been chosen and a place before the engine.
#[derive(Debug)]
pub struct Prepared {
    /// Who answers.
    pub route: Route,
    /// The right to compute, until the deadline.
    pub admitted: Admitted,
    /// What the response says about itself.
    pub identity: Identity,
}

/// What a checked request asks for, as far as it matters to who may answer it and when.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// Who shall answer.
    pub wish: &'a Wish,
    /// The effort's label in the metrics.
    pub asked: Asked,
    /// Seed of the first choice.
    pub seed: u64,
    /// How many choices are computed at a time; each needs a place.
    pub choices: usize,
}

/// Chooses the tier for `order` and waits for as many places as it has choices. The id of the response is `id`.
///
/// # Errors
/// Those of [`super::directory::Directory::route`] and [`super::admission::Admission::enter`].
pub async fn prepare(
    state: &AppState,
    order: Order<'_>,
    clock: Clock,
    record: Option<Extension<AccessRecord>>,
    id: impl FnOnce() -> String,
) -> Result<Prepared, ApiError> {
    let Order { wish, asked, seed, choices } = order;
    let route = state.directory.route(wish)?;
    state.metrics.effort_resolved(asked, &route.tier, route.substituted);
    let record = record.map(|Extension(record)| record).unwrap_or_default();
    record.set_tier(&route.tier);
    let permit = state.admission.enter(choices, clock.deadline.map(tokio::time::Instant::into_std)).await?;
    let admitted = Admitted { clock, permit, asked, record };
    let report = BrevityReport::new(&route, seed);
    let (created, model) = ((state.sources.now)(), state.directory.model_id(&route.tier));
    Ok(Prepared { identity: Identity { id: id(), created, model, report }, route, admitted })
}

/// `n` generations like `template` for the tier of `route`, each with a seed of its own, none longer than `context`. What is
/// made of the prompt is made once for all of them.
pub fn generations(template: &Generation, n: usize, route: &Route, context: Option<usize>) -> Vec<Generation> {
    let shared = Shared::default();
    let one = |index: usize| {
        let mut generation = Generation { shared: shared.clone(), ..template.clone() };
        generation.tier.clone_from(&route.tier);
        generation.thinking = route.thinking;
        generation.sampling.seed = template.sampling.seed.wrapping_add(index as u64);
        generation.max_tokens = generation.max_tokens.map(|most| context.map_or(most, |context| most.min(context)));
        generation
    };
    (0..n).map(one).collect()
}

/// Turns events into the chunks of an endpoint.
pub trait Writer: Send + 'static {
    /// Bytes that are written and not sent.
    fn frame(&mut self) -> &mut Vec<u8>;
    /// Writes what comes before the first event.
    fn open(&mut self);
    /// Writes what `event` brings.
    fn write(&mut self, event: Indexed);
    /// Writes that the answer ends with `error`.
    fn fail(&mut self, error: &ApiError) {
        let event = sse::error_event(error);
        self.frame().extend(event);
    }
    /// Writes what comes after the last event.
    fn close(&mut self);
}

/// The answer whose choices have started, as a stream.
pub fn stream(state: &AppState, choices: Choices, writer: impl Writer, headers: HeaderMap) -> Response {
    let pace = Pace { heartbeat: state.options.heartbeat, stall_timeout: state.options.stall_timeout };
    let mut response = sse::response(pace, move |outlet| async move {
        // Whoever is gone is counted where the body is dropped: see `access_log`.
        let _: Result<(), Gone> = produce(choices, writer, outlet).await;
    });
    response.headers_mut().extend(headers);
    response
}

async fn produce(mut choices: Choices, mut writer: impl Writer, mut outlet: Outlet) -> Result<(), Gone> {
    writer.open();
    let told = tell(&mut choices, &mut writer, &mut outlet).await?;
    drop(choices);
    match told {
        Ok(()) => writer.close(),
        Err(error) => writer.fail(&error),
    }
    outlet.send(std::mem::take(writer.frame())).await?;
    outlet.finish().await
}

/// Sends what the choices say, to the end of the last. The deadline is that of the reader too.
///
/// # Errors
/// [`Gone`] when the client is; inside, what ends the answer early.
async fn tell(
    choices: &mut Choices,
    writer: &mut impl Writer,
    outlet: &mut Outlet,
) -> Result<Result<(), ApiError>, Gone> {
    let clock = choices.clock();
    loop {
        if !writer.frame().is_empty() {
            let frame = std::mem::take(writer.frame());
            let sent = async {
                tokio::select! {
                    biased;
                    sent = outlet.send(frame) => sent,
                    never = choices.read_ahead() => match never {},
                }
            };
            match clock.within(sent).await {
                Ok(sent) => sent?,
                Err(late) => return Ok(Err(late)),
            }
        }
        let Some(event) = outlet.wait(choices.next()).await? else { return Ok(Ok(())) };
        let mut next = Some(event);
        while let Some(event) = next {
            match event {
                Ok(event) => writer.write(event),
                Err(error) => return Ok(Err(error)),
            }
            next = if writer.frame().len() < sse::FRAME_BYTES { choices.ready() } else { None };
        }
    }
}
