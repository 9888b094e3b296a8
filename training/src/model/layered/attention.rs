//! Causal grouped-query attention over packed sequences, forward and backward: FlashAttention's kernels where a build and
//! a GPU have them, tensor operations everywhere else.
//!
//! In tensor operations, queries are taken in blocks; a block's scores are worked out against all keys before it and
//! against its own, in f32, and forgotten. The backward pass works them out again from the log-sums that the forward pass
//! kept, so memory grows with the number of tokens, never with its square. Query heads of a group are stacked as rows over
//! their one key head, which saves repeating keys and sums their gradients in the product itself.

use candle_core::{D, DType, Tensor};

use crate::Result;
use crate::compute::kernels::Kernels;
use crate::model::ops::HeadShape;

/// Most scores (of all heads) that exist at a time, in the default of [`CausalAttention`].
const SCORES_AT_A_TIME: usize = 1 << 25;

/// Fewest and most queries of a block.
const BLOCK: (usize, usize) = (16, 1024);

/// How attention is cut up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CausalAttention {
    pub(super) shape: HeadShape,
    /// Most scores at a time.
    pub(super) scores: usize,
    /// Fewest and most queries of a block.
    pub(super) block: (usize, usize),
    /// Whether heads stay in the format of their projection; otherwise they are f32.
    pub(super) keeps_format: bool,
}

/// Result and log-sums of a forward pass.
#[derive(Debug)]
pub(crate) struct Attended {
    /// `[tokens, heads, head_dim]`, in the format of the queries.
    pub(crate) output: Tensor,
    /// log Σ exp of the scores of every block of every sequence, `[kv_heads, queries of the group, 1]`; of kernels all
    /// in one, as they want it.
    log_sums: Vec<Tensor>,
}

/// Queries `first..first + count` of a sequence.
#[derive(Debug, Clone, Copy)]
struct Block {
    first: usize,
    count: usize,
}

impl CausalAttention {
    /// Blocks that suit a GPU's memory.
    pub(crate) fn new(shape: HeadShape) -> Self {
        Self { shape, scores: SCORES_AT_A_TIME, block: BLOCK, keeps_format: false }
    }

    /// Query heads that share a key head.
    pub(crate) fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    /// What scores are multiplied by.
    pub(crate) fn scale(&self) -> f64 {
        1.0 / (self.shape.head_dim as f64).sqrt()
    }

    /// The same for an attention of its own over heads as the projections give them.
    pub(crate) fn keeping_format(self) -> Self {
        Self { keeps_format: true, ..self }
    }

    /// The kernels for heads that were left in their format.
    fn kernels(&self, q: &Tensor) -> Option<Kernels> {
        if self.keeps_format { Kernels::attending(q, self.shape.head_dim) } else { None }
    }

    /// The format of heads that are projected in `of`.
    pub(crate) fn format(&self, of: DType) -> DType {
        if self.keeps_format { of } else { DType::F32 }
    }

    /// The blocks of a sequence of `length` tokens.
    fn blocks(&self, length: usize) -> Vec<Block> {
        let fit = self.scores / (self.shape.heads * length.max(1));
        let step = fit.clamp(self.block.0, self.block.1);
        (0..length).step_by(step).map(|first| Block { first, count: step.min(length - first) }).collect()
    }

    /// `q` `[tokens, heads, head_dim]`, `k` and `v` `[tokens, kv_heads, head_dim]`, f32 with positions already turned in;
    /// sequence `i` takes rows `offsets[i]..offsets[i + 1]`.
    pub(crate) fn forward(&self, q: &Tensor, k: &Tensor, v: &Tensor, offsets: &[usize]) -> Result<Attended> {
        if let Some(kernels) = self.kernels(q) {
            let (output, log_sums) = kernels.attention((q, k, v), offsets, self.scale())?;
            return Ok(Attended { output, log_sums: vec![log_sums] });
        }
        let (mut outputs, mut log_sums) = (Vec::new(), Vec::new());
        for (start, length) in sequences(offsets) {
            let (q, k, v) =
                (q.narrow(0, start, length)?, heads_first(k, start, length)?, heads_first(v, start, length)?);
            for block in self.blocks(length) {
                let (output, log_sum) = self.forward_block(&self.queries(&q, block)?, &k, &v, block)?;
                outputs.push(self.tokens_first(&output, block.count)?);
                log_sums.push(log_sum);
            }
        }
        Ok(Attended { output: Tensor::cat(&outputs, 0)?, log_sums })
    }

    /// The gradients of `q`, `k` and `v` from that of the output.
    pub(super) fn backward(
        &self,
        (q, k, v): (&Tensor, &Tensor, &Tensor),
        attended: &Attended,
        d_output: &Tensor,
        offsets: &[usize],
    ) -> Result<(Tensor, Tensor, Tensor)> {
        if let (Some(kernels), [log_sums]) = (self.kernels(q), attended.log_sums.as_slice()) {
            let kept = (&attended.output, log_sums);
            return kernels.attention_backward((q, k, v), kept, d_output, offsets, self.scale());
        }
        // Softmax backward needs Σ p dp of every query, which is output · d_output.
        let along = (&attended.output * d_output)?.sum_keepdim(D::Minus1)?;
        let (mut dq, mut dk, mut dv) = (Vec::new(), Vec::new(), Vec::new());
        let mut log_sums = attended.log_sums.iter();
        for (start, length) in sequences(offsets) {
            let of = |tensor: &Tensor| tensor.narrow(0, start, length);
            let (q, k, v) = (of(q)?, heads_first(k, start, length)?, heads_first(v, start, length)?);
            let (along, d_output) = (of(&along)?, of(d_output)?);
            let blocks = self.blocks(length);
            let sums: Vec<&Tensor> = log_sums.by_ref().take(blocks.len()).collect();
            let mut keys = KeyGradients::default();
            let mut of_sequence = Vec::with_capacity(blocks.len());
            // From the last block to the first: what later blocks say about a key is complete when its own is reached.
            for (&block, log_sum) in blocks.iter().zip(sums).rev() {
                let inputs = BlockGradient {
                    q: self.queries(&q, block)?,
                    d_output: self.queries(&d_output, block)?,
                    along: self.queries(&along, block)?,
                    log_sum,
                };
                let d_block = self.backward_block(&inputs, &k, &v, block, &mut keys)?;
                of_sequence.push(self.tokens_first(&d_block, block.count)?);
            }
            dq.extend(of_sequence.into_iter().rev());
            let (of_keys, of_values) = keys.finish()?;
            dk.push(of_keys);
            dv.push(of_values);
        }
        Ok((Tensor::cat(&dq, 0)?, Tensor::cat(&dk, 0)?, Tensor::cat(&dv, 0)?))
    }

    /// Rows of a block with the heads of a group below each other: `[length, heads, width]` to
    /// `[kv_heads, group * count, width]`.
    fn queries(&self, x: &Tensor, block: Block) -> Result<Tensor> {
        let HeadShape { heads, kv_heads, .. } = self.shape;
        let width = x.dim(2)?;
        let rows = x.narrow(0, block.first, block.count)?.reshape((block.count, kv_heads, heads / kv_heads, width))?;
        Ok(rows.permute((1, 2, 0, 3))?.contiguous()?.reshape((kv_heads, heads / kv_heads * block.count, width))?)
    }

    /// The way back: `[kv_heads, group * count, head_dim]` to `[count, heads, head_dim]`.
    fn tokens_first(&self, x: &Tensor, count: usize) -> Result<Tensor> {
        let HeadShape { heads, kv_heads, head_dim } = self.shape;
        let rows = x.reshape((kv_heads, heads / kv_heads, count, head_dim))?;
        Ok(rows.permute((2, 0, 1, 3))?.contiguous()?.reshape((count, heads, head_dim))?)
    }

    /// Scores of a block against the keys before it (none at the start of a sequence) and against its own.
    fn scores(&self, q: &Tensor, k: &Tensor, block: Block) -> Result<(Option<Tensor>, Tensor)> {
        let q = (q * self.scale())?;
        let against = |first: usize, count: usize| q.matmul(&k.narrow(1, first, count)?.t()?);
        let past = if block.first == 0 { None } else { Some(against(0, block.first)?) };
        let own = against(block.first, block.count)?;
        let (kv_heads, rows, count) = own.dims3()?;
        let stacked = own.reshape((kv_heads * rows / count, count, count))?;
        let masked = stacked.broadcast_add(&mask(count, q.device())?)?;
        Ok((past, masked.reshape((kv_heads, rows, count))?))
    }

    fn forward_block(&self, q: &Tensor, k: &Tensor, v: &Tensor, block: Block) -> Result<(Tensor, Tensor)> {
        let (past, own) = self.scores(q, k, block)?;
        let mut largest = own.max_keepdim(D::Minus1)?;
        if let Some(past) = &past {
            largest = largest.maximum(&past.max_keepdim(D::Minus1)?)?;
        }
        let own = own.broadcast_sub(&largest)?.exp()?;
        let mut sum = own.sum_keepdim(D::Minus1)?;
        let mut output = own.matmul(&v.narrow(1, block.first, block.count)?)?;
        if let Some(past) = past {
            let past = past.broadcast_sub(&largest)?.exp()?;
            sum = (sum + past.sum_keepdim(D::Minus1)?)?;
            output = (output + past.matmul(&v.narrow(1, 0, block.first)?)?)?;
        }
        Ok((output.broadcast_div(&sum)?, (largest + sum.log()?)?))
    }

    fn backward_block(
        &self,
        inputs: &BlockGradient<'_>,
        k: &Tensor,
        v: &Tensor,
        block: Block,
        keys: &mut KeyGradients,
    ) -> Result<Tensor> {
        let (past, own) = self.scores(&inputs.q, k, block)?;
        let (own_k, own_v) = (k.narrow(1, block.first, block.count)?, v.narrow(1, block.first, block.count)?);
        let own = inputs.through(own, &own_k, &own_v, self.scale())?;
        let Some(past) = past else {
            keys.finish_block(block, None, own.dk, own.dv)?;
            return Ok(own.dq);
        };
        let (past_k, past_v) = (k.narrow(1, 0, block.first)?, v.narrow(1, 0, block.first)?);
        let past = inputs.through(past, &past_k, &past_v, self.scale())?;
        keys.finish_block(block, Some((past.dk, past.dv)), own.dk, own.dv)?;
        Ok((own.dq + past.dq)?)
    }
}

/// What the backward pass of a block needs of its queries; all `[kv_heads, group * count, …]`.
struct BlockGradient<'a> {
    q: Tensor,
    d_output: Tensor,
    /// output · d_output.
    along: Tensor,
    log_sum: &'a Tensor,
}

/// Gradients from one part of a block's scores.
struct PartGradient {
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
}

impl BlockGradient<'_> {
    fn through(&self, scores: Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<PartGradient> {
        let p = scores.broadcast_sub(self.log_sum)?.exp()?;
        drop(scores);
        let dv = p.t()?.matmul(&self.d_output)?;
        let dp = self.d_output.matmul(&v.t()?)?;
        let ds = ((dp.broadcast_sub(&self.along)? * p)? * scale)?;
        Ok(PartGradient { dq: ds.matmul(k)?, dk: ds.t()?.matmul(&self.q)?, dv })
    }
}

/// Gradients of the keys and values of one sequence, from its end to its beginning.
#[derive(Default)]
struct KeyGradients {
    /// What later blocks said of the keys that are not finished; `[kv_heads, keys, head_dim]`.
    open: Option<(Tensor, Tensor)>,
    /// Finished blocks, the last first.
    dk: Vec<Tensor>,
    dv: Vec<Tensor>,
}

impl KeyGradients {
    /// Adds what a block says of its own keys and of those before it.
    fn finish_block(&mut self, block: Block, past: Option<(Tensor, Tensor)>, dk: Tensor, dv: Tensor) -> Result<()> {
        let (mut dk, mut dv) = (dk, dv);
        let mut earlier = past;
        if let Some((open_k, open_v)) = self.open.take() {
            dk = (dk + open_k.narrow(1, block.first, block.count)?)?;
            dv = (dv + open_v.narrow(1, block.first, block.count)?)?;
            if let Some((past_k, past_v)) = earlier {
                let sum = |past: Tensor, open: &Tensor| past + open.narrow(1, 0, block.first)?;
                earlier = Some((sum(past_k, &open_k)?, sum(past_v, &open_v)?));
            }
        }
        self.open = earlier;
        self.dk.push(dk);
        self.dv.push(dv);
        Ok(())
    }

    /// The gradients, `[length, kv_heads, head_dim]` each.
    fn finish(mut self) -> Result<(Tensor, Tensor)> {
        self.dk.reverse();
        self.dv.reverse();
        let join = |blocks: &[Tensor]| Tensor::cat(blocks, 1)?.transpose(0, 1)?.contiguous();
        Ok((join(&self.dk)?, join(&self.dv)?))
    }
}

/// Starts and lengths of the sequences that hold a token.
fn sequences(offsets: &[usize]) -> impl Iterator<Item = (usize, usize)> + '_ {
    offsets.windows(2).filter(|pair| pair[1] > pair[0]).map(|pair| (pair[0], pair[1] - pair[0]))
}

/// Rows of one sequence, `[tokens, kv_heads, head_dim]` to `[kv_heads, length, head_dim]`.
fn heads_first(x: &Tensor, start: usize, length: usize) -> Result<Tensor> {
    Ok(x.narrow(0, start, length)?.transpose(0, 1)?.contiguous()?)
}

/// 0 where a query may look, -∞ where it may not; `[1, count, count]`.
fn mask(count: usize, device: &candle_core::Device) -> candle_core::Result<Tensor> {
    let position = Tensor::arange(0u32, count as u32, device)?;
    let later = position.unsqueeze(0)?.broadcast_gt(&position.unsqueeze(1)?)?;
    let closed = Tensor::full(f32::NEG_INFINITY, (count, count), device)?;
    let open = Tensor::zeros((count, count), DType::F32, device)?;
    later.where_cond(&closed, &open)?.unsqueeze(0)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::super::pointwise::RotaryTables;
    use super::super::test_support::near;
    use super::*;
    use crate::model::ops::test_support::wave;
    use crate::model::ops::{Rotary, causal_attention};

    const SHAPE: HeadShape = HeadShape { heads: 6, kv_heads: 2, head_dim: 8 };

    /// Value and gradient of this file's attention over packed `[queries | keys | values]` rows.
    fn in_blocks(attention: CausalAttention, qkv: &Tensor, d_output: &Tensor, offsets: &[usize]) -> (Tensor, Tensor) {
        let tokens = qkv.dim(0).unwrap();
        let rotary = RotaryTables::new(&Rotary::new(8, 256, 10_000.0, None), &Device::Cpu).unwrap();
        let positions: Vec<u32> = offsets.windows(2).flat_map(|pair| 0..(pair[1] - pair[0]) as u32).collect();
        let turns = rotary.at(&Tensor::new(positions, &Device::Cpu).unwrap()).unwrap();
        let part = |first: usize, heads: usize| {
            qkv.narrow(1, first * 8, heads * 8).unwrap().reshape((tokens, heads, 8)).unwrap()
        };
        let (q, k) = (turns.apply(&part(0, 6)).unwrap(), turns.apply(&part(6, 2)).unwrap());
        let v = part(8, 2);
        let attended = attention.forward(&q, &k, &v, offsets).unwrap();
        let d_output = d_output.reshape((tokens, 6, 8)).unwrap();
        let (dq, dk, dv) = attention.backward((&q, &k, &v), &attended, &d_output, offsets).unwrap();
        let flat = |x: &Tensor| x.reshape((tokens, ())).unwrap();
        let (dq, dk) = (turns.back(&dq).unwrap(), turns.back(&dk).unwrap());
        (flat(&attended.output), Tensor::cat(&[flat(&dq), flat(&dk), flat(&dv)], 1).unwrap())
    }

    #[test]
    fn every_division_into_blocks_is_the_fused_operation() {
        // Lengths that blocks divide and do not divide, one of a single token, one empty.
        let offsets = [0, 70, 71, 71, 135, 209];
        let qkv = (wave(&[209, SHAPE.qkv_width()], 0.0) * 2.0).unwrap();
        let d_output = wave(&[209, SHAPE.output_width()], 0.4);
        let var = Var::from_tensor(&qkv).unwrap();
        let y = causal_attention(&var, SHAPE, &offsets, &Rotary::new(8, 256, 10_000.0, None)).unwrap();
        let gradients = (&y * &d_output).unwrap().sum_all().unwrap().backward().unwrap();
        for block in [1, 7, 16, 35, 64, 1000] {
            let attention = CausalAttention { shape: SHAPE, scores: 1, block: (block, block), keeps_format: false };
            let (output, d_qkv) = in_blocks(attention, &qkv, &d_output, &offsets);
            near(&output, &y, 5e-6);
            near(&d_qkv, gradients.get(&var).unwrap(), 1e-5);
        }
    }

    #[test]
    fn blocks_keep_within_their_scores() {
        let attention = CausalAttention::new(HeadShape { heads: 28, kv_heads: 4, head_dim: 128 });
        for length in [1, 100, 4000, 16_384, 131_072] {
            let blocks = attention.blocks(length);
            assert_eq!(blocks.iter().map(|block| block.count).sum::<usize>(), length);
            let largest = blocks.iter().map(|block| 28 * block.count * length).max().unwrap();
            assert!(largest <= SCORES_AT_A_TIME || blocks[0].count == BLOCK.0, "{length}: {largest}");
        }
    }
}
