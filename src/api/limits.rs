//! How much, and for how long, a client may send.
//!
//! Bodies are read here, whole, before any handler runs: that bounds memory with and without a `content-length`, and turns a
//! body that is too large (413), too slow (408) or torn (400) into the envelope at one place. All bodies that were read and
//! not yet understood have a bound together, too (503 beyond it): they come before any permit, from as many connections as
//! there are. Headers have their timeout in the server, one floor below.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ApiError;

/// The longest that what comes after a limit is thrown away for, so that the client reads the answer instead of a reset.
const LINGER: Duration = Duration::from_secs(1);
/// So many of the largest bodies fit into memory at a time.
const BODIES: usize = 64;
/// When to try again while they fill it.
const RETRY: Duration = Duration::from_secs(1);

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

/// Where bodies are read; clones share their memory.
#[derive(Debug, Clone)]
pub struct Reading {
    limits: Limits,
    /// Bytes that may still be read.
    room: Arc<Semaphore>,
}

/// A body and the room it takes; both are given back together.
struct Held {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the body within the limits and hands it on whole.
pub async fn read_body(State(reading): State<Reading>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let waits_for_leave = parts.headers.contains_key(header::EXPECT);
    match reading.read(body, waits_for_leave).await {
        Ok(body) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Err(error) => {
            let mut response = error.into_response();
            // What the client still sends belongs to no request; the connection has no use after that.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

impl Reading {
    /// Reads within `limits`, and of all bodies together as much as a number of the largest.
    pub fn new(limits: Limits) -> Self {
        let room = limits.max_body.saturating_mul(BODIES).min(Semaphore::MAX_PERMITS);
        Self { limits, room: Arc::new(Semaphore::new(room)) }
    }

    async fn read(&self, body: Body, waits_for_leave: bool) -> Result<Bytes, ApiError> {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let limits = self.limits;
        let announced = body.size_hint().lower();
        let mut stream = body.into_data_stream();
        if announced > limits.max_body as u64 {
            if !waits_for_leave {
                discard(&mut stream).await;
            }
            return Err(limits.too_large());
        }
        let read = tokio::time::timeout(limits.body_timeout, self.collect(&mut stream)).await;
        let read = read.unwrap_or_else(|_| Err(limits.too_slow()));
        let refused = [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::SERVICE_UNAVAILABLE];
        if matches!(&read, Err(error) if refused.contains(&error.status)) {
            discard(&mut stream).await;
        }
        read
    }

    /// Takes room for what has come, not for what was announced: who announces much and sends nothing takes nothing away.
    async fn collect(&self, stream: &mut axum::body::BodyDataStream) -> Result<Bytes, ApiError> {
        let mut body = BytesMut::new();
        let mut room: Option<OwnedSemaphorePermit> = None;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| {
                ApiError::bad_request("the body broke off or is not encoded as the headers say; send it again whole")
            })?;
            if body.len() + chunk.len() > self.limits.max_body {
                return Err(self.limits.too_large());
            }
            // A chunk is a buffer of the connection or smaller, far below 4 GiB.
            let bytes = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            let more = self.room.clone().try_acquire_many_owned(bytes).map_err(|_| {
                let message = "the bodies of other requests fill the memory for them; nothing was started, try again";
                ApiError::unavailable(message, Some(RETRY))
            })?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Bytes::from_owner(Held { bytes: body.freeze(), _room: room }))
    }
}

impl Limits {
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
            .layer(from_fn_with_state(Reading::new(limits), read_body))
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

    /// From many connections at a time.
    #[tokio::test]
    async fn all_bodies_together_have_a_bound() {
        let reading = Reading::new(limits(100));
        let mut held = Vec::new();
        for _ in 0..BODIES {
            held.push(reading.read(chunks(10), false).await.unwrap());
        }
        let error = reading.read(Body::from("x"), false).await.unwrap_err();
        assert_eq!((error.status.as_u16(), error.retry_after), (503, Some(RETRY)));
        held.pop();
        assert_eq!(reading.read(chunks(10), false).await.unwrap().len(), 100, "room comes back with the body");
        // Neither announced nor refused bodies take room.
        assert_eq!(reading.read(chunks(11), false).await.unwrap_err().status.as_u16(), 413);
        drop(held);
        assert_eq!(reading.room.available_permits(), 100 * BODIES);
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
