//! The options of the server. Every one has an environment variable and a key in `brevity.toml`, named like it.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderValue;
use brevity::family::{Effort, Source};
use brevity::routing::EffortWish;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};
use secrecy::SecretString;

use super::values::{self, Device, EngineKind, ReasoningFieldName, Type};

/// Everything the server is told.
#[derive(Debug, Args)]
pub struct Arguments {
    /// File with options, `key = value` as in `port = 8080`; flags and variables win over it
    /// [default: brevity.toml where there is one]
    #[arg(long, env = "BREVITY_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print the effective options, and where each is from, in the form of brevity.toml, and do nothing
    #[arg(long)]
    pub print_config: bool,

    #[command(flatten)]
    pub model: Model,
    #[command(flatten)]
    pub effort: EffortOptions,
    #[command(flatten)]
    pub network: Network,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub access: Access,
    #[command(flatten)]
    pub logging: Logging,
}

/// What answers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct Model {
    /// The family: a folder with family.toml, a folder with a single model, or `organisation/name[@revision]` on the hub
    #[arg(long, env = "BREVITY_FAMILY", hide_env_values = true, value_name = "FAMILY", default_value = "models/mini")]
    pub family: Source,

    /// Start without the tiers that cannot be loaded, and say which they are
    #[arg(
        long, env = "BREVITY_ALLOW_PARTIAL", hide_env_values = true, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true", value_parser = BoolishValueParser::new()
    )]
    pub allow_partial: bool,

    /// What computes tiers whose weights are here; a tier with [tier.upstream] is computed by its server [default: mistral]
    #[arg(long, env = "BREVITY_ENGINE", hide_env_values = true, value_name = "NAME")]
    pub engine: Option<EngineKind>,

    /// Where to compute: `cpu`, `cuda` or `cuda:1`
    #[arg(long, env = "BREVITY_DEVICE", hide_env_values = true, value_name = "DEVICE", default_value = "cpu")]
    pub device: Device,

    /// Type of weights and activations
    #[arg(long, env = "BREVITY_DTYPE", hide_env_values = true, value_name = "TYPE", default_value = "auto")]
    pub dtype: Type,

    /// Quantise the weights while loading: bits (`8`, `4`) or a type of llama.cpp (`q8_0`, `q4k`)
    #[arg(long, env = "BREVITY_ISQ", hide_env_values = true, value_name = "TYPE")]
    pub isq: Option<String>,

    /// Memory for keys and values, of every model that is loaded on a GPU, as in `8GiB`; on a processor they take what they
    /// need [default: what the weights leave but a twentieth of the GPU; with several models on it, for each an equal part of
    /// half of what their weights leave]
    #[arg(long, env = "BREVITY_KV_CACHE", hide_env_values = true, value_name = "SIZE", value_parser = values::size)]
    pub kv_cache: Option<usize>,
}

/// How efforts are understood.
#[derive(Debug, Args)]
#[command(next_help_heading = "Effort")]
pub struct EffortOptions {
    /// Effort of requests that name none, or `auto` [default: the manifest's]
    #[arg(long, env = "BREVITY_DEFAULT_EFFORT", hide_env_values = true, value_name = "EFFORT")]
    pub default_effort: Option<EffortWish>,

    /// Tokens that may be thought at an effort, unless the request says; may be given several times [default: the manifest's, or no limit]
    #[arg(
        long, env = "BREVITY_THINKING_BUDGET", hide_env_values = true, value_name = "EFFORT=TOKENS", value_delimiter = ',',
        value_parser = values::budget
    )]
    pub thinking_budget: Vec<(Effort, usize)>,

    /// Softmax temperature of requests that name none [default: the model's own, from generation_config.json, or 1]
    #[arg(long, env = "BREVITY_TEMPERATURE", hide_env_values = true, value_name = "T", value_parser = values::temperature)]
    pub temperature: Option<f64>,

    /// Names under which thoughts are sent
    #[arg(long, env = "BREVITY_REASONING_FIELD", hide_env_values = true, value_name = "NAME", default_value = "both")]
    pub reasoning_field: ReasoningFieldName,
}

/// Where to listen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub struct Network {
    /// Address to listen on; 0.0.0.0 for all of this machine (then set an API key)
    #[arg(long, env = "BREVITY_HOST", hide_env_values = true, value_name = "HOST", default_value = "127.0.0.1")]
    pub host: String,

    /// Port to listen on; 0 takes one that is free
    #[arg(long, env = "BREVITY_PORT", hide_env_values = true, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,

    /// Connections at a time
    #[arg(
        long, env = "BREVITY_MAX_CONNECTIONS", hide_env_values = true, value_name = "N", default_value = "1024", value_parser = count
    )]
    pub max_connections: usize,

    /// Largest body of a request
    #[arg(long, env = "BREVITY_MAX_BODY", hide_env_values = true, value_name = "SIZE", default_value = "4MiB", value_parser = values::size)]
    pub max_body: usize,

    /// Time for the headers of a request, and for a connection that does nothing
    #[arg(
        long, env = "BREVITY_HEADER_TIMEOUT", hide_env_values = true, value_name = "TIME", default_value = "30s",
        value_parser = values::some_time
    )]
    pub header_timeout: Duration,

    /// Time for the body of a request
    #[arg(
        long, env = "BREVITY_BODY_TIMEOUT", hide_env_values = true, value_name = "TIME", default_value = "30s",
        value_parser = values::some_time
    )]
    pub body_timeout: Duration,

    /// Time in which a client must take something of its answer
    #[arg(
        long, env = "BREVITY_WRITE_TIMEOUT", hide_env_values = true, value_name = "TIME", default_value = "30s",
        value_parser = values::some_time
    )]
    pub write_timeout: Duration,

    /// Time after which a silent stream sends a comment, so that proxies keep it open; 0 for never
    #[arg(
        long, env = "BREVITY_HEARTBEAT", hide_env_values = true, value_name = "TIME", default_value = "15s", value_parser = values::time
    )]
    pub heartbeat: Duration,
}

/// How much at a time.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub struct Load {
    /// Choices that are computed at a time; a request with `n` has so many
    #[arg(long, env = "BREVITY_MAX_RUNNING", hide_env_values = true, value_name = "N", default_value = "64", value_parser = count)]
    pub max_running: usize,

    /// Requests that wait; more are refused at once with 429
    #[arg(long, env = "BREVITY_MAX_QUEUE", hide_env_values = true, value_name = "N", default_value_t = 256)]
    pub max_queue: usize,

    /// Time for a whole request, waiting included
    #[arg(
        long, env = "BREVITY_DEADLINE", hide_env_values = true, value_name = "TIME", default_value = "10m",
        value_parser = values::some_time
    )]
    pub deadline: Duration,

    /// Time for running requests after SIGTERM; a second signal ends them at once
    #[arg(
        long, env = "BREVITY_DRAIN_TIMEOUT", hide_env_values = true, value_name = "TIME", default_value = "30s",
        value_parser = values::time
    )]
    pub drain_timeout: Duration,
}

/// Who may ask.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub struct Access {
    /// A key that is let in, `NAME=KEY` or `KEY`; may be given several times. Names go to the log, keys go nowhere
    /// [default: everybody is let in]
    #[arg(long, env = "BREVITY_API_KEYS", hide_env_values = true, value_name = "[NAME=]KEY", value_delimiter = ',', value_parser = secret)]
    pub api_key: Vec<SecretString>,

    /// File with more keys, one a line
    #[arg(long, env = "BREVITY_API_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,

    /// Ask for a key for /metrics too
    #[arg(
        long, env = "BREVITY_GUARD_METRICS", hide_env_values = true, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true", value_parser = BoolishValueParser::new()
    )]
    pub guard_metrics: bool,

    /// Origin whose scripts may ask from a browser, `*` for all; may be given several times [default: none]
    #[arg(
        long, env = "BREVITY_CORS_ORIGIN", hide_env_values = true, value_name = "ORIGIN", value_delimiter = ',', value_parser = origin
    )]
    pub cors_origin: Vec<HeaderValue>,
}

/// What is told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct Logging {
    /// What is logged, as RUST_LOG has it: `debug`, or `warn,brevity=debug` [default: RUST_LOG, or `warn,brevity=info,serve=info`]
    #[arg(long, env = "BREVITY_LOG", hide_env_values = true, value_name = "FILTER")]
    pub log: Option<String>,

    /// Form of the log
    #[arg(long, env = "BREVITY_LOG_FORMAT", hide_env_values = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it has to be at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}")),
    }
}

fn secret(text: &str) -> Result<SecretString, String> {
    Ok(SecretString::from(text))
}

fn origin(text: &str) -> Result<HeaderValue, String> {
    let has_host = text.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
    if text != "*" && !has_host {
        return Err(format!("`{text}` is no origin; write it as in `https://chat.example` without a path, or `*`"));
    }
    text.parse().map_err(|_| format!("`{text}` has characters that no header can carry"))
}
