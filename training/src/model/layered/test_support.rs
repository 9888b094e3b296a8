//! What the tests of this folder share: gradients that were given, and closeness.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::Result;
use crate::model::ops::test_support::relative_difference;

/// Gradients by place; several for one place are added.
#[derive(Default)]
pub(super) struct Collected(BTreeMap<usize, Tensor>);

impl Collected {
    pub(super) fn sink(&mut self) -> impl FnMut(usize, Tensor) -> Result<()> + '_ {
        move |place, gradient| {
            let gradient = gradient.to_dtype(DType::F32)?;
            let sum = match self.0.remove(&place) {
                Some(earlier) => (earlier + gradient)?,
                None => gradient,
            };
            self.0.insert(place, sum);
            Ok(())
        }
    }

    pub(super) fn of(&self, place: usize) -> &Tensor {
        &self.0[&place]
    }

    pub(super) fn places(&self) -> Vec<usize> {
        self.0.keys().copied().collect()
    }
}

/// Asserts that the largest difference is at most `tolerance` of the largest magnitude.
#[track_caller]
pub(super) fn near(actual: &Tensor, expected: &Tensor, tolerance: f32) {
    let wide = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap();
    let difference = relative_difference(&wide(actual), &wide(expected));
    assert!(difference <= tolerance, "differs by {difference}, allowed {tolerance}");
}
