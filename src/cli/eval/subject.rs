//! What is measured: a tier of a family or a model folder, and how it is loaded.

use std::path::{Path, PathBuf};

use brevity::family::{Manifest, Tier, hash};
use brevity_training::Error;
use brevity_training::model::{DType, Decoder, Device, LoraAdapter, Pretrained};
use brevity_training::text::Codec;

use crate::cli::{Failure, Result};

/// A model to be measured.
pub struct Subject {
    /// The tier's name, or the folder's.
    pub name: String,
    /// The name as pictures and tables show it.
    pub label: String,
    /// The tier's alpha; `None` for a folder that belongs to no family.
    pub alpha: Option<f64>,
    /// Whether the others are compared with it.
    pub is_base: bool,
    /// Hash of its weights as they are on disk.
    pub sha256: String,
    /// A Hugging Face folder.
    model: PathBuf,
    /// A PEFT folder on top of it.
    adapter: Option<PathBuf>,
}

/// A model in memory.
pub struct Loaded {
    /// The weights.
    pub decoder: Decoder,
    /// Ids that end a response.
    pub end_of_sequence: Vec<u32>,
    /// Tokenizer and chat template.
    pub codec: Codec,
}

impl Subject {
    /// A model folder.
    ///
    /// # Errors
    /// When it holds no weights.
    pub fn model(name: &str, folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            let message = format!("there is no model folder `{}`", folder.display());
            return Err(Failure::from(Error::config(message)));
        }
        let sha256 = hash::weights_sha256(folder)?;
        let (name, label) = (name.to_owned(), name.to_owned());
        Ok(Self { name, label, alpha: None, is_base: false, sha256, model: folder.to_owned(), adapter: None })
    }

    /// The tiers called `names` or, when there are none, the base and every tier; the base first, then by alpha.
    ///
    /// # Errors
    /// When a name is unknown, the base is not on disk, or weights are not those that the manifest lists.
    pub fn of_family(manifest: &Manifest, names: &[String]) -> Result<Vec<Self>> {
        let Some(base) = &manifest.base.path else {
            let message = format!("the base of family `{}` is on the hub, not on disk", manifest.name);
            let hint = "download it and set `base.path` in family.toml to its folder";
            return Err(Failure::from(Error::config(message)).hint(hint));
        };
        let base = manifest.resolve(base);
        for name in names {
            manifest.tier(name)?;
        }
        let implied = Tier::new("base", 0.0);
        let has_base = manifest.tiers.iter().any(Tier::is_base);
        let tiers = (!has_base).then_some(&implied).into_iter().chain(&manifest.tiers);
        tiers
            .filter(|tier| names.is_empty() || names.contains(&tier.name))
            .map(|tier| Self::of_tier(manifest, tier, &base))
            .collect()
    }

    fn of_tier(manifest: &Manifest, tier: &Tier, base: &Path) -> Result<Self> {
        let folder = tier.folder().map_or_else(|| base.to_owned(), |folder| manifest.resolve(folder));
        let sha256 = hash::weights_sha256(&folder)?;
        let expected = if tier.is_base() { &manifest.base.sha256 } else { &tier.sha256 };
        if expected.as_ref().is_some_and(|expected| *expected != sha256) {
            let message = format!(
                "tier `{}`: the weights in `{}` are not those of {}",
                tier.name,
                folder.display(),
                manifest.path().display()
            );
            let hint = "restore them, train the tier again, or measure the folder as it is with --model";
            return Err(Failure::from(Error::config(message)).hint(hint));
        }
        let label = if tier.is_base() { tier.name.clone() } else { format!("{} (α = {})", tier.name, tier.alpha) };
        Ok(Self {
            name: tier.name.clone(),
            label,
            alpha: Some(tier.alpha),
            is_base: tier.is_base(),
            sha256,
            model: tier.checkpoint.as_deref().map_or_else(|| base.to_owned(), |folder| manifest.resolve(folder)),
            adapter: tier.adapter.as_deref().map(|folder| manifest.resolve(folder)),
        })
    }

    /// Reads the model.
    ///
    /// # Errors
    /// When a file is missing, damaged, or does not fit the others.
    pub fn load(&self) -> Result<Loaded> {
        let model = Pretrained::load(&self.model, DType::F32, &Device::Cpu)?;
        let decoder = match &self.adapter {
            Some(folder) => model.with_adapter(&LoraAdapter::load(folder, &model.config, &Device::Cpu)?)?,
            None => model.decoder()?,
        };
        let codec = Codec::from_folder(&self.model)?;
        Ok(Loaded { decoder, end_of_sequence: model.tokens.eos, codec })
    }
}
