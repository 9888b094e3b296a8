//! A whole Hugging Face folder: configuration, special tokens, weights, and the tokenizer's files beside them.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::config::{ModelConfig, SpecialTokens};
use super::decoder::Decoder;
use super::lora::LoraAdapter;
use super::ops::Rotary;
use super::weights::{Weights, hash_files, read_weights, weight_files, write_weights};
use crate::{Error, Result, files};

/// Files of a folder that say how text becomes tokens.
const TOKENIZER_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

/// A model as it lies in a folder.
#[derive(Debug, Clone)]
pub struct Pretrained {
    /// The decoder's shape.
    pub config: ModelConfig,
    /// End-of-sequence and friends.
    pub tokens: SpecialTokens,
    /// Every weight.
    pub weights: Weights,
}

impl Pretrained {
    /// Reads `folder`, converting weights to `dtype` on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] when there is no such folder, otherwise as the readers of its parts.
    pub fn load(folder: &Path, dtype: DType, device: &Device) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::config(format!(
                "no model folder at `{}`; expected a Hugging Face folder with config.json and model.safetensors",
                folder.display()
            )));
        }
        let config = ModelConfig::read(folder)?;
        let tokens = SpecialTokens::read(folder)?;
        let weights = read_weights(folder, &config, dtype, device)?;
        Ok(Self { config, tokens, weights })
    }

    /// A model with random weights: normal with standard deviation 0.02 for the embedding and `1 / sqrt(in)` for the
    /// linear layers, residual outputs scaled down by the depth (GPT-2's rule), norms one, biases zero.
    ///
    /// # Errors
    /// [`Error::Tensor`] when a tensor cannot be made on `device`.
    pub fn random(config: ModelConfig, tokens: SpecialTokens, rng: &mut ChaCha8Rng, device: &Device) -> Result<Self> {
        let residual = 1.0 / (2.0 * config.num_hidden_layers as f32).sqrt();
        let mut weights = Weights::new();
        for (name, shape) in config.tensors() {
            let count = shape.iter().product();
            let values = if name.ends_with("norm.weight") {
                vec![1f32; count]
            } else if name.ends_with(".bias") {
                vec![0f32; count]
            } else {
                let scale = if name.ends_with("embed_tokens.weight") {
                    0.02
                } else {
                    let depth = if name.contains("o_proj") || name.contains("down_proj") { residual } else { 1.0 };
                    depth / (shape[1] as f32).sqrt()
                };
                (0..count).map(|_| standard_normal(rng) * scale).collect()
            };
            weights.insert(name, Tensor::from_vec(values, shape, device)?);
        }
        Ok(Self { config, tokens, weights })
    }

    /// A decoder over these weights as constants.
    ///
    /// # Errors
    /// [`Error::Config`] when a weight is missing.
    pub fn decoder(&self) -> Result<Decoder> {
        Decoder::new(&self.config, &self.rotary(), |name| self.weight(name))
    }

    /// A decoder over these weights with `adapter` folded in, as constants.
    ///
    /// # Errors
    /// [`Error::Config`] when a weight is missing, [`Error::Tensor`] when the adapter does not fit its weight.
    pub fn with_adapter(&self, adapter: &LoraAdapter) -> Result<Decoder> {
        Decoder::new(&self.config, &self.rotary(), |name| adapter.fold(name, &self.weight(name)?))
    }

    pub(crate) fn rotary(&self) -> Rotary {
        Rotary::new(self.config.head_dim, self.config.max_position_embeddings, self.config.rope_theta)
    }

    pub(crate) fn weight(&self, name: &str) -> Result<Tensor> {
        self.weights.get(name).cloned().ok_or_else(|| Error::config(format!("the model has no weight `{name}`")))
    }

    /// Writes configuration and weights into `folder`, weights last: a folder without them is not taken for a model.
    ///
    /// # Errors
    /// [`Error::Io`] when something cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let dtype = match self.weights.values().next().map(Tensor::dtype) {
            Some(DType::BF16) => "bfloat16",
            Some(DType::F16) => "float16",
            _ => "float32",
        };
        self.config.write(folder, &self.tokens, dtype)?;
        self.tokens.write_generation_config(folder)?;
        write_weights(folder, &self.weights)
    }
}

/// SHA-256 of the weight files of `folder`, in hexadecimal.
///
/// # Errors
/// As [`weight_files`].
pub fn weights_hash(folder: &Path) -> Result<String> {
    hash_files(&weight_files(folder)?)
}

/// Copies the tokenizer's files from one folder to another.
///
/// # Errors
/// [`Error::Io`] when one cannot be read or written; [`Error::Format`] when `from` has no tokenizer.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    let present: Vec<PathBuf> = TOKENIZER_FILES.iter().map(|name| from.join(name)).filter(|p| p.exists()).collect();
    if !from.join(TOKENIZER_FILES[0]).exists() {
        return Err(Error::format(from, "no tokenizer.json here"));
    }
    for path in present {
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        if let Some(name) = path.file_name() {
            files::write(&to.join(name), &bytes)?;
        }
    }
    Ok(())
}

/// One draw from the standard normal distribution (Box–Muller).
fn standard_normal(rng: &mut ChaCha8Rng) -> f32 {
    let (u, v): (f32, f32) = (1.0 - rng.random::<f32>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}
