//! One change of a manifest at a time: two tiers that finish together must not lose one of the two entries.
//!
//! What is locked is the family's folder itself, so that nothing is left behind in it. Reading needs no lock, since a
//! manifest is replaced as a whole.

use std::fs::File;
use std::path::Path;

use brevity_training::{Error, Result};

use super::Manifest;

/// Keeps other processes, and other threads of this one, from changing the manifests of a folder as long as it lives.
#[derive(Debug)]
#[must_use = "the lock is released when this is dropped"]
pub struct ManifestLock {
    _folder: Option<File>,
}

impl Manifest {
    /// Waits until nobody else changes the manifest at `path`. To be taken before it is read for a change, and held until it
    /// is saved. On systems that cannot open a folder as a file nothing is locked.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be opened or locked.
    pub fn lock(path: &Path) -> Result<ManifestLock> {
        if !cfg!(unix) {
            return Ok(ManifestLock { _folder: None });
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = File::open(folder).map_err(Error::io("open", folder))?;
        file.lock().map_err(Error::io("lock", folder))?;
        Ok(ManifestLock { _folder: Some(file) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Base, Tier};
    use super::*;

    #[test]
    fn tiers_that_finish_together_are_all_listed() {
        const TIERS: usize = 12;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("family.toml");
        let sha256 = "a".repeat(64);
        let base = Base { path: Some("base".into()), hub: None, sha256: Some(sha256.clone()) };
        let mut manifest = Manifest::new(&path, "together", base);
        manifest.upsert_tier(Tier::new("base", 0.0));
        manifest.save().unwrap();
        std::thread::scope(|scope| {
            for number in 1..=TIERS {
                let (path, sha256) = (&path, &sha256);
                scope.spawn(move || {
                    let _lock = Manifest::lock(path).unwrap();
                    let mut manifest = Manifest::load(path).unwrap();
                    std::thread::yield_now();
                    let name = format!("alpha-0.{number:02}");
                    let tier = Tier::new(&name, number as f64 / 100.0).with_adapter(&name, sha256);
                    manifest.upsert_tier(tier);
                    manifest.save().unwrap();
                });
            }
        });
        assert_eq!(Manifest::load(&path).unwrap().tiers.len(), TIERS + 1);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left but the manifest");
        assert!(Manifest::lock(Path::new("/nowhere/family.toml")).unwrap_err().to_string().contains("/nowhere"));
    }
}
