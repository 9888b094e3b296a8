//! Brevity: train reasoning models into effort tiers, serve them, and measure what each tier saves.
//!
//! The library behind the `serve` binary. Training mathematics lives in the `brevity_training` crate.

pub mod api;
pub mod engine;
pub mod eval;
pub mod family;
pub mod load;
pub mod report;
pub mod routing;
