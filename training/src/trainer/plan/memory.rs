//! The memory of a run, term by term.

use super::{ModelShape, TargetModule};
use crate::advantage::KlPlacement;
use crate::recipe::{Recipe, Stage, TuningMode};

/// Bytes of a gradient, a moment of Adam, an adapter's weight, or a full-precision copy of a weight.
const F32: u64 = 4;

/// Scores of attention and logits that a layered pass holds at a time, and how many tensors of that size.
const SCORES: (u64, u64) = (1 << 25, 5);
const LOGITS: (u64, u64) = (1 << 27, 4);
/// f32 values that the gated activation holds at a time.
const GATED: u64 = 8 << 24;

/// Memory of a run in bytes, upper bounds. `b` is the bytes of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Model and adapter: `parameters · b + adapter · 4`.
    pub weights: u64,
    /// The frozen reference policy: `parameters · b`, or 0 where the base beneath an adapter is the reference, where
    /// nothing is compared with one (`kl = "off"`), and in supervised learning.
    pub reference: u64,
    /// `trained · 4`.
    pub gradients: u64,
    /// Adam's two moments, and a full-precision copy of weights that are not: `trained · 8`, or `trained · 12` where all
    /// weights are trained and b < 4.
    pub optimizer: u64,
    /// What a micro-batch of T tokens keeps for its backward pass, T being `microbatch_tokens`, or the longest possible
    /// sequence where that is more.
    ///
    /// As a graph: `T · layers · ((6 hidden + 3 heads · head_dim + 4 kv_heads · head_dim + 4 intermediate) · b + 4 heads)`,
    /// with the attention's own scores computed anew in the backward pass, and `T · vocab · 8` for logits and their
    /// gradient.
    ///
    /// Layer by layer: `T · layers · (hidden · b + 4 heads · (head_dim + 1))` for the layers' inputs and what their attention
    /// gave, counted in f32 though kernels keep it in half; for the one layer at work
    /// `T · ((8 hidden + 6 intermediate) · b + 16 (heads + 2 kv_heads) · head_dim)`; `T · hidden · 12` for the output layer's
    /// rows; and what does not grow with T: blocks of scores and logits, the output layer in f32 where it is not, and its
    /// gradient where it is trained.
    pub activations: u64,
    /// Keys and values of the responses that are sampled at the same time, all of full length:
    /// `2 · layers · kv_heads · head_dim · b · sequences · (max_prompt_tokens + max_new_tokens)`; layer by layer also
    /// logits, `sequences · vocab · 16`, and the output layer in f32 where it is not.
    pub kv_cache: u64,
}

impl Memory {
    /// The most that is held at one time: sampling and updates take turns.
    pub fn peak(&self) -> u64 {
        self.lasting() + self.kv_cache.max(self.gradients + self.activations)
    }

    /// What is held from the beginning to the end.
    pub fn lasting(&self) -> u64 {
        self.weights + self.reference + self.optimizer
    }
}

/// A size that grows with a number: of tokens of a micro-batch, or of sequences sampled at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Growing {
    pub(super) fixed: u64,
    pub(super) each: u64,
}

impl Growing {
    pub(super) fn at(&self, number: u64) -> u64 {
        self.fixed + self.each * number
    }

    /// The greatest number that stays within `bytes`.
    pub(super) fn within(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.fixed) / self.each.max(1)
    }
}

/// What a recipe asks of a device's memory, before its two free numbers are put in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs {
    pub(super) weights: u64,
    pub(super) reference: u64,
    pub(super) gradients: u64,
    pub(super) optimizer: u64,
    /// By tokens of a micro-batch.
    pub(super) activations: Growing,
    /// By sequences sampled at a time.
    pub(super) kv_cache: Growing,
    /// Tokens of the longest possible sequence; 0 where it is not known.
    pub(super) longest: u64,
}

impl Needs {
    pub(super) fn of(recipe: &Recipe, shape: &ModelShape) -> Self {
        let is_rl = recipe.stage == Stage::Rl;
        let has_adapter = recipe.tuning.mode == TuningMode::Lora;
        let parameters = shape.parameters();
        let adapter = adapter_parameters(recipe, shape);
        let trained = if has_adapter { adapter } else { parameters };
        let b = shape.dtype_bytes;
        let needs_reference = is_rl && !has_adapter && recipe.algorithm.kl != KlPlacement::Off;
        let copies = if b < F32 && !has_adapter { 3 } else { 2 };
        let longest = if is_rl { (recipe.rollout.max_prompt_tokens + recipe.rollout.max_new_tokens) as u64 } else { 0 };
        let is_layered = recipe.compute.is_layered();
        let activations = if is_layered { layered(shape, longest, !has_adapter) } else { graph(shape) };
        let of_a_token = 2 * shape.layers * shape.kv_heads * shape.head_dim * b;
        let kv_cache = match (is_rl, is_layered) {
            (false, _) => Growing { fixed: 0, each: 0 },
            (true, false) => Growing { fixed: 0, each: of_a_token * longest },
            (true, true) => {
                Growing { fixed: wide_head(shape), each: of_a_token * longest + shape.vocab * LOGITS.1 * F32 }
            }
        };
        Self {
            weights: parameters * b + adapter * F32,
            reference: if needs_reference { parameters * b } else { 0 },
            gradients: trained * F32,
            optimizer: trained * F32 * copies,
            activations,
            kv_cache,
            longest,
        }
    }

    /// The memory with micro-batches of so many tokens and so many sequences at a time.
    pub(super) fn memory(&self, microbatch_tokens: u64, sequences: u64) -> Memory {
        Memory {
            weights: self.weights,
            reference: self.reference,
            gradients: self.gradients,
            optimizer: self.optimizer,
            activations: self.activations.at(microbatch_tokens.max(self.longest)),
            kv_cache: if sequences == 0 { 0 } else { self.kv_cache.at(sequences) },
        }
    }
}

/// Weights of the recipe's adapter; 0 where there is none.
pub(super) fn adapter_parameters(recipe: &Recipe, shape: &ModelShape) -> u64 {
    let modules: &[TargetModule] = &recipe.tuning.target_modules;
    match recipe.tuning.mode {
        TuningMode::Lora => shape.adapter_parameters(recipe.tuning.rank as u64, modules),
        TuningMode::Full => 0,
    }
}

fn graph(shape: &ModelShape) -> Growing {
    let (query, key) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let of_a_layer =
        (6 * shape.hidden + 3 * query + 4 * key + 4 * shape.intermediate) * shape.dtype_bytes + F32 * shape.heads;
    Growing { fixed: 0, each: shape.layers * of_a_layer + shape.vocab * 2 * F32 }
}

fn layered(shape: &ModelShape, longest: u64, is_head_trained: bool) -> Growing {
    let heads = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
    let kept = shape.layers * (shape.hidden * shape.dtype_bytes + F32 * shape.heads * (shape.head_dim + 1));
    let at_work = (8 * shape.hidden + 6 * shape.intermediate) * shape.dtype_bytes + 4 * F32 * heads;
    // Blocks of scores are as large as they may be, or as a block of few queries over the longest sequence.
    let scores = SCORES.0.max(16 * shape.heads * longest) * SCORES.1 * F32;
    let gradient = if is_head_trained { 2 * shape.vocab * shape.hidden * F32 } else { 0 };
    let logits = LOGITS.0.max(shape.vocab) * LOGITS.1 * F32 + wide_head(shape) + gradient;
    Growing { fixed: scores.max(logits).max(GATED * F32), each: kept + at_work + 3 * shape.hidden * F32 }
}

/// The output layer's copy in f32, where it is in half precision.
fn wide_head(shape: &ModelShape) -> u64 {
    if shape.dtype_bytes < F32 { shape.vocab * shape.hidden * F32 } else { 0 }
}
