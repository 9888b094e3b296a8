//! `POST /v1/chat/completions`.
//!
//! Validate, route, wait for a permit, start all choices, then either collect them into one body or stream them.

mod body;
mod request;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::ApiError;
use super::access_log::AccessRecord;
use super::answer::{self, Prepared};
use super::choices::{Choices, Clock};
use super::extract::Json;
use super::headers;
use super::state::AppState;
use super::types::{ChatRequest, ChatResponse};

pub use request::ChatPlan;

/// Create a chat completion
///
/// The tier that was trained for `reasoning_effort` answers; the headers `x-brevity-tier`, `x-brevity-alpha`,
/// `x-brevity-effort` and `x-brevity-reason` and the object `brevity` of the response say which one and why. With `stream` the
/// response is a stream of `chat.completion.chunk` objects as server-sent events, ended by `data: [DONE]`; an error after the
/// first event comes as an event with the object `error`, and the stream ends without `[DONE]`. A stream without anything to say
/// for a while carries comments (`: keep-alive`); before its first event, while the request waits for a place, nothing is
/// sent, because the status is not known yet.
///
/// Accepted and ignored: `store`, `metadata`, `user`, `safety_identifier`, `service_tier` (`auto`, `default`),
/// `prompt_cache_key`, `prompt_cache_options`, `prompt_cache_retention`, `verbosity`, `prediction`, `moderation`,
/// `stream_options.include_obfuscation`, and `strict` of tools with the `tool_choice` `auto`. Those of them that would change something elsewhere, and unknown fields, are listed
/// in the response header `x-brevity-ignored`.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    operation_id = "createChatCompletion",
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
pub async fn create(
    State(state): State<Arc<AppState>>,
    record: Option<Extension<AccessRecord>>,
    json: Json<ChatRequest>,
) -> Result<Response, ApiError> {
    let clock = Clock::start(state.options.deadline);
    let checking = state.clone();
    let plan = json.checked(move |json| request::plan(json, &checking.options, &checking.sources)).await?;
    let id = || state.sources.id("chatcmpl-");
    let prepared = answer::prepare(&state, plan.order(), clock, record, id).await?;
    let Prepared { route, admitted, identity } = prepared;
    let headers = headers::report(&identity.report, &plan.ignored);
    let generations = plan.generations(&route, state.engine.context_length(&route.tier));
    let shape = plan.shape(state.options.reasoning_names);
    let choices = Choices::start(&state, generations, admitted).await?;
    if plan.stream {
        return Ok(answer::stream(&state, choices, stream::Chunks::new(identity, shape), headers));
    }
    let body = body::collect(choices, identity, shape).await?;
    Ok((headers, axum::Json(body)).into_response())
}
