//! Names of devices and how they are opened.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::Precision;
use crate::{Error, Result};

/// A device by name: `cpu`, or `cuda:N` for the N-th GPU (`cuda` for the first).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The processor.
    #[default]
    Cpu,
    /// A GPU, by its number.
    Cuda(usize),
}

impl DeviceName {
    /// Opens the device for work in `precision`.
    ///
    /// # Errors
    /// [`Error::Config`] saying what is missing: CUDA in this build, a driver or GPU on this machine, or bf16 on the CPU.
    pub fn open(self, precision: Precision) -> Result<Device> {
        match self {
            Self::Cpu if precision == Precision::Bf16 => {
                Err(Error::config("bf16 has no matrix product on the CPU: take `f32`, or a GPU (`cuda:0`)"))
            }
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !candle_core::utils::cuda_is_available() => Err(Error::config(format!(
                "`{self}` is not in this build: build it with `--features flash` (or `train-cuda`, without FlashAttention), \
                 or take the device `cpu`"
            ))),
            Self::Cuda(number) => {
                let device =
                    Device::new_cuda_with_stream(number).map_err(|error| Error::config(refused(self, &error)))?;
                // Products of bf16 values are exact in the reduced format of f32 products, so nothing is lost where
                // weights are bf16; with f32 weights every product stays in full.
                candle_core::cuda::set_gemm_reduced_precision_f32(precision == Precision::Bf16);
                #[cfg(feature = "cuda")]
                if let Device::Cuda(device) = &device {
                    super::cuda::use_one_stream(device);
                    super::cuda::keep_freed_memory(device);
                }
                Ok(device)
            }
        }
    }
}

/// Why a GPU could not be opened and what to look at.
fn refused(name: DeviceName, error: &candle_core::Error) -> String {
    let said = error.to_string();
    let said = said.lines().next().unwrap_or_default();
    format!(
        "cannot open `{name}`: {said}. It needs an NVIDIA driver (does `nvidia-smi` list the GPU?) and the libraries \
         libcublas, libcublasLt, libcurand and libnvrtc of CUDA's version 13 where the loader finds them (LD_LIBRARY_PATH); the \
         device `cpu` needs neither"
    )
}

impl Display for DeviceName {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            _ => text.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
        };
        number.map(Self::Cuda).ok_or_else(|| format!("no device is called `{text}`; there are `cpu` and `cuda:0`, …"))
    }
}

impl TryFrom<String> for DeviceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (text, name) in [("cpu", DeviceName::Cpu), ("cuda:0", DeviceName::Cuda(0)), ("cuda:7", DeviceName::Cuda(7))]
        {
            assert_eq!(text.parse(), Ok(name));
            assert_eq!(name.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceName::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "CPU"] {
            assert!(text.parse::<DeviceName>().unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(DeviceName::Cpu.open(Precision::F32).unwrap().is_cpu());
        let error = DeviceName::Cpu.open(Precision::Bf16).unwrap_err().to_string();
        assert!(error.contains("bf16 has no matrix product on the CPU"), "{error}");
        // No machine has so many; a build without CUDA says that first.
        let error = DeviceName::Cuda(4096).open(Precision::Bf16).unwrap_err().to_string();
        let expected = if cfg!(feature = "cuda") { "nvidia-smi" } else { "--features flash" };
        assert!(error.contains("cuda:4096") && error.contains(expected), "{error}");
    }
}
