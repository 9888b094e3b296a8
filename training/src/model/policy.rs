//! The policy: a base model and the part of it that is trained.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Tensor, Var};
use rand_chacha::ChaCha8Rng;

use super::decoder::Decoder;
use super::fold::fold_weights;
use super::layered::{Adapter, Layered, Weight};
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
                Ok(Self { rotary: base.config.rotary(), base, part: Part::Full, parameters })
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
        Ok(Self { rotary: base.config.rotary(), base, part: Part::Lora(adapter), parameters })
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

    /// The policy run layer by layer, its trained tensors at their places among [`Policy::parameters`]. It shares all of
    /// its storage with the policy, so it stays the policy through every update.
    ///
    /// # Errors
    /// [`Error::Config`] when a weight is missing.
    pub fn layered(&self) -> Result<Layered> {
        let places: BTreeMap<&str, usize> =
            self.parameters.iter().enumerate().map(|(place, (name, _))| (name.as_str(), place)).collect();
        let trained = |name: &str| {
            let &place = places.get(name)?;
            Some(Weight::trained(self.parameters[place].1.as_tensor(), place))
        };
        let weight = |name: &str| match trained(name) {
            Some(weight) => Ok(weight),
            None => Ok(Weight::frozen(&self.base.weight(name)?)),
        };
        let adapter = |name: &str| {
            let Part::Lora(adapter) = &self.part else {
                return None;
            };
            let (a, b) = (trained(&format!("{name}.lora_A"))?, trained(&format!("{name}.lora_B"))?);
            Some(Adapter { a, b, scale: adapter.config.scale() })
        };
        Layered::new(&self.base.config, &self.rotary, weight, adapter)
    }

    /// Frees the base's weights where all of them are trained: for runs that compare with no reference policy.
    pub fn forget_reference(&mut self) {
        if matches!(self.part, Part::Full) {
            self.base.weights.clear();
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

    /// The model that was trained, an adapter folded in and its sums rounded at random, as in files.
    ///
    /// # Errors
    /// As [`Policy::weights`].
    pub fn folded(&self) -> Result<Pretrained> {
        let weights = match &self.part {
            Part::Full => self.weights()?,
            Part::Lora(adapter) => fold_weights(&self.base.weights, adapter)?,
        };
        Ok(Pretrained { weights, ..self.base.clone() })
    }

    /// Writes what was trained: a PEFT folder for an adapter, a Hugging Face folder for full weights. `base` is the name
    /// under which an adapter remembers its base.
    ///
    /// # Errors
    /// [`Error::Io`] when something cannot be written.
    pub fn save(&self, folder: &Path, base: &str) -> Result<()> {
        match &self.part {
            Part::Full => self.folded()?.save(folder),
            Part::Lora(adapter) => adapter.save(folder, base),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use rand::SeedableRng;

    use super::super::TARGET_MODULES;
    use super::super::test_support::{logit_bits, tiny};
    use super::*;

    fn lora() -> Tuning {
        Tuning::Lora(LoraConfig { rank: 2, alpha: 4.0, target_modules: TARGET_MODULES.map(str::to_owned).to_vec() })
    }

    fn policy(tuning: &Tuning) -> Policy {
        Policy::new(tiny(), tuning, &mut ChaCha8Rng::seed_from_u64(9)).unwrap()
    }

    fn parameters(policy: &Policy) -> BTreeMap<String, Tensor> {
        policy.parameters().iter().map(|(name, var)| (name.clone(), var.as_tensor().copy().unwrap())).collect()
    }

    #[test]
    fn training_starts_at_the_base_to_the_bit() {
        let base = logit_bits(&tiny().decoder().unwrap());
        for tuning in [Tuning::Full, lora()] {
            let policy = policy(&tuning);
            assert!(logit_bits(&policy.decoder().unwrap()) == base, "{tuning:?}");
            assert!(logit_bits(&policy.frozen().unwrap()) == base, "{tuning:?}");
        }
    }

    #[test]
    fn an_update_moves_the_policy_and_not_the_reference() {
        let base = logit_bits(&tiny().decoder().unwrap());
        for tuning in [Tuning::Full, lora()] {
            let policy = policy(&tuning);
            let before = policy.frozen().unwrap();
            for (_, var) in policy.parameters() {
                var.set(&(var.as_tensor() + 0.05).unwrap()).unwrap();
            }
            let moved = logit_bits(&policy.decoder().unwrap());
            assert!(moved != base, "{tuning:?}");
            assert!(moved == logit_bits(&policy.frozen().unwrap()), "one policy, with and without gradients");
            assert!(logit_bits(&before) == base, "constants stay what they were");
            assert!(logit_bits(&policy.reference().unwrap()) == base, "{tuning:?}");
        }
    }

    #[test]
    fn parameters_come_back_from_a_checkpoint() {
        for tuning in [Tuning::Full, lora()] {
            let trained = policy(&tuning);
            for (_, var) in trained.parameters() {
                var.set(&(var.as_tensor() * 1.5).unwrap()).unwrap();
            }
            let resumed = Policy::new(tiny(), &tuning, &mut ChaCha8Rng::seed_from_u64(10)).unwrap();
            resumed.load_parameters(&parameters(&trained)).unwrap();
            assert!(logit_bits(&resumed.decoder().unwrap()) == logit_bits(&trained.decoder().unwrap()));
        }
    }

    #[test]
    fn a_checkpoint_that_does_not_fit_is_refused() {
        let policy = policy(&lora());
        let name = "model.layers.0.self_attn.k_proj.weight.lora_A";
        let mut tensors = parameters(&policy);
        tensors.insert(name.into(), Tensor::zeros((3, 8), DType::F32, &Device::Cpu).unwrap());
        let error = policy.load_parameters(&tensors).unwrap_err().to_string();
        assert!(
            error.contains(&format!("`{name}` has shape [3, 8] in the checkpoint, [2, 8] in the model")),
            "{error}"
        );
        tensors.remove(name);
        let error = policy.load_parameters(&tensors).unwrap_err().to_string();
        assert!(error.contains(&format!("lacks the weight `{name}`")), "{error}");
    }

    #[test]
    fn an_adapter_goes_through_its_folder() {
        let policy = policy(&lora());
        for (_, var) in policy.parameters() {
            var.set(&(var.as_tensor() + 0.1).unwrap()).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        policy.save(folder.path(), "tiny").unwrap();
        let base = tiny();
        let adapter = LoraAdapter::load(folder.path(), &base.config, &Device::Cpu).unwrap();
        let again = Policy::from_adapter(base, adapter).unwrap();
        assert!(logit_bits(&again.decoder().unwrap()) == logit_bits(&policy.decoder().unwrap()));
        let names = |policy: &Policy| policy.parameters().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&again), names(&policy), "the same order for the optimiser's state");
    }

    #[test]
    fn an_adapter_of_another_base_is_refused() {
        let adapter = |change: &dyn Fn(&mut super::super::ModelConfig)| {
            let Tuning::Lora(config) = lora() else { unreachable!() };
            let mut model = tiny().config;
            change(&mut model);
            let adapter = LoraAdapter::new(config, &model, &mut ChaCha8Rng::seed_from_u64(1), &Device::Cpu).unwrap();
            Policy::from_adapter(tiny(), adapter).err().unwrap().to_string()
        };
        let error = adapter(&|model| model.num_hidden_layers = 2);
        assert!(error.contains("no weight `model.layers.1."), "{error}");
        let error = adapter(&|model| model.intermediate_size = 20);
        assert!(error.contains("mlp.down_proj.weight` in shape [8, 20]") && error.contains("[8, 12]"), "{error}");
    }
}
