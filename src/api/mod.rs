//! HTTP only: routes, OpenAI's types, extractors, the error envelope, server-sent events, admission, metrics.
//!
//! Handlers validate, take a permit, ask `routing` for a tier and an [`crate::engine::Engine`] for events, and turn events
//! into bodies or chunks. Nothing here knows weights, prompts' templates or token ids.

pub mod access_log;
pub mod admission;
pub mod auth;
pub mod error;
pub mod layers;
pub mod limits;
pub mod metrics;
pub mod request_id;
pub mod server;

pub use error::ApiError;
