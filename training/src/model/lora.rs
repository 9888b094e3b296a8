//! Low-rank adapters (arXiv 2106.09685) in PEFT's file format.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::config::ModelConfig;
use super::weights::{Weights, read_safetensors, write_safetensors};
use crate::{Error, Result, files};

/// The linear layers of a decoder layer that can carry an adapter.
pub const TARGET_MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// The size of an adapter and where it sits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Inner width of the two factors.
    pub rank: usize,
    /// The product of the factors is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Names from [`TARGET_MODULES`].
    pub target_modules: Vec<String>,
}

impl LoraConfig {
    /// Factor of the low-rank product.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    /// Whether the weight of this Hugging Face name carries an adapter.
    pub fn covers(&self, weight: &str) -> bool {
        weight
            .strip_suffix(".weight")
            .and_then(|path| path.rsplit('.').next())
            .is_some_and(|module| self.target_modules.iter().any(|target| target == module))
    }

    /// Checks rank and module names.
    ///
    /// # Errors
    /// [`Error::Config`] naming what is wrong.
    pub fn check(&self) -> Result<()> {
        if self.rank == 0 {
            return Err(Error::config("a LoRA adapter needs a rank of at least 1"));
        }
        if self.target_modules.is_empty() {
            return Err(Error::config("a LoRA adapter needs at least one target module"));
        }
        match self.target_modules.iter().find(|module| !TARGET_MODULES.contains(&module.as_str())) {
            Some(module) => Err(Error::config(format!(
                "unknown LoRA target module `{module}`; known: {}",
                TARGET_MODULES.join(", ")
            ))),
            None => Ok(()),
        }
    }
}

/// The two factors at one weight.
#[derive(Debug, Clone)]
pub struct Factors {
    /// `[rank, in]`.
    pub a: Tensor,
    /// `[out, rank]`.
    pub b: Tensor,
}

/// An adapter: factors by the Hugging Face name of the weight they change.
#[derive(Debug, Clone)]
pub struct LoraAdapter {
    /// Size and place.
    pub config: LoraConfig,
    /// Factors by weight name.
    pub factors: BTreeMap<String, Factors>,
}

impl LoraAdapter {
    /// A new adapter that changes nothing yet: `a` uniform in ±1/√in, `b` zero (PEFT's default start).
    ///
    /// # Errors
    /// As [`LoraConfig::check`].
    pub fn new(config: LoraConfig, model: &ModelConfig, rng: &mut ChaCha8Rng, device: &Device) -> Result<Self> {
        config.check()?;
        let mut factors = BTreeMap::new();
        for (name, shape) in model.tensors().into_iter().filter(|(name, _)| config.covers(name)) {
            let bound = 1.0 / (shape[1] as f32).sqrt();
            let a: Vec<f32> = (0..config.rank * shape[1]).map(|_| rng.random_range(-bound..bound)).collect();
            let a = Tensor::from_vec(a, (config.rank, shape[1]), device)?;
            let b = Tensor::zeros((shape[0], config.rank), DType::F32, device)?;
            factors.insert(name, Factors { a, b });
        }
        Ok(Self { config, factors })
    }

    /// Reads a PEFT folder for a model of the given shape.
    ///
    /// # Errors
    /// [`Error::Format`] when a setting is not supported, a factor is missing, of the wrong shape, or for a layer that
    /// the model does not have.
    pub fn load(folder: &Path, model: &ModelConfig, device: &Device) -> Result<Self> {
        let path = folder.join(CONFIG);
        let json: PeftConfig = files::read_json(&path)?;
        let config = json.into_lora().map_err(|message| Error::format(&path, message))?;
        config.check().map_err(|error| Error::format(&path, error.to_string()))?;
        let path = folder.join(WEIGHTS);
        let mut found = read_safetensors(&path, DType::F32, device)?;
        let mut factors = BTreeMap::new();
        for (name, shape) in model.tensors().into_iter().filter(|(name, _)| config.covers(name)) {
            let mut take = |factor: &str, expected: [usize; 2]| -> Result<Tensor> {
                let key = peft_name(&name, factor);
                match found.remove(&key) {
                    Some(tensor) if tensor.dims() == expected => Ok(tensor),
                    Some(tensor) => {
                        let message = format!("`{key}` has shape {:?}, expected {expected:?}", tensor.dims());
                        Err(Error::format(&path, message))
                    }
                    None => Err(Error::format(&path, format!("`{key}` is missing"))),
                }
            };
            let a = take("lora_A", [config.rank, shape[1]])?;
            let b = take("lora_B", [shape[0], config.rank])?;
            factors.insert(name, Factors { a, b });
        }
        if let Some(key) = found.keys().next() {
            return Err(Error::format(&path, format!("`{key}` belongs to no adapted layer of the base model")));
        }
        Ok(Self { config, factors })
    }

    /// Writes a PEFT folder; `base` is recorded as `base_model_name_or_path`. Weights are written last.
    ///
    /// # Errors
    /// [`Error::Io`] when something cannot be written.
    pub fn save(&self, folder: &Path, base: &str) -> Result<()> {
        files::write_json(&folder.join(CONFIG), &PeftConfig::new(&self.config, base))?;
        let tensors: Weights = self
            .factors
            .iter()
            .flat_map(|(name, factors)| {
                [(peft_name(name, "lora_A"), factors.a.clone()), (peft_name(name, "lora_B"), factors.b.clone())]
            })
            .collect();
        write_safetensors(&folder.join(WEIGHTS), &tensors, &[("format", "pt")])
    }

    /// `weight + scale * b a` for a covered weight `[out, in]`, otherwise `weight` itself. Differentiable.
    ///
    /// Folding the product into the weight costs one more small product a step than adding two thin layers beside it,
    /// and leaves the forward pass, the sampler and the reference policy one and the same code.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the shapes do not fit.
    pub fn fold(&self, name: &str, weight: &Tensor) -> Result<Tensor> {
        match self.factors.get(name) {
            Some(Factors { a, b }) => {
                let update = (b.matmul(a)? * self.config.scale())?;
                Ok((weight + update.to_dtype(weight.dtype())?)?)
            }
            None => Ok(weight.clone()),
        }
    }
}

/// The files that hold the weights of a PEFT folder.
pub fn adapter_files(folder: &Path) -> Vec<std::path::PathBuf> {
    vec![folder.join(WEIGHTS)]
}

fn peft_name(weight: &str, factor: &str) -> String {
    let module = weight.strip_suffix(".weight").unwrap_or(weight);
    format!("base_model.model.{module}.{factor}.weight")
}

/// The part of `adapter_config.json` that decides the mathematics.
#[derive(Debug, Serialize, Deserialize)]
struct PeftConfig {
    peft_type: String,
    #[serde(default)]
    task_type: Option<String>,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
    r: usize,
    lora_alpha: f64,
    target_modules: Targets,
    #[serde(default)]
    lora_dropout: f64,
    #[serde(default = "no_bias")]
    bias: String,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    rank_pattern: BTreeMap<String, usize>,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
    #[serde(default)]
    inference_mode: bool,
}

/// PEFT writes a list, or the word `all-linear`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Targets {
    List(Vec<String>),
    Word(String),
}

fn no_bias() -> String {
    "none".into()
}

impl PeftConfig {
    fn new(config: &LoraConfig, base: &str) -> Self {
        Self {
            peft_type: "LORA".into(),
            task_type: Some("CAUSAL_LM".into()),
            base_model_name_or_path: Some(base.into()),
            r: config.rank,
            lora_alpha: config.alpha,
            target_modules: Targets::List(config.target_modules.clone()),
            lora_dropout: 0.0,
            bias: no_bias(),
            fan_in_fan_out: false,
            use_rslora: false,
            use_dora: false,
            modules_to_save: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            inference_mode: true,
        }
    }

    fn into_lora(self) -> Result<LoraConfig, String> {
        let unsupported = [
            (self.peft_type != "LORA", "`peft_type` other than \"LORA\""),
            (self.use_dora, "`use_dora`"),
            (self.bias != "none", "`bias` other than \"none\""),
            (self.fan_in_fan_out, "`fan_in_fan_out`"),
            (self.modules_to_save.is_some_and(|modules| !modules.is_empty()), "`modules_to_save`"),
            (!self.rank_pattern.is_empty(), "`rank_pattern`"),
            (!self.alpha_pattern.is_empty(), "`alpha_pattern`"),
        ];
        if let Some((_, what)) = unsupported.iter().find(|(present, _)| *present) {
            return Err(format!("{what} is not supported"));
        }
        let mut target_modules = match self.target_modules {
            Targets::List(modules) => modules,
            Targets::Word(word) if word == "all-linear" => TARGET_MODULES.map(str::to_owned).to_vec(),
            Targets::Word(word) => return Err(format!("`target_modules` is the pattern \"{word}\"; give a list")),
        };
        target_modules.sort_by_key(|module| TARGET_MODULES.iter().position(|known| known == module));
        // With rank stabilisation the scale is alpha / sqrt(rank), which an alpha larger by sqrt(rank) expresses.
        let stabiliser = if self.use_rslora { (self.r as f64).sqrt() } else { 1.0 };
        Ok(LoraConfig { rank: self.r, alpha: self.lora_alpha * stabiliser, target_modules })
    }
}
