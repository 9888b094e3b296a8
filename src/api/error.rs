//! The one error of the API and its envelope, `{"error": {message, type, param, code}}`, as OpenAI's clients expect it.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::engine::EngineError;
use crate::routing::RouteError;

/// When to try again, where nobody knows better.
const RETRY: Duration = Duration::from_secs(1);

/// An error that is told to the client. The constructors are the whole list of statuses this server answers with.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// OpenAI's `type`.
    pub kind: &'static str,
    /// OpenAI's `code`; a word for programs, where there is one.
    pub code: Option<&'static str>,
    /// The field of the request that is to blame.
    pub param: Option<String>,
    /// What is wrong, on which input, and what to do.
    pub message: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// Whether the same request would fail again, as official clients are told by `x-should-retry: false`: they send 408 and
    /// 5xx again otherwise.
    pub is_final: bool,
}

/// The body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorEnvelope {
    /// The error.
    pub error: ErrorBody,
}

/// What is inside the envelope; all four keys are always there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// What is wrong, in words.
    pub message: String,
    /// The class of errors it belongs to.
    #[serde(rename = "type")]
    pub kind: String,
    /// The request's field, or null.
    pub param: Option<String>,
    /// A word for programs, or null.
    pub code: Option<String>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry_after: None, is_final: false }
    }

    /// 400: the request as a whole cannot be read.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, message)
    }

    /// 400: the value of `param` cannot be used.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some("invalid_value"), message).with_param(param)
    }

    /// 400: prompt and answer do not fit the model. Blames `messages`; an endpoint that calls its prompt otherwise says so
    /// with [`ApiError::renamed`].
    pub fn context_length_exceeded(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some("context_length_exceeded"), message)
            .with_param("messages")
    }

    /// 401: no key, or none that is known.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", Some("invalid_api_key"), message)
    }

    /// 403: whoever asks may not, whatever it is.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", Some("forbidden"), message)
    }

    /// 404: there is no such model, tier or effort in it.
    pub fn model_not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message).with_param("model")
    }

    /// 404: there is no such path.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("not_found"), message)
    }

    /// 405: the path is there, the method is not.
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", Some("method_not_allowed"), message)
    }

    /// 408: the client, or the waiting for a place, took longer than the deadline; nothing was computed.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", Some("timeout"), message)
    }

    /// 408: the work took longer than the deadline, and would again.
    pub fn deadline(message: impl Into<String>) -> Self {
        Self { is_final: true, ..Self::timeout(message) }
    }

    /// 413: the body is larger than the server takes.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", Some("payload_too_large"), message)
    }

    /// 415: the body is not JSON.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", Some("unsupported_media_type"), message)
    }

    /// 429: the queue is full, here or in a server behind this one; nothing was started.
    pub fn overloaded(message: impl Into<String>, retry_after: Duration) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("queue_full"), message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// 500: the engine or this server failed on this request, and would again; what passes by itself is a 503.
    pub fn internal(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error"), message);
        Self { is_final: true, ..error }
    }

    /// 502: a server behind this one failed.
    pub fn bad_gateway(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "server_error", Some("upstream_error"), message)
    }

    /// 503: starting, restarting or shutting down.
    pub fn unavailable(message: impl Into<String>, retry_after: Option<Duration>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("service_unavailable"), message);
        Self { retry_after, ..error }
    }

    /// The same error, blaming `param`.
    #[must_use]
    pub fn with_param(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// The same error, about a field that is not there.
    #[must_use]
    pub fn missing(self, param: impl Into<String>) -> Self {
        Self { code: Some("missing_required_parameter"), ..self }.with_param(param)
    }

    /// The same error in the words of an endpoint that calls the field `name` `own`.
    #[must_use]
    pub fn renamed(self, name: &str, own: &str) -> Self {
        if self.param.as_deref() != Some(name) {
            return self;
        }
        let message = self.message.replace(&format!("`{name}`"), &format!("`{own}`"));
        Self { message, ..self }.with_param(own)
    }

    /// The body, as it is sent; also the payload of an error event in a stream.
    pub fn envelope(&self) -> ErrorEnvelope {
        ErrorEnvelope {
            error: ErrorBody {
                message: self.message.clone(),
                kind: self.kind.to_owned(),
                param: self.param.clone(),
                code: self.code.map(str::to_owned),
            },
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Invalid { param, .. } => match param {
                Some(param) => Self::invalid(param, message),
                None => Self::bad_request(message),
            },
            EngineError::TooLong { .. } | EngineError::TooLongElsewhere { .. } => {
                Self::context_length_exceeded(message)
            }
            EngineError::UnknownTier(_) => Self::model_not_found(message),
            // Addresses of servers behind this one are for its log.
            EngineError::UnknownModel { tier, .. } => {
                tracing::warn!(message, "the upstream server does not have a tier's model");
                Self::model_not_found(format!(
                    "the server behind tier `{tier}` does not have its model; tell whoever runs this server"
                ))
            }
            EngineError::Unsupported { .. } => Self::bad_request(message),
            EngineError::Busy { retry_after, .. } => {
                let error = Self::overloaded(message, retry_after.unwrap_or(RETRY));
                Self { code: Some("rate_limit_exceeded"), ..error }
            }
            EngineError::Unavailable { retry_after, .. } => {
                Self::unavailable(message, Some(retry_after.unwrap_or(RETRY)))
            }
            EngineError::Failed { upstream: true, .. } => Self::bad_gateway(message),
            EngineError::Failed { upstream: false, .. } => Self::internal(message),
        }
    }
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> Self {
        let message = error.to_string();
        match (&error, error.param()) {
            (RouteError::UnknownModel { .. } | RouteError::NotLoaded { .. }, _) => Self::model_not_found(message),
            (RouteError::Empty { .. }, _) => Self::unavailable(message, Some(RETRY)),
            (_, Some(param)) => Self::invalid(param, message),
            (_, None) => Self::bad_request(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.envelope())).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            let seconds = after.as_millis().div_ceil(1000).max(1);
            if let (Ok(seconds), Ok(milliseconds)) =
                (HeaderValue::try_from(seconds.to_string()), HeaderValue::try_from(after.as_millis().to_string()))
            {
                headers.insert(header::RETRY_AFTER, seconds);
                headers.insert("retry-after-ms", milliseconds);
            }
        }
        if self.is_final {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_has_all_four_keys() {
        let error = ApiError::invalid("reasoning_effort", "no such effort");
        let body = serde_json::to_value(error.envelope()).unwrap();
        let expected = serde_json::json!({"error": {
            "message": "no such effort", "type": "invalid_request_error", "param": "reasoning_effort", "code": "invalid_value",
        }});
        assert_eq!(body, expected);
        let body = serde_json::to_value(ApiError::bad_request("x").envelope()).unwrap();
        assert!(body["error"]["param"].is_null() && body["error"]["code"].is_null());
    }

    #[test]
    fn waiting_times_are_rounded_up_to_seconds() {
        let response = ApiError::overloaded("full", Duration::from_millis(1200)).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()["retry-after-ms"], "1200");
    }

    /// Official clients send a request again after 408, 409, 429 and 5xx, unless they are told not to.
    #[test]
    fn what_would_fail_again_is_not_to_be_sent_again() {
        let told = |error: ApiError| error.into_response().headers().get("x-should-retry").cloned();
        for error in [ApiError::deadline("late"), ApiError::internal("broken"), EngineError::failed("x").into()] {
            assert_eq!(told(error).unwrap(), "false");
        }
        let after = Duration::from_secs(1);
        for error in [
            ApiError::timeout("the queue was long"),
            ApiError::overloaded("full", after),
            ApiError::unavailable("restarting", Some(after)),
            ApiError::bad_gateway("lost"),
        ] {
            assert_eq!(told(error), None);
        }
    }

    #[test]
    fn engine_errors_become_the_status_of_whose_fault_they_are() {
        for (error, status, code) in [
            (EngineError::invalid("logit_bias", "x"), 400, Some("invalid_value")),
            (
                EngineError::TooLong { tier: "t".into(), prompt: 9, or_more: false, limit: 8 },
                400,
                Some("context_length_exceeded"),
            ),
            (EngineError::UnknownTier("t".into()), 404, Some("model_not_found")),
            (EngineError::UnknownModel { tier: "low".into(), message: "x".into() }, 404, Some("model_not_found")),
            (EngineError::Busy { message: "x".into(), retry_after: None }, 429, Some("rate_limit_exceeded")),
            (EngineError::Unsupported { engine: "upstream", what: "grammars" }, 400, None),
            (EngineError::Unavailable { message: "x".into(), retry_after: None }, 503, Some("service_unavailable")),
            (EngineError::failed("x"), 500, Some("internal_error")),
            (EngineError::Failed { message: "x".into(), upstream: true }, 502, Some("upstream_error")),
        ] {
            let error = ApiError::from(error);
            assert_eq!((error.status.as_u16(), error.code), (status, code));
        }
    }
}
