//! From a family to something that generates: which engines, and their construction.

use std::sync::Arc;

use brevity::engine::scripted::Scripted;
use brevity::engine::upstream::{Patience, UpstreamEngine};
use brevity::engine::{ByTier, Engine};
use brevity::family::{LoadedFamily, TierWeights};

use super::arguments::Model;
use super::values::EngineKind;
use crate::cli::{Failure, Result};

/// Starts the engine that `options` name for the tiers of `family` whose weights are here, to decode `max_running` sequences
/// at a time, and goes to other servers for the others.
///
/// # Errors
/// When this build has no such engine, a tier does not load, or the address or key of a server cannot be used.
pub async fn start(options: &Model, max_running: usize, family: &LoadedFamily) -> Result<Arc<dyn Engine>> {
    let mut engines = ByTier::default();
    let local: Vec<&TierWeights> = family.local().collect();
    let names: Vec<&str> = local.iter().map(|tier| tier.name.as_str()).collect();
    if !local.is_empty() {
        let engine: Arc<dyn Engine> = match options.engine.unwrap_or(EngineKind::Mistral) {
            EngineKind::Scripted => Arc::new(Scripted::builder().tiers(names.iter().copied()).build()?),
            EngineKind::Mistral => mistral(options, max_running, family).await?,
            EngineKind::Upstream => {
                let message = format!("no other server computes `{}`", names.join("`, `"));
                let hint = "give these tiers a [tier.upstream] in family.toml, or leave --engine out";
                return Err(Failure::usage(message).hint(hint));
            }
        };
        engines = engines.with(names, engine);
    }
    let names: Vec<&str> = family.remote().map(|tier| tier.name.as_str()).collect();
    if !names.is_empty() {
        let engine = UpstreamEngine::new(family.remote().cloned(), Patience::default())?;
        engines = engines.with(names, Arc::new(engine));
    }
    Ok(Arc::new(engines))
}

/// The engine in this process.
#[cfg(feature = "mistral")]
async fn mistral(options: &Model, max_running: usize, family: &LoadedFamily) -> Result<Arc<dyn Engine>> {
    use brevity::engine::mistral::{DType, Device, EngineSpec, MistralEngine, Weights};
    use brevity::family::Kind;
    use brevity_training::compute::DeviceName;

    use super::values;

    // Where a tier has weights here there is a base.
    let mut spec = EngineSpec::new(family.base.as_ref().map(|base| base.folder.clone()).unwrap_or_default());
    spec.max_running = max_running;
    spec.quantization.clone_from(&options.isq);
    spec.kv_cache = options.kv_cache;
    spec.device = match options.device {
        values::Device::Cpu => Device::Cpu,
        values::Device::Cuda(index) => Device::Cuda(index),
    };
    let own_device = |name: &str| match family.manifest.tiers.iter().find(|tier| tier.name == name)?.device? {
        DeviceName::Cpu => Some(Device::Cpu),
        DeviceName::Cuda(index) => Some(Device::Cuda(index)),
    };
    spec.dtype = match options.dtype {
        values::Type::Auto => DType::Auto,
        values::Type::F32 => DType::F32,
        values::Type::F16 => DType::F16,
        values::Type::Bf16 => DType::BF16,
    };
    for tier in family.local() {
        let weights = match tier.kind {
            Kind::Base => Weights::Base,
            Kind::Adapter => Weights::Adapter(tier.folder.clone()),
            Kind::Checkpoint => Weights::Checkpoint(tier.folder.clone()),
        };
        spec = spec.with_tier(&tier.name, weights, Some(tier.sha256.clone())).on(own_device(&tier.name));
    }
    Ok(Arc::new(MistralEngine::load(spec).await?))
}

#[cfg(not(feature = "mistral"))]
async fn mistral(_: &Model, _: usize, _: &LoadedFamily) -> Result<Arc<dyn Engine>> {
    Err(Failure::usage("this build has no engine of its own")
        .hint("build with the feature `mistral`, which is on by default, or choose another with --engine"))
}
