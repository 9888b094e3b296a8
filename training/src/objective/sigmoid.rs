use super::{Objective, Outcome};
use crate::{Error, Result};

/// Added to the standard deviation of the lengths, so that one correct response, or several of equal length, divide by
/// something: their z-score is then 0 and their reward `1 - alpha / 2`.
const STD_FLOOR: f64 = 1e-7;

/// The paper's reward (arXiv 2502.04463, section 4.1): `1[correct] * (1 - alpha * sigmoid((len - mean) / std))`.
///
/// Mean and population standard deviation are taken over the lengths of the correct, complete responses of the group,
/// so "long" means long for this prompt and this policy. A truncated response is worth 0 whatever text it holds, and is
/// kept out of the statistics: rewarding it would teach the policy to answer early and ramble on.
///
/// Every reward is 0 or in `(1 - alpha, 1)`: any correct response beats any incorrect one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SigmoidLength {
    alpha: f64,
    pays_truncated: bool,
}

impl SigmoidLength {
    /// A reward with length penalty `alpha`; 0 is plain correctness.
    ///
    /// # Errors
    /// [`crate::Error::Config`] when `alpha` is not in `[0, 1)`; from 1 on a long correct response could be worth no more
    /// than an incorrect one.
    pub fn new(alpha: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&alpha) {
            return Err(Error::config(format!("alpha is {alpha}, but a length penalty lies in [0, 1)")));
        }
        Ok(Self { alpha, pays_truncated: false })
    }

    /// Whether a truncated response that holds the right answer is paid like a complete one, by its length against that
    /// of the complete ones; it stays out of the statistics. So does the released code, which fails where there is no
    /// complete correct response to compare with; here its z-score is then 0.
    #[must_use]
    pub fn paying_truncated(self, pays_truncated: bool) -> Self {
        Self { pays_truncated, ..self }
    }

    /// The length penalty.
    #[must_use]
    pub fn alpha(&self) -> f64 {
        self.alpha
    }
}

impl Objective for SigmoidLength {
    fn rewards(&self, group: &[Outcome]) -> Vec<f64> {
        let complete = group.iter().filter(|outcome| outcome.correct && !outcome.truncated);
        let statistics = mean_and_std(complete.map(|outcome| outcome.tokens));
        let reward = |outcome: &Outcome| {
            if !outcome.correct || (outcome.truncated && !self.pays_truncated) {
                return 0.0;
            }
            let z = statistics.map_or(0.0, |(mean, std)| (outcome.tokens as f64 - mean) / (std + STD_FLOOR));
            1.0 - self.alpha * sigmoid(z)
        };
        group.iter().map(reward).collect()
    }
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// Mean and population standard deviation of token counts; none when there are none.
///
/// Sums are taken in integers, where addition is exact: the result cannot depend on the order of the responses.
fn mean_and_std(lengths: impl Iterator<Item = usize>) -> Option<(f64, f64)> {
    let (mut count, mut sum, mut squares) = (0_u128, 0_u128, 0_u128);
    for length in lengths {
        let length = length as u128;
        count += 1;
        sum += length;
        squares += length * length;
    }
    if count == 0 {
        return None;
    }
    let spread = count * squares - sum * sum;
    Some((sum as f64 / count as f64, (spread as f64).sqrt() / count as f64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome(correct: bool, truncated: bool, tokens: usize) -> Outcome {
        Outcome { correct, truncated, tokens }
    }

    fn rewards(alpha: f64, group: &[Outcome]) -> Vec<f64> {
        SigmoidLength::new(alpha).unwrap().rewards(group)
    }

    #[test]
    fn alpha_outside_the_unit_interval_is_refused() {
        for alpha in [-0.1, 1.0, 1.5, f64::NAN, f64::INFINITY] {
            assert!(SigmoidLength::new(alpha).is_err(), "{alpha}");
        }
        assert_eq!(SigmoidLength::new(0.4).unwrap().alpha(), 0.4);
    }

    #[test]
    fn population_std_of_two_lengths() {
        // Lengths 10 and 30: mean 20, population std 10, so z is -1 and 1 and sigmoid(1) = 0.731058578630.
        let got = rewards(0.5, &[outcome(true, false, 10), outcome(true, false, 30)]);
        assert!((got[0] - (1.0 - 0.5 * 0.268_941_421_370)).abs() < 1e-8, "{got:?}");
        assert!((got[1] - (1.0 - 0.5 * 0.731_058_578_630)).abs() < 1e-8, "{got:?}");
    }

    #[test]
    fn truncated_is_worth_nothing_and_moves_no_statistics() {
        let complete = [outcome(true, false, 10), outcome(true, false, 30)];
        let with_truncated = [complete[0], outcome(true, true, 4000), complete[1], outcome(false, true, 4000)];
        let (alone, beside) = (rewards(0.2, &complete), rewards(0.2, &with_truncated));
        assert_eq!(beside, [alone[0], 0.0, alone[1], 0.0]);
    }

    #[test]
    fn truncated_may_be_paid_and_still_moves_no_statistics() {
        let objective = SigmoidLength::new(0.2).unwrap().paying_truncated(true);
        let complete = [outcome(true, false, 10), outcome(true, false, 30)];
        let alone = objective.rewards(&complete);
        let beside = objective.rewards(&[complete[0], outcome(true, true, 40), complete[1], outcome(false, true, 40)]);
        // Mean 20, population std 10 of the complete ones: z is 2 and sigmoid(2) = 0.880797077978.
        assert!((beside[1] - (1.0 - 0.2 * 0.880_797_077_978)).abs() < 1e-8, "{beside:?}");
        assert_eq!([beside[0], beside[2], beside[3]], [alone[0], alone[1], 0.0]);
        assert_eq!(objective.rewards(&[outcome(true, true, 40), outcome(false, true, 40)]), [0.9, 0.0]);
    }

    #[test]
    fn incorrect_lengths_move_no_statistics() {
        let short = rewards(0.3, &[outcome(true, false, 10), outcome(true, false, 30), outcome(false, false, 1)]);
        let long = rewards(0.3, &[outcome(true, false, 10), outcome(true, false, 30), outcome(false, false, 9999)]);
        assert_eq!(short, long);
        assert_eq!(short[2], 0.0);
    }

    #[test]
    fn a_lone_or_tied_correct_response_gets_the_middle_of_the_penalty() {
        assert_eq!(rewards(0.1, &[outcome(true, false, 77), outcome(false, false, 5)]), [0.95, 0.0]);
        assert_eq!(rewards(0.4, &[outcome(true, false, 500); 3]), [0.8; 3]);
    }

    #[test]
    fn nothing_correct_is_worth_nothing() {
        assert_eq!(rewards(0.2, &[outcome(false, false, 3), outcome(true, true, 9)]), [0.0, 0.0]);
        assert!(rewards(0.2, &[]).is_empty());
    }

    #[test]
    fn without_penalty_the_reward_is_correctness() {
        let group = [outcome(true, false, 10), outcome(true, false, 900), outcome(false, false, 50)];
        assert_eq!(rewards(0.0, &group), [1.0, 1.0, 0.0]);
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_correct_beats_incorrect(
            group in prop::collection::vec((any::<bool>(), any::<bool>(), 0_usize..100_000), 1..12)
                .prop_flat_map(|group| (Just(group.clone()), Just(group).prop_shuffle())),
            alpha in 0.0..0.999_f64,
        ) {
            let build = |group: &[(bool, bool, usize)]| -> Vec<Outcome> {
                group.iter().map(|&(correct, truncated, tokens)| outcome(correct, truncated, tokens)).collect()
            };
            let pair = |group: &[(bool, bool, usize)]| -> Vec<((bool, bool, usize), u64)> {
                let worth = rewards(alpha, &build(group)).into_iter().map(f64::to_bits);
                let mut pairs: Vec<_> = group.iter().copied().zip(worth).collect();
                pairs.sort_unstable();
                pairs
            };
            prop_assert_eq!(pair(&group.0), pair(&group.1));
            for (outcome, reward) in build(&group.0).iter().zip(rewards(alpha, &build(&group.0))) {
                if outcome.correct && !outcome.truncated {
                    prop_assert!(reward > 0.0 && reward >= 1.0 - alpha && reward <= 1.0);
                } else {
                    prop_assert_eq!(reward, 0.0);
                }
            }
        }
    }
}
