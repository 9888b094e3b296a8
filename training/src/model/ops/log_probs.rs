//! Log-probabilities of given tokens with a gradient, and the entropy of the distribution.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernels::{exp, log_sum_exp};
use super::{buffer, is_fused, values, with_values};

/// Rows of logits that one parallel task works on.
const ROWS_PER_TASK: usize = 32;

/// `log softmax(logits)[target]`, row by row: `logits` `[tokens, vocabulary]`, `targets` one id a row, result `[tokens]` in
/// `f32`, natural logarithm.
///
/// # Errors
/// When the number of targets differs from the rows, or a target lies outside the vocabulary.
pub fn token_log_probs(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let (tokens, vocabulary) = logits.dims2()?;
    if targets.len() != tokens {
        candle_core::bail!("{} targets for {tokens} rows of logits", targets.len());
    }
    if let Some(id) = targets.iter().find(|&&id| id as usize >= vocabulary) {
        candle_core::bail!("token id {id} outside the vocabulary of {vocabulary}");
    }
    if is_fused(logits) {
        return logits.contiguous()?.apply_op1(TokenLogProbs { targets: targets.to_vec(), log_sums: OnceLock::new() });
    }
    composed(logits, targets)
}

fn composed(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let logits = logits.to_dtype(DType::F32)?;
    let largest = logits.max_keepdim(D::Minus1)?.detach();
    let shifted = logits.broadcast_sub(&largest)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let targets = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
    (shifted.gather(&targets, 1)? - log_sum)?.squeeze(1)
}

/// −Σ p log p of softmax(logits) for every row, in nats; `[tokens, vocabulary]` to `[tokens]` in `f32`. No gradient.
///
/// # Errors
/// When `logits` is not two-dimensional.
pub fn entropy(logits: &Tensor) -> Result<Tensor> {
    let logits = logits.detach().to_dtype(DType::F32)?;
    if !is_fused(&logits) {
        let log_probs = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?;
        let log_probs = log_probs.broadcast_sub(&log_probs.exp()?.sum_keepdim(D::Minus1)?.log()?)?;
        return (log_probs.exp()? * log_probs)?.sum(D::Minus1)?.neg();
    }
    let (tokens, vocabulary) = logits.dims2()?;
    let mut result = buffer(tokens);
    with_values(&logits, |logits| {
        result.par_iter_mut().zip(logits.par_chunks(vocabulary)).with_min_len(ROWS_PER_TASK).for_each(|(h, row)| {
            let log_sum = log_sum_exp(row);
            *h = log_sum - row.iter().map(|&x| exp(x - log_sum) * x).sum::<f32>();
        });
        Ok(())
    })?;
    Tensor::from_vec(result, tokens, logits.device())
}

struct TokenLogProbs {
    targets: Vec<u32>,
    /// log Σ exp of every row, kept from the forward pass for the backward one.
    log_sums: OnceLock<Vec<f32>>,
}

impl CustomOp1 for TokenLogProbs {
    fn name(&self) -> &'static str {
        "token_log_probs"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (tokens, vocabulary) = layout.shape().dims2()?;
        let logits = values(storage, layout)?;
        let log_sums = self
            .log_sums
            .get_or_init(|| logits.par_chunks(vocabulary).with_min_len(ROWS_PER_TASK).map(log_sum_exp).collect());
        let chosen = logits.chunks_exact(vocabulary).zip(&self.targets).map(|(row, &id)| row[id as usize]);
        let result = chosen.zip(log_sums).map(|(logit, log_sum)| logit - log_sum).collect();
        Ok((CpuStorage::F32(result), Shape::from(tokens)))
    }

    fn bwd(&self, logits: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let vocabulary = logits.dim(1)?;
        let Some(log_sums) = self.log_sums.get() else {
            candle_core::bail!("backward of token_log_probs before its forward");
        };
        let mut d_logits = buffer(logits.elem_count());
        with_values(logits, |logits| {
            with_values(dy, |dy| {
                d_logits
                    .par_chunks_mut(vocabulary)
                    .zip(logits.par_chunks(vocabulary))
                    .enumerate()
                    .with_min_len(ROWS_PER_TASK)
                    .for_each(|(t, (d_row, row))| {
                        for (d, &x) in d_row.iter_mut().zip(row) {
                            *d = -exp(x - log_sums[t]) * dy[t];
                        }
                        d_row[self.targets[t] as usize] += dy[t];
                    });
                Ok(())
            })
        })?;
        Ok(Some(Tensor::from_vec(d_logits, logits.shape(), logits.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{assert_same_function, wave};
    use super::*;

    #[test]
    fn agrees_with_tensor_operations() {
        let targets: Vec<u32> = (0..80).map(|i| (i * 7) % 33).collect();
        let logits = (wave(&[80, 33], 0.0) * 5.0).unwrap();
        assert_same_function(
            &[logits],
            |t| token_log_probs(&t[0], &targets).unwrap(),
            |t| composed(&t[0], &targets).unwrap(),
        );
    }

    #[test]
    fn entropy_of_a_uniform_distribution_is_the_log_of_its_size() {
        let h = entropy(&wave(&[3, 8], 0.0).zeros_like().unwrap()).unwrap().to_vec1::<f32>().unwrap();
        assert!(h.iter().all(|h| (h - 8f32.ln()).abs() < 1e-6), "{h:?}");
    }

    #[test]
    fn targets_are_checked() {
        let logits = wave(&[2, 4], 0.0);
        assert!(token_log_probs(&logits, &[0]).is_err());
        assert!(token_log_probs(&logits, &[0, 4]).is_err());
    }
}
