//! Tensors of a layered model, and where their gradients go.

use candle_core::{D, DType, Tensor};

use crate::Result;
use crate::compute::kernels::Kernels;

/// A tensor of the model and, where it is trained, its place among the policy's parameters.
///
/// The tensor shares its storage with the parameter: an update of the parameter is seen at once.
#[derive(Debug, Clone)]
pub struct Weight {
    pub(super) tensor: Tensor,
    pub(super) place: Option<usize>,
}

impl Weight {
    /// A tensor that stays as it is.
    pub fn frozen(tensor: &Tensor) -> Self {
        Self { tensor: tensor.detach(), place: None }
    }

    /// The parameter at `place`.
    pub fn trained(tensor: &Tensor, place: usize) -> Self {
        Self { tensor: tensor.detach(), place: Some(place) }
    }

    /// The same numbers as constants in another format; a copy only where the format differs.
    pub(super) fn settled(&self, dtype: DType) -> Result<Self> {
        Ok(Self { tensor: self.tensor.to_dtype(dtype)?, place: None })
    }

    /// The tensor in the format that `like` has, converted when it is kept in another.
    pub(super) fn like(&self, like: &Tensor) -> Result<Tensor> {
        Ok(self.tensor.to_dtype(like.dtype())?)
    }
}

/// Takes gradients of parameters, each with the parameter's place.
pub type GradientSink<'a> = dyn FnMut(usize, Tensor) -> Result<()> + 'a;

/// Hands the gradient of `weight` over where it is trained; `gradient` is not worked out where it is not.
pub(super) fn give(
    weight: &Weight,
    sink: &mut GradientSink<'_>,
    gradient: impl FnOnce() -> Result<Tensor>,
) -> Result<()> {
    match weight.place {
        Some(place) => sink(place, gradient()?),
        None => Ok(()),
    }
}

/// Sums over rows in f32, `[rows, width]` to `[width]`: a sum in half precision would lose most of its terms.
pub(super) fn column_sums(x: &Tensor) -> Result<Tensor> {
    match Kernels::of(x, x.dim(D::Minus1)?) {
        Some(kernels) => kernels.column_sums(x, None),
        None => Ok(x.to_dtype(DType::F32)?.sum(0)?),
    }
}
