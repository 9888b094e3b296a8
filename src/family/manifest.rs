//! `family.toml`: reading, changing and writing it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use brevity_training::compute::DeviceName;
use brevity_training::{Error, Result, files};
use serde::{Deserialize, Serialize};

use super::validate::{self, nearest};
use super::{Effort, TierCard, Upstream, default_effort_map};

/// A family of effort tiers. Relative paths in it start at the manifest's own folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    #[serde(skip)]
    path: PathBuf,
    /// The family's name, the model name that requests may use.
    pub name: String,
    /// One sentence for people who choose a family.
    #[serde(default)]
    pub description: String,
    /// The effort of requests that name none.
    pub default_effort: Effort,
    /// The weights that all tiers start from; may be left out where other servers compute all tiers.
    #[serde(default, skip_serializing_if = "Base::is_unknown")]
    pub base: Base,
    /// The tier of every effort.
    #[serde(default)]
    pub effort: BTreeMap<Effort, String>,
    /// Tokens that requests of an effort may think at most, unless they say so themselves; no limit for efforts not
    /// named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budget: BTreeMap<Effort, usize>,
    /// The tiers; the base first, then by ascending alpha.
    #[serde(default, rename = "tier")]
    pub tiers: Vec<Tier>,
}

/// Where the base's weights are: exactly one of `path` and `hub`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// A folder in Hugging Face format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// A repository on the Hugging Face hub, `organisation/name` or `organisation/name@revision`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// SHA-256 of the weights ([`super::hash::weights_sha256`]); required with `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Base {
    fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// One tier: an adapter on the base, a checkpoint of its own, either of them on the hub, a model behind another server, or
/// (with none of these) the base itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Unique name; also the model name of the tier in requests.
    pub name: String,
    /// Weight of the length penalty it was trained with, in [0, 1); 0 for the base.
    pub alpha: f64,
    /// Folder of a LoRA adapter in PEFT format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    /// Folder of a full checkpoint in Hugging Face format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// A repository on the Hugging Face hub, `organisation/name` or `organisation/name@revision`; its files say whether it
    /// is an adapter or a checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// SHA-256 of the adapter's or checkpoint's weights; required with each of the three. The base tier's is that of [`Base`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The device that computes it here, `cpu` or `cuda:N`, where it is not that of `serve --device`. An adapter brings a
    /// copy of its base there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceName>,
    /// The server that computes it, for weights that are not loaded here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// How it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training: Option<TierTraining>,
    /// What was measured of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub card: Option<TierCard>,
}

/// How a tier was made; enough to make it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierTraining {
    /// The recipe's name or file.
    pub recipe: String,
    /// The recipe's fingerprint: two runs with the same one were asked for the same thing.
    pub fingerprint: String,
    /// Optimisation steps done.
    pub steps: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Wall-clock time of the run in seconds.
    pub wall_seconds: f64,
    /// The command that repeats it.
    pub command: String,
    /// SHA-256 of the base it was trained from; a tier of another base is not loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_sha256: Option<String>,
}

impl TierTraining {
    /// How a tier was made of others' weights without any step of training: `how` names it, `of` tells what of, `seconds` is
    /// the wall-clock time it took.
    pub(super) fn untrained(how: &str, of: &str, seconds: f64, command: &str, base_sha256: &str) -> Self {
        Self {
            recipe: how.to_owned(),
            fingerprint: super::hash::text_sha256(&format!("{how} {of}")),
            steps: 0,
            seed: 0,
            wall_seconds: seconds,
            command: command.to_owned(),
            base_sha256: Some(base_sha256.to_owned()),
        }
    }
}

impl Tier {
    /// A tier that is the base itself.
    pub fn new(name: &str, alpha: f64) -> Self {
        let name = name.to_owned();
        Self {
            name,
            alpha,
            adapter: None,
            checkpoint: None,
            hub: None,
            sha256: None,
            upstream: None,
            device: None,
            training: None,
            card: None,
        }
    }

    /// The tier as the LoRA adapter in `folder`, whose weights hash to `sha256`.
    pub fn with_adapter(self, folder: impl Into<PathBuf>, sha256: impl Into<String>) -> Self {
        Self { adapter: Some(folder.into()), checkpoint: None, hub: None, sha256: Some(sha256.into()), ..self }
    }

    /// The tier as the full checkpoint in `folder`, whose weights hash to `sha256`.
    pub fn with_checkpoint(self, folder: impl Into<PathBuf>, sha256: impl Into<String>) -> Self {
        Self { adapter: None, checkpoint: Some(folder.into()), hub: None, sha256: Some(sha256.into()), ..self }
    }

    /// The tier as a model behind another server; its weights are not seen here, so it has no hash.
    pub fn with_upstream(self, upstream: Upstream) -> Self {
        Self { adapter: None, checkpoint: None, hub: None, sha256: None, upstream: Some(upstream), ..self }
    }

    /// Whether it is the base itself.
    pub fn is_base(&self) -> bool {
        self.folder().is_none() && self.hub.is_none() && self.upstream.is_none()
    }

    /// Its own folder of weights; `None` for the base and for a tier on the hub.
    pub fn folder(&self) -> Option<&Path> {
        self.adapter.as_deref().or(self.checkpoint.as_deref())
    }
}

impl Manifest {
    /// An empty family that will be saved at `path`; medium effort by default, no tiers yet.
    pub fn new(path: impl Into<PathBuf>, name: &str, base: Base) -> Self {
        Self {
            path: path.into(),
            name: name.to_owned(),
            description: String::new(),
            default_effort: Effort::Medium,
            base,
            effort: BTreeMap::new(),
            budget: BTreeMap::new(),
            tiers: Vec::new(),
        }
    }

    /// The card of `tier`, unless it was measured on other weights than those that are listed: such a card says nothing about
    /// the tier any more. Of weights without a listed hash every card is taken for good.
    pub fn card<'a>(&self, tier: &'a Tier) -> Option<&'a TierCard> {
        tier.card.as_ref().filter(|_| !self.is_card_stale(tier))
    }

    /// Whether `tier` has a card that was measured on other weights than those that are listed.
    pub fn is_card_stale(&self, tier: &Tier) -> bool {
        let listed = if tier.is_base() { self.base.sha256.as_ref() } else { tier.sha256.as_ref() };
        match (&tier.card, listed) {
            (Some(card), Some(listed)) => card.weights_sha256 != *listed,
            _ => false,
        }
    }

    /// Reads and checks the manifest at `path`. Its folders are not looked at: see [`super::Checker`].
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Format`] with line or key and remedy when it is not valid.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(&files::read_text(path)?, path)
    }

    /// Reads and checks a manifest from `text`; `path` is where it is said to be, for errors and relative paths.
    ///
    /// # Errors
    /// [`Error::Format`] with line or key and remedy.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let mut manifest: Self =
            toml::from_str(text).map_err(|error| Error::format(path, validate::explain(text, &error)))?;
        manifest.path = path.to_owned();
        manifest.check()?;
        manifest.sort();
        Ok(manifest)
    }

    /// Writes the manifest to where it came from: atomically, the base tier first, then by ascending alpha, then by name.
    ///
    /// # Errors
    /// [`Error::Format`] when it is not valid (nothing is written then), [`Error::Io`] when it cannot be written.
    pub fn save(&mut self) -> Result<()> {
        self.sort();
        let text = self.to_toml()?;
        files::write(&self.path, text.as_bytes())
    }

    /// The manifest's text, as [`Manifest::save`] writes it.
    ///
    /// # Errors
    /// [`Error::Format`] when it is not valid.
    pub fn to_toml(&self) -> Result<String> {
        self.check()?;
        toml::to_string(self).map_err(|error| Error::format(&self.path, error.to_string()))
    }

    /// Where the manifest is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on the manifest is at `path`, where [`Manifest::save`] writes it. What it names is not changed.
    pub fn move_to(&mut self, path: impl Into<PathBuf>) {
        self.path = path.into();
    }

    /// `folder` seen from the manifest's own folder.
    pub fn resolve(&self, folder: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(folder)
    }

    /// The tier called `name`.
    ///
    /// # Errors
    /// [`Error::Config`] with the nearest name when there is none.
    pub fn tier(&self, name: &str) -> Result<&Tier> {
        self.tiers.iter().find(|tier| tier.name == name).ok_or_else(|| self.unknown_tier(name))
    }

    /// Adds `tier`, or replaces the tier of that name.
    ///
    /// A replaced tier keeps its card if the weights stayed the same and `tier` brings none. Where the efforts were spread
    /// by [`default_effort_map`] (or there were none yet) they are spread anew; a map written by hand is left alone.
    pub fn upsert_tier(&mut self, mut tier: Tier) {
        let spread = self.effort == default_effort_map(&self.tiers);
        if let Some(old) = self.tiers.iter().position(|old| old.name == tier.name) {
            let old = self.tiers.remove(old);
            if tier.card.is_none() && old.sha256 == tier.sha256 && old.is_base() == tier.is_base() {
                tier.card = old.card;
            }
        }
        self.tiers.push(tier);
        self.sort();
        if spread || self.effort.is_empty() {
            self.effort = default_effort_map(&self.tiers);
        }
    }

    /// Takes the tier called `name` out and returns it; its files stay. Efforts that pointed to it go to the tier with the
    /// nearest alpha, or are spread anew where they were spread by [`default_effort_map`].
    ///
    /// # Errors
    /// [`Error::Config`] when there is no such tier, or no other one.
    pub fn remove_tier(&mut self, name: &str) -> Result<Tier> {
        let index = self.tiers.iter().position(|tier| tier.name == name).ok_or_else(|| self.unknown_tier(name))?;
        if self.tiers.len() == 1 {
            let message = format!("`{name}` is the only tier of family `{}`, add another one first", self.name);
            return Err(Error::config(message));
        }
        let spread = self.effort == default_effort_map(&self.tiers);
        let removed = self.tiers.remove(index);
        let distance = |tier: &Tier| (tier.alpha - removed.alpha).abs();
        let nearest =
            self.tiers.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).map(|tier| tier.name.clone());
        if spread {
            self.effort = default_effort_map(&self.tiers);
        } else if let Some(nearest) = nearest {
            self.effort.values_mut().filter(|tier| *tier == name).for_each(|tier| nearest.clone_into(tier));
        }
        Ok(removed)
    }

    /// Lets `effort` lead to the tier called `name`.
    ///
    /// # Errors
    /// [`Error::Config`] with the nearest name when there is no such tier.
    pub fn set_effort(&mut self, effort: Effort, name: &str) -> Result<()> {
        let name = self.tier(name)?.name.clone();
        self.effort.insert(effort, name);
        Ok(())
    }

    /// Gives the tier called `name` this card.
    ///
    /// # Errors
    /// [`Error::Config`] with the nearest name when there is no such tier, or when the card was measured on other weights.
    pub fn set_card(&mut self, name: &str, card: TierCard) -> Result<()> {
        let Some(index) = self.tiers.iter().position(|tier| tier.name == name) else {
            return Err(self.unknown_tier(name));
        };
        let base = self.base.sha256.clone();
        if let Some(tier) = self.tiers.get_mut(index) {
            let expected = if tier.is_base() { base.as_ref() } else { tier.sha256.as_ref() };
            if let Some(expected) = expected.filter(|expected| **expected != card.weights_sha256) {
                return Err(Error::config(format!(
                    "tier \"{name}\": the card was measured on weights {}, the tier's are {expected}; evaluate the tier again",
                    card.weights_sha256
                )));
            }
            tier.card = Some(card);
        }
        Ok(())
    }

    fn unknown_tier(&self, name: &str) -> Error {
        let known = nearest(name, self.tiers.iter().map(|tier| tier.name.as_str()));
        Error::config(format!("family `{}` has no tier `{name}`{known}", self.name))
    }

    fn check(&self) -> Result<()> {
        match validate::faults(self) {
            faults if faults.is_empty() => Ok(()),
            faults => Err(Error::format(&self.path, faults.join("; "))),
        }
    }

    fn sort(&mut self) {
        self.tiers.sort_by(|a, b| {
            b.is_base().cmp(&a.is_base()).then(a.alpha.total_cmp(&b.alpha)).then_with(|| a.name.cmp(&b.name))
        });
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
