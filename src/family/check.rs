//! One tier after the other: where its weights are, whether they are what the manifest says, and whether they fit the base.

use std::path::{Path, PathBuf};

use brevity_training::{Error, Result};

use super::header::{self, Shapes};
use super::hub::{Downloads, Hub, HubId};
use super::vocabulary::Vocabulary;
use super::{Manifest, Opened, Tier, TierCard, hash};

/// What a tier's weights are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Those of the base.
    Base,
    /// A LoRA adapter on the base, in PEFT format.
    Adapter,
    /// A checkpoint of its own, in Hugging Face format.
    Checkpoint,
}

impl Kind {
    /// One word for tables and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Adapter => "adapter",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// The same in the middle of a sentence.
    pub fn with_article(self) -> &'static str {
        match self {
            Self::Base => "the base",
            Self::Adapter => "an adapter",
            Self::Checkpoint => "a checkpoint",
        }
    }
}

/// A tier whose weights are on this machine and were found good.
#[derive(Debug, Clone, PartialEq)]
pub struct TierWeights {
    /// The tier's name.
    pub name: String,
    /// Its alpha; 0 for the base.
    pub alpha: f64,
    /// What the folder holds.
    pub kind: Kind,
    /// Folder of the weights; of the base for [`Kind::Base`].
    pub folder: PathBuf,
    /// SHA-256 of the weights on disk ([`hash::weights_sha256`]).
    pub sha256: String,
    /// What was measured of the tier, if anything.
    pub card: Option<TierCard>,
}

impl TierWeights {
    /// Whether the card was measured on other weights than those on disk.
    pub fn is_card_stale(&self) -> bool {
        self.card.as_ref().is_some_and(|card| card.weights_sha256 != self.sha256)
    }
}

/// The base that adapters sit on, after it was found good.
#[derive(Debug, Clone)]
pub struct BaseWeights {
    /// Its folder, in Hugging Face format.
    pub folder: PathBuf,
    /// SHA-256 of its weights on disk.
    pub sha256: String,
    shapes: Shapes,
    vocabulary: Vocabulary,
}

/// Checks the tiers of one family against its base, which is checked first. Weights on the hub are fetched.
pub struct Checker<'a> {
    opened: &'a Opened,
    hub: &'a Hub,
    downloads: &'a mut dyn Downloads,
    base: BaseWeights,
}

impl<'a> Checker<'a> {
    /// Finds and checks the base.
    ///
    /// # Errors
    /// When a file is missing or torn, the hash is not the manifest's, configuration and weights do not fit each other, or
    /// the hub does not give it out. The message begins with `the base`.
    pub fn new(opened: &'a Opened, hub: &'a Hub, downloads: &'a mut dyn Downloads) -> Result<Self> {
        let base = base(opened, hub, downloads).map_err(|error| Error::config(format!("the base: {error}")))?;
        Ok(Self { opened, hub, downloads, base })
    }

    /// The base.
    pub fn base(&self) -> &BaseWeights {
        &self.base
    }

    /// Finds and checks one tier.
    ///
    /// # Errors
    /// When a file is missing or torn, the hash is not the manifest's, the tier was trained from another base, its shapes do
    /// not fit, its tokenizer is another one, or the hub does not give it out. The message begins with the tier's name.
    pub fn tier(&mut self, tier: &Tier) -> Result<TierWeights> {
        self.found(tier).map_err(|error| Error::config(format!("tier `{}`: {error}", tier.name)))
    }

    fn found(&mut self, tier: &Tier) -> Result<TierWeights> {
        let of = |kind: Kind, folder: PathBuf, sha256: String| TierWeights {
            name: tier.name.clone(),
            alpha: tier.alpha,
            kind,
            folder,
            sha256,
            card: tier.card.clone(),
        };
        let trained_from = tier.training.as_ref().and_then(|training| training.base_sha256.as_ref());
        if let Some(other) = trained_from.filter(|other| **other != self.base.sha256) {
            return Err(Error::format(
                self.opened.manifest.path(),
                format!(
                    "it was trained from a base whose weights hash to {other} (training.base_sha256), those in `{}` to {}; \
                     use that base, or train the tier again",
                    self.base.folder.display(),
                    self.base.sha256
                ),
            ));
        }
        if let Some(upstream) = &tier.upstream {
            return Err(Error::format(
                self.opened.manifest.path(),
                format!(
                    "another server computes it ({upstream}), its weights are not on this machine; name tiers whose \
                     weights are, or measure it through a server with `serve load-test`"
                ),
            ));
        }
        if tier.is_base() {
            return Ok(of(Kind::Base, self.base.folder.clone(), self.base.sha256.clone()));
        }
        let folder = match (&tier.hub, tier.folder()) {
            (Some(id), _) => self.hub.fetch(&hub_id(id)?, self.downloads)?,
            (None, Some(folder)) => place(self.opened, folder, self.hub, self.downloads)?,
            (None, None) => self.base.folder.clone(),
        };
        let is_adapter = tier.adapter.is_some() || (tier.hub.is_some() && is_adapter(&folder));
        let kind = if is_adapter { Kind::Adapter } else { Kind::Checkpoint };
        if is_adapter {
            header::adapter(&folder, &self.base.shapes, &self.base.folder)?;
        } else {
            header::model(&folder)?;
            self.base.vocabulary.same(&Vocabulary::read(&folder)?)?;
        }
        let sha256 = hash::weights_sha256(&folder)?;
        listed(&self.opened.manifest, &folder, tier.sha256.as_deref(), &sha256)?;
        Ok(of(kind, folder, sha256))
    }
}

fn base(opened: &Opened, hub: &Hub, downloads: &mut dyn Downloads) -> Result<BaseWeights> {
    let manifest = &opened.manifest;
    let folder = match (&manifest.base.hub, &manifest.base.path) {
        (Some(id), _) => hub.fetch(&hub_id(id)?, downloads)?,
        (None, Some(folder)) => place(opened, folder, hub, downloads)?,
        (None, None) => {
            let message =
                "it names none, because other servers compute all its tiers; this needs weights on this machine";
            return Err(Error::format(manifest.path(), message));
        }
    };
    let shapes = header::model(&folder)?;
    let vocabulary = Vocabulary::read(&folder)?;
    let sha256 = hash::weights_sha256(&folder)?;
    listed(manifest, &folder, manifest.base.sha256.as_deref(), &sha256)?;
    Ok(BaseWeights { folder, sha256, shapes, vocabulary })
}

/// Whether a folder holds an adapter and no model.
pub(super) fn is_adapter(folder: &Path) -> bool {
    folder.join("adapter_config.json").is_file() && !folder.join("config.json").is_file()
}

/// A folder that the manifest names, on this machine.
fn place(opened: &Opened, folder: &Path, hub: &Hub, downloads: &mut dyn Downloads) -> Result<PathBuf> {
    if let Some(origin) = &opened.origin {
        return Ok(hub.folder(origin, folder, downloads)?);
    }
    let place = opened.manifest.resolve(folder);
    if place.is_dir() {
        return Ok(place);
    }
    let message = format!("there is no folder `{}`, put the weights there or correct the path", place.display());
    Err(Error::format(opened.manifest.path(), message))
}

fn hub_id(text: &str) -> Result<HubId> {
    text.parse().map_err(Error::Config)
}

fn listed(manifest: &Manifest, folder: &Path, listed: Option<&str>, found: &str) -> Result<()> {
    match listed {
        Some(listed) if listed != found => Err(Error::config(format!(
            "the weights in `{}` are not those of {}: they hash to {found}, listed is {listed}; restore them, or write \
             the new hash if the change is meant",
            folder.display(),
            manifest.path().display()
        ))),
        _ => Ok(()),
    }
}
