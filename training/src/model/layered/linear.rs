//! The linear layer with an adapter beside it, and its backward pass.
//!
//! `y = x Wᵀ + bias + s (x Aᵀ) Bᵀ`. Unlike a product folded into the weight, this form needs no gradient of the size of
//! `W` for an adapter, and a frozen `W` gets none at all. Products are in the format of `x`; an f32 adapter beside bf16
//! weights is rounded for them, while its parameters and their sums of gradients stay f32.

use candle_core::Tensor;

use super::product::{plus_bias, plus_product, scaled_product};
use super::weight::{GradientSink, Weight, column_sums, give};
use crate::Result;

/// A low-rank adapter beside a weight.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// `[rank, in]`.
    pub a: Weight,
    /// `[out, rank]`.
    pub b: Weight,
    /// Factor of the product.
    pub scale: f64,
}

/// A weight `[out, in]` with what stands beside it.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(super) weight: Weight,
    /// `[out]`.
    pub(super) bias: Option<Weight>,
    pub(super) adapter: Option<Adapter>,
}

impl Linear {
    /// The layer as it is now, with an adapter in the weight's own format.
    pub(super) fn settled(&self) -> Result<Self> {
        let dtype = self.weight.tensor.dtype();
        let adapter = self.adapter.as_ref().map(|Adapter { a, b, scale }| {
            Ok::<_, crate::Error>(Adapter { a: a.settled(dtype)?, b: b.settled(dtype)?, scale: *scale })
        });
        Ok(Self { weight: self.weight.clone(), bias: self.bias.clone(), adapter: adapter.transpose()? })
    }

    /// `x` `[tokens, in]` to `[tokens, out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = x.matmul(&self.weight.tensor.t()?)?;
        if let Some(bias) = &self.bias {
            y = plus_bias(y, &bias.tensor)?;
        }
        if let Some(Adapter { a, b, scale }) = &self.adapter {
            let inner = scaled_product(x, &a.like(x)?.t()?, *scale)?;
            y = plus_product(Some(y), &inner, &b.like(x)?.t()?)?;
        }
        Ok(y)
    }

    /// The gradient of `x` from that of the result, added to `sum` where there is one; those of trained tensors go to
    /// `sink`.
    pub(super) fn backward(
        &self,
        x: &Tensor,
        dy: &Tensor,
        sum: Option<Tensor>,
        sink: &mut GradientSink<'_>,
    ) -> Result<Tensor> {
        let mut dx = plus_product(sum, dy, &self.weight.tensor)?;
        give(&self.weight, sink, || Ok(dy.t()?.matmul(x)?))?;
        if let Some(bias) = &self.bias {
            give(bias, sink, || column_sums(dy))?;
        }
        if let Some(Adapter { a, b, scale }) = &self.adapter {
            let (a_like, b_like) = (a.like(x)?, b.like(x)?);
            let d_inner = scaled_product(dy, &b_like, *scale)?;
            give(b, sink, || Ok(dy.t()?.matmul(&scaled_product(x, &a_like.t()?, *scale)?)?))?;
            give(a, sink, || Ok(d_inner.t()?.matmul(x)?))?;
            dx = plus_product(Some(dx), &d_inner, &a_like)?;
        }
        Ok(dx)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::super::test_support::{Collected, near};
    use super::*;
    use crate::model::ops::test_support::wave;

    fn linear(trained: bool) -> Linear {
        let weight =
            |tensor: &Tensor, place| if trained { Weight::trained(tensor, place) } else { Weight::frozen(tensor) };
        Linear {
            weight: weight(&wave(&[20, 12], 1.0), 0),
            bias: Some(weight(&wave(&[20], 2.0), 1)),
            adapter: Some(Adapter {
                a: Weight::trained(&wave(&[3, 12], 3.0), 2),
                b: Weight::trained(&wave(&[20, 3], 4.0), 3),
                scale: 1.7,
            }),
        }
    }

    /// The same layer with the product folded into the weight, through candle's own gradients.
    fn folded(x: &Tensor, dy: &Tensor) -> (Tensor, Tensor, [Tensor; 4]) {
        let var = |tensor: Tensor| Var::from_tensor(&tensor).unwrap();
        let x = var(x.clone());
        let parts = [wave(&[20, 12], 1.0), wave(&[20], 2.0), wave(&[3, 12], 3.0), wave(&[20, 3], 4.0)].map(var);
        let [weight, bias, a, b] = &parts;
        let whole = (weight.as_tensor() + (b.matmul(a).unwrap() * 1.7).unwrap()).unwrap();
        let y = x.matmul(&whole.t().unwrap()).unwrap().broadcast_add(bias).unwrap();
        let gradients = (&y * dy).unwrap().sum_all().unwrap().backward().unwrap();
        let of = |var: &Var| gradients.get(var).unwrap().clone();
        (y, of(&x), [of(weight), of(bias), of(a), of(b)])
    }

    #[test]
    fn an_adapter_beside_the_weight_is_the_same_function_as_one_folded_into_it() {
        // Sums of sines cancel, so that rounding shows more than in the values summed.
        let (x, dy) = (wave(&[33, 12], 0.0), wave(&[33, 20], 0.3));
        let (y, dx, expected) = folded(&x, &dy);
        for trained in [true, false] {
            let linear = linear(trained);
            let mut found = Collected::default();
            near(&linear.forward(&x).unwrap(), &y, 5e-5);
            near(&linear.backward(&x, &dy, None, &mut found.sink()).unwrap(), &dx, 5e-5);
            near(found.of(2), &expected[2], 5e-5);
            near(found.of(3), &expected[3], 5e-5);
            if trained {
                near(found.of(0), &expected[0], 5e-5);
                near(found.of(1), &expected[1], 5e-5);
            } else {
                assert_eq!(found.places(), [2, 3], "a frozen weight gets no gradient");
            }
        }
    }

    #[test]
    fn an_f32_adapter_works_beside_weights_in_half_precision() {
        let half = |tensor: &Tensor| tensor.to_dtype(DType::F16).unwrap();
        let (x, dy) = (wave(&[33, 12], 0.0), wave(&[33, 20], 0.3));
        let mut linear = linear(false);
        let expected = linear.forward(&x).unwrap();
        let mut found = Collected::default();
        let dx = linear.backward(&x, &dy, None, &mut found.sink()).unwrap();
        linear.weight = Weight::frozen(&half(&linear.weight.tensor));
        linear.bias = linear.bias.map(|bias| Weight::frozen(&half(&bias.tensor)));
        let y = linear.forward(&half(&x)).unwrap();
        assert_eq!(y.dtype(), DType::F16);
        near(&y, &expected, 2e-2);
        let mut found_half = Collected::default();
        near(&linear.backward(&half(&x), &half(&dy), None, &mut found_half.sink()).unwrap(), &dx, 2e-2);
        near(found_half.of(2), found.of(2), 2e-2);
        near(found_half.of(3), found.of(3), 2e-2);
    }
}
