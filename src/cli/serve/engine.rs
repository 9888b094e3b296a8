//! From a family to something that generates: which engine, and its construction.

use std::sync::Arc;

use brevity::engine::Engine;
use brevity::engine::scripted::Scripted;
use brevity::family::LoadedFamily;

use super::arguments::Model;
use super::values::EngineKind;
use crate::cli::Result;

/// Starts the engine that `options` name for the good tiers of `family`, to decode `max_running` sequences at a time.
///
/// # Errors
/// When this build has no such engine, or a tier does not load.
pub async fn start(options: &Model, max_running: usize, family: &LoadedFamily) -> Result<Arc<dyn Engine>> {
    match options.engine.unwrap_or(EngineKind::Mistral) {
        EngineKind::Scripted => {
            let tiers = family.ready().map(|tier| tier.name.clone());
            Ok(Arc::new(Scripted::builder().tiers(tiers).build()?))
        }
        EngineKind::Mistral => mistral(options, max_running, family).await,
    }
}

/// The engine in this process.
#[cfg(feature = "mistral")]
async fn mistral(options: &Model, max_running: usize, family: &LoadedFamily) -> Result<Arc<dyn Engine>> {
    use brevity::engine::mistral::{DType, Device, EngineSpec, MistralEngine, Weights};
    use brevity::family::Kind;

    use super::values;

    let mut spec = EngineSpec::new(&family.base.folder);
    spec.max_running = max_running;
    spec.quantization.clone_from(&options.isq);
    spec.device = match options.device {
        values::Device::Cpu => Device::Cpu,
        values::Device::Cuda(index) => Device::Cuda(index),
    };
    spec.dtype = match options.dtype {
        values::Type::Auto => DType::Auto,
        values::Type::F32 => DType::F32,
        values::Type::F16 => DType::F16,
        values::Type::Bf16 => DType::BF16,
    };
    for tier in family.ready() {
        let weights = match tier.kind {
            Kind::Base => Weights::Base,
            Kind::Adapter => Weights::Adapter(tier.folder.clone()),
            Kind::Checkpoint => Weights::Checkpoint(tier.folder.clone()),
        };
        spec = spec.with_tier(&tier.name, weights, Some(tier.sha256.clone()));
    }
    Ok(Arc::new(MistralEngine::load(spec).await?))
}

#[cfg(not(feature = "mistral"))]
async fn mistral(_: &Model, _: usize, _: &LoadedFamily) -> Result<Arc<dyn Engine>> {
    Err(crate::cli::Failure::usage("this build has no engine of its own")
        .hint("build with the feature `mistral`, which is on by default, or choose another with --engine"))
}
