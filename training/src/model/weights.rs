//! Weights in safetensors files: one file, or shards with an index, as the Hugging Face hub keeps them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use super::config::ModelConfig;
use crate::{Error, Result, files};

/// Tensors by their Hugging Face name.
pub type Weights = BTreeMap<String, Tensor>;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The files that hold the weights of `folder`: one, or the shards its index names, in order.
///
/// # Errors
/// [`Error::Format`] when there is neither a `model.safetensors` nor an index, or the index is malformed.
pub fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.join(SINGLE).exists() {
        return Ok(vec![folder.join(SINGLE)]);
    }
    let index = folder.join(INDEX);
    if !index.exists() {
        return Err(Error::format(folder, format!("no weights here: expected {SINGLE} or {INDEX}")));
    }
    let json: serde_json::Value = files::read_json(&index)?;
    let map = json["weight_map"].as_object().ok_or_else(|| Error::format(&index, "`weight_map` is missing"))?;
    let mut names: Vec<&str> = map.values().filter_map(|name| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// SHA-256 of the given files' bytes one after the other, in hexadecimal: the identity of a set of weights.
///
/// # Errors
/// [`Error::Io`] when one cannot be read.
pub fn hash_files(paths: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for path in paths {
        let mut file = std::fs::File::open(path).map_err(Error::io("read", path))?;
        std::io::copy(&mut file, &mut hash).map_err(Error::io("read", path))?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// All tensors of one safetensors file, converted to `dtype` on `device`.
///
/// # Errors
/// [`Error::Io`] when it cannot be read, [`Error::Format`] when it is torn or not safetensors.
pub fn read_safetensors(path: &Path, dtype: DType, device: &Device) -> Result<Weights> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, device)
        .map_err(|error| Error::format(path, format!("not a readable safetensors file: {error}")))?;
    tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.to_dtype(dtype)?))).collect()
}

/// Writes tensors to one safetensors file atomically, in the order of their names; `metadata` goes into the header.
///
/// # Errors
/// [`Error::Io`] when it cannot be written.
pub fn write_safetensors(path: &Path, tensors: &Weights, metadata: &[(&str, &str)]) -> Result<()> {
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let bytes = safetensors::serialize(tensors.iter(), Some(metadata))
        .map_err(|error| Error::format(path, format!("cannot express the tensors as safetensors: {error}")))?;
    // Reading the header back costs nothing beside the write and catches a serialiser that disagrees with its reader.
    SafeTensors::read_metadata(&bytes).map_err(|error| Error::format(path, error.to_string()))?;
    files::write(path, &bytes)
}

/// The weights of a Hugging Face folder, checked against its configuration.
///
/// # Errors
/// [`Error::Format`] naming the tensor that is missing, of another shape than `config` says, or not part of it.
pub fn read_weights(folder: &Path, config: &ModelConfig, dtype: DType, device: &Device) -> Result<Weights> {
    let mut found = Weights::new();
    for path in weight_files(folder)? {
        found.append(&mut read_safetensors(&path, dtype, device)?);
    }
    let shapes = found.iter().map(|(name, tensor)| (name.as_str(), tensor.dims())).collect();
    config.fits(&shapes).map_err(|message| Error::format(folder, message))?;
    Ok(config.tensors().into_iter().filter_map(|(name, _)| found.remove_entry(&name)).collect())
}

/// Writes the weights of a folder as one `model.safetensors`.
///
/// # Errors
/// As [`write_safetensors`].
pub fn write_weights(folder: &Path, weights: &Weights) -> Result<()> {
    write_safetensors(&folder.join(SINGLE), weights, &[("format", "pt")])
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{tiny, tiny_config};
    use super::*;

    /// The message of reading the tiny model's folder after `change` has been at its weights.
    fn refused(change: impl FnOnce(&mut Weights)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let mut weights = tiny().weights;
        change(&mut weights);
        write_weights(folder.path(), &weights).unwrap();
        let error = read_weights(folder.path(), &tiny_config(), DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(folder.path().to_str().unwrap()), "names the folder: {error}");
        error
    }

    #[test]
    fn weights_that_do_not_fit_are_named() {
        let error = refused(|weights| assert!(weights.remove("model.layers.0.mlp.up_proj.weight").is_some()));
        assert!(error.contains("lack `model.layers.0.mlp.up_proj.weight`"), "{error}");

        let error = refused(|weights| {
            let transposed = weights["lm_head.weight"].t().unwrap().contiguous().unwrap();
            weights.insert("lm_head.weight".into(), transposed);
        });
        assert!(error.contains("`lm_head.weight` has shape [8, 11], config.json asks for [11, 8]"), "{error}");

        let error = refused(|weights| {
            let extra = weights["model.norm.weight"].clone();
            weights.insert("model.layers.0.self_attn.q_norm.weight".into(), extra);
        });
        assert!(error.contains("hold `model.layers.0.self_attn.q_norm.weight`"), "{error}");
    }

    #[test]
    fn a_tied_model_may_keep_its_output_layer_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        write_weights(folder.path(), &tiny().weights).unwrap();
        let config = ModelConfig { tie_word_embeddings: true, ..tiny_config() };
        let weights = read_weights(folder.path(), &config, DType::F32, &Device::Cpu).unwrap();
        assert!(!weights.contains_key("lm_head.weight"));
        assert_eq!(weights.len(), tiny().weights.len() - 1);
    }

    #[test]
    fn rotary_tables_of_old_files_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut weights = tiny().weights;
        let table = weights["model.norm.weight"].clone();
        weights.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), table);
        write_weights(folder.path(), &weights).unwrap();
        let read = read_weights(folder.path(), &tiny_config(), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(read.len(), weights.len() - 1);
    }

    #[test]
    fn a_torn_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SINGLE);
        write_weights(folder.path(), &tiny().weights).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for kept in [0, 7, 100, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..kept]).unwrap();
            let error = read_safetensors(&path, DType::F32, &Device::Cpu).unwrap_err();
            assert!(matches!(&error, Error::Format { path: named, .. } if named == &path), "{kept} bytes: {error}");
        }
    }

    #[test]
    fn a_folder_without_weights_says_what_it_should_hold() {
        let folder = tempfile::tempdir().unwrap();
        let error = weight_files(folder.path()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors or model.safetensors.index.json"), "{error}");

        let index = folder.path().join(INDEX);
        files::write(&index, b"{}").unwrap();
        let error = weight_files(folder.path()).unwrap_err().to_string();
        assert!(error.contains(INDEX) && error.contains("`weight_map`"), "{error}");

        files::write(
            &index,
            br#"{"weight_map": {"a": "two.safetensors", "b": "one.safetensors", "c": "two.safetensors"}}"#,
        )
        .unwrap();
        let shards = weight_files(folder.path()).unwrap();
        assert_eq!(shards, [folder.path().join("one.safetensors"), folder.path().join("two.safetensors")]);
        let error = read_weights(folder.path(), &tiny_config(), DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("one.safetensors"), "names the missing shard: {error}");
    }

    #[test]
    fn a_hash_covers_every_byte_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        files::write(&a, b"ab").unwrap();
        files::write(&b, b"c").unwrap();
        // SHA-256 of "abc", from FIPS 180-2.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash_files(&[a.clone(), b.clone()]).unwrap(), abc);
        assert_ne!(hash_files(&[b, a]).unwrap(), abc);
    }
}
