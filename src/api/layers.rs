//! What every request passes, from outside in: id, log, CORS, panics, key (or, without keys, origin), body.
//!
//! The order is the point of this file. The id is outermost so that every answer has one; the log sees what the client
//! sees; a preflight needs no key; a panic of anything inside is a 500 with the envelope; nobody without a key may make us
//! read a body.

use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::auth::{self, ApiKeys};
use super::limits::{self, Limits, Reading};
use super::metrics::Metrics;
use super::origin::{self, Origins};
use super::{ApiError, access_log, request_id};

/// Headers of ours that scripts in browsers may read.
const EXPOSED: [&str; 9] = [
    "x-request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-brevity-ignored",
    "x-brevity-tier",
    "x-brevity-alpha",
    "x-brevity-effort",
    "x-brevity-reason",
];

/// What stands around the routes.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Who may ask.
    pub keys: ApiKeys,
    /// What may be sent.
    pub limits: Limits,
    /// Origins whose scripts may ask; `*` for all. None by default, and then no CORS header is sent at all.
    pub cors_origins: Vec<HeaderValue>,
    /// Where requests are counted.
    pub metrics: Metrics,
}

impl Layers {
    /// `router` behind all of it.
    pub fn around(self, router: Router) -> Router {
        let router = router
            .layer(from_fn_with_state(Reading::new(self.limits), limits::read_body))
            .layer(from_fn_with_state(self.keys.clone(), auth::require));
        let router = match self.keys.is_empty() {
            true => {
                let allowed: Origins = self.cors_origins.clone().into();
                router.layer(from_fn_with_state(allowed, origin::guard))
            }
            false => router,
        };
        let router = router.layer(CatchPanicLayer::custom(panicked));
        let router = match cors(self.cors_origins) {
            Some(cors) => router.layer(cors),
            None => router,
        };
        router
            .layer(from_fn_with_state(self.metrics, access_log::record))
            .layer(from_fn(request_id::assign))
            // Bodies are bounded above; axum's own limit is lower and answers in plain text.
            .layer(DefaultBodyLimit::disable())
    }
}

fn cors(origins: Vec<HeaderValue>) -> Option<CorsLayer> {
    let origin = match origins.as_slice() {
        [] => return None,
        origins if origins.iter().any(|origin| origin == "*") => AllowOrigin::any(),
        _ => AllowOrigin::list(origins),
    };
    let layer = CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        // Official clients send a dozen headers about themselves that change with their versions.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static))
        .max_age(Duration::from_secs(3600));
    Some(layer)
}

/// The panic's message stays in this process: it may quote what the client sent.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler panicked; this is a bug of the server, please report it");
    ApiError::internal("the server failed on this request; others are not affected").into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, header};
    use axum::routing::{get, post};
    use secrecy::SecretString;
    use tower::ServiceExt;

    use super::*;

    fn layers(origins: &[&'static str]) -> Layers {
        Layers {
            keys: ApiKeys::new(&[SecretString::from("alice=sk-1")]).unwrap(),
            limits: Limits { max_body: 10, ..Limits::default() },
            cors_origins: origins.iter().map(|origin| HeaderValue::from_static(origin)).collect(),
            metrics: Metrics::new(),
        }
    }

    async fn ask(layers: Layers, request: axum::http::request::Builder, body: Body) -> Response {
        let panics = || async {
            if true {
                panic!("with the prompt in it")
            }
        };
        let router =
            Router::new().route("/v1/echo", post(|body: String| async { body })).route("/v1/panic", get(panics));
        layers.around(router).oneshot(request.body(body).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_a_500_with_envelope_and_id() {
        let request = Request::get("/v1/panic").header("authorization", "Bearer sk-1").header("x-request-id", "id-1");
        let response = ask(layers(&[]), request, Body::empty()).await;
        assert_eq!((response.status().as_u16(), &response.headers()["x-request-id"]), (500, &"id-1".parse().unwrap()));
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["type"], "server_error");
        assert!(!body.to_string().contains("prompt"));
    }

    #[tokio::test]
    async fn a_body_is_not_read_for_those_without_a_key() {
        let unread =
            Body::from_stream(futures::stream::poll_fn(|_| -> std::task::Poll<Option<std::io::Result<&str>>> {
                panic!("somebody read the body")
            }));
        let response = ask(layers(&[]), Request::post("/v1/echo"), unread).await;
        assert_eq!(response.status().as_u16(), 401);
        assert!(response.headers().contains_key("x-request-id"));
        let request = Request::post("/v1/echo").header("authorization", "Bearer sk-1");
        assert_eq!(ask(layers(&[]), request, Body::from("more than ten")).await.status().as_u16(), 413);
    }

    #[tokio::test]
    async fn cors_is_off_until_an_origin_is_named() {
        let preflight = || {
            let request = Request::options("/v1/echo").header(header::ORIGIN, "https://chat.example");
            request
                .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
                .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,x-stainless-os")
        };
        let allowed = |response: &Response| response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned();
        let response = ask(layers(&[]), preflight(), Body::empty()).await;
        assert_eq!((response.status().as_u16(), allowed(&response)), (401, None));
        let response = ask(layers(&["https://chat.example"]), preflight(), Body::empty()).await;
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(allowed(&response).unwrap(), "https://chat.example");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS], "authorization,x-stainless-os");
        let response = ask(layers(&["https://other.example"]), preflight(), Body::empty()).await;
        assert_eq!(allowed(&response), None);
        // A refusal can be read by the script too.
        let request = Request::post("/v1/echo").header(header::ORIGIN, "https://any.example");
        let response = ask(layers(&["*"]), request, Body::empty()).await;
        assert_eq!((response.status().as_u16(), allowed(&response)), (401, Some(HeaderValue::from_static("*"))));
    }
}
