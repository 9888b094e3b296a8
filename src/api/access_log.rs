//! One line and one count for every request, written when its answer is delivered or given up.
//!
//! Says who asked for what, which tier answered, how many tokens and milliseconds it took. Never: prompts, answers, keys,
//! query strings. Handlers tell what only they know through [`AccessRecord`].

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::metrics::Metrics;
use super::request_id::RequestId;
use crate::engine::Usage;

/// Asked every few seconds by machines; logged at debug level only.
const FREQUENT: &[&str] = &["/health", "/ready", "/metrics"];

/// What is known about a request by those who handle it; in its extensions.
#[derive(Debug, Clone, Default)]
pub struct AccessRecord {
    fields: Arc<Mutex<Fields>>,
}

#[derive(Debug, Default)]
struct Fields {
    key: Option<Arc<str>>,
    tier: Option<String>,
    usage: Option<Usage>,
    failed: bool,
}

impl AccessRecord {
    /// The name of the key that was used.
    pub fn set_key(&self, name: Arc<str>) {
        self.lock().key = Some(name);
    }

    /// The tier that answers.
    pub fn set_tier(&self, tier: &str) {
        self.lock().tier = Some(tier.to_owned());
    }

    /// The answer broke off, though its head may have said that all is well.
    pub fn set_failed(&self) {
        self.lock().failed = true;
    }

    /// Adds the tokens of one generation; a request with several choices has several.
    pub fn add_usage(&self, usage: Usage) {
        let mut fields = self.lock();
        let sum = fields.usage.get_or_insert_default();
        sum.prompt_tokens += usage.prompt_tokens;
        sum.completion_tokens += usage.completion_tokens;
        sum.reasoning_tokens += usage.reasoning_tokens;
        sum.cached_tokens += usage.cached_tokens;
    }

    /// Puts the count of a generation that is finished in the place of what was noted of it on the way.
    pub fn correct_usage(&self, noted: Usage, counted: Usage) {
        let mut fields = self.lock();
        let sum = fields.usage.get_or_insert_default();
        let correct = |sum: &mut usize, noted: usize, counted: usize| *sum = (*sum + counted).saturating_sub(noted);
        correct(&mut sum.prompt_tokens, noted.prompt_tokens, counted.prompt_tokens);
        correct(&mut sum.completion_tokens, noted.completion_tokens, counted.completion_tokens);
        correct(&mut sum.reasoning_tokens, noted.reasoning_tokens, counted.reasoning_tokens);
        correct(&mut sum.cached_tokens, noted.cached_tokens, counted.cached_tokens);
    }

    /// The tokens so far.
    #[cfg(test)]
    pub(crate) fn usage(&self) -> Usage {
        self.lock().usage.unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Fields> {
        self.fields.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Delivered,
    /// The client went away, or was cut off.
    Disconnected,
    /// The answer broke off on our side.
    Failed,
}

/// A request from its arrival to the last byte of its answer; its drop writes the line.
struct Visit {
    metrics: Metrics,
    record: AccessRecord,
    method: Method,
    path: String,
    route: Option<MatchedPath>,
    id: String,
    arrived: Instant,
    status: Option<StatusCode>,
    outcome: Outcome,
}

/// Writes the line and counts, once the answer is delivered or given up.
pub async fn record(State(metrics): State<Metrics>, mut request: Request, next: Next) -> Response {
    let record = request.extensions().get::<AccessRecord>().cloned().unwrap_or_default();
    let mut visit = Visit {
        metrics,
        record: record.clone(),
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        route: request.extensions().get::<MatchedPath>().cloned(),
        id: request.extensions().get::<RequestId>().map_or_else(String::new, |id| id.0.to_string()),
        arrived: Instant::now(),
        status: None,
        outcome: Outcome::Disconnected,
    };
    request.extensions_mut().insert(record);
    let response = next.run(request).await;
    visit.status = Some(response.status());
    response.map(|body| Body::new(Delivery { body, visit }))
}

/// A body that knows whether it was delivered.
struct Delivery {
    body: Body,
    visit: Visit,
}

impl HttpBody for Delivery {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.visit.outcome = Outcome::Delivered,
            Poll::Ready(Some(Err(_))) => self.visit.outcome = Outcome::Failed,
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // Nobody asks a body that says it is at its end for more, nor the body of an answer to HEAD.
        if self.body.is_end_stream() || self.visit.method == Method::HEAD {
            self.visit.outcome = Outcome::Delivered;
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let route = self.route.as_ref().map(MatchedPath::as_str);
        if let Some(status) = self.status {
            self.metrics.http_request(route, &self.method, status);
        }
        if self.outcome == Outcome::Disconnected {
            self.metrics.client_disconnected();
        }
        let fields = self.record.lock();
        let usage = fields.usage.unwrap_or_default();
        // An error in a stream is delivered like any other event.
        if fields.failed && self.outcome == Outcome::Delivered && self.status.is_some_and(|status| status.is_success())
        {
            self.outcome = Outcome::Failed;
        }
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    target: "brevity::access",
                    $level,
                    method = %self.method,
                    path = %self.path,
                    status = self.status.map(|status| status.as_u16()),
                    outcome = match self.outcome {
                        Outcome::Delivered => "delivered",
                        Outcome::Disconnected => "disconnected",
                        Outcome::Failed => "failed",
                    },
                    tier = fields.tier.as_deref(),
                    prompt_tokens = usage.prompt_tokens,
                    completion_tokens = usage.completion_tokens,
                    reasoning_tokens = usage.reasoning_tokens,
                    milliseconds = u64::try_from(self.arrived.elapsed().as_millis()).unwrap_or(u64::MAX),
                    key = fields.key.as_deref(),
                    request_id = %self.id,
                )
            };
        }
        if route.is_some_and(|route| FREQUENT.contains(&route)) {
            line!(tracing::Level::DEBUG);
        } else {
            line!(tracing::Level::INFO);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::Router;
    use axum::middleware::{from_fn, from_fn_with_state};
    use axum::routing::get;
    use futures::StreamExt;
    use tower::ServiceExt;

    use super::*;
    use crate::api::request_id;

    fn router(metrics: &Metrics) -> Router {
        let answer = |request: Request| async move {
            let record = request.extensions().get::<AccessRecord>().unwrap().clone();
            record.set_tier("alpha-0.1");
            record.set_key("alice".into());
            record.add_usage(Usage { prompt_tokens: 5, completion_tokens: 7, reasoning_tokens: 4, cached_tokens: 0 });
            "answer"
        };
        let endless = || async { Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>("x"))) };
        let broken = || async {
            Body::from_stream(futures::stream::iter([Ok("x"), Err(std::io::Error::other("the engine is gone"))]))
        };
        Router::new()
            .route("/v1/answers/{id}", get(answer))
            .route("/endless", get(endless))
            .route("/broken", get(broken))
            .route("/never", get(std::future::pending::<&str>))
            .layer(from_fn_with_state(metrics.clone(), record))
            .layer(from_fn(request_id::assign))
    }

    async fn ask(metrics: &Metrics, method: Method, path: &str) -> Response {
        let request = Request::builder().method(method).uri(path).header("x-request-id", "id-1");
        router(metrics).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    /// What was written, for a subscriber of one test.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_line_tells_what_was_done_and_nothing_secret() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        // For the whole process: what a scoped subscriber hears depends on which thread came by the event first.
        tracing::subscriber::set_global_default(subscriber).unwrap();
        tracing::callsite::rebuild_interest_cache();
        let metrics = Metrics::new();
        let response = ask(&metrics, Method::GET, "/v1/answers/7?api_key=secret").await;
        let _ = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let wanted = ["\"/v1/answers/7\"", "\"GET\""];
        let text = text.lines().find(|line| wanted.iter().all(|part| line.contains(part))).unwrap();
        let line: serde_json::Value = serde_json::from_str(text).unwrap();
        let fields = &line["fields"];
        assert_eq!((&fields["path"], &fields["status"]), (&"/v1/answers/7".into(), &200.into()));
        assert_eq!((&fields["tier"], &fields["completion_tokens"]), (&"alpha-0.1".into(), &7.into()));
        assert_eq!((&fields["key"], &fields["request_id"]), (&"alice".into(), &"id-1".into()));
        assert_eq!(fields["outcome"], "delivered");
        assert!(!text.contains("secret"), "{text}");
        let text = metrics.render(0, 0);
        let count = "brevity_http_requests_total{path=\"/v1/answers/{id}\",method=\"GET\",status=\"200\"} 1";
        assert!(text.contains(count), "{text}");
    }

    fn disconnects(metrics: &Metrics) -> bool {
        metrics.render(0, 0).contains("brevity_client_disconnects_total 1")
    }

    #[tokio::test]
    async fn who_goes_away_is_counted() {
        let metrics = Metrics::new();
        let mut stream = ask(&metrics, Method::GET, "/endless").await.into_body().into_data_stream();
        stream.next().await.unwrap().unwrap();
        assert!(!disconnects(&metrics));
        drop(stream);
        assert!(disconnects(&metrics));

        let metrics = Metrics::new();
        let mut waiting = Box::pin(ask(&metrics, Method::GET, "/never"));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(waiting);
        assert!(disconnects(&metrics));
    }

    #[tokio::test]
    async fn who_got_everything_or_was_failed_did_not_go_away() {
        let metrics = Metrics::new();
        drop(ask(&metrics, Method::HEAD, "/v1/answers/7").await);
        assert!(axum::body::to_bytes(ask(&metrics, Method::GET, "/broken").await.into_body(), 100).await.is_err());
        assert!(!disconnects(&metrics));
    }
}
