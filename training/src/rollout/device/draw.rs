//! From logits on a device to one token a row, with little crossing to the host.
//!
//! Sampling is inversion, as on the CPU: the first id at which the cumulated probability passes a uniform draw, taken from
//! the response's own generator. The device sums probabilities over pieces of the vocabulary; the host finds the piece, asks
//! for its probabilities alone, and finds the id in it.

use candle_core::{D, Tensor};
use rand::Rng;
use rayon::prelude::*;

use super::super::SamplingParams;
use super::super::draw::{Drawn, draw};
use super::super::response::Response;
use crate::Result;
use crate::compute::kernels::Kernels;

/// Ids in one piece of the vocabulary.
const PIECE: usize = 128;

/// Draws the next token of every response and notes it; `logits` is f32 `[responses, vocabulary]`.
pub(super) fn draw_rows(
    logits: &Tensor,
    params: &SamplingParams,
    responses: &mut [Response],
    end_of_sequence: &[u32],
) -> Result<()> {
    let drawn = if params.temperature == 0.0 {
        most_likely(logits)?
    } else if params.truncates() {
        // What is likely is known only of the distribution in order.
        let mut rows = logits.flatten_all()?.to_vec1::<f32>()?;
        let rows = rows.par_chunks_mut(logits.dim(D::Minus1)?).zip(&mut *responses);
        rows.map(|(row, of)| draw(row, params, &mut of.rng)).collect()
    } else {
        let uniform = responses.iter_mut().map(|response| response.rng.random::<f32>()).collect();
        match Kernels::of(logits, 8) {
            Some(kernels) => on_device(&kernels, logits, uniform, params.temperature)?,
            None => by_inversion(&(logits / params.temperature)?, uniform)?,
        }
    };
    for (response, drawn) in responses.iter_mut().zip(drawn) {
        response.push(drawn, end_of_sequence);
    }
    Ok(())
}

/// The largest logit of each row, and its log-probability.
fn most_likely(logits: &Tensor) -> Result<Vec<Drawn>> {
    let ids = logits.argmax(D::Minus1)?;
    let largest = logits.gather(&ids.unsqueeze(1)?, 1)?;
    // Counted from the largest logit, log Σ exp is minus the log-probability of it.
    let log_sums = logits.broadcast_sub(&largest)?.exp()?.sum(D::Minus1)?.log()?;
    let rows = ids.to_vec1::<u32>()?.into_iter().zip(log_sums.to_vec1::<f32>()?);
    Ok(rows.map(|(id, log_sum)| Drawn { id, logprob: -log_sum }).collect())
}

/// One draw a row for the given uniform numbers, wholly on the device.
fn on_device(kernels: &Kernels, logits: &Tensor, uniform: Vec<f32>, temperature: f64) -> Result<Vec<Drawn>> {
    let uniform = Tensor::new(uniform, logits.device())?;
    let (ids, logprobs) = kernels.draw_rows(logits, &uniform, temperature.recip())?;
    let rows = ids.to_vec1::<u32>()?.into_iter().zip(logprobs.to_vec1::<f32>()?);
    Ok(rows.map(|(id, logprob)| Drawn { id, logprob }).collect())
}

/// One draw a row for the given uniform numbers.
fn by_inversion(logits: &Tensor, uniform: Vec<f32>) -> Result<Vec<Drawn>> {
    let (rows, vocabulary) = logits.dims2()?;
    let weights = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?.exp()?;
    let probabilities = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    let pieces = vocabulary.div_ceil(PIECE);
    let padded = probabilities.pad_with_zeros(1, 0, pieces * PIECE - vocabulary)?.reshape((rows * pieces, PIECE))?;
    let sums = padded.sum(D::Minus1)?.reshape((rows, pieces))?.to_vec2::<f32>()?;
    let found: Vec<(usize, f32)> = sums.iter().zip(uniform).map(|(sums, left)| pass(sums, left)).collect();
    let wanted: Vec<u32> = found.iter().enumerate().map(|(row, (piece, _))| (row * pieces + piece) as u32).collect();
    let inside = padded.index_select(&Tensor::new(wanted, logits.device())?, 0)?.to_vec2::<f32>()?;
    let drawn = inside.iter().zip(found).map(|(inside, (piece, left))| {
        let (at, _) = pass(inside, left);
        Drawn { id: (piece * PIECE + at) as u32, logprob: inside[at].ln() }
    });
    Ok(drawn.collect())
}

/// The first entry at which the running sum passes `left`, and what is left of it before that entry. Rounding can leave a
/// sliver uncovered: the largest entry takes it, and has infinity left, so that the largest of its own entries does too.
fn pass(masses: &[f32], left: f32) -> (usize, f32) {
    let mut rest = left;
    for (index, &mass) in masses.iter().enumerate() {
        if rest < mass {
            return (index, rest);
        }
        rest -= mass;
    }
    let largest = (0..masses.len()).fold(0, |best, index| if masses[index] > masses[best] { index } else { best });
    (largest, f32::INFINITY)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn draws_follow_the_softmax_over_several_pieces() {
        let weights: Vec<f32> = (0..300).map(|id| 1.0 + (id % 7) as f32).collect();
        let total: f32 = weights.iter().sum();
        let row: Vec<f32> = weights.iter().map(|weight| weight.ln()).collect();
        let logits = Tensor::new(row, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let logits = logits.broadcast_as((40_000, 300)).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let drawn = by_inversion(&logits, (0..40_000).map(|_| rng.random()).collect()).unwrap();
        let mut counts = vec![0f64; 300];
        for Drawn { id, logprob } in drawn {
            counts[id as usize] += 1.0;
            assert!((logprob - (weights[id as usize] / total).ln()).abs() < 1e-5);
        }
        // χ² with 299 degrees of freedom: mean 299, standard deviation 24.5.
        let expected = |id: usize| f64::from(weights[id] / total) * 40_000.0;
        let chi: f64 = (0..300).map(|id| (counts[id] - expected(id)).powi(2) / expected(id)).sum();
        assert!(chi < 299.0 + 5.0 * 24.5, "{chi}");
    }

    #[test]
    fn the_ends_of_the_unit_interval_are_covered() {
        let logits = Tensor::new(&[[0f32, 2.0, 1.0], [0.0, 2.0, 1.0], [f32::NEG_INFINITY, 0.0, 0.0]], &Device::Cpu);
        let drawn = by_inversion(&logits.unwrap(), vec![0.0, 1.0 - f32::EPSILON / 2.0, 0.0]).unwrap();
        assert_eq!((drawn[0].id, drawn[2].id), (0, 1), "an impossible id is never drawn");
        assert!(drawn[1].id == 2 || drawn[1].id == 1, "the last, or the largest where rounding left something");
        assert_eq!(pass(&[0.25, 0.5], 0.9), (1, f32::INFINITY), "what rounding left uncovered");
    }

    #[test]
    fn greedy_rows_report_their_probability() {
        let logits = Tensor::new(&[[0f32, 3f32.ln(), 0.0], [1.0, 0.0, 0.0]], &Device::Cpu).unwrap();
        let drawn = most_likely(&logits).unwrap();
        assert_eq!((drawn[0].id, drawn[1].id), (1, 0));
        assert!((drawn[0].logprob - 0.6f32.ln()).abs() < 1e-6);
    }
}
