//! The log: to standard error, as text or JSON, through one filter.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::arguments::{LogFormat, Logging};
use crate::cli::{Failure, Result};

/// What is logged unless the user says otherwise.
const FILTER: &str = "warn,brevity=info,serve=info";

/// Begins to log.
///
/// # Errors
/// When the filter cannot be read.
pub fn start(options: &Logging) -> Result<()> {
    let rust_log = || std::env::var("RUST_LOG").ok().filter(|filter| !filter.trim().is_empty());
    let filter = options.log.clone().or_else(rust_log).unwrap_or_else(|| FILTER.to_owned());
    let filter: EnvFilter = filter.parse().map_err(|error| {
        Failure::usage(format!("the log filter `{filter}` cannot be read: {error}"))
            .hint("write a level as in `debug`, or levels of parts as in `warn,brevity=debug`")
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.log_format {
        LogFormat::Text => lines.with_ansi(is_coloured()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}

/// On a terminal, unless `NO_COLOR` is set to something (no-color.org).
fn is_coloured() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
