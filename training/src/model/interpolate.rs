//! Models between two models: adapters and checkpoints added up with weights.
//!
//! Between two fine-tunings of one base the loss is often nearly flat (arXiv 2203.05482), so a point between two tiers is a
//! tier too, without training. What the weights mean and where the files belong is decided elsewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};

use super::lora::{Factors, LoraAdapter, LoraConfig, TARGET_MODULES};
use super::weights::{Weights, write_safetensors};
use crate::{Error, Result};

impl LoraAdapter {
    /// The adapter whose change of every weight is the sum of the given adapters' changes, each times its factor: with the
    /// ranks r₁, r₂, … one of rank r₁ + r₂ + …, exactly.
    ///
    /// The first factors are stacked as they are; each second factor takes up its adapter's scale and factor, in f64 before
    /// it is rounded to f32 once, and the sum's own scale is 1. Where only some of the adapters change a weight, the rows of
    /// the others are zero there.
    ///
    /// # Errors
    /// [`Error::Config`] when there is no adapter, [`Error::Tensor`] when two of them have different shapes at a weight.
    pub fn sum(parts: &[(&Self, f64)]) -> Result<Self> {
        let rank: usize = parts.iter().map(|(part, _)| part.config.rank).sum();
        let is_target =
            |module: &str| parts.iter().any(|(part, _)| part.config.target_modules.iter().any(|m| m == module));
        let target_modules = TARGET_MODULES.into_iter().filter(|module| is_target(module)).map(str::to_owned).collect();
        let config = LoraConfig { rank, alpha: rank as f64, target_modules };
        config.check()?;
        let names: BTreeSet<&String> = parts.iter().flat_map(|(part, _)| part.factors.keys()).collect();
        let mut sum = Self { config, factors: Default::default() };
        for name in names {
            let Some(like) = parts.iter().find_map(|(part, _)| part.factors.get(name)) else { continue };
            let (inputs, outputs) = (like.a.dim(1)?, like.b.dim(0)?);
            let (mut rows, mut columns) = (Vec::new(), Vec::new());
            for (part, factor) in parts {
                match part.factors.get(name) {
                    Some(Factors { a, b }) => {
                        rows.push(a.to_dtype(DType::F32)?);
                        let scaled = (b.to_dtype(DType::F64)? * (part.config.scale() * factor))?;
                        columns.push(scaled.to_dtype(DType::F32)?);
                    }
                    None => {
                        rows.push(Tensor::zeros((part.config.rank, inputs), DType::F32, like.a.device())?);
                        columns.push(Tensor::zeros((outputs, part.config.rank), DType::F32, like.a.device())?);
                    }
                }
            }
            let factors = Factors { a: Tensor::cat(&rows, 0)?, b: Tensor::cat(&columns, 1)?.contiguous()? };
            sum.factors.insert(name.clone(), factors);
        }
        Ok(sum)
    }
}

/// Writes `share · a + (1 − share) · b` into `folder`, tensor by tensor in f32 and rounded back to the dtype that `a` has,
/// in files of the names that `a`'s have. Tensors are read when their turn comes: one file's worth is in memory at a time.
///
/// # Errors
/// [`Error::Format`] naming the tensor that only one of them has, whose shapes differ, or that holds no floating-point
/// numbers; [`Error::Io`] when something cannot be read or written.
pub fn interpolate_files(a: &[PathBuf], b: &[PathBuf], share: f64, folder: &Path) -> Result<()> {
    let second = open(b)?;
    let mut unused: BTreeSet<String> = second.tensors().into_iter().map(|(name, _)| name).collect();
    let whole = |paths: &[PathBuf]| paths.first().cloned().unwrap_or_default();
    for path in a {
        let first = open(std::slice::from_ref(path))?;
        let mut merged = Weights::new();
        for (name, _) in first.tensors() {
            if !unused.remove(&name) {
                return Err(Error::format(whole(b), format!("there is no `{name}`, which `{}` has", path.display())));
            }
            let (x, y) = (first.load(&name, &Device::Cpu)?, second.load(&name, &Device::Cpu)?);
            if x.dims() != y.dims() {
                let message =
                    format!("`{name}` has shape {:?}, in `{}` it is {:?}", y.dims(), path.display(), x.dims());
                return Err(Error::format(whole(b), message));
            }
            if !x.dtype().is_float() || !y.dtype().is_float() {
                return Err(Error::format(
                    path,
                    format!("`{name}` is {:?}; only floating-point weights mix", x.dtype()),
                ));
            }
            let (x32, y32) = (x.to_dtype(DType::F32)?, y.to_dtype(DType::F32)?);
            let mixed = ((x32 * share)? + (y32 * (1.0 - share))?)?;
            merged.insert(name, mixed.to_dtype(x.dtype())?);
        }
        let name = path.file_name().ok_or_else(|| Error::format(path, "this is no file"))?;
        write_safetensors(&folder.join(name), &merged, &[("format", "pt")])?;
    }
    match unused.first() {
        Some(name) => Err(Error::format(whole(a), format!("there is no `{name}`, which `{}` has", whole(b).display()))),
        None => Ok(()),
    }
}

/// The tensors of safetensors files, read when they are asked for.
pub(super) fn open(paths: &[PathBuf]) -> Result<MmapedSafetensors> {
    for path in paths {
        // The mapping's own error for a missing file would not name it.
        std::fs::metadata(path).map_err(Error::io("read", path))?;
    }
    // SAFETY: the files are weights of finished tiers, which are replaced by renaming and never written in place.
    let mapped = unsafe { MmapedSafetensors::multi(paths) };
    let named = paths.first().cloned().unwrap_or_default();
    mapped.map_err(|error| Error::format(named, format!("not a readable safetensors file: {error}")))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::test_support::{tiny, tiny_config};
    use super::super::weights::{read_safetensors, weight_files, write_weights};
    use super::*;

    fn adapter(rank: usize, alpha: f64, modules: &[&str], seed: u64) -> LoraAdapter {
        let target_modules = modules.iter().map(|&module| module.to_owned()).collect();
        let config = LoraConfig { rank, alpha, target_modules };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut adapter = LoraAdapter::new(config, &tiny_config(), &mut rng, &Device::Cpu).unwrap();
        for factors in adapter.factors.values_mut() {
            // A second factor that changes something: the first one of the transposed shape.
            let (outputs, rank) = factors.b.dims2().unwrap();
            let values: Vec<f32> = (0..outputs * rank).map(|_| rand::Rng::random_range(&mut rng, -0.5..0.5)).collect();
            factors.b = Tensor::from_vec(values, (outputs, rank), &Device::Cpu).unwrap();
        }
        adapter
    }

    /// The change of a weight in f64, computed without [`LoraAdapter::fold`].
    fn change(adapter: &LoraAdapter, name: &str, shape: &[usize]) -> Vec<f64> {
        let Some(Factors { a, b }) = adapter.factors.get(name) else { return vec![0.0; shape[0] * shape[1]] };
        let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
        let product = (b.matmul(&a).unwrap() * adapter.config.scale()).unwrap();
        product.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_sum_of_two_adapters_changes_weights_by_the_interpolation() {
        let one = adapter(3, 8.0, &["q_proj", "down_proj"], 1);
        let two = adapter(2, 5.0, &["q_proj", "v_proj"], 2);
        for share in [0.25, 0.5, 0.9] {
            let sum = LoraAdapter::sum(&[(&one, share), (&two, 1.0 - share)]).unwrap();
            assert_eq!(sum.config.rank, 5);
            assert_eq!(sum.config.scale(), 1.0);
            assert_eq!(sum.config.target_modules, ["q_proj", "v_proj", "down_proj"]);
            let mut largest: f64 = 0.0;
            for (name, shape) in tiny_config().tensors().iter().filter(|(name, _)| sum.config.covers(name)) {
                let (found, x, y) = (change(&sum, name, shape), change(&one, name, shape), change(&two, name, shape));
                for ((found, x), y) in found.iter().zip(&x).zip(&y) {
                    assert!((found - (share * x + (1.0 - share) * y)).abs() < 1e-6, "{name}");
                    largest = largest.max(found.abs());
                }
                // And as the forward pass folds it, in f32.
                let zero = Tensor::zeros(shape.as_slice(), DType::F32, &Device::Cpu).unwrap();
                let folded: Vec<f32> = sum.fold(name, &zero).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                assert!(folded.iter().zip(&found).all(|(folded, found)| (f64::from(*folded) - found).abs() < 1e-6));
            }
            assert!(largest > 0.1, "the adapters change something: {largest}");
        }
    }

    #[test]
    fn the_sum_survives_its_files() {
        let (one, two) = (adapter(3, 8.0, &["q_proj"], 1), adapter(2, 5.0, &["q_proj"], 2));
        let sum = LoraAdapter::sum(&[(&one, 0.5), (&two, 0.5)]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        sum.save(folder.path(), "base").unwrap();
        let back = LoraAdapter::load(folder.path(), &tiny_config(), &Device::Cpu).unwrap();
        let name = "model.layers.0.self_attn.q_proj.weight";
        assert_eq!(change(&back, name, &[8, 8]), change(&sum, name, &[8, 8]));
        assert!(LoraAdapter::sum(&[]).is_err());
    }

    #[test]
    fn checkpoints_mix_tensor_by_tensor_and_keep_their_dtype() {
        let space = tempfile::tempdir().unwrap();
        let (a, b, out) = (space.path().join("a"), space.path().join("b"), space.path().join("out"));
        let mut weights = tiny().weights;
        let mut half: Weights = weights.iter().map(|(name, tensor)| (name.clone(), (tensor * 3.0).unwrap())).collect();
        let name = "model.norm.weight".to_owned();
        weights.insert(name.clone(), weights[&name].to_dtype(DType::BF16).unwrap());
        write_weights(&a, &weights).unwrap();
        write_weights(&b, &half).unwrap();
        let files = |folder: &Path| weight_files(folder).unwrap();
        interpolate_files(&files(&a), &files(&b), 0.75, &out).unwrap();
        let mapped = open(&files(&out)).unwrap();
        for (key, before) in &weights {
            let found = mapped.load(key, &Device::Cpu).unwrap();
            assert_eq!(found.dtype(), before.dtype(), "{key}");
            let list = |tensor: &Tensor| -> Vec<f32> {
                tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
            };
            // 0.75 + 0.25 · 3 = 1.5 times the first.
            assert!(list(&found).iter().zip(list(before)).all(|(x, y)| (x - 1.5 * y).abs() < 1e-6), "{key}");
        }
        half.remove(&name);
        write_weights(&b, &half).unwrap();
        let error = interpolate_files(&files(&a), &files(&b), 0.75, &out).unwrap_err().to_string();
        assert!(error.contains("no `model.norm.weight`"), "{error}");
        let error = interpolate_files(&files(&b), &files(&a), 0.75, &out).unwrap_err().to_string();
        assert!(error.contains("no `model.norm.weight`"), "{error}");
        assert!(read_safetensors(&out.join("model.safetensors"), DType::F32, &Device::Cpu).is_ok());
    }
}
