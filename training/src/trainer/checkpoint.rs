//! Checkpoints: a folder `checkpoint-000010` with tensors and state that is there completely or not at all.
//!
//! It is filled under another name, synced, and renamed; hashes of its files tell a damaged one from a whole one, and
//! the one before is kept for that case. What the tensors and the state mean is the trainer's business.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::hash::hash_file;
use super::run_folder::{RunFolder, UNFINISHED, names};
use crate::{Error, Result, files};

const PREFIX: &str = "checkpoint-";
const TENSORS: &str = "tensors.safetensors";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";
/// Checkpoints kept: the newest, and one to fall back to.
const KEPT: usize = 2;

/// A checkpoint that was read.
#[derive(Debug, Clone)]
pub struct Checkpoint<S> {
    /// The step after which it was taken.
    pub step: u64,
    /// The tensors by name, with the shapes and types they were saved with.
    pub tensors: BTreeMap<String, Tensor>,
    /// Everything that is not a tensor.
    pub state: S,
}

/// What [`latest`] found.
#[derive(Debug, Clone)]
pub struct Latest<S> {
    /// The newest whole checkpoint; `None` in a run that has none yet.
    pub checkpoint: Option<Checkpoint<S>>,
    /// A line about every newer one that is damaged.
    pub warnings: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    step: u64,
    /// SHA-256 of every other file of the folder, by name.
    files: BTreeMap<String, String>,
}

/// Saves a checkpoint of `step` and removes all but the newest two. A whole one of that step stays as it is: it was taken
/// at the same place of the same run, and while it were replaced there would be none.
///
/// # Errors
/// [`Error::Io`] when it cannot be written; the checkpoints before it are then untouched. [`Error::Format`] when
/// `state` cannot be expressed as JSON.
pub fn save<S: Serialize>(run: &RunFolder, step: u64, tensors: &BTreeMap<String, Tensor>, state: &S) -> Result<()> {
    let finished = run.file(&name(step));
    if verify(&finished, step).is_ok() {
        return Ok(());
    }
    let unfinished = run.file(&format!("{UNFINISHED}{}", name(step)));
    remove(&unfinished)?;
    fs::create_dir_all(&unfinished).map_err(Error::io("create", &unfinished))?;

    let place = unfinished.join(TENSORS);
    let written = safetensors::serialize_to_file(tensors.iter(), None, &place);
    written.map_err(|error| tensor_error(&place, error))?;
    File::open(&place).and_then(|file| file.sync_all()).map_err(Error::io("sync", &place))?;
    files::write_json(&unfinished.join(STATE), state)?;
    let hashes = [TENSORS, STATE].map(|file| Ok((file.to_owned(), hash_file(&unfinished.join(file))?)));
    let manifest = Manifest { step, files: hashes.into_iter().collect::<Result<_>>()? };
    files::write_json(&unfinished.join(MANIFEST), &manifest)?;

    // One is there when the run went back to an older checkpoint because this one was damaged.
    remove(&finished)?;
    fs::rename(&unfinished, &finished).map_err(Error::io("rename", &unfinished))?;
    sync_folder(run.path())?;
    prune(run, step)
}

/// Reads the newest whole checkpoint of a run onto `device`.
///
/// # Errors
/// [`Error::Io`] when the run's folder cannot be read; [`Error::Format`] when there are checkpoints but none is whole,
/// or when a whole one holds another kind of state.
pub fn latest<S: DeserializeOwned>(run: &RunFolder, device: &Device) -> Result<Latest<S>> {
    let mut warnings = Vec::new();
    for step in steps(run)?.into_iter().rev() {
        let folder = run.file(&name(step));
        match verify(&folder, step) {
            Ok(()) => {
                let tensors = candle_core::safetensors::load(folder.join(TENSORS), device)?.into_iter().collect();
                let state = files::read_json(&folder.join(STATE))?;
                return Ok(Latest { checkpoint: Some(Checkpoint { step, tensors, state }), warnings });
            }
            Err(error) => warnings.push(format!("checkpoint of step {step} is damaged and left out: {error}")),
        }
    }
    if warnings.is_empty() {
        return Ok(Latest { checkpoint: None, warnings });
    }
    let message = format!("no checkpoint is whole ({}); remove the folder to start again", warnings.join("; "));
    Err(Error::format(run.path(), message))
}

fn name(step: u64) -> String {
    format!("{PREFIX}{step:06}")
}

/// The steps of which there are checkpoints, ascending.
fn steps(run: &RunFolder) -> Result<Vec<u64>> {
    let mut steps: Vec<u64> =
        names(run.path())?.iter().filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok()).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// That every file of a checkpoint is what it was when it was written.
fn verify(folder: &Path, step: u64) -> Result<()> {
    let place = folder.join(MANIFEST);
    let manifest: Manifest = files::read_json(&place)?;
    if manifest.step != step || ![TENSORS, STATE].iter().all(|file| manifest.files.contains_key(*file)) {
        return Err(Error::format(place, "is not the manifest of this checkpoint"));
    }
    for (file, expected) in &manifest.files {
        let path = folder.join(file);
        if hash_file(&path)? != *expected {
            return Err(Error::format(path, "does not have the hash in the manifest"));
        }
    }
    Ok(())
}

fn prune(run: &RunFolder, newest: u64) -> Result<()> {
    // Those of later steps are left over from before the run went back; they are newer in name only.
    let (older, later): (Vec<u64>, Vec<u64>) = steps(run)?.into_iter().partition(|&step| step <= newest);
    let surplus = older.len().saturating_sub(KEPT);
    for step in older.into_iter().take(surplus).chain(later) {
        remove(&run.file(&name(step)))?;
    }
    Ok(())
}

/// Removes a folder if it is there, in such an order that what is left of it can never pass for whole.
fn remove(folder: &Path) -> Result<()> {
    let manifest: PathBuf = folder.join(MANIFEST);
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    gone(fs::remove_file(&manifest)).map_err(Error::io("remove", manifest))?;
    gone(fs::remove_dir_all(folder)).map_err(Error::io("remove", folder))
}

fn tensor_error(path: &Path, error: safetensors::SafeTensorError) -> Error {
    match error {
        safetensors::SafeTensorError::IoError(source) => Error::io("write", path)(source),
        other => Error::format(path, other.to_string()),
    }
}

fn sync_folder(folder: &Path) -> Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    File::open(folder).and_then(|file| file.sync_all()).map_err(Error::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::super::run_folder::tests::fresh;
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct State {
        update: u64,
        rng: [u8; 4],
        loss: f64,
    }

    fn state(update: u64) -> State {
        State { update, rng: [1, 2, 3, 255], loss: 0.1 + 0.2 }
    }

    fn tensors(scale: f32) -> BTreeMap<String, Tensor> {
        let values = [0.1, -f32::MIN_POSITIVE, f32::MAX, 1.0 / 3.0, 0.0, 1e-42].map(|x| x * scale);
        let full = Tensor::new(&values, &Device::Cpu).unwrap().reshape((2, 3)).unwrap();
        let half = full.to_dtype(DType::BF16).unwrap();
        [("model.a".to_owned(), full), ("model.b".to_owned(), half)].into()
    }

    fn bits(tensor: &Tensor) -> Vec<u32> {
        let flat = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
        flat.to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    }

    fn read(run: &RunFolder) -> Latest<State> {
        latest(run, &Device::Cpu).unwrap()
    }

    #[test]
    fn what_is_saved_is_read_back_to_the_bit() {
        let (_guard, run) = fresh();
        assert!(read(&run).checkpoint.is_none());
        save(&run, 10, &tensors(1.0), &state(20)).unwrap();
        let found = read(&run);
        assert!(found.warnings.is_empty());
        let checkpoint = found.checkpoint.unwrap();
        assert_eq!((checkpoint.step, &checkpoint.state), (10, &state(20)));
        for (name, expected) in tensors(1.0) {
            let tensor = &checkpoint.tensors[&name];
            assert_eq!((tensor.dtype(), tensor.dims()), (expected.dtype(), expected.dims()));
            assert_eq!(bits(tensor), bits(&expected), "{name}");
        }
        assert_eq!(checkpoint.tensors.len(), 2);
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let ((_one, one), (_two, two)) = (fresh(), fresh());
        for run in [&one, &two] {
            save(run, 1, &tensors(1.0), &state(1)).unwrap();
        }
        for file in [TENSORS, STATE, MANIFEST] {
            let bytes = |run: &RunFolder| fs::read(run.file("checkpoint-000001").join(file)).unwrap();
            assert_eq!(bytes(&one), bytes(&two), "{file}");
        }
    }

    #[test]
    fn the_newest_two_are_kept() {
        let (_guard, run) = fresh();
        for step in [8, 9, 10] {
            save(&run, step, &tensors(1.0), &state(step)).unwrap();
        }
        let found: Vec<_> = names(run.path()).unwrap().into_iter().filter(|name| name.contains("check")).collect();
        assert_eq!(found, ["checkpoint-000009", "checkpoint-000010"]);
        assert_eq!(read(&run).checkpoint.unwrap().step, 10);
    }

    /// Every way to damage the newest one, and the older one is found, with a warning that names the file.
    #[test]
    fn a_damaged_one_gives_way_to_the_one_before() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 5] = [
            (TENSORS, |folder| {
                let mut bytes = fs::read(folder.join(TENSORS)).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(folder.join(TENSORS), bytes).unwrap();
            }),
            (TENSORS, |folder| {
                let bytes = fs::read(folder.join(TENSORS)).unwrap();
                fs::write(folder.join(TENSORS), &bytes[..bytes.len() / 2]).unwrap();
            }),
            (STATE, |folder| fs::remove_file(folder.join(STATE)).unwrap()),
            (MANIFEST, |folder| fs::remove_file(folder.join(MANIFEST)).unwrap()),
            (MANIFEST, |folder| fs::write(folder.join(MANIFEST), "{\"step\":20,\"files\":{}}").unwrap()),
        ];
        for (file, damage) in damages {
            let (_guard, run) = fresh();
            save(&run, 10, &tensors(1.0), &state(10)).unwrap();
            save(&run, 20, &tensors(2.0), &state(20)).unwrap();
            damage(&run.file("checkpoint-000020"));
            let found = read(&run);
            assert_eq!(found.checkpoint.unwrap().state, state(10));
            assert_eq!(found.warnings.len(), 1);
            assert!(found.warnings[0].starts_with("checkpoint of step 20 is damaged and left out: "));
            assert!(found.warnings[0].contains(file), "{}", found.warnings[0]);
            // The run goes on from 10 and reaches 20 again.
            save(&run, 20, &tensors(3.0), &state(21)).unwrap();
            assert_eq!(read(&run).checkpoint.unwrap().state, state(21));
        }
    }

    #[test]
    fn without_any_whole_one_the_run_does_not_silently_start_again() {
        let (_guard, run) = fresh();
        save(&run, 10, &tensors(1.0), &state(10)).unwrap();
        fs::write(run.file("checkpoint-000010").join(STATE), "{}").unwrap();
        let message = latest::<State>(&run, &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("no checkpoint is whole") && message.contains("remove the folder"), "{message}");
    }

    /// A run that is interrupted before the step after a checkpoint asks for that checkpoint again.
    #[test]
    fn a_whole_one_is_never_replaced() {
        let (_guard, run) = fresh();
        save(&run, 10, &tensors(1.0), &state(10)).unwrap();
        let folder = run.file("checkpoint-000010");
        let written = || fs::metadata(folder.join(MANIFEST)).unwrap().modified().unwrap();
        let before = written();
        save(&run, 10, &tensors(2.0), &state(11)).unwrap();
        assert_eq!(written(), before);
        assert_eq!(read(&run).checkpoint.unwrap().state, state(10));
        fs::write(folder.join(TENSORS), "torn").unwrap();
        save(&run, 10, &tensors(2.0), &state(11)).unwrap();
        assert_eq!(read(&run).checkpoint.unwrap().state, state(11));
    }

    #[test]
    fn checkpoints_from_before_going_back_are_removed() {
        let (_guard, run) = fresh();
        save(&run, 10, &tensors(1.0), &state(10)).unwrap();
        save(&run, 20, &tensors(1.0), &state(20)).unwrap();
        fs::remove_file(run.file("checkpoint-000020").join(STATE)).unwrap();
        save(&run, 15, &tensors(1.0), &state(15)).unwrap();
        let found = read(&run);
        assert!(found.warnings.is_empty());
        assert_eq!(found.checkpoint.unwrap().step, 15);
    }

    #[test]
    fn a_save_that_fails_leaves_the_last_one() {
        let (_guard, run) = fresh();
        save(&run, 10, &tensors(1.0), &state(10)).unwrap();
        let impossible: BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
        assert!(save(&run, 20, &tensors(2.0), &impossible).is_err());
        assert_eq!(read(&run).checkpoint.unwrap().step, 10);
    }
}
