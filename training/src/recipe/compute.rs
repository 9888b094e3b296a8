//! `[compute]`: where a run happens.

use serde::{Deserialize, Serialize};

use crate::compute::{DeviceName, Precision, RunPath};

/// `[compute]`: device, number format and how the model is run there.
///
/// Values that are the defaults are not written, so that recipes without this section keep their identity.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ComputeSection {
    /// `cpu` or `cuda:N`. Default `cpu`.
    #[serde(skip_serializing_if = "is_default")]
    pub device: DeviceName,
    /// Format of weights and activations: `f32`, or `bf16` on a GPU. Default `f32`.
    #[serde(skip_serializing_if = "is_default")]
    pub dtype: Precision,
    /// `auto`, `fused` (f32 on the CPU) or `layered`; changes memory, speed and rounding. Default `auto`.
    #[serde(skip_serializing_if = "is_default")]
    pub path: RunPath,
    /// GiB of the device's memory that the run may take; what is free when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
}

impl ComputeSection {
    /// Whether the model is run layer by layer.
    #[must_use]
    pub fn is_layered(&self) -> bool {
        self.path.is_layered(self.device, self.dtype)
    }

    /// What the run may take of the device's memory, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory.map(|gib| (gib * (1u64 << 30) as f64) as u64)
    }

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
