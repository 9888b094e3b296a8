//! The norms over every head of queries and keys (Qwen3, arXiv 2505.09388), forward and backward.

use candle_core::Tensor;

use super::pointwise::Norm;
use super::weight::GradientSink;
use crate::Result;

/// One norm for all query heads and one for all key heads, each of width `head_dim`.
#[derive(Debug, Clone)]
pub(crate) struct HeadNorms {
    pub(super) query: Norm,
    pub(super) key: Norm,
}

impl HeadNorms {
    /// The norms as they are now, with weights in the format they are used in.
    pub(super) fn settled(&self) -> Result<Self> {
        Ok(Self { query: self.query.settled()?, key: self.key.settled()? })
    }

    /// `q` `[tokens, heads, head_dim]` and `k` `[tokens, kv_heads, head_dim]` to the same shapes and formats.
    pub(super) fn forward(&self, q: &Tensor, k: &Tensor) -> Result<(Tensor, Tensor)> {
        let normed = |norm: &Norm, x: &Tensor| Ok::<_, crate::Error>(norm.forward(&rows(x)?)?.reshape(x.shape())?);
        Ok((normed(&self.query, q)?, normed(&self.key, k)?))
    }

    /// The gradients of `q` and `k` from those of the results.
    pub(super) fn backward(
        &self,
        (q, k): (&Tensor, &Tensor),
        (dq, dk): (&Tensor, &Tensor),
        sink: &mut GradientSink<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let mut back = |norm: &Norm, x: &Tensor, dy: &Tensor| {
            Ok::<_, crate::Error>(norm.backward(&rows(x)?, &rows(dy)?, sink)?.reshape(x.shape())?)
        };
        Ok((back(&self.query, q, dq)?, back(&self.key, k, dk)?))
    }
}

/// Every head as a row.
fn rows(x: &Tensor) -> Result<Tensor> {
    Ok(x.reshape(((), x.dim(2)?))?)
}
