//! `serve` without a subcommand: the server.
//!
//! From options to a running server, in the order in which things may fail: options, keys, family, engine, port. Nothing
//! listens before everything is good.

mod arguments;
mod banner;
mod config;
mod engine;
mod keys;
mod log;
mod threads;
mod values;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use brevity::api;
use brevity::api::admission::Admission;
use brevity::api::auth::ApiKeys;
use brevity::api::directory::Directory;
use brevity::api::layers::Layers;
use brevity::api::limits::Limits;
use brevity::api::metrics::Metrics;
use brevity::api::server::{self, BindError, Server, ServerOptions};
use brevity::api::state::{AppState, Options, ReasoningNames};
use brevity::family::{Hub, LoadedFamily, SamplingDefaults};
use brevity::routing::{Catalogue, ignored_cards};
use clap::FromArgMatches;
use tokio::task::JoinHandle;

pub use arguments::Arguments;
use arguments::{EffortOptions, Model};
use values::ReasoningFieldName;

use super::progress::{self, Fetching};
use super::{Cli, Failure, Result};

/// Examples for `serve --help`.
pub const EXAMPLES: &str = "\
Examples:
  serve
      the bundled family on http://127.0.0.1:8080
  serve --family models/mine --default-effort low --thinking-budget low=256 --thinking-budget medium=1024
      another family, with limits of thinking
  serve --host 0.0.0.0 --api-key-file keys.txt --log-format json
      for others too, each with a key
  serve --family examples/upstream
      a family that another server computes, as its family.toml says
  serve --config production.toml --print-config
      what a file and the environment add up to";

/// Between two rounds of folding samples into histograms.
const UPKEEP: Duration = Duration::from_secs(5);
/// Longer than any stream is silent.
const NEVER: Duration = Duration::from_secs(366 * 86_400);

/// Runs the server until it is told to stop.
///
/// # Errors
/// When an option, a key, the family, the engine or the port is not good; nothing was served then.
pub fn run(command: &clap::Command, arguments: &[OsString]) -> Result<()> {
    let configured = config::configured(command, arguments)?;
    let cli = Cli::from_arg_matches(&configured.matches).unwrap_or_else(|error| error.exit());
    if cli.serve.print_config {
        progress::print(&configured.to_toml(command));
        return Ok(());
    }
    log::start(&cli.serve.logging)?;
    threads::settle(cli.threads, &cli.serve.model.family);
    let keys = keys::keys(&cli.serve.access)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let starting = runtime.block_on(async { server::exit_at_once() })?;
    let family = load(&cli.serve.model)?;
    let served = runtime.block_on(serve(cli.serve, keys, family, starting));
    // What still computes for nobody is not waited for.
    runtime.shutdown_background();
    served
}

/// Finds, fetches and checks the family.
fn load(options: &Model) -> Result<LoadedFamily> {
    let (hub, mut fetching) = (Hub::from_env(), Fetching::default());
    let family =
        brevity::family::load(&options.family, options.allow_partial, &hub, &mut fetching).map_err(|error| {
            let hint = match options.allow_partial {
                true => "`serve tiers verify` checks a family without serving it; --family names another",
                false => "--allow-partial serves the tiers that are good; --family names another family",
            };
            Failure::from(error).hint(hint)
        })?;
    for tier in family.broken() {
        tracing::warn!(tier = tier.name, reason = tier.reason, "a tier is not served");
    }
    for warning in &family.warnings {
        tracing::warn!("{warning}");
    }
    for ignored in ignored_cards(&family.manifest) {
        tracing::warn!("{ignored}");
    }
    Ok(family)
}

/// Serves `family`; `starting` ends the process at a signal until there is somebody to finish for.
async fn serve(options: Arguments, keys: ApiKeys, family: LoadedFamily, starting: JoinHandle<()>) -> Result<()> {
    // One place more than there are for requests: that of the probe behind `/ready`.
    let engine = engine::start(&options.model, options.load.max_running.saturating_add(1), &family).await?;
    tracing::info!(family = family.manifest.name, engine = engine.kind(), "loaded");
    let metrics = Metrics::new();
    let admission = Admission::new(options.load.max_running, options.load.max_queue);
    let needs_key = !keys.is_empty();
    let directory = directory(&family, &options.effort);
    let view = directory.family();
    let state = AppState::new(engine, directory, admission.clone(), metrics.clone(), api_options(&options, &family)?);
    let limits = Limits { max_body: options.network.max_body, body_timeout: options.network.body_timeout };
    let cors_origins = options.access.cors_origin.clone();
    let layers = Layers { keys, limits, cors_origins, metrics: metrics.clone() };
    let router = layers.around(api::router(Arc::new(state)));

    let network = &options.network;
    let server = Server::bind(&network.host, network.port).await.map_err(explain)?;
    let address = server.address();
    if !address.ip().is_loopback() && !needs_key {
        tracing::warn!(%address, "everybody who reaches this address is let in; set --api-key");
    }
    // Before anybody is told the address: who reads it may send a signal at once.
    let phases = server::phases()?;
    starting.abort();
    let broken: Vec<&str> = family.broken().map(|tier| tier.name.as_str()).collect();
    progress::print(&banner::family(&family.manifest, view.default_effort, &view.budgets, &broken));
    progress::print(&banner::address(address, &view.id, needs_key));
    let server_options = ServerOptions {
        header_timeout: network.header_timeout,
        write_timeout: network.write_timeout,
        max_connections: network.max_connections,
        drain_timeout: options.load.drain_timeout,
    };
    let upkeep = tokio::spawn(keep_up(metrics));
    let cut = server.serve(router, server_options, phases, move || admission.drain()).await;
    upkeep.abort();
    match cut {
        0 => tracing::info!("stopped; every request was answered"),
        cut => tracing::warn!(connections = cut, "stopped; connections were cut off"),
    }
    Ok(())
}

/// The family with what the options say about it.
fn directory(family: &LoadedFamily, options: &EffortOptions) -> Directory {
    let reason = |name: &str| family.broken().find(|tier| tier.name == name).map(|tier| tier.reason.clone());
    let mut catalogue = Catalogue::from_manifest(&family.manifest, reason);
    catalogue.budgets.extend(options.thinking_budget.iter().copied());
    if let Some(effort) = options.default_effort {
        catalogue.default_effort = effort;
    }
    Directory::new(catalogue, &family.manifest)
}

/// The options that handlers see.
fn api_options(options: &Arguments, family: &LoadedFamily) -> Result<Options> {
    let base = family.base.as_ref().map(|base| SamplingDefaults::from_folder(&base.folder)).transpose()?;
    let mut sampling = base.unwrap_or_default();
    sampling.temperature = options.effort.temperature.unwrap_or(sampling.temperature);
    Ok(Options {
        sampling,
        reasoning_names: match options.effort.reasoning_field {
            ReasoningFieldName::Both => ReasoningNames::Both,
            ReasoningFieldName::ReasoningContent => ReasoningNames::ReasoningContent,
            ReasoningFieldName::Reasoning => ReasoningNames::Reasoning,
        },
        heartbeat: if options.network.heartbeat.is_zero() { NEVER } else { options.network.heartbeat },
        stall_timeout: options.network.write_timeout,
        deadline: Some(options.load.deadline),
        ..Options::default()
    })
}

/// Folds samples into histograms, for ever.
async fn keep_up(metrics: Metrics) {
    let mut rounds = tokio::time::interval(UPKEEP);
    loop {
        rounds.tick().await;
        metrics.upkeep();
    }
}

fn explain(error: BindError) -> Failure {
    let hint = match error {
        BindError::InUse { .. } | BindError::Forbidden { .. } => {
            "choose another with --port; --port 0 takes one that is free"
        }
        BindError::Other { .. } => "name an address of this machine with --host",
    };
    Failure::from(error).hint(hint)
}
