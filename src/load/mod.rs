//! Load on an OpenAI-compatible server: what is sent and when, what comes back, and what it means.
//!
//! Prompts ([`prompt`]) meet efforts in a paired, random order ([`plan`]); stages of load ([`drive`], [`arrival`], [`sweep`])
//! send them through a [`Target`]; a thread of its own makes [`Record`]s of what came back ([`judge`]); pure functions make
//! a [`Summary`] of those. Nothing here prints, writes files or knows the engines: the server is only ever an address.

pub mod arrival;
pub mod chunk;
pub mod client;
pub mod comparison;
pub mod cpu;
pub mod difference;
pub mod distribution;
pub mod drive;
pub mod effort;
pub mod exchange;
pub mod gaps;
pub mod goodput;
pub mod judge;
pub mod metric;
pub mod page;
pub mod plan;
pub mod prompt;
pub mod quantity;
pub mod record;
pub mod run;
pub mod saturation;
pub mod split;
pub mod sse;
pub mod summary;
pub mod sweep;
pub mod table;
pub mod throughput;
pub mod trend;

pub use arrival::Arrival;
pub use client::{Client, Options, Server, Target};
pub use comparison::{Comparison, Estimate};
pub use difference::Difference;
pub use distribution::Distribution;
pub use drive::Pace;
pub use goodput::Objectives;
pub use judge::{Judge, Judged, Prices};
pub use metric::{Metric, Statistic};
pub use prompt::{Prompt, Prompts};
pub use quantity::Threshold;
pub use record::Record;
pub use run::{Observer, Settings, Shape};
pub use summary::Summary;
pub use sweep::Sweep;
