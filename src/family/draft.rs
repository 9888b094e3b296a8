//! A folder of a tier or a family while it is written: beside its place, under a name of its own, and renamed when it is whole.
//!
//! An error or an interruption leaves nothing of it; a process that is killed leaves a folder `.writing-…` that may be
//! removed. What is written into it is not known here.

use std::path::{Path, PathBuf};

use brevity_training::model::copy_tokenizer;
use brevity_training::{Error, Result, files};

/// Files of a model beside its weights and its tokenizer.
const SETTINGS: [&str; 3] = ["config.json", "generation_config.json", "model.safetensors.index.json"];

/// A folder that is not there yet. Dropped, it leaves nothing.
#[derive(Debug)]
pub(super) struct Draft {
    folder: tempfile::TempDir,
    place: PathBuf,
}

impl Draft {
    /// A draft of the folder `place`, in the folder that this one will be in.
    ///
    /// # Errors
    /// [`Error::Config`] when there is something at `place`, [`Error::Io`] when nothing can be written beside it.
    pub fn beside(place: &Path) -> Result<Self> {
        if place.exists() {
            let message = format!("`{}` exists, choose another name", place.display());
            return Err(Error::config(message));
        }
        let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = tempfile::Builder::new().prefix(".writing-").tempdir_in(parent);
        Ok(Self { folder: folder.map_err(Error::io("write", parent))?, place: place.to_owned() })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Copies everything of the model in `from` but its weights.
    ///
    /// # Errors
    /// [`Error::Io`] when something cannot be read or written.
    pub fn copy_settings(&self, from: &Path) -> Result<()> {
        for name in SETTINGS {
            let file = from.join(name);
            if file.is_file() {
                files::write(&self.path().join(name), &std::fs::read(&file).map_err(Error::io("read", &file))?)?;
            }
        }
        copy_tokenizer(from, self.path())
    }

    /// Puts the folder into its place.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be renamed; the draft is gone then.
    pub fn finish(self) -> Result<()> {
        let place = self.place;
        readable(self.folder.path()).map_err(Error::io("write", &place))?;
        std::fs::rename(self.folder.path(), &place).map_err(Error::io("write", &place))?;
        // There is nothing left at its old name that could be removed.
        let _renamed = self.folder.keep();
        let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        files::sync_folder(parent).map_err(Error::io("write", parent))
    }
}

/// Temporary folders are private to their owner; a tier's folder has the permissions of an ordinary one.
#[cfg(unix)]
fn readable(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn readable(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}
