//! `config.json` and `generation_config.json` of a Hugging Face folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::architecture::Architecture;
use super::ops::{HeadShape, Rotary, Stretch};
use crate::{Error, Result, files};

/// The shape of a decoder, as `config.json` gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// What kind of decoder it is.
    pub architecture: Architecture,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Longest sequence, prompt and response together.
    pub max_position_embeddings: usize,
    /// Added to the mean of squares in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched, where they are.
    pub rope_scaling: Option<Stretch>,
    /// Whether the output layer is the embedding table.
    pub tie_word_embeddings: bool,
}

impl ModelConfig {
    /// Reads `config.json` of `folder`.
    ///
    /// # Errors
    /// [`Error::Format`] naming the key when the architecture is not known here, a key is missing or of the wrong type,
    /// heads do not divide, or the model uses a feature that no decoder here has (sliding windows in use, YaRN).
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let json: Map<String, Value> = files::read_json(&path)?;
        Self::from_json(&json).map_err(|message| Error::format(&path, message))
    }

    fn from_json(json: &Map<String, Value>) -> Result<Self, String> {
        let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or("");
        let known = |architecture: &Architecture| architecture.model_type() == model_type;
        let Some(architecture) = Architecture::ALL.into_iter().find(known) else {
            let names = Architecture::ALL.map(Architecture::model_type).join(", ");
            return Err(format!("`model_type` is \"{model_type}\"; known here are {names}"));
        };
        let unknown_biases: &[&str] = if architecture.has_biases() { &[] } else { &["attention_bias", "mlp_bias"] };
        for &key in ["use_sliding_window"].iter().chain(unknown_biases) {
            if optional(json, key, Value::as_bool, "true or false")? == Some(true) {
                return Err(format!("`{key}` is true, which no decoder here supports"));
            }
        }
        if let Some(activation) = optional(json, "hidden_act", Value::as_str, "a text")?
            && activation != "silu"
        {
            return Err(format!("`hidden_act` is \"{activation}\"; decoders here have silu"));
        }
        // Newer files keep all rotary settings in one object; where there are both, transformers takes the older, and
        // nothing of the newer.
        let object = |key: &str| {
            let object = optional(json, key, Value::as_object, "an object")?;
            Ok::<_, String>(object.filter(|object| !object.is_empty()))
        };
        let rope = object("rope_scaling")?.or(object("rope_parameters")?);
        let kind = rope.and_then(|rope| rope.get("rope_type").or(rope.get("type"))).and_then(Value::as_str);
        let rope_scaling = match (kind, rope) {
            (None | Some("default"), _) => None,
            (Some("llama3"), Some(rope)) => Some(stretch(rope)?),
            (Some(kind), _) => {
                return Err(format!(
                    "rotary embedding of type \"{kind}\"; decoders here have \"default\" and \"llama3\""
                ));
            }
        };
        let number = |json, key| optional(json, key, Value::as_f64, "a number");
        let of_rope = rope.map_or(Ok(None), |rope| number(rope, "rope_theta"))?;
        let rope_theta = of_rope.or(number(json, "rope_theta")?);
        let hidden_size = count(json, "hidden_size")?;
        let num_attention_heads = count(json, "num_attention_heads")?;
        let config = Self {
            architecture,
            vocab_size: count(json, "vocab_size")?,
            hidden_size,
            intermediate_size: count(json, "intermediate_size")?,
            num_hidden_layers: count(json, "num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: match json.get("num_key_value_heads") {
                None | Some(Value::Null) => num_attention_heads,
                Some(_) => count(json, "num_key_value_heads")?,
            },
            head_dim: match json.get("head_dim") {
                Some(Value::Number(_)) => count(json, "head_dim")?,
                _ => hidden_size / num_attention_heads,
            },
            max_position_embeddings: count(json, "max_position_embeddings")?,
            rms_norm_eps: number(json, "rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta: rope_theta.unwrap_or(10_000.0),
            rope_scaling,
            tie_word_embeddings: optional(json, "tie_word_embeddings", Value::as_bool, "true or false")?
                .unwrap_or(false),
        };
        config.check()?;
        Ok(config)
    }

    /// Whether the numbers can make a decoder.
    fn check(&self) -> Result<(), String> {
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(format!(
                "`num_attention_heads` {} is not a multiple of `num_key_value_heads` {}",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(format!("`head_dim` {} is odd, which rotary positions cannot use", self.head_dim));
        }
        Ok(())
    }

    /// The heads as the attention operation wants them.
    pub fn head_shape(&self) -> HeadShape {
        HeadShape { heads: self.num_attention_heads, kv_heads: self.num_key_value_heads, head_dim: self.head_dim }
    }

    /// The rotary tables of every position.
    pub(crate) fn rotary(&self) -> Rotary {
        Rotary::new(self.head_dim, self.max_position_embeddings, self.rope_theta, self.rope_scaling)
    }

    /// Every weight's Hugging Face name and shape, in the order of the forward pass.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, intermediate) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim);
        let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, hidden])];
        for layer in 0..self.num_hidden_layers {
            let mut add = |name: &str, shape: &[usize]| {
                tensors.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
            };
            add("input_layernorm.weight", &[hidden]);
            for (name, width) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
                add(&format!("self_attn.{name}.weight"), &[width, hidden]);
                if self.architecture.has_biases() {
                    add(&format!("self_attn.{name}.bias"), &[width]);
                }
            }
            if self.architecture.has_head_norms() {
                add("self_attn.q_norm.weight", &[self.head_dim]);
                add("self_attn.k_norm.weight", &[self.head_dim]);
            }
            add("self_attn.o_proj.weight", &[hidden, q]);
            add("post_attention_layernorm.weight", &[hidden]);
            add("mlp.gate_proj.weight", &[intermediate, hidden]);
            add("mlp.up_proj.weight", &[intermediate, hidden]);
            add("mlp.down_proj.weight", &[hidden, intermediate]);
        }
        tensors.push(("model.norm.weight".into(), vec![hidden]));
        if !self.tie_word_embeddings {
            tensors.push(("lm_head.weight".into(), vec![self.vocab_size, hidden]));
        }
        tensors
    }

    /// Whether the tensors of a model's files, by name and shape, are those of [`ModelConfig::tensors`]. An output layer that is
    /// the embedding may be there as well, and so may the rotary tables of old Llama files, which follow from the configuration.
    ///
    /// # Errors
    /// A message that names the tensor that is missing, of another shape, or not part of the model.
    pub fn fits(&self, found: &BTreeMap<&str, &[usize]>) -> Result<(), String> {
        let mut rest = found.clone();
        for (name, shape) in self.tensors() {
            match rest.remove(name.as_str()) {
                None => return Err(format!("the weights lack `{name}`, which config.json asks for")),
                Some(other) if other != shape => {
                    return Err(format!("`{name}` has shape {other:?}, config.json asks for {shape:?}"));
                }
                Some(_) => {}
            }
        }
        rest.retain(|name, _| {
            let is_tied = self.tie_word_embeddings && *name == "lm_head.weight";
            !is_tied && !name.ends_with(".rotary_emb.inv_freq")
        });
        match rest.keys().next() {
            Some(name) => Err(format!("the weights hold `{name}`, which this architecture does not have")),
            None => Ok(()),
        }
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Writes `config.json` into `folder`, with the token ids that generation needs.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn write(&self, folder: &Path, tokens: &SpecialTokens, dtype: &str) -> Result<()> {
        let mut config = json!({
            "architectures": [self.architecture.class()],
            "model_type": self.architecture.model_type(),
            "attention_dropout": 0.0,
            "bos_token_id": tokens.bos,
            "eos_token_id": tokens.eos.first(),
            "pad_token_id": tokens.pad,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "max_window_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "sliding_window": null,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": dtype,
            "use_cache": true,
            "use_sliding_window": false,
            "vocab_size": self.vocab_size,
        });
        if !self.architecture.has_biases() {
            config["attention_bias"] = false.into();
        }
        if let Some(stretch) = self.rope_scaling {
            config["rope_scaling"] = json!({
                "rope_type": "llama3",
                "factor": stretch.factor,
                "low_freq_factor": stretch.low_freq_factor,
                "high_freq_factor": stretch.high_freq_factor,
                "original_max_position_embeddings": stretch.original_max_position_embeddings,
            });
        }
        files::write_json(&folder.join("config.json"), &config)
    }
}

/// Llama 3.1's settings of the rotary frequencies.
fn stretch(rope: &Map<String, Value>) -> Result<Stretch, String> {
    let number = |key: &str| match rope.get(key).and_then(Value::as_f64) {
        Some(number) if number > 0.0 => Ok(number as f32),
        _ => Err(format!("`{key}` of the rotary settings is missing or no positive number")),
    };
    let stretch = Stretch {
        factor: number("factor")?,
        low_freq_factor: number("low_freq_factor")?,
        high_freq_factor: number("high_freq_factor")?,
        original_max_position_embeddings: count(rope, "original_max_position_embeddings")?,
    };
    if stretch.low_freq_factor >= stretch.high_freq_factor {
        return Err("`low_freq_factor` of the rotary settings is not below `high_freq_factor`".into());
    }
    Ok(stretch)
}

/// The value of a key that may be absent or null, as `read` takes it.
fn optional<'a, T>(
    json: &'a Map<String, Value>,
    key: &str,
    read: impl Fn(&'a Value) -> Option<T>,
    what: &str,
) -> Result<Option<T>, String> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some).ok_or_else(|| format!("`{key}` should be {what}, not {value}")),
    }
}

fn count(json: &Map<String, Value>, key: &str) -> Result<usize, String> {
    match json.get(key) {
        Some(value) => match value.as_u64() {
            Some(number) if number > 0 => Ok(number as usize),
            _ => Err(format!("`{key}` should be a positive whole number, not {value}")),
        },
        None => Err(format!("`{key}` is missing")),
    }
}

/// Token ids with a meaning, from `generation_config.json` or, without one, `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpecialTokens {
    /// Put before every text, where the model has such a token.
    pub bos: Option<u32>,
    /// Any of these ends a response.
    pub eos: Vec<u32>,
    /// Fills rows of a batch, where the model has such a token.
    pub pad: Option<u32>,
}

impl SpecialTokens {
    /// Reads the ids of `folder`.
    ///
    /// # Errors
    /// [`Error::Format`] when neither file names an end-of-sequence token: every response would run to its limit.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut tokens = Self::default();
        for name in ["generation_config.json", "config.json"] {
            let path = folder.join(name);
            if !path.exists() {
                continue;
            }
            let json: Map<String, Value> = files::read_json(&path)?;
            let id = |key: &str| json.get(key).and_then(Value::as_u64).map(|id| id as u32);
            tokens.bos = tokens.bos.or(id("bos_token_id"));
            tokens.pad = tokens.pad.or(id("pad_token_id"));
            if tokens.eos.is_empty() {
                tokens.eos = match json.get("eos_token_id") {
                    Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_u64).map(|id| id as u32).collect(),
                    Some(value) => value.as_u64().map(|id| id as u32).into_iter().collect(),
                    None => Vec::new(),
                };
            }
        }
        if tokens.eos.is_empty() {
            return Err(Error::format(
                folder.join("config.json"),
                "no `eos_token_id` here or in generation_config.json",
            ));
        }
        Ok(tokens)
    }

    /// Writes `generation_config.json` into `folder` with the sampling temperature that the paper evaluates at.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn write_generation_config(&self, folder: &Path) -> Result<()> {
        let config = json!({
            "bos_token_id": self.bos,
            "do_sample": true,
            "eos_token_id": self.eos,
            "pad_token_id": self.pad,
            "temperature": 0.6,
        });
        files::write_json(&folder.join("generation_config.json"), &config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> Map<String, Value> {
        let value = json!({
            "model_type": "qwen2", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
            "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}, "tie_word_embeddings": true
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_rotary_base_may_stand_in_an_object() {
        let config = ModelConfig::from_json(&minimal()).unwrap();
        assert_eq!((config.rope_theta, config.head_dim), (5000.0, 8));
    }

    #[test]
    fn rotary_settings_are_taken_as_transformers_takes_them() {
        let read = |keys: Value| {
            let mut json = minimal();
            json.remove("rope_parameters");
            json.extend(keys.as_object().unwrap().clone());
            ModelConfig::from_json(&json)
        };
        let plain = json!({"rope_type": "default", "rope_theta": 5000.0});
        let both = read(json!({"rope_theta": 7000.0, "rope_parameters": plain})).unwrap();
        assert_eq!(both.rope_theta, 5000.0);
        let llama2 = read(json!({"rope_scaling": null, "rope_parameters": null, "num_key_value_heads": null})).unwrap();
        assert_eq!((llama2.rope_theta, llama2.rope_scaling, llama2.num_key_value_heads), (10_000.0, None, 4));
        let yarn = json!({"type": "yarn", "factor": 4.0});
        assert!(read(json!({"rope_parameters": plain, "rope_scaling": yarn})).unwrap_err().contains("yarn"));
        let stretched = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
        for newer in [Value::Null, plain] {
            let keys = json!({"rope_parameters": newer, "rope_theta": 7000.0, "rope_scaling": stretched});
            let llama3 = read(keys).unwrap();
            assert_eq!((llama3.rope_theta, llama3.rope_scaling.unwrap().factor), (7000.0, 8.0));
        }
        let empty = read(json!({"rope_parameters": stretched, "rope_scaling": {}})).unwrap();
        assert!(empty.rope_scaling.is_some());
    }

    #[test]
    fn parameters_of_published_shapes() {
        let deepseek_1_5b = ModelConfig {
            architecture: Architecture::Qwen2,
            vocab_size: 151_936,
            hidden_size: 1536,
            intermediate_size: 8960,
            num_hidden_layers: 28,
            num_attention_heads: 12,
            num_key_value_heads: 2,
            head_dim: 128,
            max_position_embeddings: 131_072,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: false,
        };
        assert_eq!(deepseek_1_5b.parameters(), 1_777_088_000);
        let qwen3_1_7b = ModelConfig {
            architecture: Architecture::Qwen3,
            hidden_size: 2048,
            intermediate_size: 6144,
            num_attention_heads: 16,
            num_key_value_heads: 8,
            tie_word_embeddings: true,
            ..deepseek_1_5b
        };
        assert_eq!(qwen3_1_7b.parameters(), 1_720_574_976);
        let llama_3_1_8b = ModelConfig {
            architecture: Architecture::Llama,
            vocab_size: 128_256,
            hidden_size: 4096,
            intermediate_size: 14_336,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            tie_word_embeddings: false,
            ..qwen3_1_7b
        };
        assert_eq!(llama_3_1_8b.parameters(), 8_030_261_248);
    }

    #[test]
    fn bad_values_are_named() {
        let refused = |key: &str, value: Value| {
            let mut json = minimal();
            json.insert(key.into(), value);
            ModelConfig::from_json(&json).unwrap_err()
        };
        assert!(refused("hidden_size", json!("wide")).contains("`hidden_size`"));
        assert!(refused("num_key_value_heads", json!(3)).contains("multiple"));
        assert!(refused("model_type", json!("gemma")).ends_with("\"gemma\"; known here are qwen2, qwen3, llama"));
        for key in ["rope_theta", "rms_norm_eps", "rope_scaling", "use_sliding_window", "tie_word_embeddings"] {
            let told = refused(key, json!("1e6"));
            assert!(told.starts_with(&format!("`{key}` should be ")) && told.ends_with("not \"1e6\""), "{told}");
        }
        let mut biased = minimal();
        biased.insert("attention_bias".into(), json!(true));
        assert!(ModelConfig::from_json(&biased).is_ok(), "Qwen2 has no such key, and biases anyway");
        biased.insert("model_type".into(), json!("llama"));
        assert!(ModelConfig::from_json(&biased).unwrap_err().contains("`attention_bias`"));
        assert!(refused("hidden_act", json!("gelu")).contains("gelu"));
        assert!(refused("rope_parameters", json!({"rope_type": "yarn"})).contains("yarn"));
        let mut json = minimal();
        json.remove("vocab_size");
        assert_eq!(ModelConfig::from_json(&json).unwrap_err(), "`vocab_size` is missing");
    }
}
