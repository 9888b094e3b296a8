//! Matrix products with something to do at their end: a factor, a sum, a bias. Kernels do it in the same pass.

use candle_core::{D, DType, Tensor};

use crate::Result;
use crate::compute::kernels::Kernels;

/// `factor a b`.
pub(super) fn scaled_product(a: &Tensor, b: &Tensor, factor: f64) -> Result<Tensor> {
    match Kernels::in_half(a, 8) {
        Some(kernels) => kernels.product(a, b, factor, DType::BF16),
        None => Ok((a.matmul(b)? * factor)?),
    }
}

/// `y + a b`, in the place of `y` where that is possible: nothing else may hold `y`.
pub(super) fn plus_product(y: Option<Tensor>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let Some(y) = y else {
        return Ok(a.matmul(b)?);
    };
    match Kernels::in_half(&y, 8) {
        Some(kernels) => {
            kernels.add_product(&y, a, b)?;
            Ok(y)
        }
        None => Ok((y + a.matmul(b)?)?),
    }
}

/// `y + bias` of every row, in the place of `y` where that is possible: nothing else may hold `y`.
pub(super) fn plus_bias(y: Tensor, bias: &Tensor) -> Result<Tensor> {
    match Kernels::of(&y, y.dim(D::Minus1)?) {
        Some(kernels) => {
            kernels.add_bias(&y, bias)?;
            Ok(y)
        }
        None => Ok(y.broadcast_add(bias)?),
    }
}
