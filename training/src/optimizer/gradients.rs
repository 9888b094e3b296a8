//! Gradients summed over micro-batches, and their norm.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, D, DType, Storage, Tensor, Var};
use rayon::prelude::*;

use crate::compute::kernels::Kernels;
use crate::{Error, Result};

/// Elements that one partial sum covers. Fixed, so that the norm's bits do not depend on the number of threads.
const NORM_CHUNK: usize = 1 << 14;

/// Independent running sums within a chunk, so that additions need not wait for each other.
const NORM_LANES: usize = 8;

/// The gradients of an ordered list of parameters, summed over the micro-batches of one update.
///
/// The first gradient of a parameter is kept in its own dtype; a sum of two or more is f32.
#[derive(Debug, Default)]
pub struct Gradients {
    sums: Vec<Option<Tensor>>,
}

impl Gradients {
    /// No gradients yet, for a list of `parameters` parameters.
    #[must_use]
    pub fn new(parameters: usize) -> Self {
        Self { sums: vec![None; parameters] }
    }

    /// The number of parameters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sums.len()
    }

    /// Whether there are no parameters at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// The sum so far for the parameter at `index`, of the parameter's shape.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Tensor> {
        self.sums.get(index)?.as_ref()
    }

    /// Forgets all sums, for the next update.
    pub fn clear(&mut self) {
        self.sums.fill(None);
    }

    /// Adds what one backward pass left in `store` for each of `parameters`; the rest of the store is ignored.
    ///
    /// A parameter without a gradient in this micro-batch is left alone: [`super::AdamW::step`] complains if none of them
    /// had one.
    ///
    /// # Errors
    /// [`crate::Error::Config`] when `parameters` is not the list this was made for; [`crate::Error::Tensor`] when a sum
    /// fails.
    pub fn accumulate(&mut self, store: &GradStore, parameters: &[(String, Var)]) -> Result<()> {
        if parameters.len() != self.sums.len() {
            return Err(Error::config(format!(
                "gradients of {} parameters were added to sums of {}",
                parameters.len(),
                self.sums.len()
            )));
        }
        for (index, (_, parameter)) in parameters.iter().enumerate() {
            if let Some(gradient) = store.get(parameter) {
                self.add(index, gradient)?;
            }
        }
        Ok(())
    }

    /// Adds one gradient of the parameter at `index`, for backward passes written by hand.
    ///
    /// # Errors
    /// [`crate::Error::Config`] when there is no such parameter; [`crate::Error::Tensor`] when shapes differ.
    pub fn add(&mut self, index: usize, gradient: &Tensor) -> Result<()> {
        let parameters = self.sums.len();
        let Some(sum) = self.sums.get_mut(index) else {
            return Err(Error::config(format!("there is no parameter {index}, only {parameters}")));
        };
        // A gradient may carry the graph that made it; kept over micro-batches it would pin all their activations.
        let gradient = gradient.detach();
        *sum = Some(match sum.take() {
            None => gradient,
            Some(sum) => (sum.to_dtype(DType::F32)? + gradient.to_dtype(DType::F32)?)?,
        });
        Ok(())
    }
}

/// The Euclidean norm over all gradients: bit for bit the same for the same gradients on the same kind of device.
pub(super) fn norm(gradients: &[&Tensor]) -> Result<f64> {
    let mut squares = 0.0;
    let mut elsewhere = Vec::new();
    for gradient in gradients {
        match sum_of_squares(gradient)? {
            Sum::Here(sum) => squares += sum,
            Sum::OnDevice(sum) => elsewhere.push(sum),
        }
    }
    // One transfer for all: each would wait for the device.
    if !elsewhere.is_empty() {
        squares += Tensor::stack(&elsewhere, 0)?.to_vec1::<f32>()?.into_iter().map(f64::from).sum::<f64>();
    }
    Ok(squares.sqrt())
}

/// A sum of squares, or a scalar on a device that will hold it.
enum Sum {
    Here(f64),
    OnDevice(Tensor),
}

fn sum_of_squares(gradient: &Tensor) -> Result<Sum> {
    if let Some(kernels) = Kernels::of(gradient, gradient.elem_count()) {
        return Ok(Sum::OnDevice(kernels.sum_of_squares(gradient)?));
    }
    let gradient = gradient.to_dtype(DType::F32)?.contiguous()?;
    {
        let (storage, layout) = gradient.storage_and_layout();
        if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
            let partial: Vec<f64> = values[start..end].par_chunks(NORM_CHUNK).map(chunk_sum_of_squares).collect();
            return Ok(Sum::Here(partial.iter().sum()));
        }
    }
    // Row sums first: a reduction of everything at once runs on a single block of a GPU.
    let rows = if gradient.rank() == 0 { gradient.sqr()? } else { gradient.sqr()?.sum(D::Minus1)? };
    Ok(Sum::OnDevice(rows.sum_all()?))
}

fn chunk_sum_of_squares(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; NORM_LANES];
    let mut groups = values.chunks_exact(NORM_LANES);
    for group in &mut groups {
        for (lane, &value) in lanes.iter_mut().zip(group) {
            *lane += f64::from(value) * f64::from(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(groups.remainder()) {
        *lane += f64::from(value) * f64::from(value);
    }
    lanes.iter().sum()
}
