//! Attention without a matrix of scores: FlashAttention's kernels on tensors.

use std::ffi::c_void;

use candle_core::{DType, Device, Tensor};

use super::has_attention_kernels;
use super::launch::{Argument, Grid, Kernels, Source, address, pointer, variant};
use crate::{Error, Result};

impl Kernels {
    /// The kernels for attention over heads of `head_dim` in the format of `x`, where this build has them.
    pub(crate) fn attending(x: &Tensor, head_dim: usize) -> Option<Self> {
        if has_attention_kernels(head_dim) { Self::in_half(x, 8) } else { None }
    }

    /// Causal attention of packed sequences: `q` bf16 `[tokens, heads, head_dim]`, `k` and `v`
    /// `[tokens, kv_heads, head_dim]`, sequence `i` in rows `offsets[i]..offsets[i + 1]`. Returns the output in the shape
    /// of `q` and what [`Kernels::attention_backward`] needs besides, the log-sums f32 `[heads, tokens]`.
    pub(crate) fn attention(
        &self,
        (q, k, v): (&Tensor, &Tensor, &Tensor),
        offsets: &[usize],
        scale: f64,
    ) -> Result<(Tensor, Tensor)> {
        let call = Call::new(self, q, k, offsets)?;
        let (tokens, heads, _) = q.dims3()?;
        let (out, log_sums) = (self.room(q.shape(), DType::BF16)?, self.room((heads, tokens), DType::F32)?);
        call.forward((q, k, v), (&out, &log_sums), scale)?;
        Ok((out, log_sums))
    }

    /// The gradients of `q`, `k` and `v` from that of the output.
    pub(crate) fn attention_backward(
        &self,
        (q, k, v): (&Tensor, &Tensor, &Tensor),
        (out, log_sums): (&Tensor, &Tensor),
        d_out: &Tensor,
        offsets: &[usize],
        scale: f64,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let call = Call::new(self, q, k, offsets)?;
        let room = || self.room(q.shape(), DType::BF16);
        let (dq, dk, dv) = (room()?, room()?, room()?);
        call.backward((q, k, v), (out, log_sums, d_out), (&dq, &dk, &dv), scale)?;
        Ok((dq, self.sum_groups(&dk, k.dim(1)?)?, self.sum_groups(&dv, k.dim(1)?)?))
    }

    /// Sums over the query heads that share a key head: `[tokens, heads, head_dim]` to `[tokens, kv_heads, head_dim]`.
    pub(super) fn sum_groups(&self, x: &Tensor, kv_heads: usize) -> Result<Tensor> {
        let (tokens, heads, head_dim) = x.dims3()?;
        if heads == kv_heads {
            return Ok(x.clone());
        }
        let y = self.room((tokens, kv_heads, head_dim), x.dtype())?;
        let eights = y.elem_count() / 8;
        let sizes = [Argument::Int((head_dim / 8) as i32), Argument::Int((heads / kv_heads) as i32)];
        let arguments = [&[pointer(x)?, pointer(&y)?, Argument::Long(eights as i64)][..], &sizes].concat();
        let name = variant("sum_groups", x.dtype())?;
        // SAFETY: the kernel's arguments; it checks its item against `eights`, each of which reads a group of `x`.
        unsafe { self.start(Source::Tensors, &name, Grid::of_items(eights), &arguments)? };
        Ok(y)
    }
}

/// What the forward and the backward pass share.
struct Call<'a> {
    kernels: &'a Kernels,
    shape: brevity_flash::Shape,
    /// i32 `[sequences + 1]`.
    offsets: Tensor,
}

impl<'a> Call<'a> {
    fn new(kernels: &'a Kernels, q: &Tensor, k: &Tensor, offsets: &[usize]) -> Result<Self> {
        let ((tokens, heads, head_dim), kv_heads) = (q.dims3()?, k.dim(1)?);
        let starts: Vec<i32> = offsets.iter().map(|&offset| offset as i32).collect();
        let longest = offsets.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0);
        if starts.first() != Some(&0) || !starts.is_sorted() || offsets.last() != Some(&tokens) {
            return Err(Error::config(format!("sequences at {offsets:?} do not fill {tokens} rows")));
        }
        let shape = brevity_flash::Shape { tokens, sequences: offsets.len() - 1, longest, heads, kv_heads, head_dim };
        Ok(Self { kernels, shape, offsets: Tensor::new(starts, &Device::Cuda(kernels.device.clone()))? })
    }

    fn forward(
        &self,
        (q, k, v): (&Tensor, &Tensor, &Tensor),
        (out, log_sums): (&Tensor, &Tensor),
        scale: f64,
    ) -> Result<()> {
        let keys = self.shape.tokens * self.shape.kv_heads * self.shape.head_dim;
        let pointers = brevity_flash::Forward {
            q: half(q, self.shape.d_keys())?,
            k: half(k, keys)?,
            v: half(v, keys)?,
            out: half(out, self.shape.d_keys())?,
            log_sums: address(log_sums)?,
            offsets: address(&self.offsets)?,
        };
        let stream = self.stream()?;
        // SAFETY: every tensor has the shape and format that the field tells, checked just above or made so by the callers;
        // all live on this device and are freed in the order of its one stream; the offsets were checked in `new`.
        unsafe { brevity_flash::forward(self.shape, &pointers, scale as f32, stream) }.map_err(failed)
    }

    fn backward(
        &self,
        (q, k, v): (&Tensor, &Tensor, &Tensor),
        (out, log_sums, d_out): (&Tensor, &Tensor, &Tensor),
        (dq, dk, dv): (&Tensor, &Tensor, &Tensor),
        scale: f64,
    ) -> Result<()> {
        let (queries, keys) = (self.shape.d_keys(), self.shape.tokens * self.shape.kv_heads * self.shape.head_dim);
        let dq_sums = self.kernels.room(self.shape.dq_sums(), DType::F32)?;
        let d_softmax = self.kernels.room(self.shape.d_softmax(), DType::F32)?;
        let pointers = brevity_flash::Backward {
            q: half(q, queries)?,
            k: half(k, keys)?,
            v: half(v, keys)?,
            out: half(out, queries)?,
            d_out: half(d_out, queries)?,
            log_sums: address(log_sums)?,
            offsets: address(&self.offsets)?,
            dq: half(dq, queries)?,
            dk: half(dk, queries)?,
            dv: half(dv, queries)?,
            dq_sums: address(&dq_sums)?,
            d_softmax: address(&d_softmax)?,
        };
        let stream = self.stream()?;
        // SAFETY: as in `forward`; the workspaces have the sizes that the shape asks for.
        unsafe { brevity_flash::backward(self.shape, &pointers, scale as f32, stream) }.map_err(failed)
    }

    /// The device's stream, with its context current on this thread.
    fn stream(&self) -> Result<*mut c_void> {
        let stream = self.kernels.device.cuda_stream();
        stream.context().bind_to_thread().map_err(|error| Error::from(candle_core::Error::wrap(error)))?;
        Ok(stream.cu_stream().cast())
    }
}

fn failed(error: brevity_flash::FlashError) -> Error {
    Error::from(candle_core::Error::wrap(error))
}

/// The address of a contiguous bf16 tensor of so many values.
fn half(x: &Tensor, count: usize) -> Result<u64> {
    if x.dtype() == DType::BF16 && x.is_contiguous() && x.elem_count() == count {
        return address(x);
    }
    Err(Error::config(format!("attention takes {count} contiguous bf16 values, not {:?} {:?}", x.dtype(), x.shape())))
}
