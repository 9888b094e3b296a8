//! Compiling the kernels for the device at hand, and starting them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::{CudaDevice, DType, Device, Shape, Storage, Tensor};

use crate::{Error, Result};

/// Threads of a block in kernels that go over values one by one.
pub(super) const THREADS: u32 = 256;

/// The fused operations of one GPU.
pub(crate) struct Kernels {
    pub(super) device: CudaDevice,
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Kernels")
    }
}

/// Where kernels are written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// Norms, positions, gates, sums, AdamW.
    Tensors,
    /// Scores of and draws from logits.
    Logits,
    /// Attention of new tokens over their caches, for one shape of heads.
    Decode { head_dim: usize, group: usize },
}

impl Source {
    fn module(self) -> String {
        match self {
            Self::Tensors => "brevity_tensors".to_owned(),
            Self::Logits => "brevity_logits".to_owned(),
            Self::Decode { head_dim, group } => format!("brevity_decode_{head_dim}_{group}"),
        }
    }

    /// The module as PTX for devices of this compute capability, compiled once a process.
    pub(super) fn ptx(self, (major, minor): (i32, i32)) -> Result<Arc<str>> {
        static COMPILED: Mutex<BTreeMap<String, Arc<str>>> = Mutex::new(BTreeMap::new());
        let key = format!("{} {major}.{minor}", self.module());
        let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ptx) = compiled.get(&key) {
            return Ok(ptx.clone());
        }
        let mut options = vec![format!("--gpu-architecture=compute_{major}{minor}"), "--std=c++17".to_owned()];
        let more = match self {
            Self::Tensors => "",
            Self::Logits => include_str!("logits.cu"),
            Self::Decode { head_dim, group } => {
                options.extend([format!("-DHEAD_DIM={head_dim}"), format!("-DGROUP={group}")]);
                include_str!("decode.cu")
            }
        };
        let source = format!("{}{more}", include_str!("tensors.cu"));
        let ptx: Arc<str> = compile_ptx_with_opts(source, CompileOptions { options, ..CompileOptions::default() })
            .map_err(|error| {
                Error::config(format!(
                    "CUDA's run-time compiler did not take the module `{}`: {error}; it is libnvrtc of CUDA's version 13, \
                     which the loader has to find (LD_LIBRARY_PATH)",
                    self.module()
                ))
            })?
            .to_src()
            .into();
        compiled.insert(key, ptx.clone());
        Ok(ptx)
    }
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    Pointer(u64),
    Int(i32),
    Long(i64),
    Float(f32),
}

/// How many blocks of how many threads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub(super) blocks: (usize, usize),
    pub(super) threads: u32,
    /// Bytes of shared memory whose size is not in the source.
    pub(super) shared: usize,
}

impl Grid {
    /// One thread an item.
    pub(super) fn of_items(items: usize) -> Self {
        Self { blocks: (items.div_ceil(THREADS as usize), 1), threads: THREADS, shared: 0 }
    }

    /// One block a row.
    pub(super) fn of_rows(rows: usize, threads: u32) -> Self {
        Self { blocks: (rows, 1), threads, shared: 0 }
    }
}

impl Kernels {
    /// The kernels for contiguous `x` of f32 or bf16 whose rows of `width` fall into eights, where a GPU holds it.
    pub(crate) fn of(x: &Tensor, width: usize) -> Option<Self> {
        match x.device() {
            Device::Cuda(device)
                if width.is_multiple_of(8) && x.is_contiguous() && matches!(x.dtype(), DType::F32 | DType::BF16) =>
            {
                Some(Self { device: device.clone() })
            }
            _ => None,
        }
    }

    /// The kernels for what is done in bf16 only.
    pub(crate) fn in_half(x: &Tensor, width: usize) -> Option<Self> {
        Self::of(x, width).filter(|_| x.dtype() == DType::BF16)
    }

    /// A tensor whose values are whatever the memory held; the kernel that is started next writes all of them.
    pub(super) fn room(&self, shape: impl Into<Shape>, dtype: DType) -> Result<Tensor> {
        // SAFETY: every caller has a kernel write each value before anything reads it, on the one stream of the device.
        Ok(unsafe { Tensor::empty(shape, dtype, &Device::Cuda(self.device.clone())) }?)
    }

    /// Starts a kernel; its pointers come from tensors that the caller holds until then.
    ///
    /// # Safety
    /// The arguments are those of the kernel, and the grid stays within the memory that they point to.
    pub(super) unsafe fn start(&self, source: Source, name: &str, grid: Grid, arguments: &[Argument]) -> Result<()> {
        if grid.blocks.0 == 0 || grid.blocks.1 == 0 {
            return Ok(());
        }
        let stream = self.device.cuda_stream();
        let of_driver = |error| Error::from(candle_core::Error::wrap(error));
        let ptx = source.ptx(stream.context().compute_capability().map_err(of_driver)?)?;
        let function = self.device.get_or_load_custom_func(name, &source.module(), &ptx)?;
        let mut builder = function.builder();
        for argument in arguments {
            match argument {
                Argument::Pointer(value) => builder.arg(value),
                Argument::Int(value) => builder.arg(value),
                Argument::Long(value) => builder.arg(value),
                Argument::Float(value) => builder.arg(value),
            };
        }
        let config = LaunchConfig {
            grid_dim: (grid.blocks.0 as u32, grid.blocks.1 as u32, 1),
            block_dim: (grid.threads, 1, 1),
            shared_mem_bytes: grid.shared as u32,
        };
        // SAFETY: the caller's promise.
        unsafe { builder.launch(config) }.map_err(of_driver)?;
        Ok(())
    }
}

/// The address of a contiguous tensor's first value.
pub(super) fn pointer(x: &Tensor) -> Result<Argument> {
    if !x.is_contiguous() {
        return Err(Error::config(format!("a kernel was handed a tensor {:?} that is not contiguous", x.shape())));
    }
    Ok(Argument::Pointer(address(x)?))
}

/// The address of a tensor's first value.
pub(super) fn address(x: &Tensor) -> Result<u64> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        return Err(Error::config("a kernel was handed a tensor that is not on a GPU"));
    };
    let stream = storage.device.cuda_stream();
    let start = match &storage.slice {
        CudaStorageSlice::BF16(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::F32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::U32(slice) => slice.device_ptr(&stream).0,
        CudaStorageSlice::I32(slice) => slice.device_ptr(&stream).0,
        _ => return Err(Error::config(format!("a kernel was handed a tensor of {:?}", x.dtype()))),
    };
    Ok(start + (layout.start_offset() * x.dtype().size_in_bytes()) as u64)
}

/// The name of a kernel's variant for `dtype`.
pub(super) fn variant(name: &str, dtype: DType) -> Result<String> {
    match dtype {
        DType::BF16 => Ok(format!("{name}_bf16")),
        DType::F32 => Ok(format!("{name}_f32")),
        other => Err(Error::config(format!("the kernel `{name}` takes f32 and bf16, not {other:?}"))),
    }
}
