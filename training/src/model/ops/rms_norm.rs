//! RMSNorm with a gradient.

use candle_core::{CpuStorage, CustomOp2, D, DType, Layout, Result, Shape, Tensor};

use super::{buffer, is_fused, kernels, values, with_values};

/// `x / rms(x) * weight` over the last dimension (arXiv 1910.07467).
///
/// `x` is `[tokens, hidden]`, `weight` `[hidden]`; the mean of squares is taken in `f32`.
///
/// # Errors
/// When the shapes do not fit.
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    if is_fused(x) {
        return x.contiguous()?.apply_op2(weight, RmsNorm { epsilon: epsilon as f32 });
    }
    composed(x, weight, epsilon)
}

fn composed(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let mean_square = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = wide.broadcast_div(&(mean_square + epsilon)?.sqrt()?)?;
    normed.to_dtype(x.dtype())?.broadcast_mul(weight)
}

struct RmsNorm {
    epsilon: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (values(x, x_layout)?, values(weight, weight_layout)?);
        let mut y = buffer(x.len());
        kernels::rms_norm(x, weight, self.epsilon, &mut y);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut dx = buffer(x.elem_count());
        let d_weight = with_values(x, |x| {
            with_values(weight, |weight| {
                with_values(dy, |dy| Ok(kernels::rms_norm_backward(x, weight, self.epsilon, dy, &mut dx)))
            })
        })?;
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        Ok((Some(dx), Some(Tensor::from_vec(d_weight, weight.shape(), x.device())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{assert_same_function, wave};
    use super::*;

    #[test]
    fn agrees_with_tensor_operations() {
        assert_same_function(
            &[wave(&[150, 24], 0.0), wave(&[24], 1.0)],
            |t| rms_norm(&t[0], &t[1], 1e-6).unwrap(),
            |t| composed(&t[0], &t[1], 1e-6).unwrap(),
        );
    }
}
