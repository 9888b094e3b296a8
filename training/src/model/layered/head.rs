//! Log-probabilities over a large vocabulary, some rows at a time, and their backward pass.
//!
//! The logits of 8,000 tokens over 152,000 entries are 5 GB in f32, and a graph would keep several copies. Here they
//! exist for a few hundred rows: once to read off a log-probability, the log-sum and the entropy, and once more in the
//! backward pass, which needs only the gradient of each row's log-probability. With `p` the row's distribution, the
//! gradient of its logits is `c (onehot - p)`; the one-hot part never becomes a matrix. Logits are f32 whatever the format
//! of the weights; where kernels multiply bf16 into f32 the weights need no f32 copy, and the gradient of the logits is
//! rounded to bf16, as it is by every trainer that keeps them in that format.

use candle_core::{D, DType, Tensor};

use super::weight::{GradientSink, Weight, give};
use crate::compute::kernels::{Kernels, RowScores};
use crate::{Error, Result};

/// Most logits that exist at a time.
const LOGITS_AT_A_TIME: usize = 1 << 27;

/// The output layer, `[vocabulary, hidden]`, and how it is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(super) weight: &'a Weight,
    /// Logits are divided by it.
    pub(super) temperature: f64,
    /// Most logits at a time.
    pub(super) at_a_time: usize,
}

/// What the output layer says of the given targets; f32.
#[derive(Debug)]
pub struct TokenScores {
    /// log softmax(logits / temperature) at each target, `[targets]`, in nats.
    pub logprobs: Tensor,
    /// log Σ exp of each row, `[targets, 1]`.
    pub(super) log_sums: Tensor,
    /// Entropy of each row in nats, summed over rows.
    pub entropy: f64,
}

impl<'a> Head<'a> {
    pub(super) fn new(weight: &'a Weight, temperature: f64) -> Self {
        Self { weight, temperature, at_a_time: LOGITS_AT_A_TIME }
    }

    fn runs(&self, rows: usize) -> Result<Vec<(usize, usize)>> {
        let step = (self.at_a_time / self.weight.tensor.dim(0)?.max(1)).max(1);
        Ok((0..rows).step_by(step).map(|start| (start, step.min(rows - start))).collect())
    }

    /// Logits of some rows, divided by the temperature; `wide` is the weight in f32.
    fn logits(&self, h: &Tensor, wide: &Tensor) -> candle_core::Result<Tensor> {
        let logits = h.matmul(&wide.t()?)?;
        if self.temperature == 1.0 { Ok(logits) } else { logits / self.temperature }
    }

    /// Scores one target a row of `h` `[targets, hidden]`.
    pub(super) fn scores(&self, h: &Tensor, targets: &[u32]) -> Result<TokenScores> {
        let vocabulary = self.weight.tensor.dim(0)?;
        if targets.len() != h.dim(0)? || targets.is_empty() {
            return Err(Error::config(format!("{} targets for {} rows of hidden states", targets.len(), h.dim(0)?)));
        }
        if let Some(id) = targets.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(Error::config(format!("token id {id} outside the vocabulary of {vocabulary}")));
        }
        let targets = Tensor::new(targets, h.device())?;
        let (mut logprobs, mut log_sums, mut entropies) = (Vec::new(), Vec::new(), Vec::new());
        let runs = self.runs(h.dim(0)?)?;
        let kernels = Kernels::in_half(h, h.dim(1)?);
        if let Some(kernels) = &kernels {
            for &(start, rows) in &runs {
                let logits = kernels.product(&h.narrow(0, start, rows)?, &self.weight.tensor.t()?, 1.0, DType::F32)?;
                let scores = kernels.score_rows(&logits, &targets.narrow(0, start, rows)?, self.temperature.recip())?;
                let RowScores { logprobs: of_targets, log_sums: of_rows, entropies: nats } = scores;
                logprobs.push(of_targets);
                log_sums.push(of_rows.unsqueeze(1)?);
                entropies.push(nats);
            }
            return joined(&logprobs, &log_sums, &entropies);
        }
        let (h, wide) = (h.to_dtype(DType::F32)?, self.weight.tensor.to_dtype(DType::F32)?);
        let targets = targets.unsqueeze(1)?;
        for (start, rows) in runs {
            let logits = self.logits(&h.narrow(0, start, rows)?, &wide)?;
            let chosen = logits.gather(&targets.narrow(0, start, rows)?.contiguous()?, 1)?;
            let largest = logits.max_keepdim(D::Minus1)?;
            let shifted = logits.broadcast_sub(&largest)?;
            drop(logits);
            let weights = shifted.exp()?;
            let sum = weights.sum_keepdim(D::Minus1)?;
            // -Σ p log p = log Σ exp - Σ p logit, both counted from the largest logit.
            let mean = (weights * shifted)?.sum_keepdim(D::Minus1)?.div(&sum)?;
            let log_sum = sum.log()?;
            entropies.push((&log_sum - mean)?);
            let log_sum = (log_sum + largest)?;
            logprobs.push((chosen - &log_sum)?.squeeze(1)?);
            log_sums.push(log_sum);
        }
        joined(&logprobs, &log_sums, &entropies)
    }

    /// The gradient of `h` from that of the log-probabilities, `d_logprobs` `[targets]`.
    pub(super) fn backward(
        &self,
        h: &Tensor,
        targets: &[u32],
        log_sums: &Tensor,
        d_logprobs: &Tensor,
        sink: &mut GradientSink<'_>,
    ) -> Result<Tensor> {
        let targets = Tensor::new(targets, h.device())?;
        let coefficients = (d_logprobs.to_dtype(DType::F32)? / self.temperature)?;
        let mut d_weight: Option<Tensor> = None;
        let mut dh = Vec::new();
        if let Some(kernels) = Kernels::in_half(h, h.dim(1)?) {
            for (start, rows) in self.runs(h.dim(0)?)? {
                let part = |tensor: &Tensor| tensor.narrow(0, start, rows);
                let h = part(h)?;
                let logits = kernels.product(&h, &self.weight.tensor.t()?, 1.0, DType::F32)?;
                let d_logits = kernels.score_rows_backward(
                    &logits,
                    &part(&targets)?,
                    &part(log_sums)?,
                    &part(&coefficients)?,
                    self.temperature.recip(),
                )?;
                drop(logits);
                dh.push(kernels.product(&d_logits, &self.weight.tensor, 1.0, DType::BF16)?);
                if self.weight.place.is_some() {
                    match &d_weight {
                        Some(sum) => kernels.add_product(sum, &d_logits.t()?, &h)?,
                        None => d_weight = Some(kernels.product(&d_logits.t()?, &h, 1.0, DType::F32)?),
                    }
                }
            }
            return self.give_both(dh, d_weight, sink);
        }
        let (narrow, wide) = (h.dtype(), self.weight.tensor.to_dtype(DType::F32)?);
        let (h, coefficients) = (h.to_dtype(DType::F32)?, coefficients.unsqueeze(1)?);
        for (start, rows) in self.runs(h.dim(0)?)? {
            let part = |tensor: &Tensor| tensor.narrow(0, start, rows);
            let (h, coefficients, targets) = (part(&h)?, part(&coefficients)?, part(&targets)?);
            let p = self.logits(&h, &wide)?.broadcast_sub(&part(log_sums)?)?.exp()?;
            let weighted = p.broadcast_mul(&coefficients)?;
            drop(p);
            let chosen = wide.index_select(&targets, 0)?.broadcast_mul(&coefficients)?;
            dh.push((chosen - weighted.matmul(&wide)?)?);
            if self.weight.place.is_some() {
                let gradient = weighted.t()?.matmul(&h)?.neg()?;
                let gradient = gradient.index_add(&targets, &h.broadcast_mul(&coefficients)?, 0)?;
                d_weight = Some(match d_weight.take() {
                    Some(sum) => (sum + gradient)?,
                    None => gradient,
                });
            }
        }
        Ok(self.give_both(dh, d_weight, sink)?.to_dtype(narrow)?)
    }

    fn give_both(&self, dh: Vec<Tensor>, d_weight: Option<Tensor>, sink: &mut GradientSink<'_>) -> Result<Tensor> {
        if let Some(gradient) = d_weight {
            give(self.weight, sink, || Ok(gradient))?;
        }
        Ok(Tensor::cat(&dh, 0)?)
    }
}

/// The scores of all runs of rows.
fn joined(logprobs: &[Tensor], log_sums: &[Tensor], entropies: &[Tensor]) -> Result<TokenScores> {
    let entropies = Tensor::cat(entropies, 0)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(TokenScores {
        logprobs: Tensor::cat(logprobs, 0)?,
        log_sums: Tensor::cat(log_sums, 0)?,
        entropy: entropies.into_iter().map(f64::from).sum(),
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::super::test_support::{Collected, near};
    use super::*;
    use crate::model::ops::test_support::wave;
    use crate::model::ops::{entropy, token_log_probs};

    #[test]
    fn any_number_of_rows_at_a_time_is_the_whole_matrix() {
        let h = Var::from_tensor(&(wave(&[45, 12], 0.0) * 3.0).unwrap()).unwrap();
        let matrix = Var::from_tensor(&wave(&[33, 12], 1.0)).unwrap();
        let targets: Vec<u32> = (0..45).map(|i| (i * 7) % 33).collect();
        let d_logprobs = wave(&[45], 0.4);
        for temperature in [1.0, 0.7] {
            let logits = (h.matmul(&matrix.t().unwrap()).unwrap() / temperature).unwrap();
            let logprobs = token_log_probs(&logits, &targets).unwrap();
            let expected = (&logprobs * &d_logprobs).unwrap().sum_all().unwrap().backward().unwrap();
            let nats = entropy(&logits).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            for at_a_time in [1, 33 * 7, 33 * 45, 1 << 20] {
                let weight = Weight::trained(&matrix, 3);
                let head = Head { weight: &weight, temperature, at_a_time };
                let scores = head.scores(&h, &targets).unwrap();
                near(&scores.logprobs, &logprobs, 2e-6);
                assert!((scores.entropy - f64::from(nats)).abs() < 1e-3, "{} {nats}", scores.entropy);
                let mut found = Collected::default();
                let dh = head.backward(&h, &targets, &scores.log_sums, &d_logprobs, &mut found.sink()).unwrap();
                near(&dh, expected.get(&h).unwrap(), 1e-5);
                near(found.of(3), expected.get(&matrix).unwrap(), 1e-5);
            }
        }
    }

    #[test]
    fn a_frozen_output_layer_gets_no_gradient() {
        let (h, weight) = (wave(&[5, 12], 0.0), Weight::frozen(&wave(&[33, 12], 1.0)));
        let head = Head::new(&weight, 1.0);
        let scores = head.scores(&h, &[1, 2, 3, 4, 5]).unwrap();
        let mut found = Collected::default();
        head.backward(&h, &[1, 2, 3, 4, 5], &scores.log_sums, &wave(&[5], 0.0), &mut found.sink()).unwrap();
        assert!(found.places().is_empty());
        assert!(head.scores(&h, &[1, 2]).unwrap_err().to_string().contains("2 targets for 5 rows"));
        assert!(head.scores(&h, &[1, 2, 3, 4, 33]).unwrap_err().to_string().contains("id 33 outside"));
    }
}
