//! RMSNorm, the gated activation and rotary positions, forward and backward: from tensor operations in f32, or in one pass
//! where there are kernels.

use candle_core::{D, DType, Device, Tensor};

use super::weight::{GradientSink, Weight, column_sums, give};
use crate::Result;
use crate::compute::kernels::Kernels;
use crate::model::ops::Rotary;

/// Most values that an f32 copy for the gated activation holds at a time.
const VALUES_AT_A_TIME: usize = if cfg!(test) { 1 << 7 } else { 1 << 24 };

/// `x / rms(x) * weight` over the last dimension (arXiv 1910.07467).
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub(super) weight: Weight,
    pub(super) epsilon: f64,
}

impl Norm {
    /// The norm as it is now, with its weight in the format it is used in.
    pub(super) fn settled(&self) -> Result<Self> {
        Ok(Self { weight: self.weight.settled(DType::F32)?, epsilon: self.epsilon })
    }

    /// `x` `[tokens, hidden]` to the same shape and format.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if let Some(kernels) = Kernels::of(x, x.dim(D::Minus1)?) {
            return kernels.rms_norm(x, &self.weight.settled(DType::F32)?.tensor, self.epsilon);
        }
        let wide = x.to_dtype(DType::F32)?;
        let normed = wide.broadcast_mul(&self.inverse(&wide)?)?;
        Ok(normed.broadcast_mul(&self.weight.like(&wide)?)?.to_dtype(x.dtype())?)
    }

    /// The gradient of `x`.
    pub(super) fn backward(&self, x: &Tensor, dy: &Tensor, sink: &mut GradientSink<'_>) -> Result<Tensor> {
        if let Some(kernels) = Kernels::of(x, x.dim(D::Minus1)?) {
            let weight = self.weight.settled(DType::F32)?.tensor;
            let (dx, inverses) = kernels.rms_norm_backward(x, dy, &weight, self.epsilon)?;
            give(&self.weight, sink, || kernels.column_sums(dy, Some((x, &inverses))))?;
            return Ok(dx);
        }
        let (wide, dy) = (x.to_dtype(DType::F32)?, dy.to_dtype(DType::F32)?);
        let inverse = self.inverse(&wide)?;
        let normed = wide.broadcast_mul(&inverse)?;
        give(&self.weight, sink, || column_sums(&(&normed * &dy)?))?;
        let d_normed = dy.broadcast_mul(&self.weight.like(&wide)?)?;
        let along = (&d_normed * &normed)?.mean_keepdim(D::Minus1)?;
        let dx = (d_normed - normed.broadcast_mul(&along)?)?.broadcast_mul(&inverse)?;
        Ok(dx.to_dtype(x.dtype())?)
    }

    /// One over the root of the mean of squares, `[tokens, 1]`.
    fn inverse(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        (x.sqr()?.mean_keepdim(D::Minus1)? + self.epsilon)?.sqrt()?.recip()
    }
}

/// `silu(gate) * up` (arXiv 2002.05202); all `[tokens, intermediate]`.
pub(crate) fn gated(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if let Some(kernels) = Kernels::of(gate, gate.dim(D::Minus1)?) {
        return kernels.gated(gate, up);
    }
    let mut parts = Vec::new();
    for (start, rows) in row_ranges(gate)? {
        let (g, u) = (wide(gate, start, rows)?, wide(up, start, rows)?);
        parts.push((g.silu()? * u)?.to_dtype(gate.dtype())?);
    }
    joined(parts)
}

/// The gradients of `gate` and `up`.
pub(super) fn gated_backward(gate: &Tensor, up: &Tensor, dy: &Tensor) -> Result<(Tensor, Tensor)> {
    if let Some(kernels) = Kernels::of(gate, gate.dim(D::Minus1)?) {
        return kernels.gated_backward(gate, up, dy);
    }
    let (mut d_gate, mut d_up) = (Vec::new(), Vec::new());
    for (start, rows) in row_ranges(gate)? {
        let (g, u, dy) = (wide(gate, start, rows)?, wide(up, start, rows)?, wide(dy, start, rows)?);
        let sigmoid = (g.neg()?.exp()? + 1.0)?.recip()?;
        let silu = (&g * &sigmoid)?;
        // The derivative of silu(g) = g σ(g) is σ + silu (1 - σ).
        let slope = (&sigmoid + (&silu * sigmoid.affine(-1.0, 1.0)?)?)?;
        d_up.push((&dy * silu)?.to_dtype(gate.dtype())?);
        d_gate.push(((dy * u)? * slope)?.to_dtype(gate.dtype())?);
    }
    Ok((joined(d_gate)?, joined(d_up)?))
}

/// Starts and lengths of runs of rows that are worked on at a time.
fn row_ranges(x: &Tensor) -> Result<Vec<(usize, usize)>> {
    let (rows, width) = x.dims2()?;
    let step = (VALUES_AT_A_TIME / width.max(1)).max(1);
    Ok((0..rows).step_by(step).map(|start| (start, step.min(rows - start))).collect())
}

fn wide(x: &Tensor, start: usize, rows: usize) -> candle_core::Result<Tensor> {
    x.narrow(0, start, rows)?.to_dtype(DType::F32)
}

fn joined(mut parts: Vec<Tensor>) -> Result<Tensor> {
    match (parts.len(), parts.pop()) {
        (1, Some(only)) => Ok(only),
        (_, last) => {
            parts.extend(last);
            Ok(Tensor::cat(&parts, 0)?)
        }
    }
}

/// Cosines and sines of every position a model may use, on its device: `[positions, head_dim / 2]` each.
#[derive(Debug, Clone)]
pub(crate) struct RotaryTables {
    cos: Tensor,
    sin: Tensor,
}

impl RotaryTables {
    pub(super) fn new(rotary: &Rotary, device: &Device) -> Result<Self> {
        let (cos, sin) = rotary.tables(rotary.positions(), device)?;
        Ok(Self { cos, sin })
    }

    /// The turns of tokens at `positions`, u32 `[tokens]`.
    pub(crate) fn at(&self, positions: &Tensor) -> Result<Turns> {
        let pick = |table: &Tensor| table.index_select(positions, 0)?.unsqueeze(1);
        Ok(Turns { cos: pick(&self.cos)?, sin: pick(&self.sin)? })
    }
}

/// By how much the heads of each token are turned: `[tokens, 1, head_dim / 2]`.
#[derive(Debug)]
pub(crate) struct Turns {
    cos: Tensor,
    sin: Tensor,
}

impl Turns {
    /// Rotary positions of `x` `[tokens, heads, head_dim]`, in its format.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        self.turn(x, false)
    }

    /// Turns a gradient back to where its heads came from.
    pub(super) fn back(&self, x: &Tensor) -> Result<Tensor> {
        self.turn(x, true)
    }

    fn turn(&self, x: &Tensor, back: bool) -> Result<Tensor> {
        let half = x.dim(2)? / 2;
        if let Some(kernels) = Kernels::of(x, half) {
            return kernels.rotary(x, &self.cos, &self.sin, back);
        }
        let (wide, cos) = (x.to_dtype(DType::F32)?, &self.cos);
        let sin = if back { self.sin.neg()? } else { self.sin.clone() };
        let (a, b) = (wide.narrow(2, 0, half)?, wide.narrow(2, half, half)?);
        let left = (a.broadcast_mul(cos)? - b.broadcast_mul(&sin)?)?;
        let right = (b.broadcast_mul(cos)? + a.broadcast_mul(&sin)?)?;
        Ok(Tensor::cat(&[left, right], 2)?.to_dtype(x.dtype())?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::super::test_support::{Collected, near};
    use super::*;
    use crate::model::ops::test_support::wave;
    use crate::model::ops::{rms_norm, swiglu};

    #[test]
    fn the_norm_is_the_graphs() {
        let (x, dy) = (wave(&[50, 24], 0.0), wave(&[50, 24], 0.7));
        let norm = Norm { weight: Weight::trained(&wave(&[24], 1.0), 5), epsilon: 1e-6 };
        let (var, weight) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&wave(&[24], 1.0)).unwrap());
        let y = rms_norm(&var, &weight, 1e-6).unwrap();
        let expected = (&y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
        near(&norm.forward(&x).unwrap(), &y, 2e-6);
        let mut found = Collected::default();
        near(&norm.backward(&x, &dy, &mut found.sink()).unwrap(), expected.get(&var).unwrap(), 5e-6);
        near(found.of(5), expected.get(&weight).unwrap(), 5e-6);
    }

    #[test]
    fn the_gate_is_the_graphs() {
        let stacked = (wave(&[40, 36], 0.0) * 6.0).unwrap();
        let (gate, up) = (stacked.narrow(1, 0, 18).unwrap(), stacked.narrow(1, 18, 18).unwrap());
        let dy = wave(&[40, 18], 0.2);
        let var = Var::from_tensor(&stacked).unwrap();
        let y = swiglu(&var).unwrap();
        let expected = (&y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
        near(&gated(&gate, &up).unwrap(), &y, 2e-6);
        let (d_gate, d_up) = gated_backward(&gate, &up, &dy).unwrap();
        near(&Tensor::cat(&[d_gate, d_up], 1).unwrap(), expected.get(&var).unwrap(), 5e-6);
    }

    #[test]
    fn large_inputs_are_taken_in_runs_of_rows() {
        let x = wave(&[9, VALUES_AT_A_TIME / 4], 0.0);
        assert_eq!(row_ranges(&x).unwrap(), [(0, 4), (4, 4), (8, 1)]);
        let whole = (x.silu().unwrap() * &x).unwrap();
        near(&gated(&x, &x).unwrap(), &whole, 0.0);
        assert_eq!(row_ranges(&wave(&[2, VALUES_AT_A_TIME + 1], 0.0)).unwrap(), [(0, 1), (1, 1)]);
    }

    #[test]
    fn a_turn_and_back_is_none() {
        let rotary = Rotary::new(8, 64, 10_000.0, None);
        let positions = Tensor::new(&[0u32, 3, 63, 7], &Device::Cpu).unwrap();
        let turns = RotaryTables::new(&rotary, &Device::Cpu).unwrap().at(&positions).unwrap();
        let x = wave(&[4, 3, 8], 0.0);
        let turned = turns.apply(&x).unwrap();
        near(&turns.back(&turned).unwrap(), &x, 1e-6);
        near(&turned.narrow(0, 0, 1).unwrap(), &x.narrow(0, 0, 1).unwrap(), 0.0);
        let largest = (turned - x).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(largest > 0.5, "{largest}");
    }
}
