//! One id for every request, in its log lines and in its answer.
//!
//! A client's `x-request-id` is taken over if it is short and harmless; anything else, line breaks for the log included, is
//! replaced by an id of our own. OpenAI's clients show the header as `_request_id`.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

/// The header, both ways.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken over.
const LONGEST: usize = 128;

/// The id of a request, in its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    /// The client's id if it may be used, else a new one.
    fn of(header: Option<&HeaderValue>) -> Self {
        let offered = header.map(HeaderValue::as_bytes).filter(|id| is_harmless(id));
        let id = offered.and_then(|id| std::str::from_utf8(id).ok()).map_or_else(new_id, Arc::from);
        Self(id)
    }
}

fn is_harmless(id: &[u8]) -> bool {
    (1..=LONGEST).contains(&id.len()) && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

fn new_id() -> Arc<str> {
    format!("req_{:032x}", rand::random::<u128>()).into()
}

/// Gives a request its id, and the answer too.
pub async fn assign(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers().get(&HEADER));
    request.extensions_mut().insert(id.clone());
    let span = tracing::info_span!("request", id = &*id.0);
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use axum::{Extension, Router};
    use proptest::prelude::*;
    use tower::ServiceExt;

    use super::*;

    async fn echoed(id: Option<&[u8]>) -> (String, String) {
        let show = |Extension(id): Extension<RequestId>| async move { (StatusCode::BAD_REQUEST, id.0.to_string()) };
        let router = Router::new().route("/", get(show)).layer(from_fn(assign));
        let mut request = Request::get("/");
        if let Some(id) = id {
            request = request.header(HEADER, id);
        }
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let header = response.headers()[HEADER].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (header, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn harmless_ids_are_echoed_and_others_replaced() {
        let longest = "x".repeat(LONGEST);
        for id in ["abc-1.2_3", &longest] {
            assert_eq!(echoed(Some(id.as_bytes())).await, (id.to_owned(), id.to_owned()));
        }
        let long = "x".repeat(LONGEST + 1);
        for id in [None, Some(b"".as_slice()), Some(b"a b"), Some(b"a\tb"), Some(b"\xff"), Some(long.as_bytes())] {
            let (header, body) = echoed(id).await;
            assert_eq!(header, body);
            assert!(header.len() == 36 && header.starts_with("req_"), "{header}");
        }
        assert_ne!(echoed(None).await, echoed(None).await);
    }

    proptest! {
        #[test]
        fn no_id_can_break_a_line(id in prop::collection::vec(any::<u8>(), 0..200)) {
            let header = HeaderValue::from_bytes(&id).ok();
            let id = RequestId::of(header.as_ref());
            prop_assert!(is_harmless(id.0.as_bytes()));
        }
    }
}
