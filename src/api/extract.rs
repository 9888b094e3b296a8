//! Reading a JSON body, with OpenAI's envelope for every way in which that can fail.
//!
//! Nothing is dropped silently: fields that the type does not know are collected by path and counted, for the header
//! `x-brevity-ignored`. Large bodies are read off the asynchronous threads. Nesting is bounded by the parser (128 levels),
//! size by the router's body limit.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde::de::DeserializeOwned;

use super::ApiError;

/// More paths than these are counted, not named.
const MAX_IGNORED: usize = 64;
/// Bytes of a body from which on it is read and checked where it holds nobody up: 8 KiB take tens of microseconds to read,
/// but a schema of this size may take milliseconds to check.
const LARGE: usize = 8 << 10;

/// Fields of a request that change nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Paths of the first of them.
    pub named: Vec<String>,
    /// How many more there are.
    pub more: usize,
}

impl Extend<String> for Ignored {
    fn extend<I: IntoIterator<Item = String>>(&mut self, paths: I) {
        for path in paths {
            if self.named.len() < MAX_IGNORED {
                self.named.push(path);
            } else {
                self.more += 1;
            }
        }
    }
}

/// A JSON body as `T`. A missing content type is taken for JSON; another one is refused with 415.
#[derive(Debug)]
pub struct Json<T> {
    /// The body.
    pub body: T,
    /// Fields that `T` does not know.
    pub ignored: Ignored,
    /// How many bytes it had.
    pub size: usize,
}

impl<T: Send + 'static> Json<T> {
    /// What `work` makes of the body; large ones are worked on off the asynchronous threads.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn checked<R: Send + 'static>(
        self,
        work: impl FnOnce(Self) -> Result<R, ApiError> + Send + 'static,
    ) -> Result<R, ApiError> {
        let size = self.size;
        aside(size, move || work(self)).await
    }
}

impl<T: DeserializeOwned + Send + 'static, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        check_content_type(&request)?;
        check_content_encoding(&request)?;
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
                ApiError::too_large("the body is larger than this server takes; send a shorter conversation")
            }
            other => ApiError::bad_request(format!("the body could not be read to its end: {}", other.body_text())),
        })?;
        aside(bytes.len(), move || read(&bytes)).await
    }
}

/// Does `work` on `size` bytes, on a thread of its own where that is much.
async fn aside<R: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> Result<R, ApiError> + Send + 'static,
) -> Result<R, ApiError> {
    if size < LARGE {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            // The layer that catches panics is around the handler, not around its threads.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ApiError::unavailable("the server is shutting down", None)),
        },
    }
}

fn check_content_type(request: &Request) -> Result<(), ApiError> {
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if json || essence.is_empty() && value.is_empty() {
        return Ok(());
    }
    let name: String = essence.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
    Err(ApiError::unsupported_media_type(format!("content-type is `{name}`; send the body as `application/json`")))
}

fn check_content_encoding(request: &Request) -> Result<(), ApiError> {
    let encoding = request.headers().get(header::CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap_or("?"));
    if encoding.is_empty() || encoding.eq_ignore_ascii_case("identity") {
        return Ok(());
    }
    let name: String = encoding.chars().filter(char::is_ascii_graphic).take(64).collect();
    Err(ApiError::unsupported_media_type(format!("content-encoding is `{name}`; send the body as it is")))
}

/// Reads `bytes` as a JSON object of shape `T`.
///
/// # Errors
/// 400, with the path of the faulty field as `param` where there is one.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<Json<T>, ApiError> {
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return Err(ApiError::bad_request("the body is empty; send a JSON object")),
        Some(b'{') => {}
        Some(_) => {
            return Err(match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
                Ok(_) => ApiError::bad_request("the body is JSON but no object; send `{…}` with the request's fields"),
                Err(error) => ApiError::bad_request(format!("the body is no valid JSON: {error}")),
            });
        }
    }
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let mut ignored = Ignored::default();
    let body = serde_ignored::deserialize(
        serde_path_to_error::Deserializer::new(&mut parser, &mut track),
        |path: serde_ignored::Path<'_>| {
            if ignored.named.len() < MAX_IGNORED {
                // `serde_ignored` writes options and enum variants into a path as `?`.
                ignored.named.push(path.to_string().replace(".?", ""));
            } else {
                ignored.more += 1;
            }
        },
    )
    .and_then(|body| parser.end().map(|()| body))
    .map_err(|error: serde_json::Error| explain(&error, &track.path().to_string()))?;
    Ok(Json { body, ignored, size: bytes.len() })
}

fn explain(error: &serde_json::Error, path: &str) -> ApiError {
    // Of a body that ends before its first field there is no path.
    let path = path.trim_start_matches('.').trim_start_matches('?');
    let place = if path.is_empty() { String::new() } else { format!("`{path}`: ") };
    let told = error.to_string();
    if !error.is_data() {
        let fault = ApiError::bad_request(format!("the body is no valid JSON: {place}{told}"));
        return if path.is_empty() { fault } else { fault.with_param(path) };
    }
    let fault = ApiError::bad_request(format!("{place}{told}"));
    // serde's words for a field that is not there; the path is that of the object it should be in.
    let missing = told.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    match missing {
        Some(field) if path.is_empty() => fault.missing(field),
        Some(field) => fault.missing(format!("{path}.{field}")),
        None if path.is_empty() => fault,
        None => fault.with_param(path),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::types::ChatRequest;

    fn fault(body: &[u8]) -> ApiError {
        read::<ChatRequest>(body).unwrap_err()
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let bodies: [&[u8]; 12] = [
            b"",
            b"  \n",
            b"\"text\"",
            b"[1]",
            b"3",
            b"null",
            b"true",
            b"{",
            b"{\"model\": \"m\"",
            b"{]",
            b"nope",
            b"{} {}",
        ];
        for body in bodies {
            assert_eq!(fault(body).status.as_u16(), 400, "{}", String::from_utf8_lossy(body));
        }
        assert!(fault(b"[1]").message.contains("no object"));
    }

    #[test]
    fn faults_carry_their_path() {
        for (body, path) in [
            (r#"{"model": "m", "messages": [{"role": 3}]}"#, "messages[0].role"),
            (
                r#"{"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}"#,
                "messages[0].content[0].text",
            ),
            (r#"{"model": "m", "messages": [], "temperature": "hot"}"#, "temperature"),
            (r#"{"model": "m", "messages": [], "temperature": NaN}"#, "temperature"),
            (r#"{"model": "m", "messages": [], "temperature": 1e309}"#, "temperature"),
            (r#"{"model": "m", "messages": [], "stop": [1]}"#, "stop[0]"),
            (r#"{"model": "m", "messages": [], "n": 1.5}"#, "n"),
        ] {
            let error = fault(body.as_bytes());
            assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some(path)), "{}", error.message);
        }
        let error = fault(br#"{"messages": []}"#);
        assert!(error.message.contains("missing field `model`"), "{}", error.message);
        for (body, path) in [
            (r#"{"messages": []}"#, "model"),
            (r#"{"model": "m", "messages": [{"content": "x"}]}"#, "messages[0].role"),
            (
                r#"{"model": "m", "messages": [], "tools": [{"type": "function", "function": {}}]}"#,
                "tools[0].function.name",
            ),
        ] {
            let error = fault(body.as_bytes());
            assert_eq!(
                (error.param.as_deref(), error.code),
                (Some(path), Some("missing_required_parameter")),
                "{body}"
            );
        }
    }

    #[test]
    fn broken_text_is_refused() {
        assert_eq!(fault(b"{\"model\": \"\xff\"}").status.as_u16(), 400);
        assert_eq!(fault(br#"{"model": "\ud800"}"#).status.as_u16(), 400);
    }

    #[test]
    fn depth_is_bounded() {
        let bomb = format!(r#"{{"model": "m", "messages": [], "tool_choice": {}"#, "[".repeat(100_000));
        assert!(fault(bomb.as_bytes()).message.contains("recursion limit"));
        let bomb = format!(r#"{{"model": "m", "messages": [], "unknown": {}"#, "[".repeat(100_000));
        assert_eq!(fault(bomb.as_bytes()).status.as_u16(), 400);
    }

    #[test]
    fn unknown_fields_are_reported() {
        let body = br#"{"model": "m", "messages": [{"role": "user", "weight": 1}], "repetition_penalty": 1.1,
                        "stream_options": {"chunk": true}}"#;
        let json = read::<ChatRequest>(body).unwrap();
        assert_eq!(json.ignored.named, ["messages.0.weight", "repetition_penalty", "stream_options.chunk"]);
        assert_eq!(json.ignored.more, 0);
        let fields: String = (0..100).map(|i| format!(", \"f{i}\": 0")).collect();
        let mut json = read::<ChatRequest>(format!(r#"{{"model": "m", "messages": []{fields}}}"#).as_bytes()).unwrap();
        json.ignored.extend(["store".to_owned()]);
        assert_eq!((json.ignored.named.len(), json.ignored.more), (64, 37));
    }

    /// A small body is read where it arrives, a large one elsewhere.
    #[tokio::test]
    async fn large_bodies_hold_no_asynchronous_thread() {
        let here = std::thread::current().id();
        for (size, same) in [(100, true), (LARGE, false)] {
            let json = Json { body: (), ignored: Ignored::default(), size };
            let there = json.checked(|_| Ok(std::thread::current().id())).await.unwrap();
            assert_eq!(there == here, same, "{size}");
        }
        let json = Json { body: (), ignored: Ignored::default(), size: LARGE };
        let work = std::panic::AssertUnwindSafe(json.checked::<()>(|_| panic!("a bug")));
        assert!(futures::FutureExt::catch_unwind(work).await.is_err(), "the handler panics with it");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(read::<ChatRequest>(&bytes).is_err());
        }
    }
}
