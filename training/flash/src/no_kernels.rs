//! In place of the kernels in builds without them.

use std::ffi::c_void;

use crate::error::Refusal;
use crate::{Backward, Forward, Shape};

/// Refuses.
pub(crate) fn ready() -> Result<(), Refusal> {
    Err(Refusal::NotBuilt)
}

/// Refuses.
///
/// # Safety
/// None is needed.
pub(crate) unsafe fn forward(_: Shape, _: &Forward, _: f32, _: *mut c_void) -> Result<(), Refusal> {
    Err(Refusal::NotBuilt)
}

/// Refuses.
///
/// # Safety
/// None is needed.
pub(crate) unsafe fn backward(_: Shape, _: &Backward, _: f32, _: *mut c_void) -> Result<(), Refusal> {
    Err(Refusal::NotBuilt)
}
