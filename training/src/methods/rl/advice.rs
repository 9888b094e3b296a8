//! What a recipe and its first steps say of a run that will come to nothing, told while it costs minutes and not a night.
//!
//! Thresholds are for runs that are plainly wrong; what may be so on purpose, or by chance, is not remarked on. Nothing is
//! decided here.

use std::collections::BTreeSet;

use crate::recipe::{Recipe, TuningMode};
use crate::trainer::StepMetrics;

/// Learning rate below which an adapter hardly moves: a step of AdamW changes an entry of B, which begins at 0, by about the
/// rate, and a run has some hundred of them.
const LOW_FOR_AN_ADAPTER: f64 = 1e-5;

/// Share of cut off responses from which on lengths say more of the limit than of the model.
const MANY_CUT_OFF: f64 = 0.5;

/// Share of responses without a verdict from which on the reward says more of the grader than of the model.
const MANY_UNDECIDED: f64 = 0.2;

/// Steps without anything to learn after which it is no chance.
const STEPS_IN_VAIN: usize = 2;

/// Remarks on settings that are allowed and hardly meant.
pub(super) fn on_settings(recipe: &Recipe) -> Vec<String> {
    let (top_p, rate) = (recipe.rollout.top_p, recipe.optimizer.learning_rate);
    let remarks = [
        (
            top_p < 1.0,
            format!(
                "`rollout.top_p` = {top_p}: the loss takes responses for draws from the whole distribution, which is 1"
            ),
        ),
        (
            recipe.tuning.mode == TuningMode::Lora && rate < LOW_FOR_AN_ADAPTER,
            format!(
                "`optimizer.learning_rate` = {rate:e} is a rate for whole weights, at which an adapter hardly moves; ten \
                 times of it is usual"
            ),
        ),
    ];
    remarks.into_iter().filter(|(holds, _)| *holds).map(|(_, remark)| remark).collect()
}

/// Remarks on a run's steps, each made once.
#[derive(Debug, Default)]
pub(super) struct Advice {
    given: BTreeSet<&'static str>,
    /// Steps up to the last one from which nothing was learned.
    in_vain: usize,
}

impl Advice {
    /// What is new to say after a step whose responses had at most `limit` tokens.
    pub(super) fn on(&mut self, metrics: &StepMetrics, limit: usize) -> Vec<String> {
        self.in_vain = if metrics.frac_reward_zero_std == 1.0 { self.in_vain + 1 } else { 0 };
        let is_in_vain = self.in_vain >= STEPS_IN_VAIN;
        let (step, percent) = (metrics.step, |share: f64| (share * 100.0).round());
        let remarks = [
            (
                "cut off",
                metrics.clipped_ratio >= MANY_CUT_OFF,
                format!(
                    "step {step}: {} % of the responses were cut off at `rollout.max_new_tokens` = {limit}; raise it, or take \
                     prompts that need less",
                    percent(metrics.clipped_ratio)
                ),
            ),
            (
                "none correct",
                is_in_vain && metrics.accuracy == 0.0,
                format!(
                    "step {step}: no response was correct, so none earned a reward; does the base answer prompts of this \
                     form (`data.prompt_template`) with a `\\boxed{{}}`? `serve eval --model BASE --recipe RECIPE \
                     --suite file:DATA --problems 20` keeps what it says"
                ),
            ),
            (
                "all the same",
                is_in_vain && metrics.accuracy > 0.0,
                format!(
                    "step {step}: all responses to a prompt got the same reward, for every prompt, so there was nothing to \
                     learn; more `rollout.samples_per_prompt`, or other problems"
                ),
            ),
            (
                "undecided",
                metrics.undecided_ratio >= MANY_UNDECIDED,
                format!(
                    "step {step}: the grader came to no verdict on {} % of the responses, which count as incorrect; \
                     `data.gradable_only` leaves problems out whose reference it cannot read",
                    percent(metrics.undecided_ratio)
                ),
            ),
        ];
        let new = remarks.into_iter().filter(|(name, holds, _)| *holds && self.given.insert(name));
        new.map(|(_, _, remark)| remark).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(advice: &mut Advice, change: impl FnOnce(&mut StepMetrics)) -> Vec<String> {
        let mut metrics = StepMetrics { step: 3, accuracy: 0.5, ..StepMetrics::default() };
        change(&mut metrics);
        advice.on(&metrics, 640)
    }

    #[test]
    fn settings_that_are_hardly_meant_are_remarked_on() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            on_settings(&Recipe::parse("name = 't'\nstage = 'rl'\nbase = 'b'\ndata.source = 'mini'", &set).unwrap())
        };
        assert!(of(&[]).is_empty());
        let adapter = ("tuning.mode", "lora");
        assert!(of(&[adapter, ("optimizer.learning_rate", "5e-5")]).is_empty());
        let remarks = of(&[adapter, ("optimizer.learning_rate", "5e-6"), ("rollout.top_p", "0.9")]);
        assert!(remarks.len() == 2 && remarks[0].contains("= 0.9") && remarks[1].contains("= 5e-6"), "{remarks:?}");
    }

    #[test]
    fn a_run_that_goes_well_is_not_remarked_on() {
        let mut advice = Advice::default();
        assert!(told(&mut advice, |_| {}).is_empty());
        let early = |metrics: &mut StepMetrics| {
            (metrics.clipped_ratio, metrics.undecided_ratio, metrics.frac_reward_zero_std) = (0.4, 0.1, 0.9);
        };
        assert!(told(&mut advice, early).is_empty());
    }

    #[test]
    fn each_remark_is_made_once() {
        let mut advice = Advice::default();
        let cut_off = |metrics: &mut StepMetrics| metrics.clipped_ratio = 0.625;
        let remarks = told(&mut advice, cut_off);
        assert_eq!(remarks.len(), 1);
        assert!(remarks[0].starts_with("step 3: 63 % of the responses were cut off at `rollout.max_new_tokens` = 640"));
        assert!(told(&mut advice, cut_off).is_empty());
        let wrong = |metrics: &mut StepMetrics| {
            (metrics.accuracy, metrics.frac_reward_zero_std, metrics.undecided_ratio) = (0.0, 1.0, 0.2);
        };
        assert!(told(&mut advice, |metrics| metrics.frac_reward_zero_std = 1.0).is_empty(), "once may be chance");
        let remarks = told(&mut advice, wrong);
        assert!(remarks.len() == 2 && remarks[0].contains("no response was correct"), "{remarks:?}");
        assert!(remarks[1].contains("no verdict on 20 %"), "{remarks:?}");
        assert!(told(&mut advice, |metrics| metrics.frac_reward_zero_std = 1.0)[0].contains("samples_per_prompt"));
    }
}
