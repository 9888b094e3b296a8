//! `POST /v1/chat/completions`.
//!
//! Validate, route, wait for a permit, start all choices, then either collect them into one body or stream them.

mod body;
mod request;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::ApiError;
use super::choices::{Choices, Clock, Presence};
use super::extract::Json;
use super::headers;
use super::state::AppState;
use super::types::{BrevityReport, ChatRequest, ChatResponse};

pub use request::ChatPlan;

/// What all chunks and bodies of one response say about it.
#[derive(Debug, Clone)]
struct Identity {
    id: String,
    created: u64,
    model: String,
    report: BrevityReport,
}

/// Create a chat completion
///
/// The tier that was trained for `reasoning_effort` answers; the headers `x-brevity-tier`, `x-brevity-alpha`,
/// `x-brevity-effort` and `x-brevity-reason` and the object `brevity` of the response say which one and why. With `stream` the
/// response is a stream of `chat.completion.chunk` objects as server-sent events, ended by `data: [DONE]`; an error after the
/// first event comes as an event with the object `error`, and the stream ends without `[DONE]`.
///
/// Accepted and ignored: `store`, `metadata`, `user`, `safety_identifier`, `service_tier` (`auto`, `default`),
/// `prompt_cache_key`, `prompt_cache_options`, `prompt_cache_retention`, `verbosity`, `prediction`, `moderation`,
/// `stream_options.include_obfuscation`. Those of them that would change something elsewhere, and unknown fields, are listed
/// in the response header `x-brevity-ignored`.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "chat",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The completion, or a stream of chunks.", content(
            (ChatResponse = "application/json"),
            (super::types::ChatChunk = "text/event-stream"),
        ), headers(
            ("x-brevity-tier" = String, description = "The tier that answers."),
            ("x-brevity-alpha" = f64, description = "Its alpha."),
            ("x-brevity-effort" = String, description = "The effort in force, `auto` where the cards chose."),
            ("x-brevity-reason" = String, description = "Why this tier."),
            ("x-brevity-ignored" = String, description = "Fields of the request that changed nothing."),
        )),
        super::errors::GenerationErrors,
    )
)]
pub async fn create(State(state): State<Arc<AppState>>, json: Json<ChatRequest>) -> Result<Response, ApiError> {
    let presence = Presence::new(&state);
    let clock = Clock::start(state.options.deadline);
    match answer(&state, json, clock).await {
        Ok(Answer::Whole(response)) => {
            presence.served();
            Ok(response)
        }
        Ok(Answer::Stream(start)) => Ok(start(presence)),
        Err(error) => {
            presence.served();
            Err(error)
        }
    }
}

/// A response, or what makes one while it watches whether the client is there.
enum Answer {
    Whole(Response),
    Stream(Box<dyn FnOnce(Presence) -> Response + Send>),
}

async fn answer(state: &Arc<AppState>, json: Json<ChatRequest>, clock: Clock) -> Result<Answer, ApiError> {
    let plan = request::plan(json, &state.options, &state.sources)?;
    let route = state.directory.route(&plan.wish)?;
    state.metrics.effort_resolved(plan.asked, &route.tier, route.substituted);
    let permit = state.admission.enter(clock.deadline.map(tokio::time::Instant::into_std)).await?;
    let report = BrevityReport::new(&route, plan.seed());
    let identity = Identity {
        id: state.sources.id("chatcmpl"),
        created: (state.sources.now)(),
        model: state.directory.model_id(&route.tier),
        report,
    };
    let headers = headers::report(&identity.report, &plan.ignored);
    let generations = plan.generations(&route, state.engine.context_length(&route.tier));
    let shape = plan.shape(state.options.reasoning_names);
    let choices = Choices::start(state, generations, plan.asked, clock, permit).await?;
    if plan.stream {
        let pace = super::sse::Pace { heartbeat: state.options.heartbeat, stall_timeout: state.options.stall_timeout };
        return Ok(Answer::Stream(Box::new(move |presence| {
            let mut response = stream::response(choices, identity, shape, pace, presence);
            response.headers_mut().extend(headers);
            response
        })));
    }
    let body = body::collect(choices, identity, shape).await?;
    Ok(Answer::Whole((headers, axum::Json(body)).into_response()))
}
