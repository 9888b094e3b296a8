//! A decoder that is run layer by layer, for models whose graph would not fit into memory.
//!
//! The forward pass keeps the input of each layer and the result of its attention; the backward pass goes from the last
//! layer to the first, works the rest of each one out anew and differentiates it by hand. Adapters stand beside their
//! weights, attention and the output layer work in pieces. Everything is made of tensor operations that every device has,
//! on tensors without a graph. The same mathematics as [`super::Decoder`]'s, which the tests compare it with.

mod attention;
mod block;
mod head;
mod head_norms;
mod linear;
mod pointwise;
mod product;
#[cfg(test)]
mod test_support;
mod weight;

use candle_core::{DType, Device, Tensor, Var};

pub(crate) use attention::CausalAttention;
pub(crate) use block::{Block, Heads, Pass};
pub use head::TokenScores;
pub use linear::Adapter;
pub use weight::{GradientSink, Weight};

use self::head::Head;
use self::head_norms::HeadNorms;
use self::linear::Linear;
use self::pointwise::{Norm, RotaryTables, Turns};
use super::config::ModelConfig;
use super::decoder::Packed;
use super::ops::Rotary;
use crate::compute::kernels::Kernels;
use crate::{Error, Result};

/// A decoder whose tensors are views of a policy's weights.
#[derive(Debug, Clone)]
pub struct Layered {
    config: ModelConfig,
    rotary: RotaryTables,
    embedding: Weight,
    blocks: Vec<Block>,
    final_norm: Norm,
    head: Weight,
}

/// The tokens of a batch that something is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// Rows of the batch whose next token is asked about, each at most once.
    pub rows: &'a [u32],
    /// Those next tokens, one a row.
    pub ids: &'a [u32],
    /// Logits are divided by it.
    pub temperature: f64,
}

impl Layered {
    /// Assembles a decoder from what `weight` and `adapter` return for Hugging Face names of weights.
    ///
    /// # Errors
    /// Whatever `weight` fails with; [`Error::Tensor`] when the device has no room for the rotary tables.
    pub fn new(
        config: &ModelConfig,
        rotary: &Rotary,
        mut weight: impl FnMut(&str) -> Result<Weight>,
        mut adapter: impl FnMut(&str) -> Option<Adapter>,
    ) -> Result<Self> {
        let epsilon = config.rms_norm_eps;
        let embedding = weight("model.embed_tokens.weight")?;
        let blocks = (0..config.num_hidden_layers)
            .map(|layer| {
                let mut linear = |name: &str, has_bias: bool| {
                    let name = format!("model.layers.{layer}.{name}");
                    let bias = if has_bias { Some(weight(&format!("{name}.bias"))?) } else { None };
                    let name = format!("{name}.weight");
                    Ok::<_, Error>(Linear { weight: weight(&name)?, bias, adapter: adapter(&name) })
                };
                let biased = config.architecture.has_biases();
                let (q, k) = (linear("self_attn.q_proj", biased)?, linear("self_attn.k_proj", biased)?);
                let (v, output) = (linear("self_attn.v_proj", biased)?, linear("self_attn.o_proj", false)?);
                let (gate, up) = (linear("mlp.gate_proj", false)?, linear("mlp.up_proj", false)?);
                let down = linear("mlp.down_proj", false)?;
                let mut norm = |name: &str| {
                    let weight = weight(&format!("model.layers.{layer}.{name}.weight"))?;
                    Ok::<_, Error>(Norm { weight, epsilon })
                };
                let (input_norm, post_attention_norm) = (norm("input_layernorm")?, norm("post_attention_layernorm")?);
                let head_norms = match config.architecture.has_head_norms() {
                    true => Some(HeadNorms { query: norm("self_attn.q_norm")?, key: norm("self_attn.k_norm")? }),
                    false => None,
                };
                Ok(Block { input_norm, q, k, v, head_norms, output, post_attention_norm, gate, up, down })
            })
            .collect::<Result<Vec<_>>>()?;
        let final_norm = Norm { weight: weight("model.norm.weight")?, epsilon };
        let head = if config.tie_word_embeddings { embedding.clone() } else { weight("lm_head.weight")? };
        let rotary = RotaryTables::new(rotary, embedding.tensor.device())?;
        Ok(Self { config: config.clone(), rotary, embedding, blocks, final_norm, head })
    }

    /// The model as it is now with small tensors in the formats that they are used in: for thousands of passes over few
    /// tokens, where a conversion costs as much as a product. Large weights are shared; nothing of it can be trained.
    pub(crate) fn settled(&self) -> Result<Self> {
        Ok(Self {
            blocks: self.blocks.iter().map(Block::settled).collect::<Result<_>>()?,
            final_norm: self.final_norm.settled()?,
            ..self.clone()
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.embedding.tensor.device()
    }

    /// The format of weights and activations.
    pub fn dtype(&self) -> DType {
        self.embedding.tensor.dtype()
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(crate) fn attention(&self) -> CausalAttention {
        let attention = CausalAttention::new(self.config.head_shape());
        match Kernels::attending(&self.embedding.tensor, self.config.head_dim) {
            Some(_) => attention.keeping_format(),
            None => attention,
        }
    }

    pub(crate) fn turns(&self, positions: &[u32]) -> Result<Turns> {
        self.turns_at(&Tensor::new(positions, self.device())?)
    }

    /// The same for positions on the device, u32 `[tokens]`.
    pub(crate) fn turns_at(&self, positions: &Tensor) -> Result<Turns> {
        self.rotary.at(positions)
    }

    /// The pass of a batch: its sequences and their positions.
    pub(crate) fn pass<'a>(&self, batch: &'a Packed) -> Result<Pass<'a>> {
        let context = self.config.max_position_embeddings;
        if let Some(length) = batch.lengths().find(|&length| length > context) {
            return Err(Error::config(format!("sequence of {length} tokens in a context of {context}")));
        }
        let positions: Vec<u32> = batch.lengths().flat_map(|length| 0..length as u32).collect();
        Ok(Pass { attention: self.attention(), offsets: &batch.offsets, turns: self.turns(&positions)? })
    }

    /// Rows of the embedding, `[ids.len(), hidden]`.
    pub(crate) fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.config.vocab_size) {
            return Err(Error::config(format!("token id {id} outside the vocabulary of {}", self.config.vocab_size)));
        }
        self.embed_at(&Tensor::new(ids, self.device())?)
    }

    /// The same for ids of the vocabulary on the device, u32 `[ids]`.
    pub(crate) fn embed_at(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(self.embedding.tensor.index_select(ids, 0)?)
    }

    /// The output layer in a format whose logits are f32, for [`Layered::logits`]: rounding logits to half precision would
    /// show in every draw.
    pub(crate) fn wide_head(&self) -> Result<Tensor> {
        match Kernels::in_half(&self.head.tensor, 8) {
            Some(_) => Ok(self.head.tensor.clone()),
            None => Ok(self.head.tensor.to_dtype(DType::F32)?),
        }
    }

    /// Logits of hidden states before the final norm, `[rows, hidden]` to f32 `[rows, vocabulary]`.
    pub(crate) fn logits(&self, x: &Tensor, wide_head: &Tensor) -> Result<Tensor> {
        let h = self.final_norm.forward(x)?;
        match Kernels::in_half(wide_head, 8) {
            Some(kernels) => kernels.product(&h, &wide_head.t()?, 1.0, DType::F32),
            None => Ok(h.to_dtype(DType::F32)?.matmul(&wide_head.t()?)?),
        }
    }

    /// The logits of bf16 hidden states into f32 `logits` `[rows, vocabulary]`.
    pub(crate) fn logits_into(&self, kernels: &Kernels, x: &Tensor, logits: &Tensor) -> Result<()> {
        kernels.product_into(logits, &self.final_norm.forward(x)?, &self.head.tensor.t()?)
    }

    /// Log-probabilities and entropy of `targets`, without gradients.
    ///
    /// # Errors
    /// [`Error::Config`] for an id outside the vocabulary or a sequence longer than the context; [`Error::Tensor`] when the
    /// device runs out of memory.
    pub fn score(&self, batch: &Packed, targets: Targets<'_>) -> Result<TokenScores> {
        let pass = self.pass(batch)?;
        let mut x = self.embed(&batch.ids)?;
        for block in &self.blocks {
            x = block.forward(&x, &pass)?;
        }
        let h = self.final_norm.forward(&self.rows(&x, targets.rows)?)?;
        Head::new(&self.head, targets.temperature).scores(&h, targets.ids)
    }

    /// Runs a batch forward and backward: `loss` makes a scalar of the log-probabilities of `targets` (a variable of shape
    /// `[targets]`), and the gradient of that scalar goes to `sink`, parameter by parameter. A parameter that is used twice
    /// (a tied output layer) comes twice.
    ///
    /// # Errors
    /// As [`Layered::score`], and whatever `loss` and `sink` fail with.
    pub fn learn<S>(
        &self,
        batch: &Packed,
        targets: Targets<'_>,
        loss: impl FnOnce(&Tensor) -> Result<(Tensor, S)>,
        sink: &mut GradientSink<'_>,
    ) -> Result<S> {
        let pass = self.pass(batch)?;
        let mut kept = Vec::with_capacity(self.blocks.len());
        let mut x = self.embed(&batch.ids)?;
        for block in &self.blocks {
            let (y, attended) = block.forward_attended(&x, &pass)?;
            kept.push((std::mem::replace(&mut x, y), attended));
        }
        let picked = self.rows(&x, targets.rows)?;
        drop(x);
        let h = self.final_norm.forward(&picked)?;
        let head = Head::new(&self.head, targets.temperature);
        let scores = head.scores(&h, targets.ids)?;
        let logprobs = Var::from_tensor(&scores.logprobs)?;
        let (loss, result) = loss(logprobs.as_tensor())?;
        let d_logprobs = match loss.backward()?.remove(&logprobs) {
            Some(gradient) => gradient.detach(),
            None => return Err(Error::config("the loss does not depend on the log-probabilities")),
        };
        let dh = head.backward(&h, targets.ids, &scores.log_sums, &d_logprobs, sink)?;
        let d_picked = self.final_norm.backward(&picked, &dh, sink)?;
        let mut dx = spread(&d_picked, targets.rows, batch.ids.len())?;
        for (block, (input, attended)) in self.blocks.iter().zip(kept).rev() {
            dx = block.backward((&input, &attended), &dx, &pass, sink)?;
        }
        weight::give(&self.embedding, sink, || {
            let ids = Tensor::new(batch.ids.as_slice(), dx.device())?;
            let zeros = Tensor::zeros(self.embedding.tensor.shape(), DType::F32, dx.device())?;
            Ok(zeros.index_add(&ids, &dx.to_dtype(DType::F32)?, 0)?)
        })?;
        Ok(result)
    }

    fn rows(&self, x: &Tensor, rows: &[u32]) -> Result<Tensor> {
        Ok(x.index_select(&Tensor::new(rows, x.device())?, 0)?)
    }
}

/// The gradient of all `tokens` rows from that of some of them, zero elsewhere.
fn spread(picked: &Tensor, rows: &[u32], tokens: usize) -> Result<Tensor> {
    // Looked up from the other side: adding rows up is slow on a GPU, and each is wanted once.
    let mut from = vec![rows.len() as u32; tokens];
    for (index, &row) in rows.iter().enumerate() {
        from[row as usize] = index as u32;
    }
    let zero = picked.narrow(0, 0, 1)?.zeros_like()?;
    Ok(Tensor::cat(&[picked, &zero], 0)?.index_select(&Tensor::new(from, picked.device())?, 0)?)
}

#[cfg(test)]
mod tests;
