//! `POST /v1/completions`: a text is continued as it is, without a chat template.
//!
//! All that the model writes is part of `text`. Only where a prompt ends inside `<think>` does an engine tell thoughts from
//! the answer, and keeps the mark between them; `text` puts it back.

mod request;
#[cfg(test)]
mod tests;
mod text;

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
use super::types::{CompletionRequest, CompletionResponse};
use request::CompletionPlan;

/// Continue a text
///
/// The prompt goes to the model as it is. Headers, `brevity` and errors are those of `/v1/chat/completions`. Thoughts that a
/// prompt opens with `<think>` are part of `text`, with the mark that closes them.
#[utoipa::path(
    post,
    path = "/v1/completions",
    operation_id = "createCompletion",
    tag = "chat",
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "The completion, or a stream of its parts.", content(
            (CompletionResponse = "application/json"),
            (CompletionResponse = "text/event-stream"),
        )),
        super::errors::GenerationErrors,
    )
)]
pub async fn create(
    State(state): State<Arc<AppState>>,
    record: Option<Extension<AccessRecord>>,
    json: Json<CompletionRequest>,
) -> Result<Response, ApiError> {
    let clock = Clock::start(state.options.deadline);
    let checking = state.clone();
    let plan = json.checked(move |json| request::plan(json, &checking.options, &checking.sources)).await?;
    // Engines speak of fields as chat names them.
    respond(&state, plan, clock, record).await.map_err(|error| error.renamed("messages", "prompt"))
}

async fn respond(
    state: &Arc<AppState>,
    plan: CompletionPlan,
    clock: Clock,
    record: Option<Extension<AccessRecord>>,
) -> Result<Response, ApiError> {
    let id = || state.sources.id("cmpl-");
    let prepared = answer::prepare(state, plan.order(), clock, record, id).await?;
    let Prepared { route, admitted, identity } = prepared;
    let headers = headers::report(&identity.report, &plan.ignored);
    let generations = plan.generations(&route, state.engine.context_length(&route.tier));
    let mut choices = Choices::start(state, generations, admitted).await?;
    let mut writer = text::Chunks::new(identity, &plan);
    if plan.stream {
        return Ok(answer::stream(state, choices, writer, headers));
    }
    while let Some(event) = choices.next().await {
        writer.collect(event?);
    }
    Ok((headers, axum::Json(writer.whole())).into_response())
}
