//! Which files of a repository are needed.

use std::io;
use std::path::Path;

/// Names of `files` in the folder `prefix` (empty, or with a final slash) that a model or an adapter needs: configuration,
/// tokenizer, chat template, weights in safetensors and their index.
pub(super) fn needed(files: &[String], prefix: &str) -> Vec<String> {
    let here = files.iter().filter(|file| file.strip_prefix(prefix).is_some_and(is_needed));
    here.cloned().collect()
}

fn is_needed(name: &str) -> bool {
    if name.contains(['/', '\\']) || name.starts_with('.') {
        return false;
    }
    ["config.json", "generation_config.json", "adapter_config.json"].contains(&name)
        || name.starts_with("tokenizer")
        || name.starts_with("chat_template")
        || name.ends_with(".safetensors")
        || name.ends_with(".safetensors.index.json")
}

/// Whether a folder of the cache holds a whole model or adapter.
///
/// # Errors
/// The name of the first file that is missing.
pub(super) fn complete(folder: &Path) -> Result<(), String> {
    let has = |name: &str| folder.join(name).is_file();
    let lacks = |names: &[&str]| names.iter().find(|name| !has(name)).map(|name| (*name).to_owned());
    let missing = if has("adapter_config.json") && !has("config.json") {
        lacks(&["adapter_model.safetensors"])
    } else {
        lacks(&["config.json", "tokenizer.json"]).or_else(|| shard(folder))
    };
    missing.map_or(Ok(()), Err)
}

/// The first file of weights that a model's folder lacks.
fn shard(folder: &Path) -> Option<String> {
    match brevity_training::model::weight_files(folder) {
        Ok(files) => {
            files.iter().find(|file| !file.is_file()).and_then(|file| file.file_name()?.to_str().map(str::to_owned))
        }
        Err(_) => Some("model.safetensors".to_owned()),
    }
}

/// Names of all files below `folder`, with `/` between folders.
pub(super) fn list(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Files are links to where the cache keeps their contents.
        if entry.path().is_dir() {
            names.extend(list(&entry.path())?.into_iter().map(|inner| format!("{name}/{inner}")));
        } else if entry.path().is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_model_needs_is_fetched() {
        let files: Vec<String> = [
            ".gitattributes",
            "README.md",
            "config.json",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "original/consolidated.safetensors",
            "tiers/short/adapter_config.json",
            "tiers/short/adapter_model.safetensors",
            "tiers/short/optimizer.pt",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(
            needed(&files, ""),
            [
                "config.json",
                "model-00001-of-00002.safetensors",
                "model.safetensors.index.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "chat_template.jinja"
            ]
        );
        assert_eq!(
            needed(&files, "tiers/short/"),
            ["tiers/short/adapter_config.json", "tiers/short/adapter_model.safetensors"]
        );
    }

    #[test]
    fn a_missing_shard_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(complete(folder.path()), Err("config.json".to_owned()));
        write("config.json", "{}");
        write("tokenizer.json", "{}");
        assert_eq!(complete(folder.path()), Err("model.safetensors".to_owned()));
        write("model.safetensors.index.json", r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#);
        write("one.safetensors", "");
        assert_eq!(complete(folder.path()), Err("two.safetensors".to_owned()));
        write("two.safetensors", "");
        assert_eq!(complete(folder.path()), Ok(()));
    }
}
