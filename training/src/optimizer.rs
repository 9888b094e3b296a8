//! AdamW with what training needs around it: summed micro-batch gradients, clipping, exact resume.
//!
//! Parameters are an ordered list of named variables, and everything follows that order: same gradients, same bytes. The
//! optimizer keeps f32 moments whatever the parameters' dtype, and an f32 master copy of each parameter that is not f32
//! itself, because updates of 1e-6 vanish in bf16. It knows nothing of models, losses or schedules: gradients and the
//! learning rate are handed in, and saving the state to disk is the trainer's business.

mod gradients;
mod kernel;

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

pub use gradients::Gradients;
use kernel::{Factors, State};

use crate::{Error, Result};

/// AdamW's constants. The default is the released code's: betas 0.9 and 0.95, no weight decay, clipping at norm 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay rate of the mean of gradients, in `[0, 1)`.
    pub beta1: f64,
    /// Decay rate of the mean of squared gradients, in `[0, 1)`.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of matrices (two dimensions or more); biases and norm weights are never decayed.
    pub weight_decay: f64,
    /// Gradients whose global norm is greater are scaled down to it; none never clips.
    pub grad_clip: Option<f64>,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, grad_clip: Some(1.0) }
    }
}

impl AdamWConfig {
    fn validate(&self) -> Result<()> {
        let rate = |beta: f64| (0.0..1.0).contains(&beta);
        let at_least_zero = |value: f64| value >= 0.0 && value.is_finite();
        if !rate(self.beta1) || !rate(self.beta2) {
            return Err(Error::config(format!("betas are {} and {}, but lie in [0, 1)", self.beta1, self.beta2)));
        }
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return Err(Error::config(format!("eps is {}, but must be positive; 1e-8 is usual", self.eps)));
        }
        if !at_least_zero(self.weight_decay) {
            return Err(Error::config(format!("weight decay is {}, but cannot be negative", self.weight_decay)));
        }
        match self.grad_clip {
            Some(clip) if clip.is_nan() || clip <= 0.0 => {
                Err(Error::config(format!("gradient clip is {clip}, but must be positive; leave it out for none")))
            }
            _ => Ok(()),
        }
    }
}

/// What one call of [`AdamW::step`] did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepOutcome {
    /// The norm over all gradients, before clipping.
    pub grad_norm: f64,
    /// The norm was not finite, so that parameters and state are as before and no update was counted.
    pub skipped: bool,
}

/// AdamW (arXiv 1711.05101): bias-corrected moments, weight decay apart from the gradient.
#[derive(Debug)]
pub struct AdamW {
    parameters: Vec<(String, Var)>,
    states: Vec<State>,
    config: AdamWConfig,
    updates: u64,
}

impl AdamW {
    /// An optimizer over `parameters`, with zero moments. Each may have its own float dtype and device.
    ///
    /// # Errors
    /// [`crate::Error::Config`] when there are no parameters, two have one name, one is not of a float dtype or not
    /// contiguous, or the configuration is out of range; [`crate::Error::Tensor`] when moments cannot be allocated.
    pub fn new(parameters: Vec<(String, Var)>, config: AdamWConfig) -> Result<Self> {
        Self::with_states(parameters, config, State::new)
    }

    fn with_states(
        parameters: Vec<(String, Var)>,
        config: AdamWConfig,
        state: impl Fn(&Var) -> Result<State>,
    ) -> Result<Self> {
        config.validate()?;
        if parameters.is_empty() {
            return Err(Error::config("there are no parameters to train"));
        }
        let mut names = BTreeSet::new();
        for (name, parameter) in &parameters {
            if !names.insert(name) {
                return Err(Error::config(format!("two parameters are named `{name}`")));
            }
            if !matches!(parameter.dtype(), DType::F32 | DType::BF16 | DType::F16) {
                return Err(Error::config(format!(
                    "parameter `{name}` is {:?}; only f32, bf16 and f16 can be trained",
                    parameter.dtype()
                )));
            }
            if !parameter.is_contiguous() {
                return Err(Error::config(format!("parameter `{name}` is not contiguous; copy it first")));
            }
        }
        let states = parameters.iter().map(|(_, parameter)| state(parameter)).collect::<Result<_>>()?;
        Ok(Self { parameters, states, config, updates: 0 })
    }

    /// The parameters, in the order that [`Gradients`] follows.
    #[must_use]
    pub fn parameters(&self) -> &[(String, Var)] {
        &self.parameters
    }

    /// Updates made so far; skipped steps do not count.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// An empty accumulator for these parameters.
    #[must_use]
    pub fn gradients(&self) -> Gradients {
        Gradients::new(self.parameters.len())
    }

    /// Makes one update of every parameter.
    ///
    /// At a learning rate of 0 parameters stay as they are but moments move, as in other implementations.
    ///
    /// # Errors
    /// [`crate::Error::Config`] naming the parameter that got no gradient (it takes no part in the loss, or an operation
    /// without a backward cut it off) or one of another shape, or when the learning rate is out of range;
    /// [`crate::Error::Tensor`] when a tensor operation fails.
    pub fn step(&mut self, gradients: &Gradients, learning_rate: f64) -> Result<StepOutcome> {
        if !(learning_rate >= 0.0 && learning_rate.is_finite()) {
            return Err(Error::config(format!("learning rate is {learning_rate}, but cannot be negative or infinite")));
        }
        let gradients = self.match_gradients(gradients)?;
        let grad_norm = gradients::norm(&gradients)?;
        if !grad_norm.is_finite() {
            return Ok(StepOutcome { grad_norm, skipped: true });
        }
        self.updates += 1;
        for (((_, parameter), state), gradient) in self.parameters.iter().zip(&mut self.states).zip(gradients) {
            let decay = if parameter.rank() >= 2 { self.config.weight_decay } else { 0.0 };
            state.update(
                parameter,
                gradient,
                &Factors::new(&self.config, decay, learning_rate, grad_norm, self.updates),
            )?;
        }
        Ok(StepOutcome { grad_norm, skipped: false })
    }

    fn match_gradients<'a>(&self, gradients: &'a Gradients) -> Result<Vec<&'a Tensor>> {
        if gradients.len() != self.parameters.len() {
            return Err(Error::config(format!(
                "gradients for {} parameters were handed to an optimizer of {}",
                gradients.len(),
                self.parameters.len()
            )));
        }
        let matched = |(index, (name, parameter)): (usize, &(String, Var))| match gradients.get(index) {
            None => Err(Error::config(format!(
                "parameter `{name}` got no gradient: it takes no part in the loss, or an operation without a backward \
                 cut it off; freeze it or use the differentiable form"
            ))),
            Some(gradient) if gradient.shape() != parameter.shape() => Err(Error::config(format!(
                "parameter `{name}` is {:?} but its gradient is {:?}",
                parameter.shape(),
                gradient.shape()
            ))),
            Some(gradient) => Ok(gradient),
        };
        self.parameters.iter().enumerate().map(matched).collect()
    }

    /// Everything that a resumed run needs besides parameters and [`AdamW::updates`]: f32 tensors `m.NAME`, `v.NAME`
    /// and, for parameters that are not f32, `master.NAME`, each of its parameter's shape.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] when a copy fails.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for ((name, parameter), state) in self.parameters.iter().zip(&self.states) {
            for (part, tensor) in state.export(parameter)? {
                tensors.insert(format!("{part}.{name}"), tensor);
            }
        }
        Ok(tensors)
    }

    /// Takes up the state that [`AdamW::state`] gave after `updates` updates; from there on every step is the same as
    /// without the interruption. Parameters with a master copy are set from it; f32 parameters must be loaded apart.
    ///
    /// # Errors
    /// [`crate::Error::Config`] when a tensor is missing, unknown, or of another shape or dtype: nothing has changed then.
    /// [`crate::Error::Tensor`] when a copy fails.
    pub fn load_state(&mut self, tensors: &BTreeMap<String, Tensor>, updates: u64) -> Result<()> {
        let mut known = 0;
        for ((name, parameter), state) in self.parameters.iter().zip(&self.states) {
            for part in state.parts() {
                let key = format!("{part}.{name}");
                let Some(tensor) = tensors.get(&key) else {
                    return Err(Error::config(format!("optimizer state lacks `{key}`; it belongs to another model")));
                };
                if tensor.shape() != parameter.shape() || tensor.dtype() != DType::F32 {
                    return Err(Error::config(format!(
                        "optimizer state `{key}` is {:?} {:?}, but f32 {:?} is needed",
                        tensor.dtype(),
                        tensor.shape(),
                        parameter.shape()
                    )));
                }
                known += 1;
            }
        }
        if known != tensors.len() {
            return Err(Error::config(format!(
                "optimizer state holds {} tensors, but these parameters have {known}; it belongs to another model",
                tensors.len()
            )));
        }
        for ((name, parameter), state) in self.parameters.iter().zip(&mut self.states) {
            state.import(parameter, |part| &tensors[&format!("{part}.{name}")])?;
        }
        self.updates = updates;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
