//! Where a family is: a folder, or a repository on the hub; with a manifest, or a single checkpoint that becomes one.
//!
//! Opening reads the manifest (or makes one) and nothing else; weights are looked at by [`super::Checker`].

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use brevity_training::{Error, Result};

use super::hub::{Downloads, Hub, HubId, Snapshot};
use super::{Base, Manifest, Tier};

/// The manifest's name in a family's folder.
pub const MANIFEST: &str = "family.toml";

/// Where a family is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder with `family.toml`, or in Hugging Face format.
    Folder(PathBuf),
    /// A repository with `family.toml`, or in Hugging Face format.
    Hub(HubId),
}

impl Source {
    /// Reads `organisation/name[@revision]` as a repository unless there is such a file or folder, or it looks like a path
    /// that was mistyped: its first folder exists, or is `models`, which no organisation may be called.
    pub fn parse(text: &str) -> Self {
        let path = Path::new(text);
        let first = path.components().next().map(|first| Path::new(first.as_os_str()).to_owned());
        let is_path = path.exists() || first.is_some_and(|first| first == Path::new("models") || first.is_dir());
        match text.parse() {
            Ok(id) if !is_path => Self::Hub(id),
            _ => Self::Folder(path.to_owned()),
        }
    }

    /// Reads the family's manifest; of a single checkpoint, makes one: one tier, `base`, that every effort leads to.
    ///
    /// # Errors
    /// [`Error::Config`] when there is neither, or the hub cannot be asked; [`Error::Io`] and [`Error::Format`] for a
    /// manifest that cannot be read or is not valid.
    pub fn open(&self, hub: &Hub, downloads: &mut dyn Downloads) -> Result<Opened> {
        match self {
            Self::Folder(folder) => open_folder(folder),
            Self::Hub(id) => open_repository(id, hub, downloads),
        }
    }
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::parse(text))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(formatter, "{}", folder.display()),
            Self::Hub(id) => write!(formatter, "{id}"),
        }
    }
}

/// A manifest and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// The manifest. Of a single checkpoint it is not on disk.
    pub manifest: Manifest,
    /// Whether it was made for a single checkpoint.
    pub is_single: bool,
    /// The commit it is from, for a family on the hub. Relative folders are that commit's.
    pub origin: Option<Snapshot>,
}

impl Opened {
    /// Opens a manifest that is already in memory and whose folders are on this machine.
    pub fn local(manifest: Manifest) -> Self {
        Self { manifest, is_single: false, origin: None }
    }
}

fn open_folder(folder: &Path) -> Result<Opened> {
    let place = folder.join(MANIFEST);
    if place.is_file() {
        return Ok(Opened::local(Manifest::load(&place)?));
    }
    let shown = folder.display();
    if folder.join("config.json").is_file() {
        let whole = folder.canonicalize().map_err(Error::io("find", folder))?;
        let name = whole.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
        return Ok(Opened { is_single: true, ..Opened::local(single(&name, place)) });
    }
    Err(Error::config(match (folder.is_dir(), folder.join("adapter_config.json").is_file()) {
        (_, true) => format!(
            "`{shown}` is an adapter and no family; make it a tier of one with `serve tiers add {shown} --name NAME --alpha A`"
        ),
        (true, false) => format!("there is no family in `{shown}`: neither {MANIFEST} nor config.json"),
        (false, false) => format!("there is no family in `{shown}`: no {MANIFEST}, the folder does not exist"),
    }))
}

fn open_repository(id: &HubId, hub: &Hub, downloads: &mut dyn Downloads) -> Result<Opened> {
    let found = hub.find(id)?;
    let place = found.folder.join(MANIFEST);
    if found.has(MANIFEST) {
        hub.file(&found, MANIFEST, downloads)?;
        let manifest = Manifest::load(&place)?;
        return Ok(Opened { manifest, is_single: false, origin: Some(found) });
    }
    if found.has("config.json") {
        return Ok(Opened { manifest: single(id.short_name(), place), is_single: true, origin: Some(found) });
    }
    Err(Error::config(format!(
        "`{id}` holds neither {MANIFEST} nor config.json: it is no family and no model in Hugging Face format"
    )))
}

/// The manifest of a single checkpoint in the folder of `place`. Its hash is not known before the weights are read.
fn single(name: &str, place: PathBuf) -> Manifest {
    let mut manifest = Manifest::new(place, name, Base { path: Some(".".into()), hub: None, sha256: None });
    manifest.description = format!("The checkpoint {name}.");
    manifest.upsert_tier(Tier::new("base", 0.0));
    manifest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::hub::Quiet;

    fn open(folder: &Path) -> Result<Opened> {
        Source::Folder(folder.to_owned()).open(&Hub::new("/nowhere"), &mut Quiet)
    }

    #[test]
    fn folders_that_exist_or_look_mistyped_are_no_repositories() {
        assert!(matches!(Source::parse("org/name@v1"), Source::Hub(id) if id.revision() == "v1"));
        for path in ["src/family", "src/famly", "models/absent", "./org/name", "/org/name", "name", "a/b/c"] {
            assert_eq!(Source::parse(path), Source::Folder(path.into()), "{path}");
        }
    }

    #[test]
    fn a_checkpoint_is_a_family_of_one() {
        let space = tempfile::tempdir().unwrap();
        let folder = space.path().join("one");
        let missing = open(&folder).unwrap_err().to_string();
        assert!(missing.contains("family.toml") && missing.contains("does not exist"), "{missing}");
        std::fs::create_dir(&folder).unwrap();
        assert!(open(&folder).unwrap_err().to_string().contains("neither family.toml nor config.json"));
        std::fs::write(folder.join("adapter_config.json"), "{}").unwrap();
        assert!(open(&folder).unwrap_err().to_string().contains("serve tiers add"));
        std::fs::write(folder.join("config.json"), "{}").unwrap();
        let opened = open(&folder).unwrap();
        assert!(opened.is_single);
        assert_eq!(opened.manifest.name, "one");
        assert_eq!(opened.manifest.effort.len(), 7);
        assert!(opened.manifest.effort.values().all(|tier| tier == "base"));
    }
}
