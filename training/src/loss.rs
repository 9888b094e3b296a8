//! The policy loss of one micro-batch, and the weights that make its split irrelevant.
//!
//! Works on the response tokens of several sequences packed end to end, `[tokens]`; prompts and padding never get here.
//! How much a token counts is decided once per update ([`token_weights`]), so that the gradients of micro-batches simply
//! add up to the gradient of the whole, however it was split. No model and no reward: log-probabilities come in as a
//! differentiable tensor, everything else as constants.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::advantage::KlPlacement;
use crate::{Error, Result};

/// How token losses become one number. Changes results: see each variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossAggregation {
    /// Mean over a sequence's tokens, then over sequences: the released code. A token of a long response counts less, so
    /// long mistakes are punished less per token; the paper's camera-ready traces the shortening at alpha 0 to it.
    #[default]
    SequenceMean,
    /// Mean over all tokens of the update: every token counts the same, long responses count more.
    TokenMean,
    /// Sum over tokens divided by sequences times the response limit (Dr. GRPO, arXiv 2503.20783): no length bias, and a
    /// divisor that does not move with the lengths of the batch.
    DrGrpo,
}

/// What the policy loss needs to know besides the batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossConfig {
    /// PPO's clip range: ratios below `1 - clip` or above `1 + clip` earn no further gain. 0.2 in the paper.
    pub clip: f64,
    /// How token losses become one number; applied through [`token_weights`].
    pub aggregation: LossAggregation,
    /// Where KL is charged; only [`KlPlacement::Loss`] adds a term here.
    pub kl: KlPlacement,
    /// The weight of that term. 1e-3 in the paper.
    pub kl_coefficient: f64,
    /// The response limit in tokens, the divisor of [`LossAggregation::DrGrpo`].
    pub max_new_tokens: usize,
}

impl LossConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`crate::Error::Config`] when the clip range is not in `(0, 1)`, the KL coefficient is negative or not finite, or
    /// the response limit is 0.
    pub fn validate(&self) -> Result<()> {
        if !(self.clip > 0.0 && self.clip < 1.0) {
            return Err(Error::config(format!("clip is {}, but lies between 0 and 1; 0.2 is usual", self.clip)));
        }
        if !(self.kl_coefficient >= 0.0 && self.kl_coefficient.is_finite()) {
            return Err(Error::config(format!("kl coefficient is {}, but cannot be negative", self.kl_coefficient)));
        }
        if self.max_new_tokens == 0 {
            return Err(Error::config("max new tokens is 0, which leaves no room for a response"));
        }
        Ok(())
    }
}

/// The weight of each token of each sequence, one per sequence, such that the sum of weighted token losses over all
/// micro-batches of one update is the aggregate of the update.
///
/// `response_lengths` are the tokens of *all* sequences of the update, not of a micro-batch. A sequence without tokens
/// gets weight 0 (and still counts as a sequence).
#[must_use]
pub fn token_weights(response_lengths: &[usize], aggregation: LossAggregation, max_new_tokens: usize) -> Vec<f32> {
    let sequences = response_lengths.len() as f64;
    let tokens = response_lengths.iter().sum::<usize>() as f64;
    let weight = |&length: &usize| match (length, aggregation) {
        (0, _) => 0.0,
        (_, LossAggregation::SequenceMean) => 1.0 / (sequences * length as f64),
        (_, LossAggregation::TokenMean) => 1.0 / tokens,
        (_, LossAggregation::DrGrpo) => 1.0 / (sequences * max_new_tokens.max(1) as f64),
    };
    response_lengths.iter().map(|length| weight(length) as f32).collect()
}

/// The constants of one micro-batch of response tokens, every tensor f32 `[tokens]` on the model's device.
#[derive(Debug, Clone)]
pub struct MicroBatch {
    /// Log-probabilities under the policy that sampled the tokens.
    pub old_logprobs: Tensor,
    /// Log-probabilities under the reference policy: needed for [`KlPlacement::Loss`], else only for statistics.
    pub reference_logprobs: Option<Tensor>,
    /// Advantages, see [`crate::advantage::token_advantages`].
    pub advantages: Tensor,
    /// The weight of each token, see [`token_weights`].
    pub weights: Tensor,
}

/// Sums over the tokens of one or more micro-batches; the methods give means per token.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossStats {
    /// The weighted loss, KL term included; adds up to the loss of the update.
    pub loss: f64,
    /// Tokens seen.
    pub tokens: usize,
    /// Tokens whose clipped term was the smaller one, so that they gave no policy gradient.
    pub clipped: usize,
    /// The greatest ratio of new to old probability; 0 before any token.
    pub max_ratio: f64,
    /// Sum of the k1 estimates of KL(old, new): `old - new`. Signed, unbiased.
    pub drift_k1: f64,
    /// Sum of the k3 estimates of KL(old, new): `ratio - 1 - log ratio`. Never negative.
    pub drift_k3: f64,
    /// Tokens that had a reference log-probability.
    pub reference_tokens: usize,
    /// Sum of the k1 estimates of KL(new, reference): `new - reference`.
    pub reference_k1: f64,
    /// Sum of the k3 estimates of KL(new, reference): `exp(reference - new) - (reference - new) - 1`.
    pub reference_k3: f64,
}

impl LossStats {
    /// Adds the sums of another micro-batch.
    pub fn merge(&mut self, other: &Self) {
        self.loss += other.loss;
        self.tokens += other.tokens;
        self.clipped += other.clipped;
        self.max_ratio = self.max_ratio.max(other.max_ratio);
        self.drift_k1 += other.drift_k1;
        self.drift_k3 += other.drift_k3;
        self.reference_tokens += other.reference_tokens;
        self.reference_k1 += other.reference_k1;
        self.reference_k3 += other.reference_k3;
    }

    /// The share of tokens that were clipped.
    #[must_use]
    pub fn clip_fraction(&self) -> f64 {
        mean(self.clipped as f64, self.tokens)
    }

    /// Mean KL(old, new) per token, as `(k1, k3)`: how far the policy has moved from the one that sampled.
    #[must_use]
    pub fn drift(&self) -> (f64, f64) {
        (mean(self.drift_k1, self.tokens), mean(self.drift_k3, self.tokens))
    }

    /// Mean KL(new, reference) per token, as `(k1, k3)`; none when no token had a reference.
    #[must_use]
    pub fn reference_kl(&self) -> Option<(f64, f64)> {
        let tokens = self.reference_tokens;
        (tokens > 0).then(|| (mean(self.reference_k1, tokens), mean(self.reference_k3, tokens)))
    }
}

fn mean(sum: f64, count: usize) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// PPO's clipped objective on one micro-batch: the weighted sum of `-min(r A, clip(r, 1 - c, 1 + c) A)` per token, with
/// `r = exp(log pi - log pi_old)`.
///
/// `logprobs` is the differentiable `[tokens]` tensor of the current policy; half precision is raised to f32 first. With
/// [`KlPlacement::Loss`] each token adds `coefficient * (exp(d) - d - 1)`, `d = log pi_ref - log pi` (Schulman's k3
/// estimator of KL(pi, reference), arXiv 2402.03300 equation 4). Returns the scalar to run backward on and its sums.
///
/// A ratio may overflow to infinity after a runaway update; the optimizer then meets a gradient that is not finite, makes
/// no update of it, and the step's norm ends the run as one that has diverged: its last checkpoint stays.
///
/// # Errors
/// [`crate::Error::Config`] when KL is charged in the loss but the batch has no reference log-probabilities or when the
/// configuration is out of range; [`crate::Error::Tensor`] when the tensors differ in length or device.
pub fn policy_loss(logprobs: &Tensor, batch: &MicroBatch, config: &LossConfig) -> Result<(Tensor, LossStats)> {
    config.validate()?;
    let logprobs = logprobs.to_dtype(DType::F32)?;
    let constant = |tensor: &Tensor| tensor.detach().to_dtype(DType::F32);
    let (advantages, weights) = (constant(&batch.advantages)?, constant(&batch.weights)?);
    let old = constant(&batch.old_logprobs)?;
    let reference = batch.reference_logprobs.as_ref().map(constant).transpose()?;

    let log_ratio = (&logprobs - &old)?;
    let ratio = log_ratio.exp()?;
    let unclipped = (&ratio * &advantages)?;
    let clipped = (ratio.clamp(1.0 - config.clip, 1.0 + config.clip)? * &advantages)?;
    let mut token_loss = unclipped.minimum(&clipped)?.neg()?;
    if config.kl == KlPlacement::Loss {
        let Some(reference) = &reference else {
            return Err(Error::config(
                "kl is charged in the loss, but the batch has no reference log-probabilities; score it or set kl to off",
            ));
        };
        let difference = (reference - &logprobs)?;
        let k3 = ((difference.exp()? - &difference)? - 1.0)?;
        token_loss = (token_loss + (k3 * config.kl_coefficient)?)?;
    }
    let loss = (token_loss * &weights)?.sum_all()?;

    let is_clipped = clipped.lt(&unclipped)?.to_dtype(DType::F32)?;
    let stats = sum_stats(&loss, &log_ratio, &is_clipped, reference.map(|r| &logprobs - r).transpose()?)?;
    Ok((loss, stats))
}

/// Reads everything the sums need in one transfer from the device and adds it up in f64, in token order.
fn sum_stats(
    loss: &Tensor,
    log_ratio: &Tensor,
    is_clipped: &Tensor,
    over_reference: Option<Tensor>,
) -> Result<LossStats> {
    let mut rows = vec![log_ratio.detach(), is_clipped.detach(), loss.detach().broadcast_as(log_ratio.shape())?];
    rows.extend(over_reference.map(|tensor| tensor.detach()));
    let rows = Tensor::stack(&rows, 0)?.to_vec2::<f32>()?;
    let mut stats = LossStats {
        loss: rows[2].first().map_or(0.0, |&loss| f64::from(loss)),
        tokens: rows[0].len(),
        clipped: rows[1].iter().filter(|&&clipped| clipped != 0.0).count(),
        ..LossStats::default()
    };
    for &log_ratio in &rows[0] {
        let log_ratio = f64::from(log_ratio);
        stats.max_ratio = stats.max_ratio.max(log_ratio.exp());
        stats.drift_k1 -= log_ratio;
        stats.drift_k3 += log_ratio.exp_m1() - log_ratio;
    }
    if let Some(over_reference) = rows.get(3) {
        stats.reference_tokens = over_reference.len();
        for &over_reference in over_reference {
            let over_reference = f64::from(over_reference);
            stats.reference_k1 += over_reference;
            stats.reference_k3 += (-over_reference).exp_m1() + over_reference;
        }
    }
    Ok(stats)
}

/// Supervised fine-tuning's loss on one micro-batch: the weighted sum of `-log pi` over its response tokens.
///
/// `logprobs` is the differentiable `[tokens]` tensor, `weights` `[tokens]` from [`token_weights`] as for the policy
/// loss. Returns an f32 scalar.
///
/// # Errors
/// [`crate::Error::Tensor`] when the two differ in length or device.
pub fn negative_log_likelihood(logprobs: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let weighted = (logprobs.to_dtype(DType::F32)? * weights.detach().to_dtype(DType::F32)?)?;
    Ok(weighted.sum_all()?.neg()?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    const CONFIG: LossConfig = LossConfig {
        clip: 0.2,
        aggregation: LossAggregation::SequenceMean,
        kl: KlPlacement::Off,
        kl_coefficient: 0.1,
        max_new_tokens: 8,
    };

    /// Two sequences of 4 and 2 tokens: on-policy, clipped above, clipped below, inside, below but not clipped (gain),
    /// above but not clipped (loss).
    const LOGPROBS: [f32; 6] = [-1.0, -0.5, -2.0, -0.7, -1.2, -0.3];
    const OLD: [f32; 6] = [-1.0, -0.9, -1.5, -0.8, -0.6, -0.9];
    const REFERENCE: [f32; 6] = [-1.1, -0.4, -2.2, -0.7, -1.0, -0.8];
    const ADVANTAGES: [f32; 6] = [1.0, 2.0, -1.0, 0.5, 1.0, -2.0];

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    fn variable(values: &[f32]) -> Var {
        Var::from_tensor(&tensor(values)).unwrap()
    }

    fn expand(lengths: &[usize], aggregation: LossAggregation) -> Vec<f32> {
        let weights = token_weights(lengths, aggregation, 8);
        lengths.iter().zip(weights).flat_map(|(&length, weight)| vec![weight; length]).collect()
    }

    fn batch(tokens: std::ops::Range<usize>, weights: &[f32]) -> MicroBatch {
        MicroBatch {
            old_logprobs: tensor(&OLD[tokens.clone()]),
            reference_logprobs: Some(tensor(&REFERENCE[tokens.clone()])),
            advantages: tensor(&ADVANTAGES[tokens.clone()]),
            weights: tensor(&weights[tokens]),
        }
    }

    fn near(got: &[f32], expected: &[f64], tolerance: f64) {
        assert_eq!(got.len(), expected.len());
        for (&left, right) in got.iter().zip(expected) {
            assert!((f64::from(left) - right).abs() <= tolerance, "{got:?} is not {expected:?}");
        }
    }

    fn gradient(loss: &Tensor, variable: &Var) -> Vec<f32> {
        loss.backward().unwrap().get(variable).unwrap().to_vec1().unwrap()
    }

    /// The expected numbers come from the same formula written in PyTorch, f64.
    #[test]
    fn loss_gradient_and_sums_agree_with_pytorch() {
        let weights = expand(&[4, 2], LossAggregation::SequenceMean);
        near(&weights, &[0.125, 0.125, 0.125, 0.125, 0.25, 0.25], 0.0);
        let variable = variable(&LOGPROBS);
        let (loss, stats) = policy_loss(&variable, &batch(0..6, &weights), &CONFIG).unwrap();
        near(&[loss.to_scalar().unwrap()], &[0.379_783_308_792], 1e-6);
        let expected = [-0.125, 0.0, 0.0, -0.069_073_182_379, -0.137_202_909_023, 0.911_059_400_195];
        near(&gradient(&loss, &variable), &expected, 1e-6);
        assert_eq!((stats.tokens, stats.clipped, stats.reference_tokens), (6, 2, 6));
        assert!((stats.clip_fraction() - 1.0 / 3.0).abs() < 1e-12);
        assert!((stats.max_ratio - 1.822_118_800_390).abs() < 1e-6);
        assert!((stats.loss - 0.379_783_308_792).abs() < 1e-6);
        let close = |got: (f64, f64), k1: f64, k3: f64| (got.0 - k1).abs() < 1e-6 && (got.1 - k3).abs() < 1e-6;
        assert!(close(stats.drift(), 0.0, 0.574_456_711_914 / 6.0), "{stats:?}");
        assert!(close(stats.reference_kl().unwrap(), 0.5 / 6.0, 0.156_672_507_062 / 6.0), "{stats:?}");
    }

    #[test]
    fn kl_in_the_loss_agrees_with_pytorch() {
        let weights = expand(&[4, 2], LossAggregation::SequenceMean);
        let variable = variable(&LOGPROBS);
        let config = LossConfig { kl: KlPlacement::Loss, ..CONFIG };
        let (loss, _) = policy_loss(&variable, &batch(0..6, &weights), &config).unwrap();
        near(&[loss.to_scalar().unwrap()], &[0.383_340_882_853], 1e-6);
        let expected =
            [-0.123_810_467_725, -0.001_314_636_475, 0.002_265_865_586, -0.069_073_182_379, -0.142_737_977_977];
        near(&gradient(&loss, &variable)[..5], &expected, 1e-6);
        let without = MicroBatch { reference_logprobs: None, ..batch(0..6, &weights) };
        assert!(policy_loss(&variable, &without, &config).unwrap_err().to_string().contains("no reference"));
        let (_, stats) = policy_loss(&variable, &without, &CONFIG).unwrap();
        assert_eq!(stats.reference_kl(), None);
    }

    #[test]
    fn gradient_agrees_with_finite_differences() {
        let weights = expand(&[4, 2], LossAggregation::TokenMean);
        let config = LossConfig { kl: KlPlacement::Loss, kl_coefficient: 0.5, ..CONFIG };
        let at = |values: &[f32]| {
            let (loss, _) = policy_loss(&tensor(values), &batch(0..6, &weights), &config).unwrap();
            f64::from(loss.to_scalar::<f32>().unwrap())
        };
        let variable = variable(&LOGPROBS);
        let (loss, _) = policy_loss(&variable, &batch(0..6, &weights), &config).unwrap();
        let analytic = gradient(&loss, &variable);
        for index in 0..6 {
            let (mut up, mut down) = (LOGPROBS, LOGPROBS);
            up[index] += 1e-2;
            down[index] -= 1e-2;
            let numeric = (at(&up) - at(&down)) / f64::from(up[index] - down[index]);
            near(&[analytic[index]], &[numeric], 2e-4);
        }
    }

    #[test]
    fn on_policy_nothing_is_clipped_and_the_gradient_is_the_advantage() {
        let weights = [1.0; 6];
        let variable = variable(&OLD);
        let (loss, stats) = policy_loss(&variable, &batch(0..6, &weights), &CONFIG).unwrap();
        assert_eq!((stats.clipped, stats.max_ratio, stats.drift_k1, stats.drift_k3), (0, 1.0, 0.0, 0.0));
        let expected: Vec<f64> = ADVANTAGES.iter().map(|&advantage| -f64::from(advantage)).collect();
        near(&gradient(&loss, &variable), &expected, 0.0);
    }

    #[test]
    fn aggregations_by_hand() {
        // Token losses 1, 1, 1, 1 and 4, 4: sequence means 1 and 4, token mean 2, sum 12 over 2 sequences of limit 8.
        let losses = [1.0, 1.0, 1.0, 1.0, 4.0, 4.0];
        let aggregate = |aggregation| -> f32 {
            expand(&[4, 2], aggregation).iter().zip(losses).map(|(weight, loss)| weight * loss).sum()
        };
        near(&[aggregate(LossAggregation::SequenceMean)], &[2.5], 1e-6);
        near(&[aggregate(LossAggregation::TokenMean)], &[2.0], 1e-6);
        near(&[aggregate(LossAggregation::DrGrpo)], &[0.75], 1e-6);
    }

    #[test]
    fn an_empty_response_weighs_nothing_but_counts() {
        assert_eq!(token_weights(&[0, 2], LossAggregation::SequenceMean, 8), [0.0, 0.25]);
        assert_eq!(token_weights(&[0, 2], LossAggregation::TokenMean, 8), [0.0, 0.5]);
        assert_eq!(token_weights(&[0, 0], LossAggregation::TokenMean, 8), [0.0, 0.0]);
        assert!(token_weights(&[], LossAggregation::DrGrpo, 8).is_empty());
    }

    #[test]
    fn splitting_into_micro_batches_changes_nothing() {
        for aggregation in [LossAggregation::SequenceMean, LossAggregation::TokenMean, LossAggregation::DrGrpo] {
            let weights = expand(&[4, 2], aggregation);
            let config = LossConfig { kl: KlPlacement::Loss, aggregation, ..CONFIG };
            let whole = variable(&LOGPROBS);
            let (loss, whole_stats) = policy_loss(&whole, &batch(0..6, &weights), &config).unwrap();
            let whole_gradient = gradient(&loss, &whole);
            let (mut gradients, mut stats) = (Vec::new(), LossStats::default());
            for tokens in [0..4, 4..6] {
                let part = variable(&LOGPROBS[tokens.clone()]);
                let (loss, part_stats) = policy_loss(&part, &batch(tokens, &weights), &config).unwrap();
                gradients.extend(gradient(&loss, &part));
                stats.merge(&part_stats);
            }
            assert_eq!(gradients, whole_gradient, "{aggregation:?}");
            assert!((stats.loss - whole_stats.loss).abs() < 1e-6, "{aggregation:?}");
            assert_eq!((stats.tokens, stats.clipped), (whole_stats.tokens, whole_stats.clipped));
            assert_eq!(stats.max_ratio, whole_stats.max_ratio);
            assert!((stats.reference_k3 - whole_stats.reference_k3).abs() < 1e-9);
        }
    }

    #[test]
    fn half_precision_log_probabilities_are_raised() {
        let logprobs = tensor(&LOGPROBS).to_dtype(DType::F16).unwrap();
        let variable = Var::from_tensor(&logprobs).unwrap();
        let (loss, _) = policy_loss(&variable, &batch(0..6, &[0.1; 6]), &CONFIG).unwrap();
        assert_eq!(loss.dtype(), DType::F32);
        assert_eq!(loss.backward().unwrap().get(&variable).unwrap().dtype(), DType::F16);
    }

    #[test]
    fn negative_log_likelihood_by_hand() {
        let variable = variable(&[-1.0, -2.0, -3.0]);
        let loss = negative_log_likelihood(&variable, &tensor(&[0.25, 0.25, 0.5])).unwrap();
        near(&[loss.to_scalar().unwrap()], &[2.25], 1e-6);
        near(&gradient(&loss, &variable), &[-0.25, -0.25, -0.5], 0.0);
    }

    #[test]
    fn ranges_are_checked() {
        for config in [
            LossConfig { clip: 0.0, ..CONFIG },
            LossConfig { clip: f64::NAN, ..CONFIG },
            LossConfig { kl_coefficient: -1.0, ..CONFIG },
            LossConfig { max_new_tokens: 0, ..CONFIG },
        ] {
            assert!(config.validate().is_err(), "{config:?}");
        }
        assert!(CONFIG.validate().is_ok());
    }

    #[test]
    fn recipes_spell_aggregations_in_kebab_case() {
        for (aggregation, name) in [
            (LossAggregation::SequenceMean, "\"sequence-mean\""),
            (LossAggregation::TokenMean, "\"token-mean\""),
            (LossAggregation::DrGrpo, "\"dr-grpo\""),
        ] {
            assert_eq!(serde_json::to_string(&aggregation).unwrap(), name);
        }
    }
}
