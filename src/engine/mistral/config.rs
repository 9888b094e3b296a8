//! What the engine has to be told of a model's `config.json` beside what it reads there itself.
//!
//! It reads the layout of transformers 4, where rotary settings stand at the top level, and some of its models do without a
//! word what the settings do not say. Here newer files are put into that layout, and models that would come out wrong are
//! refused. Nothing is loaded here.

use serde_json::{Map, Value, json};

/// Models whose rotary frequencies the engine takes as they are, whatever the settings say (read in its source).
const NEVER_SCALED: [&str; 5] = ["qwen2", "qwen3", "qwen3_moe", "mistral", "mixtral"];

/// Models whose biases the engine does not read (read in its source).
const NEVER_BIASED: [&str; 3] = ["qwen3", "llama", "mistral"];

/// Keys to put over those of `config`, an object, for the engine; none where it reads all there is.
///
/// # Errors
/// What the engine would leave out, and what to do.
pub fn overrides(config: &Value) -> Result<Option<Value>, String> {
    let model_type = config["model_type"].as_str().unwrap_or_default();
    for key in ["attention_bias", "mlp_bias"] {
        if NEVER_BIASED.contains(&model_type) && config[key] == true {
            return Err(unread(&format!("`{key}`"), model_type));
        }
    }
    let newer = config["rope_parameters"].as_object();
    let Some(rope) = newer.or(config["rope_scaling"].as_object()) else { return Ok(None) };
    let kind = rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str).unwrap_or("default");
    if NEVER_SCALED.contains(&model_type) && kind != "default" {
        return Err(unread(&format!("rotary positions of type \"{kind}\""), model_type));
    }
    let mut over = Map::new();
    if let Some(theta) = rope.get("rope_theta").filter(|_| config["rope_theta"].is_null()) {
        over.insert("rope_theta".into(), theta.clone());
    }
    if kind != "default" && config["rope_scaling"]["rope_type"].is_null() {
        let mut scaling = rope.clone();
        scaling.remove("rope_theta");
        scaling.insert("rope_type".into(), json!(kind));
        over.insert("rope_scaling".into(), scaling.into());
    }
    Ok(Some(Value::from(over)).filter(|over| over != &json!({})))
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

    #[test]
    fn newer_files_are_put_into_the_older_layout() {
        let plain = json!({"model_type": "qwen2", "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}});
        assert_eq!(overrides(&plain).unwrap(), Some(json!({"rope_theta": 1e6})));
        let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0});
        let mut newer = llama3.clone();
        newer["rope_theta"] = json!(5e5);
        let told = overrides(&json!({"model_type": "llama", "rope_parameters": newer})).unwrap();
        assert_eq!(told, Some(json!({"rope_theta": 5e5, "rope_scaling": llama3})));
        // Layers of several kinds, each with settings of its own: left to the engine.
        let nested = json!({"model_type": "gemma3", "rope_parameters": {"full_attention": {"rope_theta": 1e6}}});
        assert_eq!(overrides(&nested).unwrap(), None);
    }

    #[test]
    fn what_the_engine_reads_itself_is_left_alone() {
        for config in [
            json!({"model_type": "qwen2", "rope_theta": 1e6, "rope_scaling": null}),
            json!({"model_type": "llama", "rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}),
            json!({"model_type": "qwen3", "rope_theta": 1e6, "attention_bias": false}),
            json!({"model_type": "unheard-of", "attention_bias": true}),
        ] {
            assert_eq!(overrides(&config).unwrap(), None, "{config}");
        }
        let oldest =
            json!({"model_type": "llama", "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}});
        let told = overrides(&oldest).unwrap().unwrap();
        assert_eq!(told["rope_scaling"]["rope_type"], "linear");
    }

    #[test]
    fn what_it_would_leave_out_is_refused() {
        let refused = |config: Value| overrides(&config).unwrap_err();
        for key in ["rope_parameters", "rope_scaling"] {
            let told = refused(json!({"model_type": "qwen3", key: {"rope_type": "yarn", "factor": 4.0}}));
            assert!(told.contains("\"yarn\"") && told.contains("\"qwen3\"") && told.contains("upstream"), "{told}");
        }
        assert!(refused(json!({"model_type": "llama", "attention_bias": true})).contains("`attention_bias`"));
    }
}
