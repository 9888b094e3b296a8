//! HTTP only: routes, OpenAI's types, extractors, the error envelope, server-sent events, admission, metrics.
//!
//! Handlers validate, take a permit, ask `routing` for a tier and an [`crate::engine::Engine`] for events, and turn events
//! into bodies or chunks. Nothing here knows weights, prompts' templates or token ids.

pub mod admission;
pub mod error;
pub mod metrics;

pub use error::ApiError;
