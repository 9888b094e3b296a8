//! The update of one parameter: a single fused pass for f32 on the CPU, tensor operations everywhere else.
//!
//! Both do the same roundings in the same order, so that on the CPU they agree to the bit.

use std::cell::RefCell;

use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Tensor, Var};
use rayon::prelude::*;

use super::AdamWConfig;
use crate::Result;
use crate::compute::kernels::{AdamWFactors, Kernels};

/// Elements that one task of the fused pass takes: what fits a core's cache four times over.
const UPDATE_CHUNK: usize = 1 << 14;

/// The numbers of one update of one parameter, worked out in f64.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factors {
    /// Scales the gradient for clipping; 1 when its norm is within bounds.
    clip: f64,
    beta1: f64,
    beta2: f64,
    /// What weight decay leaves of the parameter: `1 - learning_rate * weight_decay`.
    keep: f64,
    /// The learning rate over the first moment's bias.
    step: f64,
    /// One over the root of the second moment's bias.
    root: f64,
    eps: f64,
}

impl Factors {
    /// `update` counts from 1. The clip factor has PyTorch's form, which never divides by 0.
    pub(super) fn new(
        config: &AdamWConfig,
        weight_decay: f64,
        learning_rate: f64,
        grad_norm: f64,
        update: u64,
    ) -> Self {
        let bias = |beta: f64| 1.0 - beta.powf(update as f64);
        Self {
            clip: config.grad_clip.map_or(1.0, |limit| (limit / (grad_norm + 1e-6)).min(1.0)),
            beta1: config.beta1,
            beta2: config.beta2,
            keep: 1.0 - learning_rate * weight_decay,
            step: learning_rate / bias(config.beta1),
            root: bias(config.beta2).sqrt().recip(),
            eps: config.eps,
        }
    }
}

impl Factors {
    fn narrow(&self) -> AdamWFactors {
        AdamWFactors {
            clip: self.clip as f32,
            beta1: self.beta1 as f32,
            rest1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            rest2: (1.0 - self.beta2) as f32,
            keep: self.keep as f32,
            step: self.step as f32,
            root: self.root as f32,
            eps: self.eps as f32,
        }
    }
}

/// What the optimizer remembers of one parameter; all f32, of the parameter's shape.
#[derive(Debug)]
pub(super) enum State {
    /// An f32 parameter on the CPU, updated in place.
    Fused {
        /// First moment.
        m: Vec<f32>,
        /// Second moment.
        v: Vec<f32>,
    },
    /// Anything else.
    Tensors {
        /// First moment, on the parameter's device.
        m: Tensor,
        /// Second moment, on the parameter's device.
        v: Tensor,
        /// The parameter in f32; none when it is f32 itself.
        master: Option<Tensor>,
    },
}

impl State {
    /// Zero moments for `parameter`, fused where possible.
    pub(super) fn new(parameter: &Var) -> Result<Self> {
        if parameter.device().is_cpu() && parameter.dtype() == DType::F32 {
            let count = parameter.elem_count();
            return Ok(Self::Fused { m: vec![0.0; count], v: vec![0.0; count] });
        }
        Self::tensors(parameter)
    }

    /// Zero moments for `parameter` as tensors, whatever its device.
    pub(super) fn tensors(parameter: &Var) -> Result<Self> {
        let zeros = || Tensor::zeros(parameter.shape(), DType::F32, parameter.device());
        let full = parameter.dtype() == DType::F32;
        let master = if full { None } else { Some(parameter.as_detached_tensor().to_dtype(DType::F32)?) };
        Ok(Self::Tensors { m: zeros()?, v: zeros()?, master })
    }

    /// One AdamW update of `parameter`.
    pub(super) fn update(&mut self, parameter: &Var, gradient: &Tensor, factors: &Factors) -> Result<()> {
        if let (Self::Tensors { m, v, master }, Some(kernels)) =
            (&*self, Kernels::of(parameter, parameter.elem_count()))
        {
            return kernels.adamw(parameter, master.as_ref(), (m, v), &gradient.contiguous()?, factors.narrow());
        }
        let gradient = gradient.to_dtype(DType::F32)?.contiguous()?;
        match self {
            Self::Fused { m, v } => {
                let moments = RefCell::new((m.as_mut_slice(), v.as_mut_slice()));
                parameter.inplace_op2(&gradient, &FusedUpdate { moments, factors: *factors })?;
            }
            Self::Tensors { m, v, master } => {
                let gradient = (gradient * factors.clip)?;
                *m = ((&*m * factors.beta1)? + (&gradient * (1.0 - factors.beta1))?)?;
                *v = ((&*v * factors.beta2)? + (gradient.sqr()? * (1.0 - factors.beta2))?)?;
                let direction = (&*m / v.sqrt()?.affine(factors.root, factors.eps)?)?;
                let weights = master.take().unwrap_or_else(|| parameter.as_detached_tensor());
                let weights = ((weights * factors.keep)? - (direction * factors.step)?)?;
                parameter.set(&weights.to_dtype(parameter.dtype())?)?;
                *master = (parameter.dtype() != DType::F32).then_some(weights);
            }
        }
        Ok(())
    }

    /// The names of what [`State::export`] gives.
    pub(super) fn parts(&self) -> &'static [&'static str] {
        match self {
            Self::Tensors { master: Some(_), .. } => &["m", "v", "master"],
            Self::Fused { .. } | Self::Tensors { master: None, .. } => &["m", "v"],
        }
    }

    /// The state as named tensors.
    pub(super) fn export(&self, parameter: &Var) -> Result<Vec<(&'static str, Tensor)>> {
        let host = |values: &[f32]| Tensor::from_slice(values, parameter.shape(), &Device::Cpu);
        let tensors = match self {
            Self::Fused { m, v } => vec![host(m)?, host(v)?],
            // To the host: on a device they change in their place at the next update.
            Self::Tensors { m, v, master } => {
                [m, v].into_iter().chain(master).map(|part| part.to_device(&Device::Cpu)).collect::<Result<_, _>>()?
            }
        };
        Ok(self.parts().iter().copied().zip(tensors).collect())
    }

    /// Takes up tensors of the right names, shapes and dtype; `part` gives them by name.
    pub(super) fn import<'a>(&mut self, parameter: &Var, part: impl Fn(&str) -> &'a Tensor) -> Result<()> {
        match self {
            Self::Fused { m, v } => {
                *m = part("m").flatten_all()?.to_device(&Device::Cpu)?.to_vec1()?;
                *v = part("v").flatten_all()?.to_device(&Device::Cpu)?.to_vec1()?;
            }
            Self::Tensors { m, v, master } => {
                *m = part("m").to_device(parameter.device())?.copy()?;
                *v = part("v").to_device(parameter.device())?.copy()?;
                if let Some(master) = master {
                    *master = part("master").to_device(parameter.device())?.copy()?;
                    parameter.set(&master.to_dtype(parameter.dtype())?)?;
                }
            }
        }
        Ok(())
    }
}

/// One pass over parameter, gradient and moments instead of a dozen temporaries.
struct FusedUpdate<'a> {
    /// First and second moment. The operation is handed to candle by shared reference, hence the cell.
    moments: RefCell<(&'a mut [f32], &'a mut [f32])>,
    factors: Factors,
}

impl InplaceOp2 for FusedUpdate<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        parameter_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<()> {
        let offsets = (parameter_layout.contiguous_offsets(), gradient_layout.contiguous_offsets());
        let (CpuStorage::F32(parameter), CpuStorage::F32(gradient)) = (parameter, gradient) else {
            candle_core::bail!("the fused update takes f32 parameters and gradients");
        };
        let (Some(parameter_range), Some(gradient_range)) = offsets else {
            candle_core::bail!("the fused update takes contiguous parameters and gradients");
        };
        let parameter = &mut parameter[parameter_range.0..parameter_range.1];
        let gradient = &gradient[gradient_range.0..gradient_range.1];
        let mut moments = self.moments.borrow_mut();
        let (m, v) = &mut *moments;
        let factors = self.factors;
        // Elementwise, so that the split into tasks cannot change a bit.
        parameter
            .par_chunks_mut(UPDATE_CHUNK)
            .zip(gradient.par_chunks(UPDATE_CHUNK))
            .zip(m.par_chunks_mut(UPDATE_CHUNK))
            .zip(v.par_chunks_mut(UPDATE_CHUNK))
            .for_each(|(((parameter, gradient), m), v)| update_chunk(parameter, gradient, m, v, &factors));
        Ok(())
    }
}

fn update_chunk(parameter: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32], factors: &Factors) {
    let AdamWFactors { clip, beta1, rest1, beta2, rest2, keep, step, root, eps } = factors.narrow();
    for (((parameter, gradient), m), v) in parameter.iter_mut().zip(gradient).zip(m).zip(v) {
        let gradient = gradient * clip;
        *m = *m * beta1 + gradient * rest1;
        *v = *v * beta2 + (gradient * gradient) * rest2;
        let direction = *m / (v.sqrt() * root + eps);
        *parameter = *parameter * keep - direction * step;
    }
}
