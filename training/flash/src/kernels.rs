//! The C interface of shim.cu.

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::error::Refusal;
use crate::{Backward, Forward, Shape};

/// [`Shape`] as shim.cu knows it.
#[repr(C)]
struct Sizes {
    tokens: i32,
    sequences: i32,
    longest: i32,
    heads: i32,
    kv_heads: i32,
    head_dim: i32,
}

unsafe extern "C" {
    fn brevity_flash_ready() -> c_int;
    fn brevity_flash_forward(shape: *const Sizes, data: *const Forward, scale: f32, stream: *mut c_void) -> c_int;
    fn brevity_flash_backward(shape: *const Sizes, data: *const Backward, scale: f32, stream: *mut c_void) -> c_int;
    fn brevity_flash_said(code: c_int) -> *const c_char;
}

/// Whether the current device runs the kernels.
pub(crate) fn ready() -> Result<(), Refusal> {
    // SAFETY: it takes nothing and catches its own exceptions.
    refused(unsafe { brevity_flash_ready() })
}

/// Queues the forward kernel.
///
/// # Safety
/// As with [`crate::forward`]; `shape` must have been checked.
pub(crate) unsafe fn forward(shape: Shape, pointers: &Forward, scale: f32, stream: *mut c_void) -> Result<(), Refusal> {
    // SAFETY: both structs are laid out as in C and read before the call returns; the caller promises the rest.
    refused(unsafe { brevity_flash_forward(&sizes(shape), pointers, scale, stream) })
}

/// Queues the backward kernels.
///
/// # Safety
/// As with [`crate::backward`]; `shape` must have been checked.
pub(crate) unsafe fn backward(
    shape: Shape,
    pointers: &Backward,
    scale: f32,
    stream: *mut c_void,
) -> Result<(), Refusal> {
    // SAFETY: both structs are laid out as in C and read before the call returns; the caller promises the rest.
    refused(unsafe { brevity_flash_backward(&sizes(shape), pointers, scale, stream) })
}

/// A checked shape fits into 32 bits.
fn sizes(shape: Shape) -> Sizes {
    let Shape { tokens, sequences, longest, heads, kv_heads, head_dim } = shape;
    let [tokens, sequences, longest, heads, kv_heads, head_dim] =
        [tokens, sequences, longest, heads, kv_heads, head_dim].map(|size| size as i32);
    Sizes { tokens, sequences, longest, heads, kv_heads, head_dim }
}

fn refused(code: c_int) -> Result<(), Refusal> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the shim returns a text that ends with a zero and lives as long as the process, for every code.
    let said = unsafe { CStr::from_ptr(brevity_flash_said(code)) };
    Err(Refusal::Cuda(code, said.to_string_lossy().into_owned()))
}
