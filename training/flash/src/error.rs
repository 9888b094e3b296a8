use crate::Shape;

/// Why attention did not start. Every message says over what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlashError {
    /// Sizes for which there is no kernel, or which contradict each other.
    #[error("FlashAttention cannot take {shape}: {problem}")]
    Shape {
        /// The sizes.
        shape: Shape,
        /// Which of them does not fit, and what would.
        problem: String,
    },
    /// An address at which the kernels cannot read or write.
    #[error(
        "FlashAttention over {shape}: `{name}` is {address:#x}, where a tensor in device memory must begin, at a \
         multiple of {alignment} bytes; copy the tensor to memory of its own"
    )]
    Pointer {
        /// The sizes.
        shape: Shape,
        /// The field.
        name: &'static str,
        /// Its value.
        address: u64,
        /// What it must be a multiple of.
        alignment: u64,
    },
    /// No device here runs the kernels.
    #[error("FlashAttention does not run here: {said} (CUDA error {code}); {advice}")]
    Device {
        /// CUDA's number for what is wrong.
        code: i32,
        /// CUDA's words for it.
        said: String,
        /// What to do.
        advice: &'static str,
    },
    /// CUDA refused to start a kernel.
    #[error("FlashAttention's {pass} pass over {shape} did not start: {said} (CUDA error {code}); {advice}")]
    Launch {
        /// `forward` or `backward`.
        pass: &'static str,
        /// The sizes.
        shape: Shape,
        /// CUDA's number for what is wrong; -1 where it is not from CUDA.
        code: i32,
        /// CUDA's words for it.
        said: String,
        /// What to do.
        advice: &'static str,
    },
    /// The crate was compiled without its feature `kernels`.
    #[error("this build has no FlashAttention: build it with `--features flash`, or take another attention")]
    NotBuilt,
}

/// What the kernels' side of a call answers when it fails.
pub(crate) enum Refusal {
    /// There is no such side in this build.
    #[cfg_attr(feature = "kernels", expect(dead_code, reason = "only in builds without kernels"))]
    NotBuilt,
    /// CUDA's number and words.
    #[cfg_attr(not(feature = "kernels"), expect(dead_code, reason = "only in builds with kernels"))]
    Cuda(i32, String),
}

impl Refusal {
    /// CUDA's number and words, if it is CUDA that refused.
    pub(crate) fn known(self) -> Result<(i32, String), FlashError> {
        match self {
            Self::NotBuilt => Err(FlashError::NotBuilt),
            Self::Cuda(code, said) => Ok((code, said)),
        }
    }

    /// The error of a pass that was refused.
    pub(crate) fn of(self, pass: &'static str, shape: Shape) -> FlashError {
        match self.known() {
            Ok((code, said)) => FlashError::Launch { pass, shape, code, said, advice: advice(code) },
            Err(error) => error,
        }
    }
}

/// What to do about one of CUDA's error codes.
pub(crate) fn advice(code: i32) -> &'static str {
    match code {
        // cudaErrorInsufficientDriver, cudaErrorStubLibrary, cudaErrorNoDevice
        35 | 34 | 100 => {
            "it needs an NVIDIA GPU with a driver at least as new as the CUDA that this was built with (does \
             `nvidia-smi` list the GPU?)"
        }
        // cudaErrorNoKernelImageForDevice, cudaErrorUnsupportedPtxVersion
        209 | 222 => {
            "it needs a GPU of compute capability 8.0 (Ampere) or later for which the kernels were built: see \
             FLASH_ATTN_GENCODE in the crate's build script"
        }
        // cudaErrorMemoryAllocation
        2 => "free device memory, or take shorter or fewer sequences",
        _ => "if an earlier operation failed, CUDA_LAUNCH_BLOCKING=1 shows which",
    }
}
