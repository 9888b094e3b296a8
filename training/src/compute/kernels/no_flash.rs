//! Attention in a build without FlashAttention's kernels: none, so that whoever asks works in blocks of tensor operations.

use candle_core::Tensor;

use super::Kernels;
use crate::{Error, Result};

impl Kernels {
    pub(crate) fn attending(_: &Tensor, _: usize) -> Option<Self> {
        None
    }

    pub(crate) fn attention(&self, _: (&Tensor, &Tensor, &Tensor), _: &[usize], _: f64) -> Result<(Tensor, Tensor)> {
        Err(absent())
    }

    pub(crate) fn attention_backward(
        &self,
        _: (&Tensor, &Tensor, &Tensor),
        _: (&Tensor, &Tensor),
        _: &Tensor,
        _: &[usize],
        _: f64,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        Err(absent())
    }
}

fn absent() -> Error {
    Error::config("FlashAttention is not in this build: build it with `--features flash`")
}
