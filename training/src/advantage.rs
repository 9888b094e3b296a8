//! Advantages: from rewards of groups to one number per response token.
//!
//! Leave-one-out baseline (RLOO), optional normalisation, and the KL penalty where it is part of the reward. Works on
//! plain vectors of a whole step, in f64; no tensors, no model, no reward functions (those are [`crate::objective`]).
//!
//! Paper (arXiv 2502.04463) and the authors' released code differ. Numbered, with what is done here:
//! 1. *Normalisation*: the paper says none; the code whitens the advantages of each step over all tokens.
//!    [`AdvantageNorm::None`] is the paper, [`AdvantageNorm::BatchToken`] the code; neither divides by a group's std.
//! 2. *Truncated responses*: the paper gives them 0; the code overwrites the last token with end-of-sequence before
//!    grading, so a truncated response that happens to hold the right answer is paid, and is left out of the statistics
//!    it is compared with. Here the paper is followed: reward 0, out of the length statistics, in the baseline.
//!    [`crate::recipe::Truncated::Grade`] pays it as the code does, but leaves its last token as it was sampled, and goes
//!    on where no complete response is correct (the code fails there).
//! 3. *Length*: the code measures prompt and response after decoding and encoding them again; here it is the response's
//!    own tokens. Lengths are centred per prompt, so the prompt cancels.
//! 4. *KL*: the paper only names a coefficient of 1e-3; the code subtracts it per token, as log-probability differences,
//!    *after* the baseline and then sums to the end of the response: `A_t = (R - b) - beta * sum_{s>=t} k_s`.
//!    [`KlPlacement::Reward`] does the same. (TRL's RLOO takes the summed KL off the reward before the baseline.)
//! 5. *Precision*: the code takes the baseline in f64 but keeps KL and advantages in the dtype of the log-probabilities
//!    (bf16); here all is f64, and f32 at the end.
//! 6. *One correct response*: both give `1 - alpha / 2` (its z-score is 0); no correct response: all advantages 0 and
//!    only the KL term is left. Same here.
//! 7. *Grading*: the code grades prompt and response together, so that the box in its prompt keeps unboxed answers from
//!    being found. Here the response is graded alone and a box is required (`grader.require_box`).
//! 8. *Order*: the code shuffles each rank's share of a step by itself; here one seeded shuffle splits the step over its
//!    updates. The code clips rewards to [-10, 10], which no reward of this objective reaches; here they are not clipped.

#[cfg(test)]
mod golden;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Added to a group's standard deviation, as GRPO implementations do.
const GROUP_STD_FLOOR: f64 = 1e-6;

/// The smallest variance that whitening divides by (the released code's); a step of equal advantages becomes zeros.
const WHITENING_VARIANCE_FLOOR: f64 = 1e-8;

/// What advantages are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdvantageNorm {
    /// Nothing: leave-one-out as it is, so that alpha scales how hard length is pushed. The paper's text.
    #[default]
    None,
    /// Mean 0, population variance 1 over all response tokens of the step, every token counting once: long responses
    /// weigh more. The released code. Can turn the sign of short correct responses beside long incorrect ones.
    BatchToken,
    /// `(R - mean) / (std + 1e-6)` per group, population std: GRPO. The paper's ablation that collapses length and
    /// accuracy, because with all correct it cancels alpha: penalties of 0.05 and 0.4 push equally hard.
    GroupStd,
}

/// Where the KL divergence to the reference policy is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KlPlacement {
    /// Per token in the reward, after the baseline: the k1 estimator `log pi_old - log pi_ref`. The released code.
    #[default]
    Reward,
    /// As a differentiable term of the loss, the k3 estimator: see [`crate::loss::policy_loss`].
    Loss,
    /// Nowhere; no reference policy is needed.
    Off,
}

/// What a response's tokens scored, for the KL term and for their number.
#[derive(Debug, Clone, Copy)]
pub struct ScoredResponse<'a> {
    /// Log-probabilities under the policy that sampled it, `[tokens]`.
    pub old_logprobs: &'a [f32],
    /// Log-probabilities under the reference policy, `[tokens]`; needed for [`KlPlacement::Reward`] only.
    pub reference_logprobs: Option<&'a [f32]>,
}

/// The RLOO advantage: `R_i` minus the mean reward of the other responses to the same prompt. Sums to 0 over a group.
///
/// A single response has nobody to be compared with and gets 0, so that it teaches nothing, as in NeMo-RL (where its
/// baseline is its own reward) and verl's vectorised form; verl's loop keeps the raw reward instead, which would push up
/// whatever was sampled.
#[must_use]
pub fn leave_one_out(rewards: &[f64]) -> Vec<f64> {
    if rewards.len() < 2 {
        return vec![0.0; rewards.len()];
    }
    let sum: f64 = rewards.iter().sum();
    let others = (rewards.len() - 1) as f64;
    rewards.iter().map(|reward| reward - (sum - reward) / others).collect()
}

/// `(R - mean) / (std + 1e-6)` with the population std of the group.
///
/// The std includes the response itself, so no advantage exceeds `sqrt(n - 1)` in magnitude. Dividing a leave-one-out
/// difference by the std of the *others* would explode for a lone failure among equal successes.
fn group_std(rewards: &[f64]) -> Vec<f64> {
    let count = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / count;
    let std = (rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / count).sqrt();
    rewards.iter().map(|reward| (reward - mean) / (std + GROUP_STD_FLOOR)).collect()
}

/// Advantages of every token of a step: one vector of `[tokens]` per response.
///
/// `rewards_by_group` holds the rewards of the responses to each prompt; `responses` the same responses in the same
/// order, flattened. In this order: baseline (or group normalisation), minus `kl_coefficient` times the KL that is still
/// to come (for [`KlPlacement::Reward`]), then whitening (for [`AdvantageNorm::BatchToken`]). Undiscounted.
///
/// # Errors
/// [`crate::Error::Config`] when rewards and responses differ in number, a reward is not finite, or the reference
/// log-probabilities are missing or of another length than the policy's while KL is charged in the reward.
pub fn token_advantages(
    rewards_by_group: &[Vec<f64>],
    responses: &[ScoredResponse<'_>],
    norm: AdvantageNorm,
    kl: KlPlacement,
    kl_coefficient: f64,
) -> Result<Vec<Vec<f32>>> {
    let rewards: usize = rewards_by_group.iter().map(Vec::len).sum();
    if rewards != responses.len() {
        return Err(Error::config(format!("{rewards} rewards for {} responses; each needs one", responses.len())));
    }
    if let Some(group) = rewards_by_group.iter().position(|group| group.iter().any(|reward| !reward.is_finite())) {
        return Err(Error::config(format!("group {group} holds a reward that is not finite: check the objective")));
    }
    let baseline = match norm {
        AdvantageNorm::None | AdvantageNorm::BatchToken => leave_one_out,
        AdvantageNorm::GroupStd => group_std,
    };
    let mut advantages = rewards_by_group
        .iter()
        .flat_map(|group| baseline(group))
        .zip(responses)
        .enumerate()
        .map(|(index, (advantage, response))| match kl {
            KlPlacement::Reward => minus_kl_to_go(index, advantage, response, kl_coefficient),
            KlPlacement::Loss | KlPlacement::Off => Ok(vec![advantage; response.old_logprobs.len()]),
        })
        .collect::<Result<Vec<Vec<f64>>>>()?;
    if norm == AdvantageNorm::BatchToken {
        whiten(&mut advantages);
    }
    let narrow = |tokens: Vec<f64>| tokens.into_iter().map(|advantage| advantage as f32).collect();
    Ok(advantages.into_iter().map(narrow).collect())
}

/// `A_t = advantage - coefficient * sum_{s >= t} (log pi_old - log pi_ref)_s`.
fn minus_kl_to_go(index: usize, advantage: f64, response: &ScoredResponse<'_>, coefficient: f64) -> Result<Vec<f64>> {
    let old = response.old_logprobs;
    let Some(reference) = response.reference_logprobs else {
        return Err(Error::config(format!(
            "response {index} has no reference log-probabilities; score it with the reference policy or set kl to off"
        )));
    };
    if reference.len() != old.len() {
        return Err(Error::config(format!(
            "response {index} has {} tokens but {} reference log-probabilities",
            old.len(),
            reference.len()
        )));
    }
    let mut kl_to_go = 0.0;
    let mut tokens = vec![0.0; old.len()];
    for ((token, &old), &reference) in tokens.iter_mut().zip(old).zip(reference).rev() {
        kl_to_go += f64::from(old) - f64::from(reference);
        *token = advantage - coefficient * kl_to_go;
    }
    Ok(tokens)
}

/// Shifts and scales to mean 0 and population variance 1 over all tokens.
fn whiten(advantages: &mut [Vec<f64>]) {
    let Some((mean, variance)) = token_mean_and_variance(advantages) else { return };
    let scale = variance.max(WHITENING_VARIANCE_FLOOR).sqrt().recip();
    for advantage in advantages.iter_mut().flatten() {
        *advantage = (*advantage - mean) * scale;
    }
}

/// Mean and population variance over all tokens; none when there are no tokens.
fn token_mean_and_variance(advantages: &[Vec<f64>]) -> Option<(f64, f64)> {
    let count = advantages.iter().map(Vec::len).sum::<usize>();
    if count == 0 {
        return None;
    }
    let count = count as f64;
    let mean = advantages.iter().flatten().sum::<f64>() / count;
    let variance = advantages.iter().flatten().map(|advantage| (advantage - mean).powi(2)).sum::<f64>() / count;
    Some((mean, variance))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::objective::{Objective, Outcome, SigmoidLength};

    fn near(got: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(got.len(), expected.len());
        for (left, right) in got.iter().zip(expected) {
            assert!((left - right).abs() <= tolerance, "{got:?} is not {expected:?}");
        }
    }

    fn baselines(rewards: &[f64]) -> Vec<f64> {
        rewards.iter().zip(leave_one_out(rewards)).map(|(reward, advantage)| reward - advantage).collect()
    }

    fn scored(old: &[f32]) -> ScoredResponse<'_> {
        ScoredResponse { old_logprobs: old, reference_logprobs: None }
    }

    #[test]
    fn baselines_agree_with_nemo_rl() {
        near(&baselines(&[1.0, 2.0, 3.0]), &[2.5, 2.0, 1.5], 1e-12);
        near(&baselines(&[4.0, 5.0, 6.0]), &[5.5, 5.0, 4.5], 1e-12);
        near(&baselines(&[1.0, 2.0]), &[2.0, 1.0], 1e-12);
        // A group of three whose second response is left out.
        near(&baselines(&[1.0, 3.0]), &[3.0, 1.0], 1e-12);
        near(&baselines(&[7.0]), &[7.0], 0.0);
    }

    #[test]
    fn agrees_with_the_mean_relative_form_of_prime_rl() {
        // [1, 0, 0, 0]: (R - mean) / mean is [3, -1, -1, -1], and R - mean is (n - 1) / n of leave-one-out.
        let relative: Vec<f64> = leave_one_out(&[1.0, 0.0, 0.0, 0.0]).iter().map(|a| a * 0.75 / 0.25).collect();
        near(&relative, &[3.0, -1.0, -1.0, -1.0], 1e-12);
    }

    #[test]
    fn tiny_and_huge_rewards_stay_exact_enough() {
        near(&baselines(&[1e-8, 2e-8, 3e-8]), &[2.5e-8, 2e-8, 1.5e-8], 1e-20);
        near(&baselines(&[1e8, 2e8, 3e8]), &[2.5e8, 2e8, 1.5e8], 1e-4);
    }

    #[test]
    fn group_std_has_no_spike_for_one_failure_among_equals() {
        let got = group_std(&[0.0, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95]);
        // Mean 7/8 and std sqrt(7)/8 of 0.95: -sqrt(7) for the failure, 1/sqrt(7) for the others.
        near(&got[..2], &[-(7.0_f64.sqrt()), 1.0 / 7.0_f64.sqrt()], 1e-4);
        assert!(group_std(&[0.95; 8]).iter().all(|advantage| advantage.abs() < 1e-6));
        assert_eq!(group_std(&[1.0]), [0.0]);
    }

    #[test]
    fn alpha_scales_leave_one_out_and_cancels_in_group_std() {
        let group: Vec<Outcome> =
            [310, 95, 1200, 640].map(|tokens| Outcome { correct: true, truncated: false, tokens }).to_vec();
        let rewards = |alpha| SigmoidLength::new(alpha).unwrap().rewards(&group);
        let scaled: Vec<f64> = leave_one_out(&rewards(0.1)).iter().map(|advantage| advantage * 4.0).collect();
        near(&leave_one_out(&rewards(0.4)), &scaled, 1e-12);
        near(&group_std(&rewards(0.4)), &group_std(&rewards(0.1)), 1e-3);
    }

    #[test]
    fn kl_is_charged_after_the_baseline_and_to_go() {
        let old = [-1.0, -2.0, -0.5];
        let reference = [-1.5, -1.0, -1.5];
        let with_kl = ScoredResponse { old_logprobs: &old, reference_logprobs: Some(&reference) };
        let same = ScoredResponse { old_logprobs: &old, reference_logprobs: Some(&old) };
        let got = token_advantages(&[vec![1.0, 0.0]], &[with_kl, same], AdvantageNorm::None, KlPlacement::Reward, 0.1)
            .unwrap();
        // k = [0.5, -1, 1], to go [0.5, 0, 1]; the other response's advantage does not see it.
        assert_eq!(got, [vec![0.95, 1.0, 0.9], vec![-1.0; 3]]);
        for kl in [KlPlacement::Loss, KlPlacement::Off] {
            let got = token_advantages(&[vec![1.0, 0.0]], &[with_kl, same], AdvantageNorm::None, kl, 0.1).unwrap();
            assert_eq!(got, [vec![1.0; 3], vec![-1.0; 3]]);
        }
    }

    #[test]
    fn whitening_counts_tokens() {
        let (one, three) = ([-1.0], [-1.0; 3]);
        let got = token_advantages(
            &[vec![1.0, 0.0]],
            &[scored(&one), scored(&three)],
            AdvantageNorm::BatchToken,
            KlPlacement::Off,
            0.0,
        )
        .unwrap();
        // Tokens 1, -1, -1, -1: mean -0.5, variance 0.75.
        let expected = [1.5 / 0.75_f64.sqrt(), -0.5 / 0.75_f64.sqrt()];
        near(&[f64::from(got[0][0]), f64::from(got[1][2])], &expected, 1e-6);
        let equal = token_advantages(
            &[vec![0.0, 0.0]],
            &[scored(&one), scored(&three)],
            AdvantageNorm::BatchToken,
            KlPlacement::Off,
            0.0,
        );
        assert_eq!(equal.unwrap(), [vec![0.0], vec![0.0; 3]]);
    }

    #[test]
    fn group_std_works_per_group() {
        let token = [-1.0];
        let responses = [scored(&token); 4];
        let groups = [vec![1.0, 0.0], vec![0.3, 0.1]];
        let got =
            token_advantages(&groups, &responses, AdvantageNorm::GroupStd, KlPlacement::Off, 0.0).unwrap().concat();
        near(&got.iter().map(|&advantage| f64::from(advantage)).collect::<Vec<_>>(), &[1.0, -1.0, 1.0, -1.0], 2e-5);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let token = [-1.0];
        let step = |groups: &[Vec<f64>], responses: &[ScoredResponse<'_>], kl| {
            token_advantages(groups, responses, AdvantageNorm::None, kl, 0.1).unwrap_err().to_string()
        };
        assert!(step(&[vec![1.0]], &[], KlPlacement::Off).contains("1 rewards for 0 responses"));
        assert!(step(&[vec![1.0]], &[scored(&token)], KlPlacement::Reward).contains("no reference"));
        assert!(step(&[vec![f64::NAN]], &[scored(&token)], KlPlacement::Off).contains("not finite"));
        let longer = ScoredResponse { old_logprobs: &token, reference_logprobs: Some(&[-1.0, -1.0]) };
        assert!(step(&[vec![1.0]], &[longer], KlPlacement::Reward).contains("1 tokens but 2"));
    }

    #[test]
    fn recipes_spell_the_choices_in_kebab_case() {
        assert_eq!(serde_json::to_string(&AdvantageNorm::BatchToken).unwrap(), "\"batch-token\"");
        assert_eq!(serde_json::from_str::<AdvantageNorm>("\"group-std\"").unwrap(), AdvantageNorm::GroupStd);
        assert_eq!(serde_json::from_str::<KlPlacement>("\"off\"").unwrap(), KlPlacement::Off);
    }

    proptest! {
        #[test]
        fn leave_one_out_sums_to_zero_and_has_two_forms(rewards in prop::collection::vec(-10.0..10.0_f64, 2..20)) {
            let advantages = leave_one_out(&rewards);
            prop_assert!(advantages.iter().sum::<f64>().abs() < 1e-10);
            // The vectorised form: n / (n - 1) times the difference to the mean of all.
            let count = rewards.len() as f64;
            let mean = rewards.iter().sum::<f64>() / count;
            for (reward, advantage) in rewards.iter().zip(&advantages) {
                prop_assert!((advantage - (reward - mean) * count / (count - 1.0)).abs() < 1e-10);
            }
        }

        #[test]
        fn group_std_is_bounded(rewards in prop::collection::vec(0.0..1.0_f64, 1..20)) {
            let bound = (rewards.len() as f64 - 1.0).sqrt() + 1e-9;
            prop_assert!(group_std(&rewards).iter().all(|advantage| advantage.abs() <= bound));
        }

        #[test]
        fn the_order_of_a_group_does_not_matter(
            rewards in prop::collection::vec(0.0..1.0_f64, 2..12)
                .prop_flat_map(|rewards| (Just((0..rewards.len()).collect::<Vec<_>>()).prop_shuffle(), Just(rewards))),
        ) {
            let (order, rewards) = rewards;
            let shuffled: Vec<f64> = order.iter().map(|&index| rewards[index]).collect();
            for advantages in [leave_one_out, group_std] {
                let (plain, moved) = (advantages(&rewards), advantages(&shuffled));
                for (place, &index) in order.iter().enumerate() {
                    prop_assert!((moved[place] - plain[index]).abs() < 1e-8);
                }
            }
        }
    }
}
