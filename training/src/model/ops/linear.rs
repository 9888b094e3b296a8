//! The linear layer with a gradient.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::kernels::{self, MatrixRef, Threads, Write, gemm};
use super::{buffer, is_fused, values, with_values};

/// `x weightᵀ + bias`: `x` `[tokens, in]`, `weight` `[out, in]`, `bias` `[out]`, result `[tokens, out]`.
///
/// # Errors
/// When the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if !is_fused(x) {
        let y = x.matmul(&weight.t()?)?;
        return bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(bias));
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, bias, Affine),
        None => x.apply_op2(&weight, Product),
    }
}

struct Product;
struct Affine;

fn forward(
    (x, x_layout): (&CpuStorage, &Layout),
    (weight, weight_layout): (&CpuStorage, &Layout),
    bias: Option<&[f32]>,
) -> Result<(CpuStorage, Shape)> {
    let (tokens, inputs) = x_layout.shape().dims2()?;
    let (outputs, weight_inputs) = weight_layout.shape().dims2()?;
    if inputs != weight_inputs || bias.is_some_and(|bias| bias.len() != outputs) {
        candle_core::bail!(
            "linear layer of weight {:?} on an input of {:?}",
            weight_layout.shape().dims(),
            x_layout.shape().dims()
        );
    }
    let mut y = buffer(tokens * outputs);
    kernels::linear(values(x, x_layout)?, values(weight, weight_layout)?, bias, inputs, outputs, &mut y);
    Ok((CpuStorage::F32(y), Shape::from((tokens, outputs))))
}

fn backward(x: &Tensor, weight: &Tensor, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    let (tokens, inputs) = x.dims2()?;
    let outputs = weight.dim(0)?;
    let (mut dx, mut d_weight) = (buffer(tokens * inputs), buffer(outputs * inputs));
    with_values(x, |x| {
        with_values(weight, |weight| {
            with_values(dy, |dy| {
                let dy = MatrixRef::new(dy, tokens, outputs, outputs);
                let weight = MatrixRef::new(weight, outputs, inputs, inputs);
                let x = MatrixRef::new(x, tokens, inputs, inputs);
                gemm(&mut dx, inputs, dy, weight, 1.0, Write::Replace, Threads::Pool);
                gemm(&mut d_weight, inputs, dy.t(), x, 1.0, Write::Replace, Threads::Pool);
                Ok(())
            })
        })
    })?;
    Ok((Tensor::from_vec(dx, x.shape(), x.device())?, Tensor::from_vec(d_weight, weight.shape(), x.device())?))
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        forward((x, xl), (w, wl), None)
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, d_weight) = backward(x, weight, dy)?;
        Ok((Some(dx), Some(d_weight)))
    }
}

impl CustomOp3 for Affine {
    fn name(&self) -> &'static str {
        "linear_bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        forward((x, xl), (w, wl), Some(values(b, bl)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, d_weight) = backward(x, weight, dy)?;
        let d_bias = with_values(dy, |dy| Ok(kernels::column_sums(dy, bias.elem_count())))?;
        Ok((Some(dx), Some(d_weight), Some(Tensor::from_vec(d_bias, bias.shape(), x.device())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{assert_same_function, wave};
    use super::*;

    #[test]
    fn agrees_with_tensor_operations() {
        assert_same_function(
            &[wave(&[70, 12], 0.0), wave(&[20, 12], 1.0), wave(&[20], 2.0)],
            |t| linear(&t[0], &t[1], Some(&t[2])).unwrap(),
            |t| t[0].matmul(&t[1].t().unwrap()).unwrap().broadcast_add(&t[2]).unwrap(),
        );
        assert_same_function(
            &[wave(&[70, 12], 0.0), wave(&[20, 12], 1.0)],
            |t| linear(&t[0], &t[1], None).unwrap(),
            |t| t[0].matmul(&t[1].t().unwrap()).unwrap(),
        );
    }

    #[test]
    fn a_wrong_shape_is_an_error() {
        assert!(linear(&wave(&[4, 3], 0.0), &wave(&[2, 5], 0.0), None).is_err());
    }
}
