//! Names and shapes of the tensors in safetensors files, from their headers alone: what fits is known before any weight is
//! read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use brevity_training::model::{LoraConfig, ModelConfig, adapter_files, weight_files};
use brevity_training::{Error, Result, files};
use safetensors::tensor::Metadata;
use serde_json::{Map, Value};

/// Largest header that is read; the format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// Shapes by tensor name.
pub(super) type Shapes = BTreeMap<String, Vec<usize>>;

/// The shapes in one file.
///
/// # Errors
/// [`Error::Io`] when it cannot be read, [`Error::Format`] when it is torn or not safetensors.
pub(super) fn shapes(path: &Path) -> Result<Shapes> {
    let torn = |message: String| {
        Error::format(path, format!("not a whole safetensors file: {message}; fetch or copy it again"))
    };
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let mut size = [0u8; 8];
    let header = read(&mut file, &mut size).and_then(|()| {
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER.min(length) {
            return Err(io::Error::other("its header is longer than the file"));
        }
        let mut header = vec![0u8; size as usize];
        read(&mut file, &mut header).map(|()| header)
    });
    let header = header.map_err(|error| torn(error.to_string()))?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| torn(error.to_string()))?;
    let expected = 8 + header.len() as u64 + metadata.data_len() as u64;
    if expected != length {
        return Err(torn(format!("it has {length} bytes, its header promises {expected}")));
    }
    Ok(metadata.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect())
}

fn read(file: &mut File, buffer: &mut [u8]) -> io::Result<()> {
    file.read_exact(buffer).map_err(|_| io::Error::other("it ends within its header"))
}

/// The shapes in the model of `folder`, checked against its `config.json` where that is of an architecture known here.
///
/// # Errors
/// [`Error::Format`] naming file and tensor, [`Error::Io`] for a file that cannot be read.
pub(super) fn model(folder: &Path) -> Result<Shapes> {
    let place = folder.join("config.json");
    let config: Map<String, Value> = files::read_json(&place)?;
    if !config.get("model_type").is_some_and(Value::is_string) {
        return Err(Error::format(&place, "`model_type` is missing, this is no configuration of a model"));
    }
    for key in ["vocab_size", "hidden_size", "num_hidden_layers"] {
        if config.get(key).and_then(Value::as_u64).is_none_or(|count| count == 0) {
            return Err(Error::format(&place, format!("`{key}` is missing or no positive whole number")));
        }
    }
    let mut found = Shapes::new();
    for path in weight_files(folder)? {
        found.append(&mut shapes(&path)?);
    }
    // Other architectures are the engine's business: it knows what their tensors are called.
    if let Ok(config) = ModelConfig::read(folder) {
        let shapes = found.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        config.fits(&shapes).map_err(|message| Error::format(folder, message))?;
    }
    Ok(found)
}

/// Checks that the adapter in `folder` fits a base with the tensors `base`, which is in `base_folder`.
///
/// # Errors
/// [`Error::Format`] naming file and tensor, [`Error::Io`] for a file that cannot be read.
pub(super) fn adapter(folder: &Path, base: &Shapes, base_folder: &Path) -> Result<()> {
    let config = LoraConfig::read(folder)?;
    for path in adapter_files(folder) {
        let found = shapes(&path)?;
        fits(&found, &config, base, base_folder).map_err(|message| Error::format(&path, message))?;
    }
    Ok(())
}

fn fits(found: &Shapes, config: &LoraConfig, base: &Shapes, base_folder: &Path) -> Result<(), String> {
    let base_place = base_folder.display();
    let mut rest: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    let mut covered = 0;
    for (weight, shape) in base.iter().filter(|(weight, _)| config.covers(weight)) {
        let [outputs, inputs] = shape.as_slice() else { continue };
        covered += 1;
        let module = weight.strip_suffix(".weight").unwrap_or(weight);
        for (factor, expected) in [("lora_A", [config.rank, *inputs]), ("lora_B", [*outputs, config.rank])] {
            let key = format!("base_model.model.{module}.{factor}.weight");
            rest.remove(key.as_str());
            match found.get(&key) {
                None => {
                    return Err(format!(
                        "`{key}` is missing, which the base in `{base_place}` needs: was the adapter trained on another base?"
                    ));
                }
                Some(shape) if *shape != expected => {
                    return Err(format!(
                        "`{key}` has shape {shape:?}, the base in `{base_place}` and the rank {} need {expected:?}: \
                         was the adapter trained on another base?",
                        config.rank
                    ));
                }
                Some(_) => {}
            }
        }
    }
    match rest.first() {
        Some(name) => Err(format!(
            "`{name}` belongs to no layer of the base in `{base_place}`: was the adapter trained on another base?"
        )),
        None if covered == 0 => Err(format!("it changes no layer of the base in `{base_place}`")),
        None => Ok(()),
    }
}

/// Bytes of the weights in a folder; 0 where there are none.
pub fn size_on_disk(folder: &Path) -> u64 {
    let entries =
        std::fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect::<Vec<PathBuf>>());
    let weights =
        entries.unwrap_or_default().into_iter().filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    weights.filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this header and so many bytes behind it.
    fn file(header: &str, bytes: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut content = (header.len() as u64).to_le_bytes().to_vec();
        content.extend(header.as_bytes());
        content.extend(vec![0; bytes]);
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn shapes_are_those_of_the_header() {
        let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;
        assert_eq!(shapes(file(header, 24).path()).unwrap(), Shapes::from([("a".to_owned(), vec![2, 3])]));
        for bytes in [23, 25] {
            let message = shapes(file(header, bytes).path()).unwrap_err().to_string();
            let length = 8 + header.len() + bytes;
            assert!(message.contains(&format!("it has {length} bytes, its header promises")), "{message}");
        }
        let torn = tempfile::NamedTempFile::new().unwrap();
        for content in [&b""[..], b"torn", &[255; 8], &[9, 0, 0, 0, 0, 0, 0, 0, b'{']] {
            std::fs::write(torn.path(), content).unwrap();
            assert!(matches!(shapes(torn.path()), Err(Error::Format { .. })), "{content:?}");
        }
    }

    #[test]
    fn weights_that_config_json_says_nothing_of_are_named() {
        use brevity_training::model::{DType, Device, Pretrained, Weights, write_safetensors};

        let folder = tempfile::tempdir().unwrap();
        super::super::test_support::model(folder.path(), 1);
        model(folder.path()).unwrap();
        let mut weights: Weights = Pretrained::load(folder.path(), DType::F32, &Device::Cpu).unwrap().weights;
        let norm = weights["model.norm.weight"].clone();
        for idle in ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"] {
            weights.insert(idle.into(), norm.clone());
        }
        let file = folder.path().join("model.safetensors");
        write_safetensors(&file, &weights, &[]).unwrap();
        model(folder.path()).unwrap();
        weights.insert("model.layers.1.input_layernorm.weight".into(), norm);
        write_safetensors(&file, &weights, &[]).unwrap();
        let message = model(folder.path()).unwrap_err().to_string();
        assert!(message.contains("hold `model.layers.1.input_layernorm.weight`"), "{message}");
    }

    #[test]
    fn factors_must_have_the_shapes_that_base_and_rank_give() {
        let base = Shapes::from([("m.q_proj.weight".to_owned(), vec![8, 4]), ("m.q_proj.bias".to_owned(), vec![8])]);
        let config = LoraConfig { rank: 2, alpha: 4.0, target_modules: vec!["q_proj".to_owned()] };
        let key = |factor: &str| format!("base_model.model.m.q_proj.{factor}.weight");
        let good = Shapes::from([(key("lora_A"), vec![2, 4]), (key("lora_B"), vec![8, 2])]);
        let check = |found: &Shapes| fits(found, &config, &base, Path::new("base"));
        check(&good).unwrap();
        let mut found = good.clone();
        found.insert(key("lora_A"), vec![2, 6]);
        let message = check(&found).unwrap_err();
        assert!(
            message.contains("[2, 6]") && message.contains("[2, 4]") && message.contains("another base"),
            "{message}"
        );
        found.remove(&key("lora_A"));
        assert!(check(&found).unwrap_err().contains("is missing"));
        let mut found = good.clone();
        found.insert("base_model.model.n.q_proj.lora_A.weight".to_owned(), vec![2, 4]);
        assert!(check(&found).unwrap_err().contains("belongs to no layer"));
        assert!(fits(&Shapes::new(), &config, &Shapes::new(), Path::new("base")).unwrap_err().contains("no layer"));
    }
}
