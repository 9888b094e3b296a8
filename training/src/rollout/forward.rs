//! One forward step over many sequences at once, on plain slices: prefill and decoding are the same code.
//!
//! A step takes rows, each a token at a position of a sequence; every sequence brings one row (decoding) or its whole
//! prompt (prefill). Linear layers see all rows as one matrix, attention sees each sequence's own cache. A row's result
//! does not depend on the other rows, bit for bit.

use candle_core::{DType, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;

use super::cache::{BLOCK, BlockLayout, SequenceCache};
use crate::Result;
use crate::model::ops::kernels::{self, MatrixRef, Threads, Write, gemm, rms_norm_in_place, rotate_in_place, softmax};
use crate::model::ops::{HeadShape, Rotary};
use crate::model::{Decoder, ModelConfig};

struct Layer {
    input_norm: Vec<f32>,
    qkv: Vec<f32>,
    qkv_bias: Vec<f32>,
    /// Of queries and keys.
    head_norms: Option<(Vec<f32>, Vec<f32>)>,
    output: Vec<f32>,
    post_attention_norm: Vec<f32>,
    gate_up: Vec<f32>,
    down: Vec<f32>,
}

/// The weights of a decoder as plain numbers.
pub(super) struct PlainDecoder {
    pub(super) config: ModelConfig,
    shape: HeadShape,
    rotary: Rotary,
    embedding: Vec<f32>,
    layers: Vec<Layer>,
    final_norm: Vec<f32>,
    head: Option<Vec<f32>>,
}

/// What one sequence adds to a step: its new tokens, which start at `position`.
pub(super) struct StepInput<'a> {
    pub(super) tokens: &'a [u32],
    pub(super) position: usize,
    pub(super) cache: &'a mut SequenceCache,
}

impl PlainDecoder {
    pub(super) fn new(decoder: &Decoder) -> Result<Self> {
        let plain =
            |tensor: &Tensor| -> Result<Vec<f32>> { Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?) };
        let config = decoder.config().clone();
        let layers = decoder
            .layers
            .iter()
            .map(|layer| {
                Ok(Layer {
                    input_norm: plain(&layer.input_norm)?,
                    qkv: plain(&layer.qkv.weight)?,
                    qkv_bias: layer.qkv.bias.as_ref().map_or(Ok(Vec::new()), plain)?,
                    head_norms: match &layer.head_norms {
                        Some(norms) => Some((plain(&norms.query)?, plain(&norms.key)?)),
                        None => None,
                    },
                    output: plain(&layer.output.weight)?,
                    post_attention_norm: plain(&layer.post_attention_norm)?,
                    gate_up: plain(&layer.gate_up.weight)?,
                    down: plain(&layer.down.weight)?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            shape: config.head_shape(),
            rotary: decoder.rotary().clone(),
            embedding: plain(&decoder.embedding)?,
            layers,
            final_norm: plain(&decoder.final_norm)?,
            head: if config.tie_word_embeddings { None } else { Some(plain(&decoder.head)?) },
            config,
        })
    }

    pub(super) fn block_layout(&self) -> BlockLayout {
        BlockLayout::new(self.layers.len(), self.shape)
    }

    /// Runs one step and returns the logits after each sequence's last token, `[sequences, vocabulary]`.
    ///
    /// Every cache must have room for its new positions; token ids must lie inside the vocabulary.
    pub(super) fn step(&self, inputs: &mut [StepInput<'_>]) -> Vec<f32> {
        let config = &self.config;
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let (qkv_width, output_width) = (self.shape.qkv_width(), self.shape.output_width());
        let epsilon = config.rms_norm_eps as f32;
        let rows = inputs.iter().map(|input| input.tokens.len()).sum::<usize>().max(self.fewest_rows());
        let mut x = vec![0f32; rows * hidden];
        let tokens = inputs.iter().flat_map(|input| input.tokens);
        for (x, &token) in x.chunks_exact_mut(hidden).zip(tokens) {
            x.copy_from_slice(&self.embedding[token as usize * hidden..][..hidden]);
        }
        let mut normed = vec![0f32; rows * hidden];
        let mut qkv = vec![0f32; rows * qkv_width];
        let mut attended = vec![0f32; rows * output_width];
        let mut gate_up = vec![0f32; rows * 2 * intermediate];
        let mut activated = vec![0f32; rows * intermediate];
        for (index, layer) in self.layers.iter().enumerate() {
            kernels::rms_norm(&x, &layer.input_norm, epsilon, &mut normed);
            let bias = Some(layer.qkv_bias.as_slice()).filter(|bias| !bias.is_empty());
            kernels::linear(&normed, &layer.qkv, bias, hidden, qkv_width, &mut qkv);
            self.attend(index, &mut qkv, &mut attended, inputs);
            add_product(&mut x, &attended, &layer.output, output_width, hidden);
            kernels::rms_norm(&x, &layer.post_attention_norm, epsilon, &mut normed);
            kernels::linear(&normed, &layer.gate_up, None, hidden, 2 * intermediate, &mut gate_up);
            kernels::swiglu(&gate_up, intermediate, &mut activated);
            add_product(&mut x, &activated, &layer.down, intermediate, hidden);
        }
        self.logits(&x, inputs)
    }

    /// Rows of zeros fill a step up to this many, so that no product is small enough to be summed in another order.
    fn fewest_rows(&self) -> usize {
        let config = &self.config;
        let narrowest = [config.hidden_size, self.shape.qkv_width(), 2 * config.intermediate_size, config.vocab_size];
        kernels::UNIFORM_ABOVE / narrowest.into_iter().min().unwrap_or(1) + 2
    }

    fn logits(&self, x: &[f32], inputs: &[StepInput<'_>]) -> Vec<f32> {
        let (hidden, vocabulary) = (self.config.hidden_size, self.config.vocab_size);
        let rows = inputs.len().max(self.fewest_rows());
        let mut last = vec![0f32; rows * hidden];
        let mut end = 0;
        for (into, input) in last.chunks_exact_mut(hidden).zip(inputs) {
            end += input.tokens.len();
            into.copy_from_slice(&x[(end - 1) * hidden..end * hidden]);
        }
        let mut normed = vec![0f32; rows * hidden];
        kernels::rms_norm(&last, &self.final_norm, self.config.rms_norm_eps as f32, &mut normed);
        let mut logits = vec![0f32; rows * vocabulary];
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        kernels::linear(&normed, head, None, hidden, vocabulary, &mut logits);
        logits.truncate(inputs.len() * vocabulary);
        logits
    }

    /// Stores the new keys and values and attends, sequence by sequence.
    fn attend(&self, layer: usize, qkv: &mut [f32], attended: &mut [f32], inputs: &mut [StepInput<'_>]) {
        let (qkv_width, output_width) = (self.shape.qkv_width(), self.shape.output_width());
        let mut work = Vec::with_capacity(inputs.len());
        let (mut qkv, mut attended) = (qkv, attended);
        for input in inputs {
            let rows = input.tokens.len();
            let (own_qkv, rest_qkv) = qkv.split_at_mut(rows * qkv_width);
            let (own_attended, rest_attended) = attended.split_at_mut(rows * output_width);
            work.push((own_qkv, own_attended, input.position, &mut *input.cache));
            (qkv, attended) = (rest_qkv, rest_attended);
        }
        work.into_par_iter().with_min_len(4).for_each_init(Vec::new, |scores, (qkv, attended, start, cache)| {
            for (i, row) in qkv.chunks_exact_mut(qkv_width).enumerate() {
                self.place_and_store(layer, start + i, row, cache);
            }
            for (i, (row, out)) in qkv.chunks_exact(qkv_width).zip(attended.chunks_exact_mut(output_width)).enumerate()
            {
                self.attend_row(layer, start + i, row, cache, scores, out);
            }
        });
    }

    fn place_and_store(&self, layer: usize, position: usize, row: &mut [f32], cache: &mut SequenceCache) {
        let HeadShape { heads, kv_heads, head_dim } = self.shape;
        let (cos, sin) = self.rotary.at(position);
        let (norms, epsilon) = (&self.layers[layer].head_norms, self.config.rms_norm_eps as f32);
        for (index, head) in row.chunks_exact_mut(head_dim).take(heads + kv_heads).enumerate() {
            if let Some((query, key)) = norms {
                rms_norm_in_place(head, if index < heads { query } else { key }, epsilon);
            }
            rotate_in_place(head, cos, sin);
        }
        let (keys, values) = row[heads * head_dim..].split_at(kv_heads * head_dim);
        for kv_head in 0..kv_heads {
            let range = kv_head * head_dim..(kv_head + 1) * head_dim;
            cache.store(layer, kv_head, position, &keys[range.clone()], &values[range]);
        }
    }

    /// Attention of one row over positions `0..=position` of its sequence.
    fn attend_row(
        &self,
        layer: usize,
        position: usize,
        row: &[f32],
        cache: &SequenceCache,
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let HeadShape { heads, kv_heads, head_dim } = self.shape;
        let (group, seen) = (heads / kv_heads, position + 1);
        let scale = 1.0 / (head_dim as f32).sqrt();
        scores.resize(seen.next_multiple_of(BLOCK), 0.0);
        for head in 0..heads {
            let range = head * head_dim..(head + 1) * head_dim;
            attend_head(&row[range.clone()], cache, layer, head / group, scale, seen, scores, &mut out[range]);
        }
    }
}

/// Attention of one query over the first `seen` positions of one head; `scores` is room for whole blocks.
#[expect(clippy::too_many_arguments, reason = "one inner loop, compiled apart so that it can use wide instructions")]
#[multiversion(targets("x86_64+avx512f+avx512dq+avx512bw+avx512vl+fma", "x86_64+avx2+fma"))]
fn attend_head(
    query: &[f32],
    cache: &SequenceCache,
    layer: usize,
    kv_head: usize,
    scale: f32,
    seen: usize,
    scores: &mut [f32],
    out: &mut [f32],
) {
    for (scores, (keys, _)) in scores.chunks_exact_mut(BLOCK).zip(cache.blocks(layer, kv_head)) {
        block_scores(query, keys, scale, scores);
    }
    softmax(&mut scores[..seen]);
    let head_dim = out.len();
    let mut from = 0;
    while from + LANES <= head_dim {
        weighted_values::<LANES>(&scores[..seen], cache, layer, kv_head, from, head_dim, out);
        from += LANES;
    }
    while from < head_dim {
        weighted_values::<1>(&scores[..seen], cache, layer, kv_head, from, head_dim, out);
        from += 1;
    }
}

const LANES: usize = 32;

/// `scale * query · key` for every position of a block; `keys` is `[head_dim, BLOCK]`.
#[inline(always)]
fn block_scores(query: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) {
    for part in 0..BLOCK / LANES {
        let mut sums = [0f32; LANES];
        for (&q, keys) in query.iter().zip(keys.chunks_exact(BLOCK)) {
            let keys = &keys[part * LANES..][..LANES];
            for lane in 0..LANES {
                sums[lane] += q * keys[lane];
            }
        }
        for (score, sum) in scores[part * LANES..][..LANES].iter_mut().zip(sums) {
            *score = sum * scale;
        }
    }
}

/// Columns `from..from + N` of the values' weighted sum, in registers over all blocks; even and odd positions are summed
/// apart, which halves the wait for one addition to finish.
#[inline(always)]
fn weighted_values<const N: usize>(
    weights: &[f32],
    cache: &SequenceCache,
    layer: usize,
    kv_head: usize,
    from: usize,
    head_dim: usize,
    out: &mut [f32],
) {
    let mut sums = [[0f32; N]; 2];
    for (weights, (_, values)) in weights.chunks(BLOCK).zip(cache.blocks(layer, kv_head)) {
        for (pair, values) in weights.chunks(2).zip(values.chunks(2 * head_dim)) {
            for ((sums, &weight), value) in sums.iter_mut().zip(pair).zip(values.chunks_exact(head_dim)) {
                let value = &value[from..from + N];
                for lane in 0..N {
                    sums[lane] += weight * value[lane];
                }
            }
        }
    }
    for (lane, out) in out[from..from + N].iter_mut().enumerate() {
        *out = sums[0][lane] + sums[1][lane];
    }
}

/// `x[n, out] += y[n, in] weight[out, in]ᵀ`.
fn add_product(x: &mut [f32], y: &[f32], weight: &[f32], inputs: usize, outputs: usize) {
    let y = MatrixRef::new(y, y.len() / inputs, inputs, inputs);
    let weight = MatrixRef::new(weight, outputs, inputs, inputs);
    gemm(x, outputs, y, weight.t(), 1.0, Write::Add, Threads::Pool);
}
