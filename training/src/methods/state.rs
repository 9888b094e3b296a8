//! A method's state on disk: the policy's trained tensors and the optimizer's beside them.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::model::Policy;
use crate::optimizer::AdamW;
use crate::trainer::{self, RunFolder};

/// What is kept beside tensors: the optimizer's count and whatever the method has to remember.
#[derive(Serialize, Deserialize)]
struct Kept<S> {
    optimizer_updates: u64,
    #[serde(flatten)]
    method: S,
}

/// Writes a checkpoint of everything after `step`.
pub(super) fn save<S: Serialize>(
    run: &RunFolder,
    step: u64,
    policy: &Policy,
    optimizer: &AdamW,
    method: &S,
) -> Result<()> {
    let mut tensors = optimizer.state()?;
    tensors.extend(policy.parameters().iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())));
    trainer::save(run, step, &tensors, &Kept { optimizer_updates: optimizer.updates(), method })
}

/// Sets policy and optimizer to the newest whole checkpoint and returns its step and what the method kept; without a
/// checkpoint everything stays as it is. `warn` is told of every damaged checkpoint that is passed over.
pub(super) fn restore<S: DeserializeOwned>(
    run: &RunFolder,
    policy: &Policy,
    optimizer: &mut AdamW,
    warn: impl FnMut(&str),
) -> Result<Option<(u64, S)>> {
    let latest = trainer::latest::<Kept<S>>(run, &Device::Cpu)?;
    latest.warnings.iter().map(String::as_str).for_each(warn);
    let Some(checkpoint) = latest.checkpoint else {
        return Ok(None);
    };
    policy.load_parameters(&checkpoint.tensors)?;
    let mut of_optimizer: BTreeMap<String, Tensor> = checkpoint.tensors;
    of_optimizer.retain(|name, _| policy.parameters().iter().all(|(parameter, _)| parameter != name));
    optimizer.load_state(&of_optimizer, checkpoint.state.optimizer_updates)?;
    Ok(Some((checkpoint.step, checkpoint.state.method)))
}
