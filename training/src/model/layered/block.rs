//! One decoder layer, forward and backward; the backward pass begins with the layer's input and what its attention gave,
//! which is dear to make anew where sequences are long, and works everything else out again.

use candle_core::Tensor;

use super::attention::{Attended, CausalAttention};
use super::head_norms::HeadNorms;
use super::linear::Linear;
use super::pointwise::{Norm, Turns, gated, gated_backward};
use super::weight::GradientSink;
use crate::Result;

/// A decoder layer.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(super) input_norm: Norm,
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) head_norms: Option<HeadNorms>,
    pub(super) output: Linear,
    pub(super) post_attention_norm: Norm,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

/// What all layers of one pass share.
pub(crate) struct Pass<'a> {
    pub(crate) attention: CausalAttention,
    /// Sequence `i` takes rows `offsets[i]..offsets[i + 1]`.
    pub(crate) offsets: &'a [usize],
    pub(crate) turns: Turns,
}

/// Queries, keys and values of some tokens, positions turned in: `[tokens, heads, head_dim]`, in the attention's format.
pub(crate) struct Heads {
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
}

impl Block {
    /// The layer as it is now, in the formats it is used in.
    pub(super) fn settled(&self) -> Result<Self> {
        Ok(Self {
            input_norm: self.input_norm.settled()?,
            q: self.q.settled()?,
            k: self.k.settled()?,
            v: self.v.settled()?,
            head_norms: self.head_norms.as_ref().map(HeadNorms::settled).transpose()?,
            output: self.output.settled()?,
            post_attention_norm: self.post_attention_norm.settled()?,
            gate: self.gate.settled()?,
            up: self.up.settled()?,
            down: self.down.settled()?,
        })
    }

    /// `x` `[tokens, hidden]` to the same shape.
    pub(crate) fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        Ok(self.forward_keeping(x, pass)?.0)
    }

    /// The same, and what a cache keeps of these tokens.
    pub(crate) fn forward_keeping(&self, x: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, Heads)> {
        let (heads, attended) = self.attend(x, pass)?;
        Ok((self.finish(x, &attended.output)?, heads))
    }

    /// The same, and what the backward pass needs beside `x`.
    pub(super) fn forward_attended(&self, x: &Tensor, pass: &Pass<'_>) -> Result<(Tensor, Attended)> {
        let (_, attended) = self.attend(x, pass)?;
        Ok((self.finish(x, &attended.output)?, attended))
    }

    fn attend(&self, x: &Tensor, pass: &Pass<'_>) -> Result<(Heads, Attended)> {
        let heads = self.project(x, &pass.attention, &pass.turns)?;
        let attended = pass.attention.forward(&heads.q, &heads.k, &heads.v, pass.offsets)?;
        Ok((heads, attended))
    }

    /// Queries, keys and values as the projections give them; `normed` has gone through the norm.
    fn projected(&self, normed: &Tensor, attention: &CausalAttention) -> Result<Heads> {
        let split = |x: Tensor, heads: usize| {
            x.reshape((x.dim(0)?, heads, attention.shape.head_dim))?.to_dtype(attention.format(x.dtype()))
        };
        let (heads, kv_heads) = (attention.shape.heads, attention.shape.kv_heads);
        Ok(Heads {
            q: split(self.q.forward(normed)?, heads)?,
            k: split(self.k.forward(normed)?, kv_heads)?,
            v: split(self.v.forward(normed)?, kv_heads)?,
        })
    }

    /// Queries and keys through their norms, where there are some, with positions turned in.
    fn placed(&self, Heads { q, k, v }: &Heads, turns: &Turns) -> Result<Heads> {
        let (q, k) = match &self.head_norms {
            Some(norms) => norms.forward(q, k)?,
            None => (q.clone(), k.clone()),
        };
        Ok(Heads { q: turns.apply(&q)?, k: turns.apply(&k)?, v: v.clone() })
    }

    /// Queries, keys and values of `x` `[tokens, hidden]`.
    pub(crate) fn project(&self, x: &Tensor, attention: &CausalAttention, turns: &Turns) -> Result<Heads> {
        self.placed(&self.projected(&self.input_norm.forward(x)?, attention)?, turns)
    }

    /// The part after attention: `attended` is `[tokens, heads, head_dim]` in any format.
    pub(crate) fn finish(&self, x: &Tensor, attended: &Tensor) -> Result<Tensor> {
        let middle = self.attended(x, &flat_like(attended, x)?)?;
        let normed = self.post_attention_norm.forward(&middle)?;
        let active = gated(&self.gate.forward(&normed)?, &self.up.forward(&normed)?)?;
        Ok((middle + self.down.forward(&active)?)?)
    }

    fn attended(&self, x: &Tensor, attended: &Tensor) -> Result<Tensor> {
        Ok((x + self.output.forward(attended)?)?)
    }

    /// The gradient of `x` from that of the result; everything in between but `attended` is worked out anew.
    pub(super) fn backward(
        &self,
        (x, attended): (&Tensor, &Attended),
        dy: &Tensor,
        pass: &Pass<'_>,
        sink: &mut GradientSink<'_>,
    ) -> Result<Tensor> {
        let flat = flat_like(&attended.output, x)?;
        let d_middle = self.feed_forward_backward(&self.attended(x, &flat)?, dy, sink)?;
        let d_attended = self.output.backward(&flat, &d_middle, None, sink)?;
        drop(flat);
        let normed = self.input_norm.forward(x)?;
        let d_normed = self.attention_backward(&normed, attended, &d_attended, pass, sink)?;
        Ok((d_middle + self.input_norm.backward(x, &d_normed, sink)?)?)
    }

    fn feed_forward_backward(&self, middle: &Tensor, dy: &Tensor, sink: &mut GradientSink<'_>) -> Result<Tensor> {
        let normed = self.post_attention_norm.forward(middle)?;
        let (gate, up) = (self.gate.forward(&normed)?, self.up.forward(&normed)?);
        let d_active = self.down.backward(&gated(&gate, &up)?, dy, None, sink)?;
        let (d_gate, d_up) = gated_backward(&gate, &up, &d_active)?;
        drop((gate, up, d_active));
        let d_normed = self.gate.backward(&normed, &d_gate, None, sink)?;
        let d_normed = self.up.backward(&normed, &d_up, Some(d_normed), sink)?;
        Ok((dy + self.post_attention_norm.backward(middle, &d_normed, sink)?)?)
    }

    fn attention_backward(
        &self,
        normed: &Tensor,
        attended: &Attended,
        d_attended: &Tensor,
        pass: &Pass<'_>,
        sink: &mut GradientSink<'_>,
    ) -> Result<Tensor> {
        let d_attended = d_attended.to_dtype(attended.output.dtype())?.reshape(attended.output.shape())?;
        let projected = self.projected(normed, &pass.attention)?;
        let Heads { q, k, v } = self.placed(&projected, &pass.turns)?;
        // Without norms nobody asks for what the projections gave.
        let before_norms = self.head_norms.as_ref().map(|norms| (norms, projected));
        let (dq, dk, dv) = pass.attention.backward((&q, &k, &v), attended, &d_attended, pass.offsets)?;
        drop((q, k, v));
        let (mut dq, mut dk) = (pass.turns.back(&dq)?, pass.turns.back(&dk)?);
        if let Some((norms, Heads { q, k, .. })) = &before_norms {
            (dq, dk) = norms.backward((q, k), (&dq, &dk), sink)?;
        }
        let sum = self.q.backward(normed, &flat_like(&dq, normed)?, None, sink)?;
        let sum = self.k.backward(normed, &flat_like(&dk, normed)?, Some(sum), sink)?;
        self.v.backward(normed, &flat_like(&dv, normed)?, Some(sum), sink)
    }
}

/// `[tokens, heads, head_dim]` as `[tokens, heads * head_dim]` in the format of `like`.
fn flat_like(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    Ok(x.flatten_from(1)?.to_dtype(like.dtype())?)
}
