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
    let mut weights = Weights::new();
    for (name, shape) in config.tensors() {
        let Some(tensor) = found.remove(&name) else {
            return Err(Error::format(folder, format!("the weights lack `{name}`, which config.json asks for")));
        };
        if tensor.dims() != shape {
            return Err(Error::format(
                folder,
                format!("`{name}` has shape {:?}, config.json asks for {shape:?}", tensor.dims()),
            ));
        }
        weights.insert(name, tensor);
    }
    if config.tie_word_embeddings {
        found.remove("lm_head.weight");
    }
    if let Some(name) = found.keys().next() {
        return Err(Error::format(folder, format!("the weights hold `{name}`, which this architecture does not have")));
    }
    Ok(weights)
}

/// Writes the weights of a folder as one `model.safetensors`.
///
/// # Errors
/// As [`write_safetensors`].
pub fn write_weights(folder: &Path, weights: &Weights) -> Result<()> {
    write_safetensors(&folder.join(SINGLE), weights, &[("format", "pt")])
}
