//! Sampling responses from the policy: many prompts at once, each with a seed of its own.
//!
//! The trainer sees the [`Sampler`] trait. [`CpuSampler`] works on plain slices, [`DeviceSampler`] on the tensors of any
//! device; a serving engine may be another.
//! A sampler knows tokens and probabilities. What a response is worth is none of its business.

mod cache;
mod cpu;
mod device;
mod draw;
mod forward;
mod response;
#[cfg(test)]
mod test_support;

use std::sync::Arc;

pub use cpu::CpuSampler;
pub use device::DeviceSampler;
pub(crate) use device::PREFILL_TOKENS;

use crate::Result;

/// How tokens are drawn, the same for all requests of one call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingParams {
    /// Softmax temperature; 0 takes the most likely token.
    pub temperature: f64,
    /// Nucleus mass in (0, 1]: the smallest set of most likely tokens that reaches it, of what `top_k` and `min_p` leave, is
    /// drawn from.
    pub top_p: f64,
    /// Only the k most likely tokens are drawn from, of equals those of the smallest ids; `None` for all.
    pub top_k: Option<usize>,
    /// Only tokens at least this share as likely as the most likely one are drawn from, in [0, 1].
    pub min_p: f64,
    /// Most tokens a response may have, the end-of-sequence token included.
    pub max_new_tokens: usize,
}

impl SamplingParams {
    /// The whole distribution: nothing is truncated.
    pub const fn whole(temperature: f64, max_new_tokens: usize) -> Self {
        Self { temperature, top_p: 1.0, top_k: None, min_p: 0.0, max_new_tokens }
    }

    /// Whether some tokens cannot be drawn though the temperature is above 0.
    pub(crate) fn truncates(&self) -> bool {
        self.top_p < 1.0 || self.top_k.is_some() || self.min_p > 0.0
    }
}

/// One prompt to be continued.
#[derive(Debug, Clone)]
pub struct RolloutRequest {
    /// Prompt token ids, at least one. Requests that share the same allocation are prefilled once.
    pub prompt: Arc<[u32]>,
    /// Seed of this response's random numbers: the same seed gives the same text, whatever else is in the batch.
    pub seed: u64,
}

/// Why a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model produced an end-of-sequence token.
    Stop,
    /// The token limit or the end of the context cut it off.
    Length,
}

/// A sampled response.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// Response token ids, the end-of-sequence token included when there is one.
    pub ids: Vec<u32>,
    /// Natural logarithm of softmax(logits / temperature) at each id (temperature 1 where it is 0), before truncation; `[ids.len()]`.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: FinishReason,
}

/// How far a call to [`Sampler::generate`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolloutProgress {
    /// Responses that have ended.
    pub finished: usize,
    /// Tokens sampled so far.
    pub tokens: usize,
}

/// Something that continues prompts.
pub trait Sampler {
    /// Continues every request; the results are in the order of the requests.
    ///
    /// `progress` is called now and then from the calling thread; when it returns `false` the call ends with
    /// [`crate::Error::Interrupted`].
    ///
    /// # Errors
    /// [`crate::Error::Config`] for an empty prompt, one that fills the context, or parameters out of range.
    fn generate(
        &mut self,
        requests: &[RolloutRequest],
        params: &SamplingParams,
        progress: &mut dyn FnMut(RolloutProgress) -> bool,
    ) -> Result<Vec<Rollout>>;
}
