//! What the engine has to be told of a model's `config.json` beside what it reads there itself.
//!
//! It reads the layout of transformers 4, where rotary settings stand at the top level, and some of its models do without a
//! word what the settings do not say. Here newer files are put into that layout, and models that would come out wrong are
//! refused. Nothing is loaded here.

use brevity_training::model::Architecture;
use serde_json::{Map, Value, json};

/// Models whose rotary frequencies the engine takes as they are, whatever the settings say (read in its source).
const NEVER_SCALED: [&str; 13] = [
    "flint",
    "gemma",
    "gemma2",
    "glm4",
    "glm4_moe",
    "glm4_moe_lite",
    "mixtral",
    "phi",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "qwen3_next",
    "starcoder2",
];

/// Models whose biases the engine does not read (read in its source).
const NEVER_BIASED: [&str; 7] =
    ["glm4_moe_lite", "granitemoehybrid", "llama", "qwen3", "qwen3_moe", "qwen3_next", "smollm3"];

/// Models of which the engine looks for the kind of scaling under `type`, and not under `rope_type`.
const OLDER_KEY: [&str; 6] = ["deepseek_v2", "deepseek_v3", "hunyuan_v1_dense", "hunyuan_v1_moe", "phi3", "phimoe"];

/// Rotary settings that the engine looks for at the top level.
const LIFTED: [&str; 2] = ["rope_theta", "partial_rotary_factor"];

/// Keys to put over those of `config`, an object, for the engine; none where it reads all there is.
///
/// # Errors
/// What the engine would leave out, and what to do.
pub fn overrides(config: &Value) -> Result<Option<Value>, String> {
    let model_type = config["model_type"].as_str().unwrap_or_default();
    let is_one_of = |types: &[&str]| types.contains(&model_type);
    for key in ["attention_bias", "mlp_bias"] {
        if is_one_of(&NEVER_BIASED) && config[key] == true {
            return Err(unread(&format!("`{key}`"), model_type));
        }
    }
    // Where a file has both, transformers takes the older and nothing of the newer.
    let object = |key: &str| config[key].as_object().filter(|object| !object.is_empty());
    let (older, newer) = (object("rope_scaling"), object("rope_parameters"));
    let rope = older.or(newer).cloned().unwrap_or_default();
    let kind = rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str).unwrap_or("default");
    // Of these the engine reads the newer settings, and only them.
    let is_mistral = model_type == "mistral";
    if kind != "default" && (is_one_of(&NEVER_SCALED) || is_mistral && older.is_some()) {
        return Err(unread(&format!("rotary positions of type \"{kind}\""), model_type));
    }
    if is_mistral {
        return Ok(None);
    }
    let mut over = Map::new();
    for key in LIFTED {
        if let Some(value) = rope.get(key).filter(|&value| *value != config[key]) {
            over.insert(key.into(), value.clone());
        }
    }
    // What the oldest files leave out, as transformers fills it in.
    if Architecture::ALL.iter().any(|known| known.model_type() == model_type) {
        if config["rope_theta"].is_null() && !over.contains_key("rope_theta") {
            over.insert("rope_theta".into(), json!(10_000.0));
        }
        if config["num_key_value_heads"].is_null() {
            over.insert("num_key_value_heads".into(), config["num_attention_heads"].clone());
        }
    }
    let (key, other) = if is_one_of(&OLDER_KEY) { ("type", "rope_type") } else { ("rope_type", "type") };
    // What the engine finds in the file stays beside what is put over it; to HunYuan both keys are the same.
    let is_found = older.is_some_and(|older| older.contains_key(key) || model_type.starts_with("hunyuan"));
    if kind != "default" && !is_found {
        let mut scaling = rope.clone();
        scaling.retain(|key, _| key != other && !LIFTED.contains(&key.as_str()));
        scaling.insert(key.into(), json!(kind));
        over.insert("rope_scaling".into(), scaling.into());
    }
    Ok((!over.is_empty()).then(|| over.into()))
}

fn unread(what: &str, model_type: &str) -> String {
    format!(
        "config.json asks for {what}, which the engine leaves out of \"{model_type}\" models, so that their answers would be \
         wrong; let a server that knows it compute the tiers (`[tier.upstream]` in family.toml)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model of `model_type` with `keys`, beside what every file has.
    fn config(model_type: &str, keys: Value) -> Value {
        let mut config = json!({
            "model_type": model_type, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
        });
        if let (Some(config), Value::Object(keys)) = (config.as_object_mut(), keys) {
            config.extend(keys);
        }
        config
    }

    fn told(model_type: &str, keys: Value) -> Option<Value> {
        overrides(&config(model_type, keys)).unwrap()
    }

    #[test]
    fn newer_files_are_put_into_the_older_layout() {
        let plain = json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}});
        assert_eq!(told("qwen2", plain), Some(json!({"rope_theta": 1e6})));
        let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0});
        let mut newer = llama3.clone();
        newer["rope_theta"] = json!(5e5);
        let expected = json!({"rope_theta": 5e5, "rope_scaling": llama3});
        assert_eq!(told("llama", json!({"rope_parameters": newer})), Some(expected));
        let partial = json!({"rope_theta": 1e4, "partial_rotary_factor": 0.5, "rope_type": "default"});
        let expected = json!({"rope_theta": 1e4, "partial_rotary_factor": 0.5});
        assert_eq!(told("glm4", json!({"rope_parameters": partial})), Some(expected));
        let oldest = json!({"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}});
        assert_eq!(told("llama", oldest).unwrap()["rope_scaling"]["rope_type"], "linear");
        let phi = json!({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0]}});
        let expected = json!({"rope_theta": 1e4, "rope_scaling": {"type": "longrope", "short_factor": [1.0]}});
        assert_eq!(told("phi3", phi), Some(expected));
        // Layers of several kinds, each with settings of its own: left to the engine.
        let nested = json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}});
        assert_eq!(told("gemma3", nested), None);
    }

    #[test]
    fn settings_in_both_places_are_taken_as_transformers_takes_them() {
        let both = json!({"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}});
        assert_eq!(told("llama", both), Some(json!({"rope_theta": 1e6})));
        let added = json!({
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
        });
        assert!(overrides(&config("qwen3", added)).unwrap_err().contains("\"yarn\""));
        assert_eq!(told("qwen3", json!({"rope_theta": 1e6, "rope_parameters": null, "rope_scaling": null})), None);
        let llama3 = json!({"rope_type": "llama3", "factor": 8.0});
        let newer = json!({"rope_type": "default", "rope_theta": 5e5});
        let both = json!({"rope_theta": 7e3, "rope_scaling": llama3, "rope_parameters": newer});
        assert_eq!(told("llama", both), None, "the newer theta goes with the newer settings");
        let empty = json!({"rope_theta": 7e3, "rope_scaling": {}, "rope_parameters": llama3});
        assert_eq!(told("llama", empty), Some(json!({"rope_scaling": llama3})));
    }

    #[test]
    fn the_oldest_files_are_completed() {
        let llama2 = json!({"rope_scaling": null, "num_key_value_heads": null});
        assert_eq!(told("llama", llama2), Some(json!({"rope_theta": 10_000.0, "num_key_value_heads": 4})));
        assert_eq!(told("unheard-of", json!({"num_key_value_heads": null})), None);
    }

    #[test]
    fn what_the_engine_reads_itself_is_left_alone() {
        for (model_type, keys) in [
            ("qwen2", json!({"rope_theta": 1e6, "rope_scaling": null, "attention_bias": true})),
            (
                "llama",
                json!({"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}, "head_dim": 16}),
            ),
            ("qwen3", json!({"rope_theta": 1e6, "attention_bias": false, "head_dim": 128})),
            ("mistral", json!({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}})),
            ("hunyuan_v1_dense", json!({"rope_scaling": {"type": "dynamic", "alpha": 1000.0}})),
            ("unheard-of", json!({"attention_bias": true})),
        ] {
            assert_eq!(told(model_type, keys.clone()), None, "{model_type} {keys}");
        }
    }

    #[test]
    fn what_it_would_leave_out_is_refused() {
        let refused = |model_type: &str, keys: Value| overrides(&config(model_type, keys)).unwrap_err();
        for key in ["rope_parameters", "rope_scaling"] {
            for model_type in ["qwen3", "qwen3_next"] {
                let why = refused(model_type, json!({key: {"rope_type": "yarn", "factor": 4.0}}));
                assert!(why.contains("\"yarn\"") && why.contains(model_type) && why.contains("upstream"), "{why}");
            }
        }
        assert!(refused("mistral", json!({"rope_scaling": {"type": "yarn"}})).contains("\"yarn\""));
        assert!(refused("llama", json!({"attention_bias": true})).contains("`attention_bias`"));
    }
}
