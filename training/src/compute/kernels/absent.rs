//! The fused operations of a build without CUDA: none, so that whoever asks goes on with tensor operations.

use candle_core::{DType, Tensor};

use super::{AdamWFactors, RowScores};
use crate::Result;

/// Nothing: no tensor is on a GPU in this build.
#[derive(Debug)]
pub(crate) enum Kernels {}

/// Nothing, as there is nothing to record.
pub(crate) enum Recording {}

impl Recording {
    pub(crate) fn play(&self) -> Result<()> {
        match *self {}
    }
}

/// Operations that nobody can ask for.
macro_rules! absent {
    ($($name:ident($($argument:ty),*) -> $result:ty;)*) => {
        impl Kernels {
            $(
                pub(crate) fn $name(&self, $(_: $argument),*) -> Result<$result> {
                    match *self {}
                }
            )*
        }
    };
}

impl Kernels {
    pub(crate) fn of(_: &Tensor, _: usize) -> Option<Self> {
        None
    }

    pub(crate) fn attending(_: &Tensor, _: usize) -> Option<Self> {
        None
    }

    pub(crate) fn run_and_record(&self, _: impl Fn() -> Result<()>) -> Result<Option<Recording>> {
        match *self {}
    }

    pub(crate) fn in_half(_: &Tensor, _: usize) -> Option<Self> {
        None
    }
}

absent! {
    product_into(&Tensor, &Tensor, &Tensor) -> ();
    product(&Tensor, &Tensor, f64, DType) -> Tensor;
    add_product(&Tensor, &Tensor, &Tensor) -> ();
    rms_norm(&Tensor, &Tensor, f64) -> Tensor;
    rms_norm_backward(&Tensor, &Tensor, &Tensor, f64) -> (Tensor, Tensor);
    column_sums(&Tensor, Option<(&Tensor, &Tensor)>) -> Tensor;
    add_bias(&Tensor, &Tensor) -> ();
    rotary(&Tensor, &Tensor, &Tensor, bool) -> Tensor;
    gated(&Tensor, &Tensor) -> Tensor;
    gated_backward(&Tensor, &Tensor, &Tensor) -> (Tensor, Tensor);
    score_rows(&Tensor, &Tensor, f64) -> RowScores;
    score_rows_backward(&Tensor, &Tensor, &Tensor, &Tensor, f64) -> Tensor;
    draw_rows(&Tensor, &Tensor, f64) -> (Tensor, Tensor);
    adamw(&Tensor, Option<&Tensor>, (&Tensor, &Tensor), &Tensor, AdamWFactors) -> ();
    sum_of_squares(&Tensor) -> Tensor;
    store_tokens((&Tensor, &Tensor), (&Tensor, &Tensor), &Tensor, usize) -> ();
    attention((&Tensor, &Tensor, &Tensor), &[usize], f64) -> (Tensor, Tensor);
    attention_backward((&Tensor, &Tensor, &Tensor), (&Tensor, &Tensor), &Tensor, &[usize], f64) -> (Tensor, Tensor, Tensor);
    decode_attention(&Tensor, (&Tensor, &Tensor), &Tensor, f64) -> Tensor;
}
