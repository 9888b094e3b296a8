//! What is asked of CUDA's driver directly.

use candle_core::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::result::{device, mem_pool};
use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute;

use crate::{Error, Result};

/// Bytes that are free on the device.
pub(super) fn free_memory(device: &CudaDevice) -> Result<u64> {
    let (free, _) = device.cuda_stream().context().mem_get_info().map_err(|error| {
        Error::config(format!("the driver does not say how much memory is free: {error}; give `compute.memory`"))
    })?;
    Ok(free as u64)
}

/// Spares every tensor the two events that would order its uses on several streams: here each device has one.
pub(super) fn use_one_stream(device: &CudaDevice) {
    // SAFETY: everything that this crate does on a device goes through the device's one stream, in order.
    unsafe { device.disable_event_tracking() };
}

/// Lets the driver's pool keep freed memory for the next tensor. By default it gives everything back to the system at
/// every wait for the device, and takes it again a moment later. A driver without pools goes on as before.
pub(super) fn keep_freed_memory(device: &CudaDevice) {
    let stream = device.cuda_stream();
    let mut everything = u64::MAX;
    let threshold = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the context holds a device that the driver returned, whose default pool lives as long as the driver; the
    // value is the 64-bit number that this attribute takes, and is only read.
    let _without_pools = unsafe {
        device::get_default_mem_pool(stream.context().cu_device())
            .and_then(|pool| mem_pool::set_attribute(pool, threshold, (&raw mut everything).cast()))
    };
}
