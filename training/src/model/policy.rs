//! The policy: a base model and the part of it that is trained.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Tensor, Var};
use rand_chacha::ChaCha8Rng;

use super::decoder::Decoder;
use super::lora::{Factors, LoraAdapter, LoraConfig};
use super::ops::Rotary;
use super::pretrained::Pretrained;
use crate::{Error, Result};

/// What is trained.
#[derive(Debug, Clone, PartialEq)]
pub enum Tuning {
    /// Every weight.
    Full,
    /// A low-rank adapter; the base is shared and frozen.
    Lora(LoraConfig),
}

/// A policy under training, beside the frozen base it started from (the reference policy).
pub struct Policy {
    base: Pretrained,
    rotary: Rotary,
    part: Part,
    /// Trainable tensors by name, in a fixed order: the one the optimiser keeps its state in.
    parameters: Vec<(String, Var)>,
}

/// Which names of `parameters` stand for what.
enum Part {
    Full,
    Lora(LoraAdapter),
}

impl Policy {
    /// Makes the trainable part of `base`; a new adapter draws its first factors from `rng`.
    ///
    /// # Errors
    /// As [`LoraAdapter::new`].
    pub fn new(base: Pretrained, tuning: &Tuning, rng: &mut ChaCha8Rng) -> Result<Self> {
        match tuning {
            Tuning::Full => {
                let parameters = base
                    .weights
                    .iter()
                    .map(|(name, tensor)| Ok((name.clone(), Var::from_tensor(tensor)?)))
                    .collect::<Result<Vec<_>>>()?;
                Ok(Self { rotary: base.rotary(), base, part: Part::Full, parameters })
            }
            Tuning::Lora(config) => {
                let device = base.weight("model.embed_tokens.weight")?.device().clone();
                let adapter = LoraAdapter::new(config.clone(), &base.config, rng, &device)?;
                Self::from_adapter(base, adapter)
            }
        }
    }

    /// Makes an adapter trainable as it is, as when a trained one is trained further.
    ///
    /// # Errors
    /// [`Error::Config`] when the adapter changes a weight that `base` lacks or has in another shape.
    pub fn from_adapter(base: Pretrained, mut adapter: LoraAdapter) -> Result<Self> {
        let mut parameters = Vec::with_capacity(2 * adapter.factors.len());
        for (name, factors) in &mut adapter.factors {
            let product = [factors.b.dim(0)?, factors.a.dim(1)?];
            let weight = base.weight(name)?;
            if weight.dims() != product {
                return Err(Error::config(format!(
                    "the adapter changes `{name}` in shape {product:?}, the base has it in {:?}",
                    weight.dims()
                )));
            }
            let (a, b) = (Var::from_tensor(&factors.a)?, Var::from_tensor(&factors.b)?);
            *factors = Factors { a: a.as_tensor().clone(), b: b.as_tensor().clone() };
            parameters.push((format!("{name}.lora_A"), a));
            parameters.push((format!("{name}.lora_B"), b));
        }
        Ok(Self { rotary: base.rotary(), base, part: Part::Lora(adapter), parameters })
    }

    /// The trainable tensors, in the optimiser's order.
    pub fn parameters(&self) -> &[(String, Var)] {
        &self.parameters
    }

    /// Sets the trainable tensors, as when resuming.
    ///
    /// # Errors
    /// [`Error::Config`] when one is missing or of another shape.
    pub fn load_parameters(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, var) in &self.parameters {
            let tensor =
                tensors.get(name).ok_or_else(|| Error::config(format!("the checkpoint lacks the weight `{name}`")))?;
            if tensor.dims() != var.dims() {
                return Err(Error::config(format!(
                    "`{name}` has shape {:?} in the checkpoint, {:?} in the model",
                    tensor.dims(),
                    var.dims()
                )));
            }
            var.set(&tensor.to_dtype(var.dtype())?.to_device(var.device())?)?;
        }
        Ok(())
    }

    /// A decoder whose results can be differentiated with respect to [`Policy::parameters`].
    ///
    /// # Errors
    /// [`Error::Tensor`] when an adapter does not fit its weight.
    pub fn decoder(&self) -> Result<Decoder> {
        match &self.part {
            Part::Full => {
                let vars: BTreeMap<&str, &Var> = self.parameters.iter().map(|(n, v)| (n.as_str(), v)).collect();
                Decoder::new(&self.base.config, &self.rotary, |name| {
                    let var = vars.get(name).ok_or_else(|| Error::config(format!("no weight `{name}`")))?;
                    Ok(var.as_tensor().clone())
                })
            }
            Part::Lora(adapter) => {
                Decoder::new(&self.base.config, &self.rotary, |name| adapter.fold(name, &self.base.weight(name)?))
            }
        }
    }

    /// The policy as constants: for sampling and for log-probabilities that need no gradient.
    ///
    /// # Errors
    /// As [`Policy::decoder`].
    pub fn frozen(&self) -> Result<Decoder> {
        let weights = self.weights()?;
        Decoder::new(&self.base.config, &self.rotary, |name| {
            weights.get(name).cloned().ok_or_else(|| Error::config(format!("no weight `{name}`")))
        })
    }

    /// The reference policy: the base as it was before training.
    ///
    /// # Errors
    /// As [`Pretrained::decoder`].
    pub fn reference(&self) -> Result<Decoder> {
        self.base.decoder()
    }

    /// The model that training started from.
    pub fn base(&self) -> &Pretrained {
        &self.base
    }

    /// Every weight of the policy, adapters folded in.
    ///
    /// # Errors
    /// As [`Policy::decoder`].
    pub fn weights(&self) -> Result<BTreeMap<String, Tensor>> {
        match &self.part {
            Part::Full => {
                self.parameters.iter().map(|(name, var)| Ok((name.clone(), var.as_tensor().copy()?))).collect()
            }
            Part::Lora(adapter) => self
                .base
                .weights
                .iter()
                .map(|(name, weight)| Ok((name.clone(), adapter.fold(name, weight)?.detach())))
                .collect(),
        }
    }

    /// Writes what was trained: a PEFT folder for an adapter, a Hugging Face folder for full weights. `base` is the name
    /// under which an adapter remembers its base.
    ///
    /// # Errors
    /// [`Error::Io`] when something cannot be written.
    pub fn save(&self, folder: &Path, base: &str) -> Result<()> {
        match &self.part {
            Part::Full => Pretrained { weights: self.weights()?, ..self.base.clone() }.save(folder),
            Part::Lora(adapter) => adapter.save(folder, base),
        }
    }
}
