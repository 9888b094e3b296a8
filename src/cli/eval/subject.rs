//! What is measured: a tier of a family or a model folder, and how it is loaded.

use std::path::{Path, PathBuf};

use brevity::family::{Checker, Downloads, Hub, Kind, MANIFEST, Opened, SamplingDefaults, Tier, TierWeights, hash};
use brevity_training::Error;
use brevity_training::compute::free_memory;
use brevity_training::model::{Decoder, Device, Layered, LoraAdapter, Policy, Pretrained};
use brevity_training::recipe::ComputeSection;
use brevity_training::rollout::{CpuSampler, DeviceSampler, Sampler};
use brevity_training::text::Codec;
use brevity_training::trainer::Fit;

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
    /// The folder that says how it is sampled where nobody else does: of a family's tiers, their base.
    base: PathBuf,
}

/// A model in memory.
pub struct Loaded {
    runs: Runs,
    end_of_sequence: Vec<u32>,
    /// Tokenizer and chat template.
    pub codec: Codec,
}

/// Where and how to compute.
pub struct Place {
    /// Device, number format and path.
    pub compute: ComputeSection,
    /// The device, opened.
    pub device: Device,
    /// Responses decoded at the same time, where there is room for them.
    pub concurrent: usize,
}

/// Weights, and how they are run.
enum Runs {
    Graph(Decoder),
    Layered(Layered),
}

impl Loaded {
    /// A sampler of as many responses at a time as the place says, the longest of `longest` tokens with its prompt, or of as
    /// many as the device has room for.
    ///
    /// # Errors
    /// When there is no room for one.
    pub fn sampler(&self, place: &Place, longest: usize) -> Result<Box<dyn Sampler>> {
        let Place { compute, device, concurrent } = place;
        let concurrent = *concurrent;
        let layered = match &self.runs {
            Runs::Graph(decoder) => return Ok(Box::new(CpuSampler::new(decoder, &self.end_of_sequence, concurrent)?)),
            Runs::Layered(layered) => layered,
        };
        let Some(free) = free_memory(device)? else {
            return Ok(Box::new(DeviceSampler::new(layered.clone(), &self.end_of_sequence, concurrent)?));
        };
        let (sequences, tokens) = Fit::sampling(compute, layered.config(), free, concurrent, longest)?;
        let mut sampler = DeviceSampler::new(layered.clone(), &self.end_of_sequence, sequences)?;
        sampler.set_cache_tokens(tokens);
        Ok(Box::new(sampler))
    }
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
        let other =
            [("adapter_config.json", "an adapter", "--family FAMILY --tier NAME"), (MANIFEST, "a family", "--family")];
        if let Some((_, what, option)) = other.into_iter().find(|(file, ..)| folder.join(file).is_file()) {
            let message = format!("`{}` is {what} and no whole model", folder.display());
            return Err(Failure::from(Error::config(message)).hint(format!("measure it with {option}")));
        }
        let sha256 = hash::weights_sha256(folder)?;
        let (name, label) = (name.to_owned(), name.to_owned());
        let (model, base) = (folder.to_owned(), folder.to_owned());
        Ok(Self { name, label, alpha: None, is_base: false, sha256, model, adapter: None, base })
    }

    /// The tiers called `names` or, when there are none, the base and every tier; the base first, then by alpha. What is
    /// on the hub is fetched.
    ///
    /// # Errors
    /// When a name is unknown, or the base or a tier is not what the manifest says.
    pub fn of_family(opened: &Opened, names: &[String], hub: &Hub, downloads: &mut dyn Downloads) -> Result<Vec<Self>> {
        let manifest = &opened.manifest;
        let implied = Tier::new("base", 0.0);
        let has_base = manifest.tiers.iter().any(Tier::is_base);
        // The base can be measured though it is no tier.
        for name in names.iter().filter(|name| has_base || **name != implied.name) {
            manifest.tier(name)?;
        }
        let tiers = (!has_base).then_some(&implied).into_iter().chain(&manifest.tiers);
        let hint =
            "restore or train what is broken, name other tiers with --tier, or measure a folder as it is with --model";
        let broken = |error: Error| Failure::from(error).hint(hint);
        let mut checker = Checker::new(opened, hub, downloads).map_err(broken)?;
        let wanted = tiers.filter(|tier| names.is_empty() || names.contains(&tier.name));
        wanted
            .map(|tier| {
                let found = checker.tier(tier).map_err(broken)?;
                Ok(Self::of_tier(found, &checker.base().folder))
            })
            .collect()
    }

    fn of_tier(tier: TierWeights, base: &Path) -> Self {
        let is_base = tier.kind == Kind::Base;
        let label = if is_base { tier.name.clone() } else { format!("{} (α = {})", tier.name, tier.alpha) };
        let (model, adapter) = match tier.kind {
            Kind::Adapter => (base.to_owned(), Some(tier.folder)),
            Kind::Base | Kind::Checkpoint => (tier.folder, None),
        };
        let (alpha, base) = (Some(tier.alpha), base.to_owned());
        Self { name: tier.name, label, alpha, is_base, sha256: tier.sha256, model, adapter, base }
    }

    /// How a request that does not say is sampled when this is served.
    ///
    /// # Errors
    /// When its `generation_config.json` cannot be read or makes no sense.
    pub fn sampling(&self) -> Result<SamplingDefaults> {
        Ok(SamplingDefaults::from_folder(&self.base)?)
    }

    /// Reads the model.
    ///
    /// # Errors
    /// When a file is missing, damaged, or does not fit the others.
    pub fn load(&self, place: &Place) -> Result<Loaded> {
        let Place { compute, device, .. } = place;
        let codec = Codec::from_folder(&self.model)?;
        let model = Pretrained::load(&self.model, compute.dtype.dtype(), device)?;
        let end_of_sequence = model.tokens.eos.clone();
        let adapter =
            self.adapter.as_ref().map(|folder| LoraAdapter::load(folder, &model.config, device)).transpose()?;
        let runs = match (compute.is_layered(), adapter) {
            (false, Some(adapter)) => Runs::Graph(model.with_adapter(&adapter)?),
            (false, None) => Runs::Graph(model.decoder()?),
            (true, Some(adapter)) => Runs::Layered(Policy::from_adapter(model, adapter)?.layered()?),
            (true, None) => Runs::Layered(model.layered()?),
        };
        Ok(Loaded { runs, end_of_sequence, codec })
    }
}
