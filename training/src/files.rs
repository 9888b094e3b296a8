//! Files that are either whole or absent.
//!
//! Every file this crate leaves behind is written beside its final place, synced, and renamed into it, so that a power
//! cut or `kill -9` never leaves half a checkpoint. What grows for hours does so under another name. Reading helpers add the path to the error. Nothing else belongs here.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Writes `path` atomically: `fill` writes to a temporary file in the same folder, which is synced and renamed.
///
/// Missing parent folders are created. On any error the old file, if there was one, is untouched. Of an old file the new one
/// has the permissions; where `path` is a link, the file that it leads to is replaced.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be created or the file cannot be written, synced or renamed.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let target =
        if path.is_symlink() { path.canonicalize().unwrap_or_else(|_| path.to_owned()) } else { path.to_owned() };
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let write = || -> io::Result<()> {
        let mut temporary = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
        let mut writer = BufWriter::new(temporary.as_file_mut());
        fill(&mut writer)?;
        writer.flush()?;
        drop(writer);
        set_permissions(temporary.as_file(), &target)?;
        temporary.as_file().sync_all()?;
        temporary.persist(&target).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    write().map_err(Error::io("write", path))
}

/// A file that grows line by line while something runs. Until [`Growing::finish`] it is called `NAME.partial`, which stays
/// behind with every line so far when the program is killed; an older file of the name is untouched until then.
#[derive(Debug)]
pub struct Growing {
    path: PathBuf,
    partial: PathBuf,
    file: File,
}

impl Growing {
    /// An empty file, to become `path`. What an earlier one left unfinished is overwritten.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = path.with_file_name(name);
        let file = File::create(&partial).map_err(Error::io("create", &partial))?;
        Ok(Self { path: path.to_owned(), partial, file })
    }

    /// Adds `line`, which holds no line break, and one behind it; others can read it at once.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn line(&mut self, mut line: Vec<u8>) -> Result<()> {
        line.push(b'\n');
        // In one piece, so that a kill leaves whole lines.
        self.file.write_all(&line).map_err(Error::io("write", &self.partial))
    }

    /// Syncs it and gives it its name.
    ///
    /// # Errors
    /// [`Error::Io`] when that fails.
    pub fn finish(self) -> Result<()> {
        let finish = || -> io::Result<()> {
            self.file.sync_all()?;
            fs::rename(&self.partial, &self.path)?;
            match self.path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
                _ => sync_folder(Path::new(".")),
            }
        };
        finish().map_err(Error::io("write", &self.path))
    }
}

/// Writes `bytes` to `path` atomically.
///
/// # Errors
/// As [`write_with`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// Writes `value` to `path` as indented JSON with a final newline, atomically.
///
/// # Errors
/// As [`write_with`]; a value that JSON cannot express (a map with non-string keys) is an [`Error::Format`].
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| Error::format(path, error.to_string()))?;
    text.push('\n');
    write(path, text.as_bytes())
}

/// The text of `path`.
///
/// # Errors
/// [`Error::Io`] when it cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::io("read", path))
}

/// The value that `path` holds as JSON.
///
/// # Errors
/// [`Error::Io`] when it cannot be read, [`Error::Format`] with line and column when it is not such a value.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&read_text(path)?).map_err(|error| Error::format(path, error.to_string()))
}

/// Temporary files are private to their owner; what they become should have the permissions of the file they replace, or
/// else of an ordinary new one.
#[cfg(unix)]
fn set_permissions(file: &File, replaced: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let old = fs::metadata(replaced).map(|old| old.permissions());
    file.set_permissions(old.unwrap_or_else(|_| fs::Permissions::from_mode(0o644)))
}

#[cfg(not(unix))]
fn set_permissions(_file: &File, _replaced: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes what was renamed in `folder` durable, which it is only once the folder itself is synced.
///
/// # Errors
/// What the system says.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/file.txt");
        write(&path, b"old").unwrap();
        let error = write_with(&path, |file| {
            file.write_all(b"new")?;
            Err(io::Error::other("disk full"))
        });
        assert!(error.unwrap_err().to_string().contains("disk full"));
        assert_eq!(read_text(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays behind");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_is_replaced_keeps_its_permissions_and_its_links() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("secret.toml"), folder.path().join("link.toml"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        write(&file, b"old").unwrap();
        assert_eq!(mode(&file), 0o644);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        symlink("secret.toml", &link).unwrap();
        write(&link, b"new").unwrap();
        assert_eq!((mode(&file), read_text(&file).unwrap().as_str()), (0o600, "new"));
        assert!(link.is_symlink());
    }

    #[test]
    fn a_growing_file_has_its_name_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (path, partial) = (folder.path().join("lines.jsonl"), folder.path().join("lines.jsonl.partial"));
        write(&path, b"old\n").unwrap();
        let mut growing = Growing::create(&path).unwrap();
        growing.line(b"one".to_vec()).unwrap();
        growing.line(b"two".to_vec()).unwrap();
        assert_eq!(
            (read_text(&partial).unwrap().as_str(), read_text(&path).unwrap().as_str()),
            ("one\ntwo\n", "old\n")
        );
        growing.finish().unwrap();
        assert_eq!(read_text(&path).unwrap(), "one\ntwo\n");
        assert!(!partial.exists());
        assert!(Growing::create(&folder.path().join("none/lines")).unwrap_err().to_string().contains("lines.partial"));
    }

    #[test]
    fn a_missing_file_is_named_in_the_error() {
        let error = read_text(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"));
    }
}
