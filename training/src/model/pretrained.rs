//! A whole Hugging Face folder: configuration, special tokens, weights, and the tokenizer's files beside them.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::config::{ModelConfig, SpecialTokens};
use super::decoder::Decoder;
use super::layered::{Layered, Weight};
use super::lora::LoraAdapter;
use super::weights::{Weights, hash_files, read_weights, weight_files, write_weights};
use crate::{Error, Result, files};

/// Files of a folder that say how text becomes tokens.
const TOKENIZER_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

/// Files of a folder that say what shape the model has and which tokens end its turn.
const SETTINGS_FILES: [&str; 2] = ["config.json", "generation_config.json"];

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
        let config = Self::config(folder)?;
        let tokens = SpecialTokens::read(folder)?;
        let weights = read_weights(folder, &config, dtype, device)?;
        Ok(Self { config, tokens, weights })
    }

    /// The configuration of the model in `folder`, before any weight is read.
    ///
    /// # Errors
    /// [`Error::Config`] when there is no such folder, otherwise as [`ModelConfig::read`].
    pub fn config(folder: &Path) -> Result<ModelConfig> {
        if !folder.is_dir() {
            return Err(Error::config(format!(
                "no model folder at `{}`; expected a Hugging Face folder with config.json and model.safetensors",
                folder.display()
            )));
        }
        ModelConfig::read(folder)
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

    /// The same model with weights of another format on another device.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the device has no room for them.
    pub fn to(mut self, dtype: DType, device: &Device) -> Result<Self> {
        for weight in self.weights.values_mut() {
            *weight = weight.to_dtype(dtype)?.to_device(device)?;
        }
        Ok(self)
    }

    /// A decoder over these weights as constants.
    ///
    /// # Errors
    /// [`Error::Config`] when a weight is missing.
    pub fn decoder(&self) -> Result<Decoder> {
        Decoder::new(&self.config, &self.config.rotary(), |name| self.weight(name))
    }

    /// These weights as constants, run layer by layer, without a copy of any.
    ///
    /// # Errors
    /// [`Error::Config`] when a weight is missing.
    pub fn layered(&self) -> Result<Layered> {
        Layered::new(&self.config, &self.config.rotary(), |name| Ok(Weight::frozen(&self.weight(name)?)), |_| None)
    }

    /// A decoder over these weights with `adapter` folded in, as constants.
    ///
    /// # Errors
    /// [`Error::Config`] when a weight is missing, [`Error::Tensor`] when the adapter does not fit its weight.
    pub fn with_adapter(&self, adapter: &LoraAdapter) -> Result<Decoder> {
        Decoder::new(&self.config, &self.config.rotary(), |name| adapter.fold(name, &self.weight(name)?))
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

/// SHA-256 of everything else in `folder` that decides what a model does: its configuration, special tokens, tokenizer and
/// chat template, in hexadecimal. A file that is absent differs from an empty one.
///
/// # Errors
/// [`Error::Io`] when one cannot be read.
pub fn settings_hash(folder: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for name in SETTINGS_FILES.into_iter().chain(TOKENIZER_FILES) {
        let path = folder.join(name);
        if path.is_file() {
            let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
            hash.update(format!("{name} {}\n", bytes.len()));
            hash.update(bytes);
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Copies the tokenizer's files from one folder to another.
///
/// # Errors
/// [`Error::Io`] when one cannot be read or written; [`Error::Format`] when `from` has no tokenizer.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    if !from.join(TOKENIZER_FILES[0]).exists() {
        return Err(Error::format(from, "no tokenizer.json here"));
    }
    copy_present(&TOKENIZER_FILES, from, to)
}

/// Copies those of the files called `names` that there are.
fn copy_present(names: &[&str], from: &Path, to: &Path) -> Result<()> {
    for (path, name) in names.iter().map(|name| (from.join(name), name)).filter(|(path, _)| path.exists()) {
        files::write(&to.join(name), &std::fs::read(&path).map_err(Error::io("read", &path))?)?;
    }
    Ok(())
}

/// Copies how a model is sampled by default, `generation_config.json`, where there is one.
///
/// # Errors
/// [`Error::Io`] when it cannot be read or written.
pub fn copy_generation_config(from: &Path, to: &Path) -> Result<()> {
    copy_present(&SETTINGS_FILES[1..], from, to)
}

/// One draw from the standard normal distribution (Box–Muller).
fn standard_normal(rng: &mut ChaCha8Rng) -> f32 {
    let (u, v): (f32, f32) = (1.0 - rng.random::<f32>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::test_support::{logit_bits, tiny, tiny_config};
    use super::*;

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn random_weights_have_the_promised_spread() {
        let config = ModelConfig {
            vocab_size: 400,
            hidden_size: 96,
            intermediate_size: 160,
            num_hidden_layers: 2,
            num_attention_heads: 6,
            num_key_value_heads: 3,
            head_dim: 16,
            ..tiny_config()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let model = Pretrained::random(config, SpecialTokens::default(), &mut rng, &Device::Cpu).unwrap();
        // Residual outputs are scaled by 1 / sqrt(2 * layers) = 1 / 2.
        let linear = |inputs: f64| 1.0 / inputs.sqrt();
        for (name, deviation) in [
            ("model.embed_tokens.weight", 0.02),
            ("lm_head.weight", linear(96.0)),
            ("model.layers.0.self_attn.q_proj.weight", linear(96.0)),
            ("model.layers.1.self_attn.k_proj.weight", linear(96.0)),
            ("model.layers.1.self_attn.o_proj.weight", linear(96.0) / 2.0),
            ("model.layers.0.mlp.up_proj.weight", linear(96.0)),
            ("model.layers.0.mlp.down_proj.weight", linear(160.0) / 2.0),
        ] {
            let values = values(&model.weights[name]);
            let count = values.len() as f64;
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
            let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
            // Five standard errors of a mean and of a standard deviation.
            assert!(mean.abs() < 5.0 * deviation / count.sqrt(), "{name}: mean {mean}");
            let error = (variance.sqrt() / deviation - 1.0).abs();
            assert!(error < 5.0 / (2.0 * count).sqrt(), "{name}: {} instead of {deviation}", variance.sqrt());
        }
        assert!(values(&model.weights["model.layers.1.post_attention_layernorm.weight"]).iter().all(|&x| x == 1.0));
        assert!(values(&model.weights["model.norm.weight"]).iter().all(|&x| x == 1.0));
        assert!(values(&model.weights["model.layers.0.self_attn.v_proj.bias"]).iter().all(|&x| x == 0.0));
    }

    #[test]
    fn the_seed_decides_the_weights() {
        let random = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let model = Pretrained::random(tiny_config(), SpecialTokens::default(), &mut rng, &Device::Cpu).unwrap();
            logit_bits(&model.decoder().unwrap())
        };
        assert!(random(3) == random(3));
        assert!(random(3) != random(4));
    }

    #[test]
    fn a_folder_reads_back() {
        let (model, folder) = (tiny(), tempfile::tempdir().unwrap());
        model.save(folder.path()).unwrap();
        let again = Pretrained::load(folder.path(), DType::F32, &Device::Cpu).unwrap();
        assert_eq!((&again.config, &again.tokens), (&model.config, &model.tokens));
        assert!(logit_bits(&again.decoder().unwrap()) == logit_bits(&model.decoder().unwrap()));
        let hash = weights_hash(folder.path()).unwrap();
        again.save(folder.path()).unwrap();
        assert_eq!(weights_hash(folder.path()).unwrap(), hash, "the same weights, the same bytes");
    }

    #[test]
    fn a_save_that_fails_leaves_no_weights() {
        for blocked in ["config.json", "generation_config.json"] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(folder.path().join(blocked)).unwrap();
            let error = tiny().save(folder.path()).unwrap_err().to_string();
            assert!(error.contains(blocked), "{error}");
            assert!(weight_files(folder.path()).is_err(), "not to be taken for a model after {blocked} failed");
        }
    }

    #[test]
    fn a_missing_folder_is_explained() {
        let error = Pretrained::load(Path::new("/nowhere/model"), DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("/nowhere/model") && error.contains("config.json"), "{error}");
    }

    #[test]
    fn a_missing_weight_is_named() {
        let mut model = tiny();
        model.weights.remove("model.layers.0.mlp.gate_proj.weight");
        let error = model.decoder().unwrap_err().to_string();
        assert!(error.contains("`model.layers.0.mlp.gate_proj.weight`"), "{error}");
    }

    #[test]
    fn the_tokenizer_is_copied_with_what_is_there() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let error = copy_tokenizer(from.path(), to.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
        files::write(&from.path().join("tokenizer.json"), b"{1}").unwrap();
        files::write(&from.path().join("chat_template.jinja"), b"{2}").unwrap();
        files::write(&from.path().join("model.safetensors"), b"{3}").unwrap();
        copy_tokenizer(from.path(), to.path()).unwrap();
        let mut copied: Vec<_> = std::fs::read_dir(to.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        copied.sort();
        assert_eq!(copied, ["chat_template.jinja", "tokenizer.json"]);
        assert_eq!(files::read_text(&to.path().join("tokenizer.json")).unwrap(), "{1}");
    }
}
