//! The sampler for models run layer by layer: batched decoding on any device, with slots for keys and values that grow with
//! their sequences.
//!
//! Sequences lie in slots 0.. of the caches; one that ends gives its slot to the last, so that a step works on as many rows
//! as there are sequences. What crosses to the host each step is a few numbers a sequence, never its logits.

mod cache;
mod draw;
mod levels;
mod replay;

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::{D, DType, Tensor};

use self::cache::Caches;
use self::draw::draw_rows;
use self::levels::{Limits, Unfinished};
use self::replay::Replay;
use super::response::{Response, check};
use super::{Rollout, RolloutProgress, RolloutRequest, Sampler, SamplingParams};
use crate::model::layered::{CausalAttention, Heads};
use crate::model::{Layered, Packed};
use crate::{Error, Result};

/// Prompt tokens that are run at a time.
pub(crate) const PREFILL_TOKENS: usize = 8192;

/// Tokens of a response that slots have room for in the beginning.
const FIRST_LEVEL: usize = 1024;

/// Samples many sequences of different lengths at once, on the model's device.
///
/// The random numbers of a response come from its own seed alone, one for each token, as in [`super::CpuSampler`]; its text
/// is the same but for rounding, which may depend on what else is in the batch.
pub struct DeviceSampler {
    model: Layered,
    end_of_sequence: Vec<u32>,
    concurrent_sequences: usize,
    cache_tokens: usize,
    first_level: usize,
}

impl DeviceSampler {
    /// A sampler of `model`, whose tensors are views: an update of the weights is seen by the next call. A response ends
    /// at any id of `end_of_sequence`, and at most `concurrent_sequences` are in the batch at a time.
    ///
    /// # Errors
    /// [`Error::Config`] when `concurrent_sequences` is 0.
    pub fn new(model: Layered, end_of_sequence: &[u32], concurrent_sequences: usize) -> Result<Self> {
        if concurrent_sequences == 0 {
            return Err(Error::config("the sampler needs room for at least one sequence"));
        }
        let end_of_sequence = end_of_sequence.to_vec();
        let (cache_tokens, first_level) = (usize::MAX, FIRST_LEVEL);
        Ok(Self { model, end_of_sequence, concurrent_sequences, cache_tokens, first_level })
    }

    /// From now on holds the keys and values of at most this many tokens at a time, of all sequences together and with what
    /// slots have room for, but of one sequence in any case. Where all do not fit, the longest have to wait for the others.
    pub fn set_cache_tokens(&mut self, cache_tokens: usize) {
        self.cache_tokens = cache_tokens;
    }
}

/// What one call works with.
struct Decoding {
    model: Layered,
    /// The output layer in f32.
    head: Tensor,
    caches: Caches,
    /// Steps through kernels; none where they are made of tensor operations.
    replay: Option<Replay>,
}

impl Decoding {
    /// Room for `slots` sequences of up to `capacity` tokens.
    fn new(model: &Layered, slots: usize, capacity: usize) -> Result<Self> {
        let caches = Caches::new(model, slots, capacity)?;
        let replay = Replay::new(model, &caches, slots)?;
        Ok(Self { model: model.settled()?, head: model.wide_head()?, caches, replay })
    }

    /// Room for `slots` sequences of up to `capacity` tokens, no fewer than before; the first `kept` slots keep what they
    /// hold.
    fn resize(&mut self, slots: usize, capacity: usize, kept: usize) -> Result<()> {
        // Recordings hold the old addresses.
        self.replay = None;
        self.caches.resize(slots, capacity, kept)?;
        self.replay = Replay::new(&self.model, &self.caches, slots)?;
        Ok(())
    }

    /// Runs what there is of the sequences from slot `first` on and stores their keys and values; returns the logits after
    /// each, `[sequences, vocabulary]`. Neighbours with the same prompt share one run of it.
    fn prefill(&self, new: &[Response], first: usize) -> Result<Tensor> {
        let tokens: Vec<Arc<[u32]>> = new.iter().map(Response::tokens).collect();
        let mut prompts: Vec<(&Arc<[u32]>, Vec<usize>)> = Vec::new();
        for (index, tokens) in tokens.iter().enumerate() {
            match prompts.last_mut() {
                Some((prompt, slots)) if Arc::ptr_eq(prompt, tokens) => slots.push(first + index),
                _ => prompts.push((tokens, vec![first + index])),
            }
        }
        let mut logits = Vec::new();
        let mut rest = prompts.as_slice();
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = rest.iter().take_while(|(prompt, _)| {
                tokens += prompt.len();
                tokens <= PREFILL_TOKENS
            });
            let (run, later) = rest.split_at(fits.count().max(1));
            logits.push(self.prefill_run(run)?);
            rest = later;
        }
        let of_sequences: Vec<u32> =
            prompts.iter().enumerate().flat_map(|(row, (_, slots))| slots.iter().map(move |_| row as u32)).collect();
        let of_sequences = Tensor::new(of_sequences, self.model.device())?;
        Ok(Tensor::cat(&logits, 0)?.index_select(&of_sequences, 0)?)
    }

    fn prefill_run(&self, prompts: &[(&Arc<[u32]>, Vec<usize>)]) -> Result<Tensor> {
        let packed = Packed::new(prompts.iter().map(|(prompt, _)| &***prompt));
        let pass = self.model.pass(&packed)?;
        let mut x = self.model.embed(&packed.ids)?;
        for (layer, block) in self.model.blocks().iter().enumerate() {
            let (y, heads) = block.forward_keeping(&x, &pass)?;
            for ((_, slots), range) in prompts.iter().zip(packed.offsets.windows(2)) {
                self.caches.fill(layer, slots, &heads, range[0], range[1] - range[0])?;
            }
            x = y;
        }
        let last: Vec<u32> = packed.offsets[1..].iter().map(|&end| end as u32 - 1).collect();
        self.model.logits(&x.index_select(&Tensor::new(last, self.model.device())?, 0)?, &self.head)
    }

    /// Runs the last token of every sequence; returns the logits after it, `[sequences, vocabulary]`.
    fn step(&mut self, active: &[Response]) -> Result<Tensor> {
        let ids: Vec<u32> = active.iter().flat_map(Response::pending).copied().collect();
        let positions: Vec<u32> = active.iter().map(|response| response.length() as u32 - 1).collect();
        if let Some(replay) = &mut self.replay {
            return replay.step(&self.model, &self.caches, ids, positions);
        }
        let window = positions.iter().max().map_or(0, |&last| last as usize + 1);
        let (attention, turns) = (self.model.attention(), self.model.turns(&positions)?);
        let positions = Tensor::new(positions, self.model.device())?;
        let mut x = self.model.embed(&ids)?;
        let place = self.caches.place(&positions)?;
        let mask = mask(&positions, window)?;
        for (layer, block) in self.model.blocks().iter().enumerate() {
            let heads = block.project(&x, &attention, &turns)?;
            self.caches.append(layer, &heads, &place)?;
            let (keys, values) = self.caches.window(layer, active.len(), window)?;
            x = block.finish(&x, &attend(&attention, &heads, &keys, &values, &mask)?)?;
        }
        self.model.logits(&x, &self.head)
    }
}

/// Attention of one query a sequence over its cache: `keys` and `values` are `[sequences * kv_heads, window, head_dim]`,
/// `mask` `[sequences, 1, window]`, the result `[sequences, heads, head_dim]`.
fn attend(attention: &CausalAttention, heads: &Heads, keys: &Tensor, values: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let (sequences, query_heads, head_dim) = heads.q.dims3()?;
    let (rows, window, _) = keys.dims3()?;
    let q = (&heads.q * attention.scale())?.to_dtype(keys.dtype())?.reshape((rows, (), head_dim))?;
    let scores = q.matmul(&keys.t()?)?.to_dtype(DType::F32)?.reshape((sequences, query_heads, window))?;
    let scores = scores.broadcast_add(mask)?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?.to_dtype(keys.dtype())?;
    Ok(weights.reshape((rows, (), window))?.matmul(values)?.reshape((sequences, query_heads, head_dim))?)
}

/// 0 at the positions that a sequence has, -∞ at those that it has not; `[sequences, 1, window]`.
fn mask(positions: &Tensor, window: usize) -> Result<Tensor> {
    let device = positions.device();
    let column = Tensor::arange(0u32, window as u32, device)?.unsqueeze(0)?;
    let later = column.broadcast_gt(&positions.unsqueeze(1)?)?;
    let closed = Tensor::full(f32::NEG_INFINITY, later.shape(), device)?;
    Ok(later.where_cond(&closed, &closed.zeros_like()?)?.unsqueeze(1)?)
}

impl Sampler for DeviceSampler {
    fn generate(
        &mut self,
        requests: &[RolloutRequest],
        params: &SamplingParams,
        progress: &mut dyn FnMut(RolloutProgress) -> bool,
    ) -> Result<Vec<Rollout>> {
        let config = self.model.config();
        check(requests, params, config)?;
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let longest = requests.iter().map(|request| request.prompt.len() + params.max_new_tokens).max().unwrap_or(0);
        let limits = Limits {
            sequences: self.concurrent_sequences,
            tokens: self.cache_tokens,
            longest: longest.min(config.max_position_embeddings),
        };
        let new = |(index, request)| Response::new(index, request, params, config);
        let mut waiting: VecDeque<Response> = requests.iter().enumerate().map(new).collect();
        let (mut active, mut aside): (Vec<Response>, Vec<Response>) = (Vec::new(), Vec::new());
        let longest_prompt = requests.iter().map(|request| request.prompt.len()).max().unwrap_or(0);
        let mut level = limits.longest.min(longest_prompt + self.first_level);
        let mut slots = limits.slots(level, requests.len());
        let mut decoding = Decoding::new(&self.model, slots, level)?;
        let mut results: Vec<Option<Rollout>> = requests.iter().map(|_| None).collect();
        let mut report = RolloutProgress { finished: 0, tokens: 0 };
        while report.finished < requests.len() {
            let is_full = |response: &Response| response.length() > level;
            if !aside.is_empty() || active.iter().any(is_full) {
                let unfinished = Unfinished { active: active.len(), waiting: waiting.len(), aside: aside.len() };
                if limits.is_time(level, unfinished) {
                    level = limits.above(level);
                    waiting.extend(aside.drain(..));
                    slots = limits.slots(level, active.len() + waiting.len());
                    decoding.resize(slots, level, active.len())?;
                } else {
                    take_out(&mut active, &decoding.caches, is_full, |full| aside.push(full))?;
                }
            }
            let going_on = active.len();
            if going_on > 0 {
                let logits = decoding.step(&active)?;
                draw_rows(&logits, params, &mut active, &self.end_of_sequence)?;
            }
            active.extend(waiting.drain(..waiting.len().min(slots - going_on)));
            let new = &mut active[going_on..];
            if !new.is_empty() {
                let logits = decoding.prefill(new, going_on)?;
                draw_rows(&logits, params, new, &self.end_of_sequence)?;
            }
            report.tokens += active.len();
            take_out(&mut active, &decoding.caches, Response::is_finished, |response| {
                report.finished += 1;
                let request = response.request;
                results[request] = response.into_rollout();
            })?;
            if !progress(report) {
                return Err(Error::Interrupted);
            }
        }
        Ok(results.into_iter().flatten().collect())
    }
}

/// Takes the responses that `leaves` says out of their slots and hands them over; the last move into the gaps.
fn take_out(
    active: &mut Vec<Response>,
    caches: &Caches,
    leaves: impl Fn(&Response) -> bool,
    mut out: impl FnMut(Response),
) -> Result<()> {
    for slot in (0..active.len()).rev() {
        if !leaves(&active[slot]) {
            continue;
        }
        let last = active.len() - 1;
        if slot != last {
            caches.take_over(slot, last, active[last].length())?;
        }
        out(active.swap_remove(slot));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
