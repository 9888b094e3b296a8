//! Fused operations of a GPU on tensors: each takes one pass over memory where tensor operations take up to ten.
//!
//! [`Kernels::of`] gives them for tensors that a GPU holds and nothing for all others, so that every caller keeps its way
//! through tensor operations beside them: that one is the definition, runs on every device, and is what tests compare
//! with. What a layer or a loss is does not enter here. In a build without CUDA the type has no values.

#[cfg(not(feature = "cuda"))]
mod absent;
#[cfg(feature = "flash")]
mod flash;
#[cfg(feature = "cuda")]
mod launch;
#[cfg(all(feature = "cuda", not(feature = "flash")))]
mod no_flash;
#[cfg(feature = "cuda")]
mod product;
#[cfg(feature = "cuda")]
mod record;
#[cfg(feature = "cuda")]
mod rows;
#[cfg(test)]
#[cfg(feature = "cuda")]
mod tests;

#[cfg(not(feature = "cuda"))]
pub(crate) use absent::{Kernels, Recording};
#[cfg(feature = "cuda")]
pub(crate) use launch::Kernels;
#[cfg(feature = "cuda")]
pub(crate) use record::Recording;

use candle_core::Tensor;

/// Whether this build has FlashAttention's kernels for heads of `head_dim`.
pub(crate) fn has_attention_kernels(head_dim: usize) -> bool {
    cfg!(feature = "flash") && matches!(head_dim, 64 | 128)
}

/// What the output layer says of one target a row; all f32 `[rows]`.
#[derive(Debug)]
pub(crate) struct RowScores {
    /// log softmax at each target, in nats.
    pub(crate) logprobs: Tensor,
    /// log Σ exp of each row.
    pub(crate) log_sums: Tensor,
    /// Entropy of each row in nats.
    pub(crate) entropies: Tensor,
}

/// The numbers of one AdamW update, as the optimizer works them out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamWFactors {
    /// Scales the gradient.
    pub(crate) clip: f32,
    /// Decay rates of the moments, and one less each.
    pub(crate) beta1: f32,
    pub(crate) rest1: f32,
    pub(crate) beta2: f32,
    pub(crate) rest2: f32,
    /// What weight decay leaves.
    pub(crate) keep: f32,
    /// Learning rate over the bias of the first moment.
    pub(crate) step: f32,
    /// One over the root of the bias of the second moment.
    pub(crate) root: f32,
    pub(crate) eps: f32,
}
