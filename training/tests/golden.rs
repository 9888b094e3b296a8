//! The decoder, its gradients, LoRA and the file formats against what Hugging Face computes and writes.
//!
//! `golden/README.md` says what the files hold and how exact they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use brevity_training::model::{
    Decoder, LoraAdapter, ModelConfig, Packed, Policy, Pretrained, SpecialTokens, Tuning, Weights, ops,
    read_safetensors, weight_files,
};
use brevity_training::{Error, Result, files, loss};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Both sides sum in f32, each in its own order; measured differences are at most a tenth of these.
const FORWARD: f32 = 1e-5;
const GRADIENT: f32 = 5e-5;

const MODELS: [&str; 4] = ["qwen2-tied", "qwen2-untied", "qwen3", "llama"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn load(name: &str) -> Result<Pretrained> {
    Pretrained::load(&folder(name), DType::F32, &Device::Cpu)
}

/// What Hugging Face computed.
struct Expected(Weights);

impl Expected {
    fn read(name: &str) -> Result<Self> {
        Ok(Self(read_safetensors(&folder(name).join("expected.safetensors"), DType::F32, &Device::Cpu)?))
    }

    fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no `{name}` among the expected tensors"))
    }

    /// Both inputs as token ids.
    fn inputs(&self) -> Result<[Vec<u32>; 2]> {
        let ids = |name: &str| self.get(name).to_dtype(DType::U32)?.to_vec1();
        Ok([ids("input_ids.0")?, ids("input_ids.1")?])
    }

    /// Gradients by tensor name.
    fn gradients(&self) -> BTreeMap<&str, &Tensor> {
        self.0.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("grad.")?, tensor))).collect()
    }
}

/// Fails unless every entry differs by at most `tolerance` of the largest expected magnitude.
fn assert_close(what: &str, actual: &Tensor, expected: &Tensor, tolerance: f32) -> Result<()> {
    assert_eq!(actual.dims(), expected.dims(), "shape of {what}");
    let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    let (actual, expected) = (flat(actual)?, flat(expected)?);
    let scale = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    assert!(scale > 0.0, "{what} is expected to be more than zeros");
    for (index, (a, e)) in actual.iter().zip(&expected).enumerate() {
        let difference = (a - e).abs() / scale;
        assert!(difference <= tolerance, "{what}, entry {index}: {a} instead of {e}, {difference:e} of the largest");
    }
    Ok(())
}

/// Log-probabilities `[predictions]` of every next token, of all sequences of the batch in turn.
fn next_token_log_probs(decoder: &Decoder, inputs: &[Vec<u32>]) -> Result<Tensor> {
    let packed = Packed::new(inputs.iter().map(Vec::as_slice));
    let rows: Vec<u32> = packed.offsets.windows(2).flat_map(|ends| ends[0] as u32..ends[1] as u32 - 1).collect();
    let targets: Vec<u32> = inputs.iter().flat_map(|ids| ids[1..].to_vec()).collect();
    let logits = decoder.logits_at(&decoder.hidden(&packed)?, &rows)?;
    Ok(ops::token_log_probs(&logits, &targets)?)
}

/// Logits and log-probabilities, each input alone and both packed into one batch.
fn assert_same_forward(decoder: &Decoder, expected: &Expected) -> Result<()> {
    let inputs = expected.inputs()?;
    let together = decoder.logits(&decoder.hidden(&Packed::new(inputs.iter().map(Vec::as_slice)))?)?;
    let together_log_probs = next_token_log_probs(decoder, &inputs)?;
    let (mut token, mut prediction) = (0, 0);
    for (index, ids) in inputs.iter().enumerate() {
        let logits = expected.get(&format!("logits.{index}"));
        let alone = decoder.logits(&decoder.hidden(&Packed::new([ids.as_slice()]))?)?;
        assert_close(&format!("logits of input {index} alone"), &alone, logits, FORWARD)?;
        let part = together.narrow(0, token, ids.len())?;
        assert_close(&format!("logits of input {index} in a batch"), &part, logits, FORWARD)?;
        token += ids.len();

        let log_probs = expected.get(&format!("logprobs.{index}"));
        let part = together_log_probs.narrow(0, prediction, ids.len() - 1)?;
        assert_close(&format!("log-probabilities of input {index}"), &part, log_probs, FORWARD)?;
        prediction += ids.len() - 1;
    }
    Ok(())
}

/// The loss and the gradient of every trainable tensor; `file_name` translates the policy's name to the file's.
fn assert_same_gradients(policy: &Policy, expected: &Expected, file_name: impl Fn(&str) -> String) -> Result<()> {
    let log_probs = next_token_log_probs(&policy.decoder()?, &expected.inputs()?)?;
    let predictions = log_probs.dim(0)?;
    assert_eq!(predictions, 16);
    let weights = Tensor::full(1.0 / predictions as f32, predictions, &Device::Cpu)?;
    let loss = loss::negative_log_likelihood(&log_probs, &weights)?;
    assert_close("loss", &loss, expected.get("loss"), FORWARD)?;

    let store = loss.backward()?;
    let mut gradients = expected.gradients();
    for (name, var) in policy.parameters() {
        let key = file_name(name);
        let gradient = store.get(var).unwrap_or_else(|| panic!("`{name}` has no gradient"));
        let values = gradient.flatten_all()?.to_vec1::<f32>()?;
        assert!(values.iter().all(|x| x.is_finite()), "gradient of `{name}` is finite");
        assert!(values.iter().any(|&x| x != 0.0), "gradient of `{name}` is not all zero");
        let known = gradients.remove(key.as_str()).unwrap_or_else(|| panic!("no expected gradient for `{key}`"));
        assert_close(&format!("gradient of `{name}`"), gradient, known, GRADIENT)?;
    }
    assert!(gradients.is_empty(), "trainable there, not here: {:?}", gradients.keys());
    Ok(())
}

/// PEFT's name of a trainable tensor of an adapter.
fn peft_name(parameter: &str) -> String {
    let (module, factor) = parameter.rsplit_once(".weight.").unwrap_or_else(|| panic!("`{parameter}` is no factor"));
    format!("base_model.model.{module}.{factor}.weight")
}

fn adapter_policy() -> Result<Policy> {
    let base = load("qwen2-tied")?;
    let adapter = LoraAdapter::load(&folder("qwen2-tied/adapter"), &base.config, &Device::Cpu)?;
    Policy::from_adapter(base, adapter)
}

fn assert_same_bits(actual: &Weights, expected: &Weights) -> Result<()> {
    assert_eq!(actual.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, tensor) in actual {
        let bits = |t: &Tensor| -> Result<Vec<u32>> {
            Ok(t.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
        };
        assert_eq!(tensor.dims(), expected[name].dims(), "{name}");
        assert!(bits(tensor)? == bits(&expected[name])?, "bits of `{name}`");
    }
    Ok(())
}

#[test]
fn logits_and_log_probabilities_are_those_of_transformers() {
    for name in MODELS {
        assert_same_forward(&load(name).unwrap().decoder().unwrap(), &Expected::read(name).unwrap()).unwrap();
    }
}

#[test]
fn loss_and_every_gradient_are_those_of_transformers() {
    for name in MODELS {
        let base = load(name).unwrap();
        let tensors = base.config.tensors().len();
        let policy = Policy::new(base, &Tuning::Full, &mut ChaCha8Rng::seed_from_u64(0)).unwrap();
        assert_eq!(policy.parameters().len(), tensors);
        assert_same_gradients(&policy, &Expected::read(name).unwrap(), str::to_owned).unwrap();
    }
}

#[test]
fn an_adapter_computes_and_learns_what_it_does_in_peft() {
    let policy = adapter_policy().unwrap();
    let expected = Expected::read("qwen2-tied/adapter").unwrap();
    assert_same_forward(&policy.decoder().unwrap(), &expected).unwrap();
    assert_same_forward(&policy.frozen().unwrap(), &expected).unwrap();
    assert_same_forward(&policy.reference().unwrap(), &Expected::read("qwen2-tied").unwrap()).unwrap();
    assert_eq!(policy.parameters().len(), 2 * 7 * 2, "two factors at seven projections of two layers");
    assert_same_gradients(&policy, &expected, peft_name).unwrap();
}

#[test]
fn a_folded_adapter_is_a_model_of_its_own() {
    let policy = adapter_policy().unwrap();
    let out = tempfile::tempdir().unwrap();
    let merged = Pretrained { weights: policy.weights().unwrap(), ..policy.base().clone() };
    merged.save(out.path()).unwrap();
    let merged = Pretrained::load(out.path(), DType::F32, &Device::Cpu).unwrap();
    let expected = Expected::read("qwen2-tied/adapter").unwrap();
    assert_same_forward(&merged.decoder().unwrap(), &expected).unwrap();
}

#[test]
fn a_model_folder_reads_back_to_the_bit() {
    for name in MODELS {
        let model = load(name).unwrap();
        let out = tempfile::tempdir().unwrap();
        model.save(out.path()).unwrap();
        let again = Pretrained::load(out.path(), DType::F32, &Device::Cpu).unwrap();
        assert_eq!((&again.config, &again.tokens), (&model.config, &model.tokens));
        assert_same_bits(&again.weights, &model.weights).unwrap();
        assert_eq!(weight_files(out.path()).unwrap().len(), 1);
        let config: Value = files::read_json(&out.path().join("config.json")).unwrap();
        let original: Value = files::read_json(&folder(name).join("config.json")).unwrap();
        for key in ["architectures", "model_type", "attention_bias"] {
            assert_eq!(config[key], original[key], "{name}: {key}");
        }
        assert_eq!(config["torch_dtype"], "float32");
    }
}

#[test]
fn shards_are_read_in_the_order_of_their_names() {
    let names: Vec<_> = weight_files(&folder("qwen2-untied"))
        .unwrap()
        .into_iter()
        .map(|path| path.file_name().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
}

#[test]
fn an_adapter_folder_holds_what_peft_writes() {
    let (from, out) = (folder("qwen2-tied/adapter"), tempfile::tempdir().unwrap());
    adapter_policy().unwrap().save(out.path(), "qwen2-tied").unwrap();
    let weights =
        |folder: &Path| read_safetensors(&folder.join("adapter_model.safetensors"), DType::F32, &Device::Cpu).unwrap();
    assert_same_bits(&weights(out.path()), &weights(&from)).unwrap();
    let config =
        |folder: &Path| files::read_json::<BTreeMap<String, Value>>(&folder.join("adapter_config.json")).unwrap();
    let (ours, theirs) = (config(out.path()), config(&from));
    assert!(ours.len() >= 10, "{ours:?}");
    for (key, value) in &ours {
        // PEFT writes alpha as the whole number it is.
        let same = value == &theirs[key] || value.as_f64().is_some() && value.as_f64() == theirs[key].as_f64();
        assert!(same, "`{key}` is {value}, PEFT writes {}", theirs[key]);
    }
    let model = ModelConfig::read(&folder("qwen2-tied")).unwrap();
    let again = LoraAdapter::load(out.path(), &model, &Device::Cpu).unwrap();
    assert_eq!((again.config.rank, again.config.alpha, again.config.target_modules.len()), (4, 8.0, 7));
}

/// A copy of a golden `config.json` after `edit`, read as a configuration.
fn edited_config(edit: impl Fn(&mut Value)) -> Result<ModelConfig> {
    let out = tempfile::tempdir().map_err(Error::io("create", "a temporary folder"))?;
    let mut config: Value = files::read_json(&folder("qwen2-tied").join("config.json"))?;
    edit(&mut config);
    files::write_json(&out.path().join("config.json"), &config)?;
    ModelConfig::read(out.path())
}

#[test]
fn both_generations_of_config_keys_are_read() {
    let new = edited_config(|config| {
        config["rope_parameters"]["rope_theta"] = json!(250_000.0);
    });
    let old = edited_config(|config| {
        let keys = config.as_object_mut().unwrap();
        assert!(keys.remove("rope_parameters").is_some() && keys.remove("dtype").is_some());
        keys.insert("rope_theta".into(), json!(250_000.0));
        keys.insert("rope_scaling".into(), Value::Null);
        keys.insert("torch_dtype".into(), json!("float32"));
    });
    let (new, old) = (new.unwrap(), old.unwrap());
    assert_eq!(new, old);
    assert_eq!((new.rope_theta, new.head_dim, new.tie_word_embeddings), (250_000.0, 8, true));
}

#[test]
fn settings_that_no_decoder_has_are_named() {
    let refused = |key: &str, value: Value| {
        let edited = edited_config(|config| {
            config.as_object_mut().unwrap().insert(key.into(), value.clone());
        });
        edited.unwrap_err().to_string()
    };
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768});
    assert!(refused("rope_parameters", yarn).contains("\"yarn\""));
    let incomplete = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0});
    assert!(refused("rope_parameters", incomplete).contains("`high_freq_factor` of the rotary settings is missing"));
}

#[test]
fn special_tokens_come_from_the_generation_config() {
    let expected = SpecialTokens { bos: Some(0), eos: vec![1], pad: None };
    assert_eq!(SpecialTokens::read(&folder("qwen2-tied")).unwrap(), expected);
}

#[test]
fn the_asked_for_dtype_is_kept_and_written() {
    let model = Pretrained::load(&folder("qwen2-untied"), DType::BF16, &Device::Cpu).unwrap();
    assert!(model.weights.values().all(|tensor| tensor.dtype() == DType::BF16));
    let out = tempfile::tempdir().unwrap();
    model.save(out.path()).unwrap();
    let config: Value = files::read_json(&out.path().join("config.json")).unwrap();
    assert_eq!(config["torch_dtype"], "bfloat16");
    let again = Pretrained::load(out.path(), DType::BF16, &Device::Cpu).unwrap();
    for (name, tensor) in &model.weights {
        let values = |t: &Tensor| t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(values(tensor) == values(&again.weights[name]), "{name}");
    }
    let size = |folder: &Path| weight_files(folder).unwrap().iter().map(|p| p.metadata().unwrap().len()).sum::<u64>();
    assert!(size(out.path()) < size(&folder("qwen2-untied")) * 6 / 10, "two bytes a weight");
}
