//! What is counted, under which names, and `GET /metrics` that tells it to Prometheus.
//!
//! Names that exist in vLLM are vLLM's, so that its dashboards work; what only a family of tiers has is called `brevity_…`.
//! A [`Metrics`] owns its recorder: several servers in one process count apart. Labels are bounded: matched paths, tiers,
//! efforts and reasons, never anything a client made up. No clock is read here; whoever calls brings the durations.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::admission::Admission;
use super::error::ErrorEnvelope;
use crate::engine::Finish;
use crate::family::Effort;

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Upper ends for whole requests and first tokens, in seconds; vLLM's shape, finer at the start for small models.
const LATENCY_BUCKETS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
/// Upper ends for gaps between tokens, in seconds.
const GAP_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0];
/// Upper ends for counts of tokens.
const TOKEN_BUCKETS: &[f64] =
    &[0.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0];

const RUNNING: &str = "vllm:num_requests_running";
const WAITING: &str = "vllm:num_requests_waiting";
const FIRST_TOKEN: &str = "vllm:time_to_first_token_seconds";
const TOKEN_GAP: &str = "vllm:inter_token_latency_seconds";
const WHOLE: &str = "vllm:e2e_request_latency_seconds";
const QUEUE_TIME: &str = "vllm:request_queue_time_seconds";
const PROMPT_TOKENS: &str = "vllm:prompt_tokens_total";
const GENERATION_TOKENS: &str = "vllm:generation_tokens_total";
const SUCCESS: &str = "vllm:request_success_total";
const REASONING_TOKENS: &str = "brevity_reasoning_tokens";
const ANSWER_TOKENS: &str = "brevity_answer_tokens";
const FORCED_CLOSINGS: &str = "brevity_forced_closings_total";
const EFFORTS: &str = "brevity_effort_resolutions_total";
const FAILURES: &str = "brevity_request_failures_total";
const REJECTIONS: &str = "brevity_admission_rejections_total";
const HTTP_REQUESTS: &str = "brevity_http_requests_total";
const DISCONNECTS: &str = "brevity_client_disconnects_total";
const BUILD: &str = "brevity_build_info";

/// Every counter with its help text.
const COUNTERS: &[(&str, &str)] = &[
    (PROMPT_TOKENS, "Tokens of rendered prompts."),
    (GENERATION_TOKENS, "Tokens sampled, thoughts included."),
    (
        SUCCESS,
        "Generations that ended, by reason; `abort` where the client went away, the deadline came, or another choice failed.",
    ),
    (FORCED_CLOSINGS, "Generations whose thoughts were closed by a budget."),
    (EFFORTS, "Requests by effort asked for (`default` for none) and tier that answered."),
    (FAILURES, "Generations that the engine failed on."),
    (REJECTIONS, "Requests sent away before any work."),
    (HTTP_REQUESTS, "Answered HTTP requests."),
    (DISCONNECTS, "Clients that went away before their answer was delivered."),
];
/// Every histogram with its buckets and help text.
const HISTOGRAMS: &[(&str, &[f64], &str)] = &[
    (FIRST_TOKEN, LATENCY_BUCKETS, "From the arrival of a request to its first token."),
    (TOKEN_GAP, GAP_BUCKETS, "Between two tokens of a generation."),
    (WHOLE, LATENCY_BUCKETS, "From the arrival of a request to its last token."),
    (QUEUE_TIME, LATENCY_BUCKETS, "Waiting for a permit."),
    (REASONING_TOKENS, TOKEN_BUCKETS, "Tokens thought, the closing mark included."),
    (ANSWER_TOKENS, TOKEN_BUCKETS, "Tokens said."),
];
/// Every gauge with its help text.
const GAUGES: &[(&str, &str)] = &[
    (RUNNING, "Choices that are computed, or whose places are kept free for the first in the queue."),
    (WAITING, "Requests in the queue."),
    (BUILD, "Always 1; the labels say what was built."),
];

/// The numbers of one server; clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

/// Why a request was sent away before any work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The queue is full.
    QueueFull,
    /// The server shuts down.
    Draining,
    /// The request's deadline came while it waited.
    Deadline,
}

/// The effort a request asked for, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// One of the seven values.
    Named(Effort),
    /// `auto`.
    Auto,
    /// None: the family's default, or the tier was named.
    Default,
}

impl Asked {
    fn name(self) -> &'static str {
        match self {
            Self::Named(effort) => effort.name(),
            Self::Auto => "auto",
            Self::Default => "default",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A server's numbers, all at zero.
    pub fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for (name, buckets, _) in HISTOGRAMS {
            // The only error is an empty list of buckets, in which case this and the metrics before it stay summaries.
            builder = builder
                .set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)
                .unwrap_or_else(|_| PrometheusBuilder::new());
        }
        let recorder = builder.build_recorder();
        for (name, help) in COUNTERS {
            recorder.describe_counter((*name).into(), None, (*help).into());
        }
        for (name, _, help) in HISTOGRAMS {
            recorder.describe_histogram((*name).into(), None, (*help).into());
        }
        for (name, help) in GAUGES {
            recorder.describe_gauge((*name).into(), None, (*help).into());
        }
        let handle = recorder.handle();
        let metrics = Self { inner: Arc::new(Inner { recorder, handle }) };
        metrics.gauge(BUILD, vec![Label::new("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        metrics
    }

    /// Everything in Prometheus' text format, with the numbers of `running` and `waiting` requests of this moment.
    pub fn render(&self, running: usize, waiting: usize) -> String {
        self.gauge(RUNNING, Vec::new()).set(running as f64);
        self.gauge(WAITING, Vec::new()).set(waiting as f64);
        self.inner.handle.render()
    }

    /// Folds samples into their buckets. To be called every few seconds: between scrapes samples pile up otherwise.
    pub fn upkeep(&self) {
        self.inner.handle.run_upkeep();
    }

    /// A generation of `tier` begins; what becomes of it is told to the result.
    pub fn generation(&self, tier: &str, effort: Asked) -> GenerationMetrics {
        let labels = vec![Label::new("model_name", tier.to_owned())];
        GenerationMetrics {
            gap: self.histogram(TOKEN_GAP, labels.clone()),
            metrics: self.clone(),
            tier: labels,
            tier_and_effort: vec![Label::new("tier", tier.to_owned()), Label::new("effort", effort.name())],
            ended: false,
        }
    }

    /// The effort `asked` was resolved to `tier`; `substituted` when that is not the tier the effort stands for.
    pub fn effort_resolved(&self, asked: Asked, tier: &str, substituted: bool) {
        let substituted = if substituted { "true" } else { "false" };
        let labels = vec![
            Label::new("asked", asked.name()),
            Label::new("tier", tier.to_owned()),
            Label::new("substituted", substituted),
        ];
        self.counter(EFFORTS, labels).increment(1);
    }

    /// A request was sent away.
    pub fn admission_rejected(&self, rejection: Rejection) {
        let reason = match rejection {
            Rejection::QueueFull => "queue_full",
            Rejection::Draining => "draining",
            Rejection::Deadline => "deadline",
        };
        self.counter(REJECTIONS, vec![Label::new("reason", reason)]).increment(1);
    }

    /// An HTTP request was answered. `path` is the matched route, `None` where nothing matched.
    pub fn http_request(&self, path: Option<&str>, method: &Method, status: StatusCode) {
        let method = match method.as_str() {
            name @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => name.to_owned(),
            _ => "other".to_owned(),
        };
        let labels = vec![
            Label::new("path", path.unwrap_or("other").to_owned()),
            Label::new("method", method),
            Label::new("status", status.as_str().to_owned()),
        ];
        self.counter(HTTP_REQUESTS, labels).increment(1);
    }

    /// A client went away before its answer was delivered.
    pub fn client_disconnected(&self) {
        self.counter(DISCONNECTS, Vec::new()).increment(1);
    }

    fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        self.inner.recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: Vec<Label>) -> Gauge {
        self.inner.recorder.register_gauge(&Key::from_parts(name, labels), &METADATA)
    }

    fn histogram(&self, name: &'static str, labels: Vec<Label>) -> Histogram {
        self.inner.recorder.register_histogram(&Key::from_parts(name, labels), &METADATA)
    }
}

/// The numbers of one generation. Dropped before [`GenerationMetrics::finished`] or [`GenerationMetrics::failed`], it counts
/// as aborted.
#[derive(Debug)]
pub struct GenerationMetrics {
    metrics: Metrics,
    gap: Histogram,
    tier: Vec<Label>,
    tier_and_effort: Vec<Label>,
    ended: bool,
}

impl GenerationMetrics {
    /// It waited this long for its permit.
    pub fn queued(&self, time: Duration) {
        self.metrics.histogram(QUEUE_TIME, self.tier.clone()).record(time.as_secs_f64());
    }

    /// Its first token came, so long after the request.
    pub fn first_token(&self, since_request: Duration) {
        self.metrics.histogram(FIRST_TOKEN, self.tier.clone()).record(since_request.as_secs_f64());
    }

    /// `tokens` more tokens came, so long after those before.
    pub fn next_tokens(&self, tokens: usize, gap: Duration) {
        if tokens > 0 {
            self.gap.record_many(gap.as_secs_f64() / tokens as f64, tokens);
        }
    }

    /// It ended, so long after the request.
    pub fn finished(mut self, finish: &Finish, since_request: Duration) {
        self.ended = true;
        let usage = finish.usage;
        self.metrics.counter(PROMPT_TOKENS, self.tier.clone()).increment(usage.prompt_tokens as u64);
        self.metrics.counter(GENERATION_TOKENS, self.tier.clone()).increment(usage.completion_tokens as u64);
        self.metrics.histogram(WHOLE, self.tier.clone()).record(since_request.as_secs_f64());
        let answer = usage.completion_tokens.saturating_sub(usage.reasoning_tokens);
        let record = |name, tokens: usize| {
            self.metrics.histogram(name, self.tier_and_effort.clone()).record(tokens as f64);
        };
        record(REASONING_TOKENS, usage.reasoning_tokens);
        record(ANSWER_TOKENS, answer);
        if finish.forced_close {
            let tier = self.tier_and_effort.iter().take(1).cloned().collect();
            self.metrics.counter(FORCED_CLOSINGS, tier).increment(1);
        }
        self.ended_with(finish.reason.name());
    }

    /// The engine failed on it.
    pub fn failed(mut self) {
        self.ended = true;
        self.metrics.counter(FAILURES, self.tier.clone()).increment(1);
    }

    /// It never began: the request was at fault.
    pub fn refused(mut self) {
        self.ended = true;
    }

    fn ended_with(&self, reason: &'static str) {
        let mut labels = self.tier.clone();
        labels.push(Label::new("finished_reason", reason));
        self.metrics.counter(SUCCESS, labels).increment(1);
    }
}

impl Drop for GenerationMetrics {
    fn drop(&mut self) {
        if !self.ended {
            self.ended_with("abort");
        }
    }
}

/// The route `/metrics`.
pub fn routes(metrics: Metrics, admission: Admission) -> axum::Router {
    axum::Router::new().route("/metrics", get(show)).with_state((metrics, admission))
}

/// Numbers for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "server",
    responses(
        (status = 200, description = "Prometheus text format 0.0.4", body = String, content_type = "text/plain"),
        (status = 401, body = ErrorEnvelope, description = "With `--guard-metrics`: no key, or an unknown one."),
    )
)]
pub async fn show(State((metrics, admission)): State<(Metrics, Admission)>) -> impl IntoResponse {
    let text = metrics.render(admission.running(), admission.waiting());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{FinishReason, Usage};

    fn finish(reason: FinishReason, forced_close: bool) -> Finish {
        let usage = Usage { prompt_tokens: 10, completion_tokens: 30, reasoning_tokens: 20, cached_tokens: 0 };
        Finish { reason, usage, forced_close, stop: None, fingerprint: None }
    }

    fn assert_has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "no `{line}` in:\n{text}");
        }
    }

    #[test]
    fn a_generation_is_counted_by_tier_and_effort() {
        let metrics = Metrics::new();
        let generation = metrics.generation("alpha-0.1", Asked::Named(Effort::Low));
        generation.queued(Duration::from_millis(3));
        generation.first_token(Duration::from_millis(30));
        generation.next_tokens(2, Duration::from_millis(4));
        generation.finished(&finish(FinishReason::Stop, true), Duration::from_secs(2));
        let text = metrics.render(3, 1);
        assert_has(
            &text,
            &[
                "vllm:num_requests_running 3",
                "vllm:num_requests_waiting 1",
                "vllm:request_queue_time_seconds_bucket{model_name=\"alpha-0.1\",le=\"0.005\"} 1",
                "vllm:time_to_first_token_seconds_bucket{model_name=\"alpha-0.1\",le=\"0.02\"} 0",
                "vllm:time_to_first_token_seconds_bucket{model_name=\"alpha-0.1\",le=\"0.04\"} 1",
                "vllm:inter_token_latency_seconds_count{model_name=\"alpha-0.1\"} 2",
                "vllm:inter_token_latency_seconds_sum{model_name=\"alpha-0.1\"} 0.004",
                "vllm:e2e_request_latency_seconds_sum{model_name=\"alpha-0.1\"} 2",
                "vllm:prompt_tokens_total{model_name=\"alpha-0.1\"} 10",
                "vllm:generation_tokens_total{model_name=\"alpha-0.1\"} 30",
                "vllm:request_success_total{model_name=\"alpha-0.1\",finished_reason=\"stop\"} 1",
                "brevity_reasoning_tokens_sum{tier=\"alpha-0.1\",effort=\"low\"} 20",
                "brevity_answer_tokens_bucket{tier=\"alpha-0.1\",effort=\"low\",le=\"8\"} 0",
                "brevity_answer_tokens_bucket{tier=\"alpha-0.1\",effort=\"low\",le=\"16\"} 1",
                "brevity_forced_closings_total{tier=\"alpha-0.1\"} 1",
                "# TYPE brevity_answer_tokens histogram",
                "# TYPE vllm:prompt_tokens_total counter",
            ],
        );
    }

    #[test]
    fn what_is_dropped_was_aborted_and_what_failed_was_not() {
        let metrics = Metrics::new();
        drop(metrics.generation("base", Asked::Auto));
        metrics.generation("base", Asked::Default).failed();
        let text = metrics.render(0, 0);
        let aborted = "vllm:request_success_total{model_name=\"base\",finished_reason=\"abort\"} 1";
        assert_has(&text, &[aborted, "brevity_request_failures_total{model_name=\"base\"} 1"]);
    }

    #[test]
    fn labels_are_bounded() {
        let metrics = Metrics::new();
        let strange = Method::from_bytes(b"BREW").unwrap();
        metrics.http_request(None, &strange, StatusCode::NOT_FOUND);
        metrics.http_request(Some("/v1/models/{id}"), &Method::GET, StatusCode::OK);
        metrics.effort_resolved(Asked::Auto, "base", true);
        metrics.client_disconnected();
        let text = metrics.render(0, 0);
        assert_has(
            &text,
            &[
                "brevity_http_requests_total{path=\"other\",method=\"other\",status=\"404\"} 1",
                "brevity_http_requests_total{path=\"/v1/models/{id}\",method=\"GET\",status=\"200\"} 1",
                "brevity_effort_resolutions_total{asked=\"auto\",tier=\"base\",substituted=\"true\"} 1",
                "brevity_client_disconnects_total 1",
            ],
        );
    }

    #[test]
    fn two_servers_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.client_disconnected();
        assert!(!other.render(0, 0).contains("brevity_client_disconnects_total 1"));
        one.upkeep();
        assert!(one.clone().render(0, 0).contains("brevity_client_disconnects_total 1"));
    }
}
