//! HTTP only: routes, OpenAI's types, extractors, the error envelope, server-sent events, admission, metrics.
//!
//! Handlers validate, take a permit, ask `routing` for a tier and an [`crate::engine::Engine`] for events, and turn events
//! into bodies or chunks. Nothing here knows weights, prompts' templates or token ids.

pub mod access_log;
pub mod admission;
pub mod answer;
pub mod auth;
pub mod chat;
pub mod choices;
pub mod completions;
pub mod directory;
pub mod error;
pub mod errors;
pub mod extract;
pub mod headers;
pub mod health;
pub mod layers;
pub mod limits;
pub mod metrics;
pub mod models;
pub mod openapi;
pub mod origin;
pub mod plan;
pub mod request_id;
pub mod responses;
pub mod server;
pub mod sse;
pub mod state;
#[cfg(test)]
mod test_support;
pub mod tiers;
pub mod types;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

pub use error::ApiError;
pub use state::AppState;

/// All endpoints. What every request passes before them (ids, keys, limits, panics) is put around this by
/// [`layers::Layers`].
pub fn router(state: Arc<AppState>) -> Router {
    let routes = Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/responses", post(responses::create))
        .route("/v1/responses/{id}", get(responses::stored).delete(responses::stored))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::show))
        .route("/v1/tiers", get(tiers::list))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/openapi.json", get(openapi::document))
        .with_state(state.clone())
        .merge(metrics::routes(state.metrics.clone(), state.admission.clone()))
        .method_not_allowed_fallback(errors::method_not_allowed)
        .fallback(errors::not_found);
    if state.options.docs { routes.merge(openapi::docs()) } else { routes }
}
