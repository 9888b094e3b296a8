//! Rotary positions and causal grouped-query attention over packed sequences, as one operation with a gradient.
//!
//! Scores exist for one block of queries of one head at a time and are recomputed in the backward pass, so memory grows
//! with the number of tokens, never with its square.

use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernels::{MatrixRef, Threads, Write, dot, gemm, rotate, softmax};
use super::rotary::Rotary;
use super::{buffer, is_fused, values, with_values};

/// Queries that share one block of scores.
const QUERY_BLOCK: usize = 64;

/// How the columns of a packed `[queries | keys | values]` row divide into heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads` (grouped-query attention, arXiv 2305.13245).
    pub kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
}

impl HeadShape {
    /// Width of a packed row.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Width of the result.
    pub fn output_width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// Causal attention within each packed sequence.
///
/// `qkv` is `[tokens, (heads + 2 * kv_heads) * head_dim]`; sequence `i` takes rows `offsets[i]..offsets[i + 1]` and its
/// positions count from 0. The result is `[tokens, heads * head_dim]`.
///
/// # Errors
/// When the shapes do not fit or a sequence is longer than the rotary tables.
pub fn causal_attention(qkv: &Tensor, shape: HeadShape, offsets: &[usize], rotary: &Rotary) -> Result<Tensor> {
    let (tokens, width) = qkv.dims2()?;
    let increasing = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
    if width != shape.qkv_width() || offsets.first() != Some(&0) || offsets.last() != Some(&tokens) || !increasing {
        candle_core::bail!("attention over [{tokens}, {width}] with {shape:?} and offsets {offsets:?}");
    }
    if let Some(pair) = offsets.windows(2).find(|pair| pair[1] - pair[0] > rotary.positions()) {
        candle_core::bail!("sequence of {} tokens in a context of {}", pair[1] - pair[0], rotary.positions());
    }
    if is_fused(qkv) {
        let op = CausalAttention { shape, offsets: offsets.to_vec(), rotary: rotary.clone() };
        return qkv.contiguous()?.apply_op1(op);
    }
    composed(qkv, shape, offsets, rotary)
}

/// The same mathematics in differentiable tensor operations, one sequence after the other.
fn composed(qkv: &Tensor, shape: HeadShape, offsets: &[usize], rotary: &Rotary) -> Result<Tensor> {
    let HeadShape { heads, kv_heads, head_dim } = shape;
    let device = qkv.device();
    let outputs = offsets.windows(2).filter(|pair| pair[1] > pair[0]).map(|pair| {
        let length = pair[1] - pair[0];
        let (cos, sin) = rotary.tables(length, device)?;
        let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?);
        let rows = qkv.narrow(0, pair[0], length)?.to_dtype(DType::F32)?.reshape((length, (), head_dim))?;
        let turn = |x: Tensor| -> Result<Tensor> {
            let (a, b) = (x.narrow(2, 0, head_dim / 2)?, x.narrow(2, head_dim / 2, head_dim / 2)?);
            let left = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
            let right = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
            Tensor::cat(&[left, right], 2)
        };
        // [heads, length, head_dim], keys and values repeated for the query heads of their group.
        let repeat = |x: Tensor| -> Result<Tensor> {
            let group = heads / kv_heads;
            x.transpose(0, 1)?
                .unsqueeze(1)?
                .broadcast_as((kv_heads, group, length, head_dim))?
                .contiguous()?
                .reshape((heads, length, head_dim))
        };
        let q = turn(rows.narrow(1, 0, heads)?)?.transpose(0, 1)?.contiguous()?;
        let k = repeat(turn(rows.narrow(1, heads, kv_heads)?)?)?;
        let v = repeat(rows.narrow(1, heads + kv_heads, kv_heads)?)?;
        let mask: Vec<f32> =
            (0..length * length).map(|i| if i % length > i / length { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mask = Tensor::from_vec(mask, (1, length, length), device)?;
        let scores = (q.matmul(&k.t()?.contiguous()?)? * f64::from(shape.scale()))?.broadcast_add(&mask)?;
        let shifted = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
        let weights = shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?;
        weights.matmul(&v)?.transpose(0, 1)?.reshape((length, heads * head_dim))?.to_dtype(qkv.dtype())
    });
    Tensor::cat(&outputs.collect::<Result<Vec<_>>>()?, 0)
}

struct CausalAttention {
    shape: HeadShape,
    offsets: Vec<usize>,
    rotary: Rotary,
}

impl CausalAttention {
    /// The rows of each sequence in a `[tokens, width]` buffer.
    fn split<'a>(&self, mut rows: &'a mut [f32], width: usize) -> Vec<&'a mut [f32]> {
        let mut parts = Vec::with_capacity(self.offsets.len());
        for pair in self.offsets.windows(2) {
            let (part, rest) = rows.split_at_mut((pair[1] - pair[0]) * width);
            parts.push(part);
            rows = rest;
        }
        parts
    }

    fn rows<'a>(&self, data: &'a [f32], sequence: usize, width: usize) -> &'a [f32] {
        &data[self.offsets[sequence] * width..self.offsets[sequence + 1] * width]
    }

    /// Head `head` of every row of `qkv`, rotated, as `[length, head_dim]`.
    fn rotated(&self, qkv: &[f32], head: usize, into: &mut [f32]) {
        let (width, head_dim) = (self.shape.qkv_width(), self.shape.head_dim);
        for (position, (row, into)) in qkv.chunks_exact(width).zip(into.chunks_exact_mut(head_dim)).enumerate() {
            let (cos, sin) = self.rotary.at(position);
            rotate(&row[head * head_dim..][..head_dim], cos, sin, 1.0, into);
        }
    }

    /// Writes the gradient of one rotated head back, turned to where the head came from.
    fn rotate_back(&self, gradient: &[f32], head: usize, d_qkv: &mut [f32]) {
        let (width, head_dim) = (self.shape.qkv_width(), self.shape.head_dim);
        for (position, (row, from)) in d_qkv.chunks_exact_mut(width).zip(gradient.chunks_exact(head_dim)).enumerate() {
            let (cos, sin) = self.rotary.at(position);
            rotate(from, cos, sin, -1.0, &mut row[head * head_dim..][..head_dim]);
        }
    }

    /// Attention weights of queries `start..end` over keys `0..end`: `[end - start, end]`.
    fn weights(&self, q: &[f32], k: &[f32], start: usize, end: usize, weights: &mut [f32]) {
        let head_dim = self.shape.head_dim;
        let q = MatrixRef::new(&q[start * head_dim..], end - start, head_dim, head_dim);
        let k = MatrixRef::new(k, end, head_dim, head_dim);
        gemm(weights, end, q, k.t(), self.shape.scale(), Write::Replace, Threads::One);
        for (row, weights) in weights.chunks_exact_mut(end).take(end - start).enumerate() {
            let (seen, future) = weights.split_at_mut(start + row + 1);
            softmax(seen);
            future.fill(0.0);
        }
    }

    fn forward_sequence(&self, qkv: &[f32], output: &mut [f32]) {
        let HeadShape { heads, kv_heads, head_dim } = self.shape;
        let (width, output_width) = (self.shape.qkv_width(), self.shape.output_width());
        let length = qkv.len() / width;
        let (mut q, mut k) = (buffer(length * head_dim), buffer(length * head_dim));
        let mut weights = buffer(QUERY_BLOCK.min(length) * length);
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            if head % (heads / kv_heads) == 0 {
                self.rotated(qkv, heads + kv_head, &mut k);
            }
            self.rotated(qkv, head, &mut q);
            let v = &qkv[(heads + kv_heads + kv_head) * head_dim..];
            for start in (0..length).step_by(QUERY_BLOCK) {
                let end = (start + QUERY_BLOCK).min(length);
                self.weights(&q, &k, start, end, &mut weights);
                let weights = MatrixRef::new(&weights, end - start, end, end);
                let v = MatrixRef::new(v, end, head_dim, width);
                let output = &mut output[start * output_width + head * head_dim..];
                gemm(output, output_width, weights, v, 1.0, Write::Replace, Threads::One);
            }
        }
    }

    fn backward_sequence(&self, qkv: &[f32], output: &[f32], d_output: &[f32], d_qkv: &mut [f32]) {
        let HeadShape { heads, kv_heads, head_dim } = self.shape;
        let (width, output_width) = (self.shape.qkv_width(), self.shape.output_width());
        let length = qkv.len() / width;
        let group = heads / kv_heads;
        let head_buffer = || buffer(length * head_dim);
        let (mut q, mut k, mut dq, mut dk, mut dv) =
            (head_buffer(), head_buffer(), head_buffer(), head_buffer(), head_buffer());
        let mut weights = buffer(QUERY_BLOCK.min(length) * length);
        let mut d_scores = buffer(QUERY_BLOCK.min(length) * length);
        for head in 0..heads {
            let kv_head = head / group;
            if head % group == 0 {
                self.rotated(qkv, heads + kv_head, &mut k);
                dk.fill(0.0);
                dv.fill(0.0);
            }
            self.rotated(qkv, head, &mut q);
            let v = &qkv[(heads + kv_heads + kv_head) * head_dim..];
            for start in (0..length).step_by(QUERY_BLOCK) {
                let end = (start + QUERY_BLOCK).min(length);
                let rows = end - start;
                self.weights(&q, &k, start, end, &mut weights);
                let dy =
                    MatrixRef::new(&d_output[start * output_width + head * head_dim..], rows, head_dim, output_width);
                let p = MatrixRef::new(&weights, rows, end, end);
                gemm(&mut dv, head_dim, p.t(), dy, 1.0, Write::Add, Threads::One);
                let v = MatrixRef::new(v, end, head_dim, width);
                gemm(&mut d_scores, end, dy, v.t(), 1.0, Write::Replace, Threads::One);
                // Softmax backward: p (dp - Σ p dp), and Σ p dp = output · d_output.
                for row in 0..rows {
                    let at = (start + row) * output_width + head * head_dim;
                    let mean = dot(&output[at..at + head_dim], &d_output[at..at + head_dim]);
                    let weights = &weights[row * end..(row + 1) * end];
                    for (d, &p) in d_scores[row * end..(row + 1) * end].iter_mut().zip(weights) {
                        *d = p * (*d - mean) * self.shape.scale();
                    }
                }
                let ds = MatrixRef::new(&d_scores, rows, end, end);
                let keys = MatrixRef::new(&k, end, head_dim, head_dim);
                gemm(&mut dq[start * head_dim..], head_dim, ds, keys, 1.0, Write::Replace, Threads::One);
                let queries = MatrixRef::new(&q[start * head_dim..], rows, head_dim, head_dim);
                gemm(&mut dk, head_dim, ds.t(), queries, 1.0, Write::Add, Threads::One);
            }
            self.rotate_back(&dq, head, d_qkv);
            if (head + 1) % group == 0 {
                self.rotate_back(&dk, heads + kv_head, d_qkv);
                for (row, dv) in d_qkv.chunks_exact_mut(width).zip(dv.chunks_exact(head_dim)) {
                    row[(heads + kv_heads + kv_head) * head_dim..][..head_dim].copy_from_slice(dv);
                }
            }
        }
    }
}

impl CustomOp1 for CausalAttention {
    fn name(&self) -> &'static str {
        "causal_attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (tokens, width) = layout.shape().dims2()?;
        let output_width = self.shape.output_width();
        let qkv = values(storage, layout)?;
        let mut output = buffer(tokens * output_width);
        self.split(&mut output, output_width).into_par_iter().enumerate().for_each(|(sequence, output)| {
            if !output.is_empty() {
                self.forward_sequence(self.rows(qkv, sequence, width), output);
            }
        });
        Ok((CpuStorage::F32(output), Shape::from((tokens, output_width))))
    }

    fn bwd(&self, qkv: &Tensor, output: &Tensor, d_output: &Tensor) -> Result<Option<Tensor>> {
        let (width, output_width) = (self.shape.qkv_width(), self.shape.output_width());
        let mut d_qkv = buffer(qkv.elem_count());
        with_values(qkv, |qkv| {
            with_values(output, |output| {
                with_values(d_output, |d_output| {
                    self.split(&mut d_qkv, width).into_par_iter().enumerate().for_each(|(sequence, d_qkv)| {
                        let (output, d_output) =
                            (self.rows(output, sequence, output_width), self.rows(d_output, sequence, output_width));
                        if !d_qkv.is_empty() {
                            self.backward_sequence(self.rows(qkv, sequence, width), output, d_output, d_qkv);
                        }
                    });
                    Ok(())
                })
            })
        })?;
        Ok(Some(Tensor::from_vec(d_qkv, qkv.shape(), &Device::Cpu)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{assert_same_function, wave};
    use super::*;

    const SHAPE: HeadShape = HeadShape { heads: 4, kv_heads: 2, head_dim: 8 };

    #[test]
    fn agrees_with_tensor_operations() {
        // Lengths on both sides of the query block, one of a single token, one empty.
        let offsets = [0, 70, 71, 71, 209];
        let rotary = Rotary::new(8, 256, 10_000.0, None);
        assert_same_function(
            &[wave(&[209, SHAPE.qkv_width()], 0.0)],
            |t| causal_attention(&t[0], SHAPE, &offsets, &rotary).unwrap(),
            |t| composed(&t[0], SHAPE, &offsets, &rotary).unwrap(),
        );
    }

    #[test]
    fn packing_does_not_change_a_sequence() {
        let rotary = Rotary::new(8, 64, 10_000.0, None);
        let qkv = wave(&[30, SHAPE.qkv_width()], 0.5);
        let packed = causal_attention(&qkv, SHAPE, &[0, 12, 30], &rotary).unwrap();
        let alone = causal_attention(&qkv.narrow(0, 12, 18).unwrap(), SHAPE, &[0, 18], &rotary).unwrap();
        let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(bits(&packed.narrow(0, 12, 18).unwrap()), bits(&alone));
    }

    #[test]
    fn lengths_are_checked() {
        let rotary = Rotary::new(8, 16, 10_000.0, None);
        let qkv = wave(&[20, SHAPE.qkv_width()], 0.5);
        assert!(causal_attention(&qkv, SHAPE, &[0, 20], &rotary).is_err(), "longer than the context");
        assert!(causal_attention(&qkv, SHAPE, &[0, 10], &rotary).is_err(), "offsets that miss tokens");
    }
}
