//! The error responses of endpoints, for the OpenAPI document, and the answers for paths that do not exist.

use axum::http::{Method, Uri};

use super::ApiError;
use super::error::ErrorEnvelope;

/// What every endpoint that generates may answer with instead.
#[derive(Debug, utoipa::IntoResponses)]
#[allow(dead_code, reason = "only the documentation is used")]
pub enum GenerationErrors {
    /// The request cannot be done as it stands; `param` names the field.
    #[response(status = 400)]
    Invalid(ErrorEnvelope),
    /// No key, or an unknown one.
    #[response(status = 401)]
    Unauthorized(ErrorEnvelope),
    /// A page of another site asks, whose origin was not named.
    #[response(status = 403)]
    Forbidden(ErrorEnvelope),
    /// There is no such model.
    #[response(status = 404)]
    NotFound(ErrorEnvelope),
    /// The deadline came before the answer.
    #[response(status = 408)]
    Timeout(ErrorEnvelope),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(ErrorEnvelope),
    /// The body is not JSON, or compressed.
    #[response(status = 415)]
    MediaType(ErrorEnvelope),
    /// The queue is full; `Retry-After` says when to try again.
    #[response(status = 429)]
    Overloaded(ErrorEnvelope),
    /// The engine failed on this request.
    #[response(status = 500)]
    Internal(ErrorEnvelope),
    /// A server behind this one failed.
    #[response(status = 502)]
    BadGateway(ErrorEnvelope),
    /// Starting, restarting or shutting down; `Retry-After` says when to try again.
    #[response(status = 503)]
    Unavailable(ErrorEnvelope),
}

/// The answer for paths that do not exist.
pub async fn not_found(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::not_found(format!("there is no `{method} {path}`; /docs lists what there is"))
}

/// The answer for methods that a path does not have.
pub async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::method_not_allowed(format!("`{path}` does not take {method}; /docs lists what it takes"))
}
