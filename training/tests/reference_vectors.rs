//! Numbers that other trainers test themselves with, met by this one. Each is quoted with the file it is from.
//!
//! `README.md` lists those that have nothing to compare with here. Numbers are theirs, the code is not.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use brevity_training::Result;
use brevity_training::advantage::{AdvantageNorm, KlPlacement, ScoredResponse, leave_one_out, token_advantages};
use brevity_training::loss::{LossAggregation, LossConfig, LossStats, MicroBatch, policy_loss, token_weights};
use brevity_training::objective::{Objective, Outcome, SigmoidLength};
use candle_core::{Device, Tensor};

fn near(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (left, right) in got.iter().zip(expected) {
        assert!((left - right).abs() <= tolerance * right.abs().max(1.0), "{got:?} is not {expected:?}");
    }
}

// --- Baselines: NeMo-RL, tests/unit/algorithms/test_utils.py ---

/// The baselines that advantages imply: a reward minus its advantage.
fn baselines(groups: &[&[f64]]) -> Vec<f64> {
    let of = |group: &&[f64]| -> Vec<f64> {
        group.iter().zip(leave_one_out(group)).map(|(reward, advantage)| reward - advantage).collect()
    };
    groups.iter().flat_map(of).collect()
}

/// Sample standard deviation of the *other* rewards of a group, 0 where there are fewer than two. Nothing here divides by
/// it: that is what explodes.
fn leave_one_out_std(group: &[f64]) -> Vec<f64> {
    let others = |index: usize| group.iter().enumerate().filter(move |(other, _)| *other != index).map(|(_, r)| *r);
    let std = |index: usize| {
        let count = others(index).count() as f64;
        let mean = others(index).sum::<f64>() / count;
        let squares: f64 = others(index).map(|reward| (reward - mean).powi(2)).sum();
        if count < 2.0 { 0.0 } else { (squares / (count - 1.0)).sqrt() }
    };
    (0..group.len()).map(std).collect()
}

#[test]
fn nemo_leave_one_out_baselines() {
    near(&baselines(&[&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]]), &[2.5, 2.0, 1.5, 5.5, 5.0, 4.5], 1e-12);
    near(&baselines(&[&[3.0, 3.0, 3.0], &[7.0, 7.0, 7.0]]), &[3.0, 3.0, 3.0, 7.0, 7.0, 7.0], 1e-12);
    near(&baselines(&[&[1.0, 2.0], &[4.0, 5.0, 6.0]]), &[2.0, 1.0, 5.5, 5.0, 4.5], 1e-12);
    near(&baselines(&[&[7.0], &[8.0]]), &[7.0, 8.0], 0.0);
    let extreme = baselines(&[&[1e-8, 2e-8, 3e-8], &[1e8, 2e8, 3e8]]);
    for (got, expected) in extreme.iter().zip([2.5e-8, 2e-8, 1.5e-8, 2.5e8, 2e8, 1.5e8]) {
        assert!((got / expected - 1.0).abs() < 1e-5, "{extreme:?}");
    }
    assert!(baselines(&[]).is_empty());
}

/// Groups of unequal size in one step: the token advantages follow the same baselines.
#[test]
fn nemo_groups_of_unequal_size_in_one_call() -> Result<()> {
    let token = [-1.0];
    let responses = [ScoredResponse { old_logprobs: &token, reference_logprobs: None }; 5];
    let groups = [vec![1.0, 2.0], vec![4.0, 5.0, 6.0]];
    let advantages = token_advantages(&groups, &responses, AdvantageNorm::None, KlPlacement::Off, 0.0)?;
    let expected = [1.0 - 2.0, 2.0 - 1.0, 4.0 - 5.5, 5.0 - 5.0, 6.0 - 4.5];
    near(&advantages.concat().into_iter().map(f64::from).collect::<Vec<_>>(), &expected, 1e-7);
    Ok(())
}

/// Rewards [1, 999, 3, 4, 5, 6], the second masked: baselines [3, 4, 1, 5.5, 5, 4.5]. Here nothing is masked (a response
/// without a verdict earns 0 and counts), so the masked row is a group without it; its own 4 is the sum of the others.
#[test]
fn nemo_a_masked_response_is_not_in_the_baseline() {
    near(&baselines(&[&[1.0, 3.0], &[4.0, 5.0, 6.0]]), &[3.0, 1.0, 5.5, 5.0, 4.5], 1e-12);
}

#[test]
fn nemo_leave_one_out_std_and_what_it_does_to_a_lone_failure() -> Result<()> {
    near(&leave_one_out_std(&[1.0, 2.0, 3.0]), &[FRAC_1_SQRT_2, SQRT_2, FRAC_1_SQRT_2], 1e-6);
    near(&leave_one_out_std(&[4.0, 5.0, 6.0]), &[FRAC_1_SQRT_2, SQRT_2, FRAC_1_SQRT_2], 1e-6);
    near(&leave_one_out_std(&[1.0, 2.0]), &[0.0, 0.0], 0.0);
    // NeMo-RL PR 4158: the others of the failure are equal, so its std is 0 and its advantage went beyond -2000.
    let spike = [0.0, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95];
    assert!(leave_one_out_std(&spike)[0] < 1e-12);
    let token = [-1.0];
    let responses = [ScoredResponse { old_logprobs: &token, reference_logprobs: None }; 8];
    for norm in [AdvantageNorm::None, AdvantageNorm::GroupStd, AdvantageNorm::BatchToken] {
        let advantages = token_advantages(&[spike.to_vec()], &responses, norm, KlPlacement::Off, 0.0)?.concat();
        assert!(advantages.iter().all(|advantage| advantage.abs() <= 7f32.sqrt() + 1e-3), "{norm:?}: {advantages:?}");
    }
    Ok(())
}

/// prime-rl, tests/unit/orchestrator/test_advantage.py: a length penalty on equal lengths is no penalty but a scale, and
/// advantages of a group have mean 0.
#[test]
fn prime_rl_equal_lengths_leave_plain_advantages() -> Result<()> {
    let outcome = |correct| Outcome { correct, truncated: false, tokens: 300 };
    let rewards = SigmoidLength::new(0.2)?.rewards(&[true, false, false, true].map(outcome));
    let plain = leave_one_out(&[1.0, 0.0, 0.0, 1.0]);
    near(&leave_one_out(&rewards), &plain.iter().map(|advantage| 0.9 * advantage).collect::<Vec<_>>(), 1e-12);
    near(&[leave_one_out(&rewards).iter().sum::<f64>()], &[0.0], 1e-12);
    Ok(())
}

// --- The policy loss: NeMo-RL, tests/unit/algorithms/test_loss_functions.py ---

const PPO: LossConfig = LossConfig {
    clip: 0.2,
    aggregation: LossAggregation::TokenMean,
    kl: KlPlacement::Off,
    kl_coefficient: 0.0,
    max_new_tokens: 8,
};

/// Loss and sums of sequences that lie end to end, `lengths` of them, under the weights of the whole update.
struct Tokens<'a> {
    new: &'a [f32],
    old: &'a [f32],
    reference: Option<&'a [f32]>,
    advantages: &'a [f32],
    weights: &'a [f32],
}

impl Tokens<'_> {
    fn loss(&self, config: &LossConfig) -> Result<(f64, LossStats)> {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu);
        let batch = MicroBatch {
            old_logprobs: tensor(self.old)?,
            reference_logprobs: self.reference.map(tensor).transpose()?,
            advantages: tensor(self.advantages)?,
            weights: tensor(self.weights)?,
        };
        let (loss, stats) = policy_loss(&tensor(self.new)?, &batch, config)?;
        Ok((f64::from(loss.to_scalar::<f32>()?), stats))
    }
}

/// Ratios 0.5, 1 and 1.5, advantages 1, -1 and 2: token losses -0.5, 1 and -2.4.
#[test]
fn nemo_ppo_clipping() -> Result<()> {
    let third = [1.0 / 3.0; 3];
    let tokens = Tokens {
        new: &[-1.69315, -1.0, -0.59453],
        old: &[-1.0; 3],
        reference: None,
        advantages: &[1.0, -1.0, 2.0],
        weights: &third,
    };
    let (loss, stats) = tokens.loss(&PPO)?;
    near(&[loss], &[-0.6333], 1e-4);
    assert_eq!((stats.tokens, stats.clipped), (3, 1), "only the gain above 1.2 is cut off");
    near(&[stats.max_ratio], &[1.5], 1e-4);
    Ok(())
}

/// Log-probabilities 0, -1 and -2 against a reference of -1: k3 is 0.368, 0 and 0.718, k1 is 1, 0 and -1.
#[test]
fn nemo_kl_in_the_loss() -> Result<()> {
    let third = [1.0 / 3.0; 3];
    let tokens = Tokens {
        new: &[0.0, -1.0, -2.0],
        old: &[0.0; 3],
        reference: Some(&[-1.0; 3]),
        advantages: &[0.0; 3],
        weights: &third,
    };
    let (loss, stats) = tokens.loss(&LossConfig { kl: KlPlacement::Loss, kl_coefficient: 0.1, ..PPO })?;
    near(&[loss], &[0.0362], 1e-4);
    let (k1, k3) = stats.reference_kl().unwrap();
    near(&[k1, k3], &[0.0, 0.362], 1e-3);
    for (new, expected) in [(0.0, 0.368), (-1.0, 0.0), (-2.0, 0.718)] {
        let one = Tokens { new: &[new], old: &[0.0], reference: Some(&[-1.0]), advantages: &[0.0], weights: &[1.0] };
        let (k1, k3) = one.loss(&PPO)?.1.reference_kl().unwrap();
        near(&[k1, k3], &[f64::from(new) + 1.0, expected], 1e-3);
    }
    Ok(())
}

/// A masked sequence leaves the loss of the others; with everything masked the loss is exactly 0. A mask is a weight of 0.
#[test]
fn nemo_masks_and_the_zero_mask() -> Result<()> {
    let (new, old) = ([-0.5, -1.0, -0.2, -0.9], [-0.6, -0.9, -0.4, -0.8]);
    let advantages = [1.0, 0.5, -1.5, 2.0];
    let of =
        |weights: &[f32]| Tokens { new: &new, old: &old, reference: None, advantages: &advantages, weights }.loss(&PPO);
    let alone =
        Tokens { new: &new[..2], old: &old[..2], reference: None, advantages: &advantages[..2], weights: &[0.5, 0.5] };
    near(&[of(&[0.5, 0.5, 0.0, 0.0])?.0], &[alone.loss(&PPO)?.0], 1e-7);
    assert!((of(&[0.25; 4])?.0 - alone.loss(&PPO)?.0).abs() > 1e-4, "the mask matters");
    assert_eq!(of(&[0.0; 4])?.0, 0.0);
    Ok(())
}

// --- How token losses become one number: OpenRLHF, tests/test_loss_aggregation.py ---

/// The aggregate of token losses under the weights of the whole update.
fn aggregate(sequences: &[&[f64]], aggregation: LossAggregation) -> Vec<f64> {
    let lengths: Vec<usize> = sequences.iter().map(|losses| losses.len()).collect();
    let weights = token_weights(&lengths, aggregation, 8);
    let part = |(losses, weight): (&&[f64], f32)| -> f64 { losses.iter().map(|loss| loss * f64::from(weight)).sum() };
    sequences.iter().zip(weights).map(part).collect()
}

/// Cases 1, 2: the parts that two workers compute add up to the mean over all of them.
#[test]
fn openrlhf_parts_add_up_to_the_whole() {
    let token = aggregate(&[&[1.0, 2.0], &[3.0, 4.0, 5.0], &[7.0]], LossAggregation::TokenMean);
    near(&[token[..2].iter().sum::<f64>(), token[2]], &[15.0 / 6.0, 7.0 / 6.0], 1e-6);
    near(&[token.iter().sum()], &[22.0 / 6.0], 1e-6);
    let sequence = aggregate(&[&[1.0, 3.0], &[2.0, 4.0], &[8.0]], LossAggregation::SequenceMean);
    near(&sequence, &[2.0 / 3.0, 3.0 / 3.0, 8.0 / 3.0], 1e-6);
    near(&[sequence.iter().sum()], &[13.0 / 3.0], 1e-6);
}

/// Case 3: there a sequence without tokens does not count, and the mean of [1, 3] and nothing is 2. Here it counts, and the
/// mean is 1; no response is empty, since its end is a token.
#[test]
fn openrlhf_a_sequence_without_tokens() {
    near(&[aggregate(&[&[1.0, 3.0]], LossAggregation::SequenceMean).iter().sum()], &[2.0], 1e-6);
    near(&[aggregate(&[&[1.0, 3.0], &[]], LossAggregation::SequenceMean).iter().sum()], &[1.0], 1e-6);
}

/// Case 4: the policy loss, all at once and in two parts.
#[test]
fn openrlhf_policy_loss_in_parts() -> Result<()> {
    let new = [-0.2, -0.4, -0.7, -0.3, -0.2, -0.6, -0.5];
    let moved = [0.03, -0.04, 0.02, 0.05, -0.03, 0.04, -0.02];
    let advantages = [1.0, -0.5, 0.3, -1.2, 0.5, 1.5, -0.7];
    let old: Vec<f32> = new.iter().zip(moved).map(|(new, moved)| new - moved).collect();
    let weights = [1.0 / 7.0; 7];
    let part = |range: std::ops::Range<usize>| {
        let tokens = Tokens {
            new: &new[range.clone()],
            old: &old[range.clone()],
            reference: None,
            advantages: &advantages[range.clone()],
            weights: &weights[range],
        };
        tokens.loss(&PPO).map(|(loss, _)| loss)
    };
    // Nothing is clipped: the mean of -exp(moved) * advantage.
    let pairs = moved.iter().zip(advantages);
    let expected: f64 = -pairs.map(|(&moved, a)| f64::from(moved).exp() * f64::from(a)).sum::<f64>() / 7.0;
    near(&[part(0..7)?, part(0..5)? + part(5..7)?], &[expected; 2], 1e-6);
    Ok(())
}

/// Cases 5, 8: KL(old, new) is the mean of `old - new` and is not bounded. (Of case 5 without the sampler's own
/// log-probabilities, which are not used here.)
#[test]
fn openrlhf_kl_of_the_policy_to_its_older_self() -> Result<()> {
    let k1 = |new: &[f32], old: &[f32]| -> Result<f64> {
        let ones = vec![1.0; new.len()];
        let tokens = Tokens { new, old, reference: None, advantages: &ones, weights: &ones };
        Ok(tokens.loss(&PPO)?.1.drift().0)
    };
    near(&[k1(&[-0.2, -0.4], &[-0.3, -0.1])?], &[0.1], 1e-6);
    near(&[k1(&[100.0], &[0.0])?], &[-100.0], 1e-6);
    Ok(())
}

/// Cases 6, 7: micro-batches of 2 and 5 tokens give the mean over all 7, 4.0, and not the mean of their means, 3.25.
#[test]
fn openrlhf_uneven_micro_batches() {
    let token = aggregate(&[&[1.0, 2.0], &[3.0, 4.0, 5.0], &[6.0, 7.0]], LossAggregation::TokenMean);
    near(&[token.iter().sum()], &[4.0], 1e-6);
    let mean = |part: &[&[f64]]| aggregate(part, LossAggregation::TokenMean).iter().sum::<f64>();
    near(&[(mean(&[&[1.0, 2.0]]) + mean(&[&[3.0, 4.0, 5.0], &[6.0, 7.0]])) / 2.0], &[3.25], 1e-6);
}
