//! The command line as people meet it: through the real binary, one module a theme.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod errors;
mod faults;
mod help;
mod hub;
mod hub_server;
mod load;
mod mixed;
#[cfg(all(feature = "mistral", target_os = "linux"))]
mod one_core;
mod own_tier;
mod resume;
mod serve;
mod server;
mod specification;
mod support;
mod tiers;
mod train;
mod upstream;
