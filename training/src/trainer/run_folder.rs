//! The folder of one run: who it belongs to, that only one process writes it, and that it can be written at all.
//!
//! `run.json` holds the run's identity, `recipe.toml` the recipe it was last started with, `run.lock` is locked while a
//! process works in the folder. Whatever is wrong with the folder is said before any work begins.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::recipe::Recipe;
use crate::{Error, Result, files};

const IDENTITY: &str = "run.json";
const RECIPE: &str = "recipe.toml";
const LOCK: &str = "run.lock";
/// How names of things not yet whole begin; see [`crate::files`].
pub(super) const UNFINISHED: &str = ".writing-";
/// Size of the trial file: enough that a full disk refuses it.
const TRIAL_BYTES: usize = 1 << 20;

/// What two processes must agree on for one to continue the other's run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunIdentity {
    /// [`Recipe::fingerprint`].
    pub recipe: String,
    /// The run's strength of the length penalty; 0 for supervised learning.
    pub alpha: f64,
    /// Hash of the base model's weights; empty for training from random weights.
    pub base: String,
    /// Hash of the base's configuration, tokenizer and chat template. Like `data`, absent in runs of versions that did not
    /// note it; what is absent is not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_settings: Option<String>,
    /// Hash of the data file; absent, too, where problems are generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

/// The folder of a run, locked for this process as long as the value lives.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Opens the folder of a run, or makes it.
    ///
    /// A new folder gets `run.json` and `recipe.toml`. An existing one is continued when it belongs to the same run.
    /// Leftovers of a process that was killed while writing are removed.
    ///
    /// # Errors
    /// [`Error::Config`] when the folder cannot be written (read-only, disk full), is in use by another process,
    /// belongs to a different run (says what differs), or holds files that are no run's. [`Error::Format`] when its
    /// `run.json` is damaged.
    pub fn open(path: &Path, identity: &RunIdentity, recipe: &Recipe) -> Result<Self> {
        fs::create_dir_all(path).map_err(Error::io("create", path)).map_err(|error| unwritable(path, error))?;
        refuse_foreign(path)?;
        let folder = Self { path: path.to_owned(), _lock: lock(path)? };
        try_to_write(path)?;
        folder.remove_unfinished()?;
        let place = folder.file(IDENTITY);
        if place.exists() {
            compare(path, identity, recipe)?;
            files::write(&folder.file(RECIPE), recipe.to_toml()?.as_bytes())?;
        } else {
            // The identity last: a folder with one has everything that belongs to it.
            files::write(&folder.file(RECIPE), recipe.to_toml()?.as_bytes())?;
            files::write_json(&place, identity)?;
        }
        Ok(folder)
    }

    /// Whether what is in the folder `path`, which exists, may be gone on with. Nothing is written, and whether another process
    /// uses it is not asked.
    ///
    /// # Errors
    /// As [`RunFolder::open`], of a different run, of files that are no run's and of a damaged `run.json`.
    pub fn check(path: &Path, identity: &RunIdentity, recipe: &Recipe) -> Result<()> {
        refuse_foreign(path)?;
        if path.join(IDENTITY).exists() { compare(path, identity, recipe) } else { Ok(()) }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn remove_unfinished(&self) -> Result<()> {
        for name in names(&self.path)?.into_iter().filter(|name| name.starts_with(UNFINISHED)) {
            let path = self.file(&name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(Error::io("remove", path))?;
        }
        Ok(())
    }
}

/// Refuses the run in the folder `path` if it is another than `identity`.
fn compare(path: &Path, identity: &RunIdentity, recipe: &Recipe) -> Result<()> {
    let found: RunIdentity = files::read_json(&path.join(IDENTITY))?;
    let mut differences = Vec::new();
    if found.recipe != identity.recipe {
        let listed = Recipe::load(&path.join(RECIPE), &[]).and_then(|earlier| recipe.differences(&earlier));
        match listed {
            Ok(keys) if !keys.is_empty() => differences.extend(keys),
            _ => differences.push("the recipe is another".to_owned()),
        }
    }
    if found.alpha != identity.alpha {
        differences.push(format!("alpha is {}, was {}", identity.alpha, found.alpha));
    }
    if found.base != identity.base {
        differences.push("the weights of the base model are others".to_owned());
    }
    let differ = |found: &Option<String>, now: &Option<String>| found.is_some() && found != now;
    if differ(&found.base_settings, &identity.base_settings) {
        differences.push("the configuration, tokenizer or chat template of the base model has changed".to_owned());
    }
    if differ(&found.data, &identity.data) {
        differences.push("the data file has changed".to_owned());
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::config(format!(
        "run folder `{}` belongs to a different run: {}; undo the change to continue it, or choose another folder",
        path.display(),
        differences.join("; ")
    )))
}

/// The names in a folder, sorted.
pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(path).map_err(Error::io("read", path))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(Error::io("read", path))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// A folder with content that no run made is somebody's: it is left alone. What a process leaves that was killed before
/// it had written `run.json` does not count.
fn refuse_foreign(path: &Path) -> Result<()> {
    let own = |name: &String| name.starts_with(UNFINISHED) || name == LOCK || name == RECIPE;
    let found = names(path)?;
    if found.iter().any(|name| name == IDENTITY) || found.iter().all(own) {
        return Ok(());
    }
    Err(Error::config(format!(
        "run folder `{}` is not empty and holds no run (no {IDENTITY}); choose another folder or empty this one",
        path.display()
    )))
}

fn lock(path: &Path) -> Result<File> {
    let place = path.join(LOCK);
    let opened = File::options().create(true).truncate(false).write(true).open(&place);
    let file = opened.map_err(Error::io("create", &place)).map_err(|error| unwritable(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::config(format!(
            "run folder `{}` is in use by another process; wait for it, stop it, or choose another folder",
            path.display()
        ))),
        Err(TryLockError::Error(source)) => Err(Error::Io { action: "lock", path: place, source }),
    }
}

fn try_to_write(path: &Path) -> Result<()> {
    let place = path.join(format!("{UNFINISHED}trial"));
    files::write(&place, &vec![0x5a; TRIAL_BYTES]).map_err(|error| unwritable(path, error))?;
    fs::remove_file(&place).map_err(Error::io("remove", place))
}

/// An error of writing, with the way out where the operating system says what is the matter.
fn unwritable(path: &Path, error: Error) -> Error {
    let Error::Io { source, .. } = &error else { return error };
    let remedy = match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free space there or choose another folder",
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => "choose a folder that you may write",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => "choose a path that is no file",
        _ => return error,
    };
    Error::config(format!("run folder `{}` cannot be written: {source}; {remedy}", path.display()))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;

    use super::*;

    pub(in crate::trainer) fn recipe() -> Recipe {
        Recipe::parse("name = 't'\nstage = 'rl'\nbase = 'b'\ndata.source = 'mini'", &[]).unwrap()
    }

    pub(in crate::trainer) fn identity() -> RunIdentity {
        RunIdentity {
            recipe: recipe().fingerprint().unwrap(),
            alpha: 0.1,
            base: "abc".to_owned(),
            base_settings: Some("def".to_owned()),
            data: Some("012".to_owned()),
        }
    }

    /// A fresh run folder; the guard removes it.
    pub(in crate::trainer) fn fresh() -> (tempfile::TempDir, RunFolder) {
        let guard = tempfile::tempdir().unwrap();
        let run = RunFolder::open(&guard.path().join("run"), &identity(), &recipe()).unwrap();
        (guard, run)
    }

    fn refusal(path: &Path, identity: &RunIdentity, recipe: &Recipe) -> String {
        let message = RunFolder::open(path, identity, recipe).unwrap_err().to_string();
        message.replace(&path.display().to_string(), "RUN")
    }

    #[test]
    fn a_new_folder_gets_identity_and_recipe_and_is_continued_by_the_same_run() {
        let (_guard, run) = fresh();
        assert_eq!(files::read_json::<RunIdentity>(&run.file("run.json")).unwrap(), identity());
        assert_eq!(Recipe::load(&run.file("recipe.toml"), &[]).unwrap(), recipe());
        assert_eq!(names(run.path()).unwrap(), ["recipe.toml", "run.json", "run.lock"]);
        let path = run.path().to_owned();
        drop(run);
        let mut longer = recipe();
        longer.run.steps = 200;
        let run = RunFolder::open(&path, &identity(), &longer).unwrap();
        assert_eq!(Recipe::load(&run.file("recipe.toml"), &[]).unwrap(), longer);
    }

    #[test]
    fn a_different_run_is_refused_with_what_differs() {
        let (_guard, run) = fresh();
        let path = run.path().to_owned();
        drop(run);
        let mut other = recipe();
        other.optimizer.learning_rate = 1e-4;
        other.rollout.top_p = 0.9;
        let mut theirs = RunIdentity { recipe: other.fingerprint().unwrap(), ..identity() };
        assert_eq!(
            refusal(&path, &theirs, &other),
            "run folder `RUN` belongs to a different run: `optimizer.learning_rate` is 0.0001, was 5e-6; \
             `rollout.top_p` is 0.9, was 1.0; undo the change to continue it, or choose another folder"
        );
        theirs = RunIdentity { alpha: 0.2, base: "abd".to_owned(), ..identity() };
        assert_eq!(
            refusal(&path, &theirs, &recipe()),
            "run folder `RUN` belongs to a different run: alpha is 0.2, was 0.1; the weights of the base model are \
             others; undo the change to continue it, or choose another folder"
        );
        theirs = RunIdentity { base_settings: Some("dee".to_owned()), data: Some("013".to_owned()), ..identity() };
        assert_eq!(
            refusal(&path, &theirs, &recipe()),
            "run folder `RUN` belongs to a different run: the configuration, tokenizer or chat template of the base \
             model has changed; the data file has changed; undo the change to continue it, or choose another folder"
        );
    }

    #[test]
    fn a_run_of_a_version_that_noted_less_goes_on() {
        let (_guard, run) = fresh();
        let path = run.path().to_owned();
        let earlier = format!("{{\"recipe\": \"{}\", \"alpha\": 0.1, \"base\": \"abc\"}}", identity().recipe);
        fs::write(run.file("run.json"), &earlier).unwrap();
        drop(run);
        let run = RunFolder::open(&path, &identity(), &recipe()).unwrap();
        assert_eq!(files::read_text(&run.file("run.json")).unwrap(), earlier);
    }

    #[test]
    fn a_folder_of_something_else_is_left_alone() {
        let guard = tempfile::tempdir().unwrap();
        fs::write(guard.path().join("thesis.tex"), "precious").unwrap();
        assert_eq!(
            refusal(guard.path(), &identity(), &recipe()),
            "run folder `RUN` is not empty and holds no run (no run.json); choose another folder or empty this one"
        );
        assert_eq!(names(guard.path()).unwrap(), ["thesis.tex"]);
    }

    #[test]
    fn one_process_at_a_time() {
        let (_guard, run) = fresh();
        assert_eq!(
            refusal(run.path(), &identity(), &recipe()),
            "run folder `RUN` is in use by another process; wait for it, stop it, or choose another folder"
        );
        let path = run.path().to_owned();
        drop(run);
        assert!(RunFolder::open(&path, &identity(), &recipe()).is_ok());
    }

    #[test]
    fn a_damaged_identity_is_named() {
        let (_guard, run) = fresh();
        let path = run.path().to_owned();
        drop(run);
        fs::write(path.join("run.json"), "{").unwrap();
        assert!(refusal(&path, &identity(), &recipe()).contains("`RUN/run.json`"));
    }

    #[test]
    fn leftovers_of_a_killed_process_are_removed() {
        let (_guard, run) = fresh();
        let path = run.path().to_owned();
        drop(run);
        fs::create_dir(path.join(".writing-checkpoint-000010")).unwrap();
        fs::write(path.join(".writing-checkpoint-000010/half"), "x").unwrap();
        fs::write(path.join(".writing-abc"), "x").unwrap();
        let run = RunFolder::open(&path, &identity(), &recipe()).unwrap();
        assert_eq!(names(run.path()).unwrap(), ["recipe.toml", "run.json", "run.lock"]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_refused_at_once() {
        let guard = tempfile::tempdir().unwrap();
        let file = guard.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(refusal(&file, &identity(), &recipe()).contains("choose a path that is no file"));
        assert!(refusal(&file.join("run"), &identity(), &recipe()).contains("choose a path that is no file"));

        let path = Path::new("runs/a");
        let message = |kind: ErrorKind| unwritable(path, Error::io("write", path)(io::Error::from(kind))).to_string();
        assert_eq!(
            message(ErrorKind::StorageFull),
            "run folder `runs/a` cannot be written: no storage space; free space there or choose another folder"
        );
        assert_eq!(
            message(ErrorKind::ReadOnlyFilesystem),
            "run folder `runs/a` cannot be written: read-only filesystem or storage medium; choose a folder that you \
             may write"
        );
    }

    /// Permissions do not bind the super-user, so there the folder is found writable instead.
    #[cfg(unix)]
    #[test]
    fn a_folder_without_permission_is_refused_at_once() {
        use std::os::unix::fs::PermissionsExt;
        let guard = tempfile::tempdir().unwrap();
        fs::set_permissions(guard.path(), fs::Permissions::from_mode(0o555)).unwrap();
        let is_superuser = fs::write(guard.path().join(".writing-x"), "x").is_ok();
        match RunFolder::open(guard.path(), &identity(), &recipe()) {
            Ok(_) => assert!(is_superuser),
            Err(error) => assert!(error.to_string().contains("choose a folder that you may write"), "{error}"),
        }
        fs::set_permissions(guard.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
}
