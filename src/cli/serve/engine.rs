//! From a family to something that generates: which engine, and its construction.

use std::sync::Arc;

use brevity::engine::Engine;
use brevity::engine::scripted::Scripted;
use brevity::family::Manifest;

use super::arguments::Model;
use super::values::EngineKind;
use crate::cli::{Failure, Result};

/// Starts the engine that `options` name for the tiers of `manifest`.
///
/// # Errors
/// When this build has no such engine, or the tiers do not load.
pub async fn start(options: &Model, manifest: &Manifest) -> Result<Arc<dyn Engine>> {
    match options.engine.unwrap_or(EngineKind::Mistral) {
        EngineKind::Scripted => {
            let tiers = manifest.tiers.iter().map(|tier| tier.name.clone());
            Ok(Arc::new(Scripted::builder().tiers(tiers).build()?))
        }
        EngineKind::Mistral => Err(Failure::usage("this build has no engine of its own")
            .hint("build it with `cargo build --release`, or name servers in the manifest and give --engine upstream")),
        EngineKind::Upstream => Err(Failure::usage("this build cannot ask other servers")),
    }
}
