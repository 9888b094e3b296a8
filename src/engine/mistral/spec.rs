use std::path::PathBuf;

/// What [`super::MistralEngine::load`] loads, and how. Folders must exist; the caller has validated what is in them.
#[derive(Debug, Clone)]
pub struct EngineSpec {
    /// Folder of the base model in Hugging Face format, shared by all adapter tiers.
    pub base: PathBuf,
    /// The tiers.
    pub tiers: Vec<TierSpec>,
    /// Where to compute.
    pub device: Device,
    /// Type of weights and activations.
    pub dtype: DType,
    /// Sequences that are decoded at the same time, per loaded model; the rest wait in order of arrival.
    pub max_running: usize,
    /// Quantisation of the weights while loading: bits (`8`, `4`) or a type of llama.cpp (`q8_0`, `q4k`).
    pub quantization: Option<String>,
    /// Bytes for keys and values of each model on a GPU; `None` for what the weights leave but a twentieth of the GPU, or, with
    /// several models on it, for an equal part of half of what their weights leave. On a processor they take what they need.
    pub kv_cache: Option<usize>,
}

/// One tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierSpec {
    /// Its name in the family.
    pub name: String,
    /// Its weights.
    pub weights: Weights,
    /// Hash of the weights, reported as fingerprint. An adapter's fingerprint is the engine's own hash of the files it
    /// read, whatever stands here, so that it is true even after the files were replaced.
    pub fingerprint: Option<String>,
    /// Where to compute it; `None` for the engine's device. Every device that has an adapter has a base of its own.
    pub device: Option<Device>,
}

/// Where a tier's weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weights {
    /// The base itself.
    Base,
    /// Folder of a LoRA adapter on the base, in PEFT format.
    Adapter(PathBuf),
    /// Folder of a model of its own, in Hugging Face format.
    Checkpoint(PathBuf),
}

/// Where to compute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The CUDA device of this index; only in builds with CUDA.
    Cuda(usize),
}

/// Type of weights and activations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DType {
    /// What suits the device: `f32` on a processor.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// 16-bit floats of IEEE 754.
    F16,
    /// 16-bit floats with the exponent of 32-bit ones.
    BF16,
}

impl EngineSpec {
    /// Default of [`EngineSpec::max_running`].
    pub const MAX_RUNNING: usize = 64;

    /// `base` on the processor, with neither tiers nor quantisation.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self {
            base: base.into(),
            tiers: Vec::new(),
            device: Device::default(),
            dtype: DType::default(),
            max_running: Self::MAX_RUNNING,
            quantization: None,
            kv_cache: None,
        }
    }

    /// Adds a tier.
    #[must_use]
    pub fn with_tier(mut self, name: &str, weights: Weights, fingerprint: Option<String>) -> Self {
        self.tiers.push(TierSpec { name: name.to_owned(), weights, fingerprint, device: None });
        self
    }

    /// Puts the tier that was added last on a device of its own.
    #[must_use]
    pub fn on(mut self, device: Option<Device>) -> Self {
        if let Some(tier) = self.tiers.last_mut() {
            tier.device = device;
        }
        self
    }
}
