//! What handlers share: the engine, the family as the API sees it, admission, metrics, options, and the sources of chance.
//!
//! Built once before the first request and never changed; what changes (load, speeds, tiers) lives behind its own door.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::admission::Admission;
use super::directory::Directory;
use super::health::Readiness;
use super::metrics::Metrics;
use crate::engine::Engine;
use crate::family::SamplingDefaults;

/// Under which names thoughts are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReasoningNames {
    /// `reasoning_content` and `reasoning`: every known client reads one of them.
    #[default]
    Both,
    /// `reasoning_content` only.
    ReasoningContent,
    /// `reasoning` only.
    Reasoning,
}

impl ReasoningNames {
    /// `text` under the wanted names: (`reasoning_content`, `reasoning`).
    pub fn spread(self, text: String) -> (Option<String>, Option<String>) {
        match self {
            Self::Both => (Some(text.clone()), Some(text)),
            Self::ReasoningContent => (Some(text), None),
            Self::Reasoning => (None, Some(text)),
        }
    }
}

/// What an operator decides about HTTP.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names of the thoughts.
    pub reasoning_names: ReasoningNames,
    /// Time without any byte after which a stream carries a comment. Before a stream begins, while its request waits for a
    /// place, nothing is sent: the status is not known yet.
    pub heartbeat: Duration,
    /// Time a client may leave a full stream unread before it is cancelled.
    pub stall_timeout: Duration,
    /// Time a request may take, waiting included; `None` for any.
    pub deadline: Option<Duration>,
    /// Sampling of requests that do not say.
    pub sampling: SamplingDefaults,
    /// Choices of one request; never more than are computed at a time.
    pub max_choices: usize,
    /// Bytes of a JSON schema, in `response_format` and in a tool.
    pub schema_limit: usize,
    /// Time the engine has for the probe of `/ready`.
    pub probe_timeout: Duration,
    /// Time for which the answer of a probe is taken for true.
    pub probe_cache: Duration,
    /// Whether `/docs` is served.
    pub docs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reasoning_names: ReasoningNames::default(),
            heartbeat: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(60),
            deadline: Some(Duration::from_secs(600)),
            sampling: SamplingDefaults::default(),
            max_choices: 128,
            schema_limit: 128 << 10,
            probe_timeout: Duration::from_secs(5),
            probe_cache: Duration::from_secs(1),
            docs: true,
        }
    }
}

/// Where seeds, ids and dates come from; tests bring their own.
#[derive(Clone)]
pub struct Sources {
    /// 64 fresh random bits.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Seconds since 1970.
    pub now: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for Sources {
    /// The system's generator and clock.
    fn default() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self { random: Arc::new(rand::random::<u64>), now: Arc::new(now) }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Sources")
    }
}

impl Sources {
    /// A seed for a request that brings none: 53 bits, which every JSON reader keeps exactly.
    pub fn seed(&self) -> u64 {
        (self.random)() >> 11
    }

    /// A fresh id: `prefix` and 32 hexadecimal digits.
    pub fn id(&self, prefix: &str) -> String {
        format!("{prefix}{:016x}{:016x}", (self.random)(), (self.random)())
    }
}

/// What handlers share.
pub struct AppState {
    /// Who computes.
    pub engine: Arc<dyn Engine>,
    /// Who answers what.
    pub directory: Directory,
    /// Who may compute now.
    pub admission: Admission,
    /// What is counted.
    pub metrics: Metrics,
    /// What the operator decided.
    pub options: Options,
    /// Seeds, ids and dates.
    pub sources: Sources,
    /// When this state was made, in seconds since 1970; `created` of every model.
    pub started: u64,
    /// What the last probe of the engine said.
    pub readiness: Readiness,
}

impl AppState {
    /// State with the system's sources; the door is counted in `metrics`.
    pub fn new(
        engine: Arc<dyn Engine>,
        directory: Directory,
        admission: Admission,
        metrics: Metrics,
        mut options: Options,
    ) -> Self {
        options.max_choices = options.max_choices.min(admission.max_running());
        let admission = admission.counted_in(metrics.clone());
        let sources = Sources::default();
        let started = (sources.now)();
        Self { engine, directory, admission, metrics, options, sources, started, readiness: Readiness::default() }
    }

    /// The same state with other sources.
    #[must_use]
    pub fn with_sources(self, sources: Sources) -> Self {
        let started = (sources.now)();
        Self { sources, started, ..self }
    }
}

impl fmt::Debug for AppState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AppState").field("engine", &self.engine.kind()).field("options", &self.options).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_seeds_survive_every_json_reader() {
        let sources = Sources { random: Arc::new(|| u64::MAX), now: Arc::new(|| 0) };
        assert_eq!(sources.seed(), (1 << 53) - 1);
        assert_eq!(sources.id("chatcmpl-"), format!("chatcmpl-{}", "f".repeat(32)));
    }
}
