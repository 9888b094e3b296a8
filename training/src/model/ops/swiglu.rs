//! The gated activation of the feed-forward block with a gradient.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{buffer, is_fused, kernels, values, with_values};

/// `silu(gate) * up` (arXiv 2002.05202); `gate_up` is `[tokens, 2 * intermediate]` with the gate first, the result
/// `[tokens, intermediate]`.
///
/// # Errors
/// When `gate_up` is not two-dimensional or of odd width.
pub fn swiglu(gate_up: &Tensor) -> Result<Tensor> {
    if is_fused(gate_up) {
        return gate_up.contiguous()?.apply_op1(SwiGlu);
    }
    composed(gate_up)
}

fn composed(gate_up: &Tensor) -> Result<Tensor> {
    let width = gate_up.dim(1)? / 2;
    gate_up.narrow(1, 0, width)?.silu()? * gate_up.narrow(1, width, width)?
}

struct SwiGlu;

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (tokens, width) = layout.shape().dims2()?;
        if width % 2 != 0 {
            candle_core::bail!("gate and up of odd total width {width}");
        }
        let mut y = buffer(tokens * width / 2);
        kernels::swiglu(values(x, layout)?, width / 2, &mut y);
        Ok((CpuStorage::F32(y), Shape::from((tokens, width / 2))))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let width = x.dim(1)? / 2;
        let mut dx = buffer(x.elem_count());
        with_values(x, |x| {
            with_values(dy, |dy| {
                kernels::swiglu_backward(x, width, dy, &mut dx);
                Ok(())
            })
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{assert_same_function, wave};
    use super::*;

    #[test]
    fn agrees_with_tensor_operations() {
        let input = (wave(&[90, 32], 0.0) * 6.0).unwrap();
        assert_same_function(&[input], |t| swiglu(&t[0]).unwrap(), |t| composed(&t[0]).unwrap());
    }
}
