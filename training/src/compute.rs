//! Where the arithmetic of training happens: the device, the number format of weights, and how a model is run there.
//!
//! A device is opened in one place, so that a missing feature or driver is explained in one place; what is on the CPU
//! never needs either. Running out of a device's memory is recognised here too, and made into smaller batches.

#[cfg(feature = "cuda")]
mod cuda;
mod device;
pub(crate) mod kernels;
mod memory;

use candle_core::DType;
use serde::{Deserialize, Serialize};

pub use device::DeviceName;
pub(crate) use kernels::has_attention_kernels;
pub use memory::{free_memory, is_out_of_memory, shrinking};

/// The number format of a model's weights and activations. Adapters, moments, norms, softmax and losses are f32 with
/// either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the exponent of f32; on CUDA only.
    Bf16,
}

impl Precision {
    /// The format as tensors know it.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }

    /// Bytes of a value.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.dtype().size_in_bytes() as u64
    }
}

/// How a model under training is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunPath {
    /// `fused` for f32 on the CPU, `layered` for everything else.
    #[default]
    Auto,
    /// One graph of fused CPU operations with the adapter folded into the weights: fastest for small models.
    Fused,
    /// Layer by layer with activations computed anew in the backward pass, adapters beside frozen weights, attention and
    /// output layer in pieces: for models whose graph would not fit. Runs on every device.
    Layered,
}

impl RunPath {
    /// Whether the layered form is used on `device` in `precision`.
    #[must_use]
    pub fn is_layered(self, device: DeviceName, precision: Precision) -> bool {
        match self {
            Self::Auto => device != DeviceName::Cpu || precision != Precision::F32,
            Self::Fused => false,
            Self::Layered => true,
        }
    }
}
