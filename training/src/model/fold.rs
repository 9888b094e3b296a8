//! An adapter folded into its base: a checkpoint of its own, for engines that compute one faster than an adapter.
//!
//! bf16 has 8 significant bits, and what training changes of a weight is often less than half of the last one: rounded to the
//! nearest, such a change is lost, and with it what the tier has learned. So sums are rounded at random (arXiv 1502.02551):
//! up with a probability of their distance from the lower neighbour, in units of the gap. Every change then arrives in the
//! mean, and the products, which are sums over thousands of weights, have it. Where the files belong is decided elsewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::interpolate::open;
use super::lora::LoraAdapter;
use super::weights::{Weights, write_safetensors};
use crate::{Error, Result};

/// Writes the weights of `base` with the change of `adapter` into `folder`, in files of the same names and every tensor in
/// its format. Returns the rounding beside the change: the norm of what the new weights differ by from the exact ones, over
/// the norm of the change; 0 for an adapter that changes nothing.
///
/// `progress` is told of the bytes of each tensor that is done, and ends the work with `false`. Twice the largest file's worth
/// is in memory at a time. The same weights give the same files.
///
/// # Errors
/// [`Error::Format`] naming the weight that the adapter changes and the base has not, of another shape, or in another format
/// than f32, f16 and bf16; [`Error::Interrupted`]; [`Error::Io`] when something cannot be read or written.
pub fn fold_files(
    base: &[PathBuf],
    adapter: &LoraAdapter,
    folder: &Path,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<f64> {
    let mut missing: BTreeSet<&str> = adapter.factors.keys().map(String::as_str).collect();
    let mut sums = Sums::default();
    for path in base {
        let file = open(std::slice::from_ref(path))?;
        let mut written = Weights::new();
        for (name, view) in file.tensors() {
            let weight = file.load(&name, &Device::Cpu)?;
            let weight = match (adapter.change(&name)?, dropped_bits(weight.dtype())) {
                (None, _) => weight,
                (Some(change), Some(dropped)) if change.dims() == weight.dims() => {
                    missing.remove(name.as_str());
                    sums.add(&weight, &change, &name, dropped)?
                }
                (Some(change), _) => {
                    let (format, found, wanted) = (weight.dtype(), weight.dims(), change.dims());
                    return Err(Error::format(
                        path,
                        format!(
                            "`{name}` is {format:?} {found:?}; the adapter changes a weight of {wanted:?} in f32, f16 or bf16"
                        ),
                    ));
                }
            };
            written.insert(name, weight);
            if !progress(view.data().len() as u64) {
                return Err(Error::Interrupted);
            }
        }
        let name = path.file_name().ok_or_else(|| Error::format(path, "this is no file"))?;
        write_safetensors(&folder.join(name), &written, &[("format", "pt")])?;
    }
    match (missing.first(), base.first()) {
        (Some(name), path) => {
            let message = format!("there is no `{name}`, which the adapter changes");
            Err(Error::format(path.cloned().unwrap_or_default(), message))
        }
        (None, _) => Ok(sums.rounding()),
    }
}

/// The weights of `base` with the change of `adapter`, as [`fold_files`] makes them, in the memory of the processor.
///
/// # Errors
/// [`Error::Tensor`] when an adapted weight and its change differ in shape; [`Error::Config`] when it has no format that can
/// be added to.
pub fn fold_weights(base: &Weights, adapter: &LoraAdapter) -> Result<Weights> {
    let mut sums = Sums::default();
    let fold = |(name, weight): (&String, &Tensor)| {
        let weight = weight.to_device(&Device::Cpu)?;
        let Some(change) = adapter.change(name)? else { return Ok((name.clone(), weight)) };
        let dropped = dropped_bits(weight.dtype())
            .ok_or_else(|| Error::config(format!("`{name}` is {:?}, which has no fractions", weight.dtype())))?;
        let change = change.detach().to_device(&Device::Cpu)?;
        Ok((name.clone(), sums.add(&weight, &change, name, dropped)?))
    };
    base.iter().map(fold).collect()
}

/// Bits of an f32's fraction that a format has not.
fn dropped_bits(format: DType) -> Option<u32> {
    match format {
        DType::F32 => Some(0),
        DType::F16 => Some(13),
        DType::BF16 => Some(16),
        _ => None,
    }
}

/// Sums of squares over all changed weights.
#[derive(Debug, Default)]
struct Sums {
    /// Of the change.
    change: f64,
    /// Of what is not as it should be.
    error: f64,
}

impl Sums {
    /// The weight called `name` with its change, in its own format.
    fn add(&mut self, weight: &Tensor, change: &Tensor, name: &str, dropped: u32) -> Result<Tensor> {
        let values = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        let (before, change) = (values(weight)?, values(change)?);
        let mut random = ChaCha8Rng::from_seed(Sha256::digest(name).into());
        let sum = |(weight, change): (&f32, &f32)| round(weight + change, random.next_u32(), dropped);
        let after: Vec<f32> = before.iter().zip(&change).map(sum).collect();
        // Exact, but for f16 that is smaller than its normal numbers.
        let after = Tensor::from_vec(after, weight.shape(), &Device::Cpu)?.to_dtype(weight.dtype())?;
        for ((before, after), change) in before.iter().zip(values(&after)?).zip(change) {
            let (came, change) = (f64::from(after) - f64::from(*before), f64::from(change));
            self.change += change * change;
            self.error += (came - change).powi(2);
        }
        Ok(after)
    }

    fn rounding(&self) -> f64 {
        if self.change == 0.0 { 0.0 } else { (self.error / self.change).sqrt() }
    }
}

/// One of the two neighbours of `value` among the numbers without the last `dropped` bits: the larger in size with a
/// probability of the distance from the smaller, in units of the gap.
fn round(value: f32, random: u32, dropped: u32) -> f32 {
    if !value.is_finite() {
        return value;
    }
    // What the dropped bits add up to with random ones decides whether there is a carry.
    let below = (1u32 << dropped) - 1;
    f32::from_bits(value.to_bits().saturating_add(random & below) & !below)
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::super::lora::{Factors, LoraConfig};
    use super::super::test_support::{tiny, tiny_config};
    use super::super::weights::{read_weights, weight_files, write_weights};
    use super::*;

    /// An adapter whose changes have about this size.
    fn adapter(size: f32) -> LoraAdapter {
        let config =
            LoraConfig { rank: 2, alpha: 2.0, target_modules: vec!["q_proj".to_owned(), "down_proj".to_owned()] };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut adapter = LoraAdapter::new(config, &tiny_config(), &mut rng, &Device::Cpu).unwrap();
        for factors in adapter.factors.values_mut() {
            let (outputs, rank) = factors.b.dims2().unwrap();
            let values: Vec<f32> = (0..outputs * rank).map(|_| rng.random_range(-size..size)).collect();
            factors.b = Tensor::from_vec(values, (outputs, rank), &Device::Cpu).unwrap();
        }
        adapter
    }

    fn list(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_checkpoint_of_f32_is_base_plus_change() {
        let (adapter, before) = (adapter(0.5), tiny().weights);
        let space = tempfile::tempdir().unwrap();
        let (from, to) = (space.path().join("from"), space.path().join("to"));
        write_weights(&from, &before).unwrap();
        let mut bytes = 0;
        let mut count = |done: u64| {
            bytes += done;
            true
        };
        let rounding = fold_files(&weight_files(&from).unwrap(), &adapter, &to, &mut count).unwrap();
        assert_eq!(bytes as usize, before.values().map(|x| x.elem_count() * 4).sum::<usize>());
        assert!(rounding < 1e-6, "{rounding}");
        let after = read_weights(&to, &tiny_config(), DType::F32, &Device::Cpu).unwrap();
        let mut changed = 0;
        for (name, weight) in &before {
            // As the model folds it in its forward pass.
            let wanted = list(&adapter.fold(name, weight).unwrap());
            assert!(list(&after[name]).iter().zip(&wanted).all(|(x, y)| (x - y).abs() < 1e-6), "{name}");
            changed += usize::from(list(&after[name]) != list(weight));
        }
        assert_eq!(changed, adapter.factors.len());
    }

    #[test]
    fn bf16_keeps_changes_below_its_last_bit_in_the_mean() {
        let (name, size) = ("weight", 256);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut random = |shape: (usize, usize), bound: f32| {
            let values: Vec<f32> = (0..shape.0 * shape.1).map(|_| rng.random_range(-bound..bound)).collect();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        // Weights up to 0.05, whose last bits are worth up to 2.4e-4, and changes up to 1e-5.
        let weight = random((size, size), 0.05).to_dtype(DType::BF16).unwrap();
        let config = LoraConfig { rank: 1, alpha: 1.0, target_modules: vec!["q_proj".to_owned()] };
        let factors = Factors { a: random((1, size), 1.0), b: random((size, 1), 1e-5) };
        let adapter = LoraAdapter { config, factors: [(name.to_owned(), factors)].into() };
        let change = adapter.change(name).unwrap().unwrap();
        let before = weight.to_dtype(DType::F32).unwrap();
        let kept = |after: Tensor| {
            let came = list(&(after.to_dtype(DType::F32).unwrap() - &before).unwrap());
            let change = list(&change);
            let product = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum::<f64>();
            product(&came, &change) / product(&change, &change)
        };
        let mut sums = Sums::default();
        let after = sums.add(&weight, &change, name, 16).unwrap();
        assert_eq!(after.dtype(), DType::BF16);
        assert!((kept(after) - 1.0).abs() < 0.1);
        assert!(sums.rounding() > 1.0, "each weight alone is mostly rounding");
        // Rounded to the nearest, hardly any of it is left.
        let nearest = (&before + &change).unwrap().to_dtype(DType::BF16).unwrap();
        assert!(kept(nearest) < 0.3);
    }

    #[test]
    fn shards_keep_their_names_and_every_tensor_its_format() {
        let (adapter, weights) = (adapter(0.5), tiny().weights);
        let space = tempfile::tempdir().unwrap();
        let (from, to) = (space.path().join("from"), space.path().join("to"));
        let (mut parts, formats) = ([Weights::new(), Weights::new()], [DType::F16, DType::BF16]);
        for (index, (name, tensor)) in weights.iter().enumerate() {
            let part = index % 2;
            parts[part].insert(name.clone(), tensor.to_dtype(formats[part]).unwrap());
        }
        let files = ["one.safetensors", "two.safetensors"].map(|name| from.join(name));
        parts.iter().zip(&files).for_each(|(part, file)| write_safetensors(file, part, &[]).unwrap());
        fold_files(&files, &adapter, &to, &mut |_| true).unwrap();
        for ((part, file), format) in parts.iter().zip(&files).zip(formats) {
            let folded = open(&[to.join(file.file_name().unwrap())]).unwrap();
            assert_eq!(folded.tensors().len(), part.len());
            for (name, before) in part {
                let after = folded.load(name, &Device::Cpu).unwrap();
                assert_eq!(after.dtype(), format);
                let before = before.to_dtype(DType::F32).unwrap();
                let wanted = list(&adapter.fold(name, &before).unwrap());
                let after = list(&after.to_dtype(DType::F32).unwrap());
                // A unit in the last place is at most one part in 128 of a bf16 value.
                let is_near = |(x, y): (&f32, &f32)| (x - y).abs() <= y.abs() / 128.0 + 1e-7;
                assert!(after.iter().zip(&wanted).all(is_near), "{name}");
            }
        }
    }

    #[test]
    fn rounding_is_right_in_the_mean_and_leaves_exact_values_alone() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        // Neighbours of 1.002 in bf16 are 1 and 1.0078125.
        for value in [1.002f32, -1.002, 1e-20, 3.3e38] {
            let mean = (0..20_000).map(|_| f64::from(round(value, rng.next_u32(), 16))).sum::<f64>() / 20_000.0;
            assert!((mean / f64::from(value) - 1.0).abs() < 1e-4, "{value} {mean}");
        }
        // The last one is the largest bf16.
        for value in [1.0f32, -0.0, 1.0078125, f32::INFINITY, 3.389_531_4e38] {
            assert_eq!(round(value, u32::MAX, 16), value);
        }
        assert!(round(f32::NAN, 0xffff, 16).is_nan());
        assert_eq!(round(0.1, u32::MAX, 0), 0.1, "f32 drops nothing");
    }

    #[test]
    fn what_does_not_fit_is_named_and_work_can_be_stopped() {
        let space = tempfile::tempdir().unwrap();
        let (from, to) = (space.path().join("from"), space.path().join("to"));
        let mut weights = tiny().weights;
        write_weights(&from, &weights).unwrap();
        let fold = |go_on: bool| {
            fold_files(&weight_files(&from).unwrap(), &adapter(0.1), &to, &mut |_| go_on).map_err(|e| e.to_string())
        };
        let stopped = fold_files(&weight_files(&from).unwrap(), &adapter(0.1), &to, &mut |_| false);
        assert!(matches!(stopped, Err(Error::Interrupted)));
        assert!(!to.exists(), "nothing was written");
        let name = "model.layers.0.self_attn.q_proj.weight";
        let weight = weights.remove(name).unwrap();
        write_weights(&from, &weights).unwrap();
        assert!(fold(true).unwrap_err().contains(&format!("no `{name}`")));
        weights.insert(name.to_owned(), weight.narrow(0, 0, 2).unwrap().contiguous().unwrap());
        write_weights(&from, &weights).unwrap();
        assert!(fold(true).unwrap_err().contains(&format!("`{name}` is F32 [2, ")));
    }
}
