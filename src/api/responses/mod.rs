//! `POST /v1/responses`, as far as it goes without a store.
//!
//! What is asked for and who answers is the same as for chat completions; the answer is a list of items, whole or as events
//! that each say their place.

mod request;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};

use super::ApiError;
use super::access_log::AccessRecord;
use super::answer::{self, Prepared, Writer};
use super::choices::{Choices, Clock};
use super::extract::Json;
use super::headers;
use super::plan::RESPONSES;
use super::state::AppState;
use super::types::{CreateResponse, ResponseEvent, ResponseObject};
use request::ResponsePlan;

/// Create a response
///
/// The tier that was trained for `reasoning.effort` answers; headers, `brevity` and errors are those of
/// `/v1/chat/completions`. The output has the thoughts as an item of type `reasoning`, where there are any, then the answer as
/// an item of type `message`, then items of type `function_call`. A response that a limit cut off has the status `incomplete`.
/// With `stream` the response is a stream of server-sent events, each with a `sequence_number` and named after its `type`; its
/// last event is `response.completed`, `response.incomplete` or, after an event `error`, `response.failed`.
///
/// Nothing is stored: `previous_response_id`, `conversation`, `prompt`, `background` and references to items are refused;
/// send the earlier items in `input`.
///
/// Accepted and ignored: `store`, `truncation` (`auto`), `user`, `safety_identifier`, `service_tier` (`auto`, `default`),
/// `prompt_cache_key`, `prompt_cache_options`, `prompt_cache_retention`, `moderation`, `text.verbosity`,
/// `reasoning.context`, `reasoning.mode`,
/// `stream_options.include_obfuscation`, `strict` of tools with the `tool_choice` `auto`, and all of `include` but `message.output_text.logprobs`. Those of them that would
/// change something elsewhere, and unknown fields, are listed in the response header `x-brevity-ignored`.
#[utoipa::path(
    post,
    path = "/v1/responses",
    operation_id = "createResponse",
    tag = "responses",
    request_body = CreateResponse,
    responses(
        (status = 200, description = "The response, or a stream of events.", content(
            (ResponseObject = "application/json"),
            (ResponseEvent<'_> = "text/event-stream"),
        )),
        super::errors::GenerationErrors,
    )
)]
pub async fn create(
    State(state): State<Arc<AppState>>,
    record: Option<Extension<AccessRecord>>,
    json: Json<CreateResponse>,
) -> Result<Response, ApiError> {
    let clock = Clock::start(state.options.deadline);
    let checking = state.clone();
    let plan = json.checked(move |json| request::plan(json, &checking.options, &checking.sources)).await?;
    // Routing and engines speak of fields as chat names them.
    respond(&state, plan, clock, record).await.map_err(|error| RESPONSES.blame(error))
}

async fn respond(
    state: &Arc<AppState>,
    plan: ResponsePlan,
    clock: Clock,
    record: Option<Extension<AccessRecord>>,
) -> Result<Response, ApiError> {
    let id = || state.sources.id("resp_");
    let prepared = answer::prepare(state, plan.order(), clock, record, id).await?;
    let Prepared { route, admitted, identity } = prepared;
    let headers = headers::report(&identity.report, &plan.ignored);
    let generations = plan.generations(&route, state.engine.context_length(&route.tier));
    let mut choices = Choices::start(state, generations, admitted).await?;
    let streams = plan.stream;
    let mut events = stream::Events::new(identity, plan.shape(&route), state.sources.clone());
    if streams {
        return Ok(answer::stream(state, choices, events, headers));
    }
    while let Some(event) = choices.next().await {
        events.write(event?);
    }
    Ok((headers, axum::Json(events.whole())).into_response())
}

/// The answer for paths of single responses, whatever the id.
pub async fn stored(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::not_found(format!("there is no `{path}`: nothing is stored here; keep what `POST /v1/responses` answers"))
}
