//! Work that is started again and again with the same shapes, recorded once as a CUDA graph: starting a thousand small
//! kernels one by one takes the processor longer than they take the GPU.

use candle_core::cuda_backend::cudarc::driver::CudaGraph;
use candle_core::cuda_backend::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};

use super::launch::Kernels;
use crate::{Error, Result};

/// A recording: the same kernels on the same memory.
pub(crate) struct Recording(CudaGraph);

impl Recording {
    /// Starts everything that was recorded.
    pub(crate) fn play(&self) -> Result<()> {
        self.0.launch().map_err(of_driver)
    }
}

impl Kernels {
    /// Runs `work`, then records it. Between two runs nothing may change but the contents of tensors: `work` takes and gives
    /// back all other memory itself, and nothing crosses from or to the host. None where the driver does not record.
    pub(crate) fn run_and_record(&self, work: impl Fn() -> Result<()>) -> Result<Option<Recording>> {
        // What the tensor library tells its kernels of shapes is kept from the first run on, and found again while recording.
        let _kept = self.device.enable_cuda_graph_htod_cache();
        work()?;
        let stream = self.device.cuda_stream();
        if stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).is_err() {
            return Ok(None);
        }
        let worked = work();
        let recorded = stream.end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        Ok(if worked.is_ok() { recorded.ok().flatten().map(Recording) } else { None })
    }
}

fn of_driver(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::from(candle_core::Error::wrap(error))
}
