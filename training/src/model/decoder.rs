//! The forward pass: packed token ids to hidden states to logits.

use candle_core::{Device, Tensor};

use super::config::ModelConfig;
use super::ops::{self, HeadShape, Rotary};
use crate::{Error, Result};

/// Sequences laid end to end, so that no token of a batch is padding.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    /// Token ids of all sequences, one after the other.
    pub ids: Vec<u32>,
    /// Sequence `i` is `ids[offsets[i]..offsets[i + 1]]`.
    pub offsets: Vec<usize>,
}

impl Packed {
    /// Packs `sequences` in order.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut packed = Self { ids: Vec::new(), offsets: vec![0] };
        for sequence in sequences {
            packed.ids.extend_from_slice(sequence);
            packed.offsets.push(packed.ids.len());
        }
        packed
    }

    /// Tokens of each sequence.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.offsets.windows(2).map(|pair| pair[1] - pair[0])
    }
}

/// A matrix that multiplies from the right, with the bias it may have.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// `[out, in]`.
    pub(crate) weight: Tensor,
    /// `[out]`.
    pub(crate) bias: Option<Tensor>,
}

/// The norms over every head of queries and keys, `[head_dim]` each.
#[derive(Debug, Clone)]
pub(crate) struct HeadNorms {
    pub(crate) query: Tensor,
    pub(crate) key: Tensor,
}

impl HeadNorms {
    /// `[queries | keys | values]` of some tokens with queries and keys normed, head by head.
    fn apply(&self, qkv: &Tensor, shape: HeadShape, epsilon: f64) -> Result<Tensor> {
        let HeadShape { heads, kv_heads, head_dim } = shape;
        let normed = |first: usize, count: usize, weight: &Tensor| {
            let rows = qkv.narrow(1, first * head_dim, count * head_dim)?.contiguous()?.reshape(((), head_dim))?;
            ops::rms_norm(&rows, weight, epsilon)?.reshape(((), count * head_dim))
        };
        let values = qkv.narrow(1, (heads + kv_heads) * head_dim, kv_heads * head_dim)?;
        Ok(Tensor::cat(&[normed(0, heads, &self.query)?, normed(heads, kv_heads, &self.key)?, values], 1)?)
    }
}

/// One decoder layer; projections that read the same input are stacked.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) input_norm: Tensor,
    /// Queries, keys and values: `[(heads + 2 * kv_heads) * head_dim, hidden]`.
    pub(crate) qkv: Linear,
    pub(crate) head_norms: Option<HeadNorms>,
    pub(crate) output: Linear,
    pub(crate) post_attention_norm: Tensor,
    /// Gate and up: `[2 * intermediate, hidden]`.
    pub(crate) gate_up: Linear,
    pub(crate) down: Linear,
}

/// A decoder over a given set of weights.
///
/// The weights may be variables, constants or results of other operations (a base plus an adapter): gradients flow to
/// whatever they were made of. Building one costs a copy of the stacked projections and nothing else.
#[derive(Debug, Clone)]
pub struct Decoder {
    config: ModelConfig,
    rotary: Rotary,
    pub(crate) embedding: Tensor,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: Tensor,
    pub(crate) head: Tensor,
}

impl Decoder {
    /// Assembles a decoder from the tensors that `weight` returns for their Hugging Face names.
    ///
    /// # Errors
    /// Whatever `weight` fails with; [`Error::Tensor`] when projections of one layer cannot be stacked.
    pub fn new(config: &ModelConfig, rotary: &Rotary, mut weight: impl FnMut(&str) -> Result<Tensor>) -> Result<Self> {
        let embedding = weight("model.embed_tokens.weight")?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| {
                let mut get = |name: &str| weight(&format!("model.layers.{layer}.{name}"));
                let mut stack = |names: &[&str], kind: &str| -> Result<Tensor> {
                    let parts = names.iter().map(|name| get(&format!("{name}.{kind}"))).collect::<Result<Vec<_>>>()?;
                    Ok(Tensor::cat(&parts, 0)?)
                };
                let attention = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
                let architecture = config.architecture;
                let bias = architecture.has_biases().then(|| stack(&attention, "bias")).transpose()?;
                let qkv = Linear { weight: stack(&attention, "weight")?, bias };
                let gate_up = Linear { weight: stack(&["mlp.gate_proj", "mlp.up_proj"], "weight")?, bias: None };
                let head_norms = match architecture.has_head_norms() {
                    true => {
                        Some(HeadNorms { query: get("self_attn.q_norm.weight")?, key: get("self_attn.k_norm.weight")? })
                    }
                    false => None,
                };
                Ok(Layer {
                    input_norm: get("input_layernorm.weight")?,
                    qkv,
                    head_norms,
                    output: Linear { weight: get("self_attn.o_proj.weight")?, bias: None },
                    post_attention_norm: get("post_attention_layernorm.weight")?,
                    gate_up,
                    down: Linear { weight: get("mlp.down_proj.weight")?, bias: None },
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let final_norm = weight("model.norm.weight")?;
        let head = if config.tie_word_embeddings { embedding.clone() } else { weight("lm_head.weight")? };
        Ok(Self { config: config.clone(), rotary: rotary.clone(), embedding, layers, final_norm, head })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(crate) fn rotary(&self) -> &Rotary {
        &self.rotary
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// Hidden states after the final norm, `[tokens, hidden]`; each sequence attends to itself only.
    ///
    /// # Errors
    /// [`Error::Config`] for an id outside the vocabulary or a sequence longer than the context.
    pub fn hidden(&self, batch: &Packed) -> Result<Tensor> {
        if let Some(id) = batch.ids.iter().find(|&&id| id as usize >= self.config.vocab_size) {
            return Err(Error::config(format!("token id {id} outside the vocabulary of {}", self.config.vocab_size)));
        }
        let epsilon = self.config.rms_norm_eps;
        let shape = self.config.head_shape();
        let apply = |linear: &Linear, x: &Tensor| ops::linear(x, &linear.weight, linear.bias.as_ref());
        let ids = Tensor::new(batch.ids.as_slice(), self.device())?;
        let mut x = self.embedding.index_select(&ids, 0)?;
        for layer in &self.layers {
            let mut qkv = apply(&layer.qkv, &ops::rms_norm(&x, &layer.input_norm, epsilon)?)?;
            if let Some(norms) = &layer.head_norms {
                qkv = norms.apply(&qkv, shape, epsilon)?;
            }
            let attention = ops::causal_attention(&qkv, shape, &batch.offsets, &self.rotary)?;
            x = (x + apply(&layer.output, &attention)?)?;
            let gate_up = apply(&layer.gate_up, &ops::rms_norm(&x, &layer.post_attention_norm, epsilon)?)?;
            x = (x + apply(&layer.down, &ops::swiglu(&gate_up)?)?)?;
        }
        Ok(ops::rms_norm(&x, &self.final_norm, epsilon)?)
    }

    /// Logits `[tokens, vocabulary]` of hidden states `[tokens, hidden]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the widths differ.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(hidden, &self.head, None)?)
    }

    /// Logits for the rows of `hidden` that predict something of interest, `[rows.len(), vocabulary]`: a prompt's tokens
    /// need none, and the output layer is a large part of a small model.
    ///
    /// # Errors
    /// [`Error::Tensor`] when a row lies outside `hidden`.
    pub fn logits_at(&self, hidden: &Tensor, rows: &[u32]) -> Result<Tensor> {
        let rows = Tensor::new(rows, hidden.device())?;
        self.logits(&hidden.index_select(&rows, 0)?)
    }
}
