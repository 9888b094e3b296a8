//! How much, and for how long, a client may send.
//!
//! Bodies are read here, whole, before any handler runs: that bounds memory with and without a `content-length`, and turns a
//! body that is too large (413), too slow (408) or torn (400) into the envelope at one place. Headers have their timeout in
//! the server, one floor below.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures::StreamExt;

use super::ApiError;

/// The longest that what comes after a limit is thrown away for, so that the client reads the answer instead of a reset.
const LINGER: Duration = Duration::from_secs(1);

/// What a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body at most.
    pub max_body: usize,
    /// Time for a whole body.
    pub body_timeout: Duration,
}

impl Default for Limits {
    /// 4 MiB in 30 s.
    fn default() -> Self {
        Self { max_body: 4 << 20, body_timeout: Duration::from_secs(30) }
    }
}

/// Reads the body within the limits and hands it on whole.
pub async fn read_body(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let waits_for_leave = parts.headers.contains_key(header::EXPECT);
    match limits.read(body, waits_for_leave).await {
        Ok(body) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Err(error) => {
            let mut response = error.into_response();
            // What the client still sends belongs to no request; the connection has no use after that.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

impl Limits {
    async fn read(self, body: Body, waits_for_leave: bool) -> Result<Bytes, ApiError> {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let announced = body.size_hint().lower();
        let mut stream = body.into_data_stream();
        if announced > self.max_body as u64 {
            if !waits_for_leave {
                discard(&mut stream).await;
            }
            return Err(self.too_large());
        }
        let read = tokio::time::timeout(self.body_timeout, self.collect(&mut stream, announced)).await;
        let read = read.unwrap_or_else(|_| Err(self.too_slow()));
        if matches!(&read, Err(error) if error.status == StatusCode::PAYLOAD_TOO_LARGE) {
            discard(&mut stream).await;
        }
        read
    }

    async fn collect(self, stream: &mut axum::body::BodyDataStream, announced: u64) -> Result<Bytes, ApiError> {
        // Not larger than the limit: checked by the caller.
        let mut body = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0).min(self.max_body));
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| {
                ApiError::bad_request("the body broke off or is not encoded as the headers say; send it again whole")
            })?;
            if body.len() + chunk.len() > self.max_body {
                return Err(self.too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn too_large(self) -> ApiError {
        let limit = self.max_body;
        ApiError::too_large(format!("the body has more than the {limit} bytes this server takes; shorten the messages"))
    }

    fn too_slow(self) -> ApiError {
        let seconds = self.body_timeout.as_secs_f64();
        ApiError::timeout(format!("the body did not come within {seconds} s; send it faster or in smaller parts"))
    }
}

/// Throws away what still comes, for a while.
async fn discard(stream: &mut axum::body::BodyDataStream) {
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    // Whether everything came or the time was over is the same to us.
    let _ = tokio::time::timeout(LINGER, rest).await;
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::{get, post};
    use futures::stream;
    use tower::ServiceExt;

    use super::*;

    async fn send(limits: Limits, body: Body) -> (u16, Option<HeaderValue>, Bytes) {
        let length = |body: Bytes| async move { body.len().to_string() };
        let router = Router::new()
            .route("/", post(length))
            .route("/", get(length))
            .layer(from_fn_with_state(limits, read_body))
            .layer(axum::extract::DefaultBodyLimit::disable());
        let response = router.oneshot(Request::post("/").body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (parts.status.as_u16(), parts.headers.get(header::CONNECTION).cloned(), body)
    }

    fn limits(max_body: usize) -> Limits {
        Limits { max_body, ..Limits::default() }
    }

    fn chunks(number: usize) -> Body {
        Body::from_stream(stream::iter((0..number).map(|_| Ok::<_, std::io::Error>("0123456789"))))
    }

    #[tokio::test]
    async fn bodies_up_to_the_limit_come_through_whole() {
        for body in [Body::from("x".repeat(100)), chunks(10)] {
            assert_eq!(send(limits(100), body).await, (200, None, Bytes::from("100")));
        }
        assert_eq!(send(limits(100), Body::empty()).await, (200, None, Bytes::from("0")));
        // Larger than what axum takes by itself.
        assert_eq!(send(Limits::default(), chunks(400_000)).await.2, Bytes::from("4000000"));
    }

    #[tokio::test]
    async fn larger_bodies_are_refused_with_and_without_a_length() {
        for body in [Body::from("x".repeat(101)), chunks(11), chunks(10_000)] {
            let (status, connection, body) = send(limits(100), body).await;
            assert_eq!((status, connection), (413, Some(HeaderValue::from_static("close"))));
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["error"]["code"], "payload_too_large");
        }
    }

    #[tokio::test]
    async fn bodies_that_never_end_time_out() {
        let slow = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let (status, _, body) = send(Limits { max_body: 100, body_timeout: Duration::from_millis(1) }, slow).await;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &body["error"]["code"]), (408, &"timeout".into()));
    }

    #[tokio::test]
    async fn torn_bodies_are_the_clients_fault() {
        let torn = Body::from_stream(stream::iter([Ok("{"), Err(std::io::Error::other("torn"))]));
        assert_eq!(send(limits(100), torn).await.0, 400);
    }
}
