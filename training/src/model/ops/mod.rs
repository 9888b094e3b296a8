//! The decoder's operations with gradients: fused on the CPU, composed of tensor operations elsewhere.
//!
//! A generic autograd graph spends most of a small model's step in element-wise passes and copies. Here each operation is
//! one node with a hand-written backward over `f32` slices; on other devices and dtypes the same function builds the same
//! mathematics from differentiable tensor operations, which is also what the tests compare against. Sequences are packed
//! (`[tokens, width]` with offsets), so nothing is spent on padding. No operation here knows a weight's name.

mod attention;
pub mod kernels;
mod linear;
mod log_probs;
mod rms_norm;
mod rotary;
mod swiglu;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor};

pub use attention::{HeadShape, causal_attention};
pub use linear::linear;
pub use log_probs::{entropy, token_log_probs};
pub use rms_norm::rms_norm;
pub use rotary::{Rotary, Stretch};
pub use swiglu::swiglu;

/// Whether `tensor` can go through the fused CPU operations.
fn is_fused(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32
}

/// The values behind a contiguous CPU layout.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let slice = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&slice[start..end]),
        None => candle_core::bail!("fused operation on a tensor that is not contiguous: {layout:?}"),
    }
}

/// Calls `f` with the values of a CPU `f32` tensor, copied only when they are not contiguous.
pub(crate) fn with_values<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(values(storage, layout)?),
        _ => candle_core::bail!("fused operation on a tensor that is not on the CPU"),
    }
}

/// A buffer whose every value the caller overwrites.
fn buffer(len: usize) -> Vec<f32> {
    vec![0f32; len]
}

#[cfg(test)]
pub(crate) mod test_support {
    use candle_core::{Device, Tensor, Var};

    /// A reproducible tensor of values in about -1..1.
    pub fn wave(shape: &[usize], phase: f32) -> Tensor {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7371 + phase).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// Largest difference relative to the largest magnitude of `expected`.
    pub fn relative_difference(actual: &Tensor, expected: &Tensor) -> f32 {
        assert_eq!(actual.dims(), expected.dims());
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (actual, expected) = (flat(actual), flat(expected));
        let scale = expected.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
        actual.iter().zip(&expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale
    }

    /// Compares value and gradients of two implementations of one function of several variables.
    pub fn assert_same_function(
        inputs: &[Tensor],
        fused: impl Fn(&[Tensor]) -> Tensor,
        composed: impl Fn(&[Tensor]) -> Tensor,
    ) {
        let run = |f: &dyn Fn(&[Tensor]) -> Tensor| {
            let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
            let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let y = f(&tensors);
            let cotangent = wave(y.dims(), 0.3);
            let gradients = (&y * cotangent).unwrap().sum_all().unwrap().backward().unwrap();
            (y, vars.iter().map(|v| gradients.get(v).unwrap().clone()).collect::<Vec<_>>())
        };
        let (y, gradients) = run(&fused);
        let (y_expected, gradients_expected) = run(&composed);
        assert!(relative_difference(&y, &y_expected) < 2e-6, "value");
        for (i, (g, e)) in gradients.iter().zip(&gradients_expected).enumerate() {
            let difference = relative_difference(g, e);
            assert!(difference < 5e-6, "gradient of input {i}: {difference}");
        }
    }
}
