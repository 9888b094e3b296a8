//! Training reasoning models to think only as long as a problem needs.
//!
//! This crate holds the mathematics of length-penalised reinforcement learning (arXiv 2502.04463) and everything it
//! stands on: a trainable decoder, tasks with graders, a batched sampler, rewards, advantages, the loss, the trainer.
//! It knows no HTTP, no serving engine and no command line; those live in the `brevity` package, which calls this one.
//! Data flows one way: `tasks` -> `rollout` -> `objective` -> `advantage` -> `loss` -> `optimizer`.

pub mod advantage;
pub mod compute;
mod error;
pub mod files;
pub mod loss;
pub mod methods;
pub mod model;
pub mod objective;
pub mod optimizer;
pub mod recipe;
pub mod rollout;
pub mod schedule;
pub mod tasks;
pub mod text;
pub mod thoughts;
pub mod trainer;

pub use error::{Error, Result};
