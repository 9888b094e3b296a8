//! Low-rank adapters (arXiv 2106.09685) in PEFT's file format.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// Reads `adapter_config.json` of a PEFT folder.
    ///
    /// # Errors
    /// [`Error::Format`] when a setting is not supported, [`Error::Io`] when the file cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let json: PeftConfig = files::read_json(&path)?;
        let config = json.into_lora().map_err(|message| Error::format(&path, message))?;
        config.check().map_err(|error| Error::format(&path, error.to_string()))?;
        Ok(config)
    }

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
        let config = LoraConfig::read(folder)?;
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
        self.save_as(folder, base, DType::F32)
    }

    /// As [`LoraAdapter::save`], with every factor rounded to `dtype`.
    ///
    /// # Errors
    /// [`Error::Io`] when something cannot be written.
    pub fn save_as(&self, folder: &Path, base: &str, dtype: DType) -> Result<()> {
        files::write_json(&folder.join(CONFIG), &PeftConfig::new(&self.config, base))?;
        let mut tensors = Weights::new();
        for (name, Factors { a, b }) in &self.factors {
            tensors.insert(peft_name(name, "lora_A"), a.to_dtype(dtype)?);
            tensors.insert(peft_name(name, "lora_B"), b.to_dtype(dtype)?);
        }
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
        match self.change(name)? {
            Some(change) => Ok((weight + change.to_dtype(weight.dtype())?)?),
            None => Ok(weight.clone()),
        }
    }

    /// `scale * b a` for a covered weight, `[out, in]`; `None` for the others. Differentiable.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the shapes of the factors do not fit.
    pub fn change(&self, name: &str) -> Result<Option<Tensor>> {
        let product = |Factors { a, b }: &Factors| Ok((b.matmul(a)? * self.config.scale())?);
        self.factors.get(name).map(product).transpose()
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
    /// Whatever else PEFT writes.
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// Further settings that move the adapter elsewhere or change its product; anything but their default is refused.
const UNSUPPORTED: [&str; 10] = [
    "alora_invocation_tokens",
    "arrow_config",
    "exclude_modules",
    "layer_replication",
    "layers_to_transform",
    "lora_bias",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
];

/// Ways to draw the first factors that leave the base as it is; PEFT writes `true` for its default.
const PLAIN_INITIALISATIONS: [&str; 2] = ["gaussian", "orthogonal"];

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
            rest: BTreeMap::new(),
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
        let is_set = |key: &&str| match self.rest.get(*key) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(_) => true,
        };
        if let Some(key) = UNSUPPORTED.iter().find(|key| is_set(key)) {
            return Err(format!("`{key}` is not supported"));
        }
        if let Some(Value::String(kind)) = self.rest.get("init_lora_weights")
            && !PLAIN_INITIALISATIONS.contains(&kind.as_str())
        {
            return Err(format!("`init_lora_weights` \"{kind}\" is not supported: it may change the base model"));
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

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use serde_json::json;

    use super::super::test_support::tiny_config;
    use super::*;

    /// What `adapter_config.json` with these settings beside the usual ones means.
    fn parse(settings: Value) -> Result<LoraConfig, String> {
        let mut config = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["v_proj", "q_proj"]});
        let usual = config.as_object_mut().unwrap();
        usual.extend(settings.as_object().unwrap().clone());
        serde_json::from_value::<PeftConfig>(config).unwrap().into_lora()
    }

    fn config(rank: usize, modules: &[&str]) -> LoraConfig {
        LoraConfig { rank, alpha: 8.0, target_modules: modules.iter().map(|&module| module.to_owned()).collect() }
    }

    #[test]
    fn settings_of_another_mathematics_are_refused_by_name() {
        for (key, value) in [
            ("peft_type", json!("IA3")),
            ("use_dora", json!(true)),
            ("bias", json!("all")),
            ("fan_in_fan_out", json!(true)),
            ("modules_to_save", json!(["lm_head"])),
            ("rank_pattern", json!({"q_proj": 8})),
            ("alpha_pattern", json!({"q_proj": 8})),
            ("lora_bias", json!(true)),
            ("layers_to_transform", json!([0])),
            ("layer_replication", json!([[0, 1]])),
            ("exclude_modules", json!("q_proj")),
            ("alora_invocation_tokens", json!([5])),
            ("init_lora_weights", json!("pissa")),
        ] {
            let error = parse(json!({ key: value })).unwrap_err();
            assert!(error.contains(&format!("`{key}`")) && error.contains("not supported"), "{key}: {error}");
        }
        let harmless = json!({
            "lora_dropout": 0.1, "inference_mode": true, "modules_to_save": null, "lora_bias": false,
            "layers_to_transform": null, "init_lora_weights": true, "peft_version": "0.21.2", "revision": "main"
        });
        assert_eq!(parse(harmless).unwrap(), config(4, &["q_proj", "v_proj"]));
        assert!(parse(json!({"init_lora_weights": "gaussian"})).is_ok());
    }

    #[test]
    fn rank_stabilisation_divides_by_the_root_of_the_rank() {
        assert_eq!(parse(json!({})).unwrap().scale(), 2.0);
        assert_eq!(parse(json!({"use_rslora": true})).unwrap().scale(), 4.0);
    }

    #[test]
    fn all_linear_means_every_projection_and_other_patterns_are_refused() {
        assert_eq!(parse(json!({"target_modules": "all-linear"})).unwrap().target_modules, TARGET_MODULES);
        let error = parse(json!({"target_modules": ".*_proj"})).unwrap_err();
        assert!(error.contains("`target_modules`") && error.contains(".*_proj"), "{error}");
    }

    #[test]
    fn impossible_configurations_are_refused() {
        let refused = |config: LoraConfig| config.check().unwrap_err().to_string();
        assert!(refused(config(0, &["q_proj"])).contains("rank"));
        assert!(refused(config(4, &[])).contains("target module"));
        let error = refused(config(4, &["q_proj", "lm_head"]));
        assert!(error.contains("`lm_head`") && error.contains("down_proj"), "{error}");
    }

    #[test]
    fn a_module_covers_weights_and_not_biases() {
        let config = config(4, &["q_proj"]);
        assert!(config.covers("model.layers.3.self_attn.q_proj.weight"));
        for other in ["model.layers.3.self_attn.q_proj.bias", "model.layers.3.self_attn.k_proj.weight", "q_proj"] {
            assert!(!config.covers(other), "{other}");
        }
    }

    #[test]
    fn folding_adds_the_scaled_product() {
        let tensor = |values: &[f32], shape: (usize, usize)| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        // Scale 8 / 1; the product of [2, 3]^T and [1, -1] is [[2, -2], [3, -3]].
        let factors = Factors { a: tensor(&[1.0, -1.0], (1, 2)), b: tensor(&[2.0, 3.0], (2, 1)) };
        let adapter = LoraAdapter { config: config(1, &["q_proj"]), factors: [("here".to_owned(), factors)].into() };
        let weight = tensor(&[1.0, 1.0, 1.0, 1.0], (2, 2));
        let folded = adapter.fold("here", &weight).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(folded, [[17.0, -15.0], [25.0, -23.0]]);
        let elsewhere = adapter.fold("elsewhere", &weight).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(elsewhere, [[1.0, 1.0], [1.0, 1.0]]);
    }

    #[test]
    fn files_that_do_not_fit_are_named() {
        let model = tiny_config();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let adapter = LoraAdapter::new(config(2, &["q_proj", "down_proj"]), &model, &mut rng, &Device::Cpu).unwrap();
        let folder = tempfile::tempdir().unwrap();
        adapter.save(folder.path(), "base").unwrap();
        let weights = adapter_files(folder.path()).remove(0);
        let whole = read_safetensors(&weights, DType::F32, &Device::Cpu).unwrap();
        let refused = |change: &dyn Fn(&mut Weights)| {
            let mut tensors = whole.clone();
            change(&mut tensors);
            write_safetensors(&weights, &tensors, &[]).unwrap();
            LoraAdapter::load(folder.path(), &model, &Device::Cpu).unwrap_err().to_string()
        };
        let key = "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight";
        assert_eq!(whole[key].dims(), [8, 2]);
        let error = refused(&|tensors| assert!(tensors.remove(key).is_some()));
        assert!(error.contains(&format!("`{key}` is missing")), "{error}");
        let error = refused(&|tensors| {
            tensors.insert(key.into(), whole[key].t().unwrap().contiguous().unwrap());
        });
        assert!(error.contains(&format!("`{key}` has shape [2, 8], expected [8, 2]")), "{error}");
        let error = refused(&|tensors| {
            tensors.insert(key.replace("down", "up"), whole[key].clone());
        });
        assert!(error.contains("up_proj") && error.contains("no adapted layer"), "{error}");
    }
}
