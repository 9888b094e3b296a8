//! The metrics of one step.

use std::collections::BTreeMap;

use super::experience::{Experience, Response};
use super::update::UpdateSummary;
use crate::trainer::{LevelMetrics, StepMetrics};

/// What a step is reported as.
pub(super) fn metrics(step: u64, experience: &Experience, update: &UpdateSummary, num_tokens: u64) -> StepMetrics {
    let responses: Vec<&Response> = experience.responses.iter().collect();
    let groups: Vec<&[Response]> = experience.responses.chunks(experience.group_size).collect();
    let lengths: Vec<f64> = responses.iter().map(|response| response.tokens() as f64).collect();
    let mismatch = mismatch(&responses);
    let mut metrics = StepMetrics {
        step,
        reward: mean(responses.iter().map(|response| response.reward)).unwrap_or(0.0),
        reward_std: mean(groups.iter().map(|group| reward_deviation(group))).unwrap_or(0.0),
        frac_reward_zero_std: share(&groups, |group| teaches_nothing(group)),
        accuracy: share(&responses, |response| response.correct),
        kl: divergence(&responses),
        entropy: Some(experience.entropy),
        sampler_difference: mismatch.map(|(mean, _)| mean),
        sampler_difference_max: mismatch.map(|(_, max)| max),
        mean_length: mean(lengths.iter().copied()).unwrap_or(0.0),
        min_length: lengths.iter().copied().fold(f64::INFINITY, f64::min),
        max_length: lengths.iter().copied().fold(0.0, f64::max),
        mean_terminated_length: mean_length(&responses, |response| !response.truncated),
        mean_correct_length: mean_length(&responses, |response| response.correct),
        clipped_ratio: share(&responses, |response| response.truncated),
        undecided_ratio: share(&responses, |response| response.undecided),
        clip_ratio: update.stats.clip_fraction(),
        loss: update.loss,
        grad_norm: update.grad_norm,
        learning_rate: update.learning_rate,
        num_tokens,
        levels: BTreeMap::new(),
    };
    let mut by_level: BTreeMap<&str, Vec<&Response>> = BTreeMap::new();
    for response in &responses {
        if let Some(level) = &response.level {
            by_level.entry(level).or_default().push(response);
        }
    }
    for (level, responses) in by_level {
        let level_metrics = LevelMetrics {
            accuracy: share(&responses, |response| response.correct),
            mean_length: mean_length(&responses, |_| true).unwrap_or(0.0),
            mean_correct_length: mean_length(&responses, |response| response.correct),
        };
        metrics.set_level(level, &level_metrics);
    }
    metrics
}

/// Whether all rewards of a group are the same. The mean of equal numbers may differ from them in its last bit, and so
/// their deviation from 0.
fn teaches_nothing(group: &[Response]) -> bool {
    group.windows(2).all(|pair| pair[0].reward == pair[1].reward)
}

/// Population standard deviation of a group's rewards.
fn reward_deviation(group: &[Response]) -> f64 {
    let average = mean(group.iter().map(|response| response.reward)).unwrap_or(0.0);
    mean(group.iter().map(|response| (response.reward - average).powi(2))).unwrap_or(0.0).sqrt()
}

/// Mean over tokens of the policy's log-probability minus the reference policy's (k1); `None` without a reference.
fn divergence(responses: &[&Response]) -> Option<f64> {
    let differences = responses.iter().flat_map(|response| {
        let reference = response.reference_logprobs.as_deref().unwrap_or_default();
        response.old_logprobs.iter().zip(reference).map(|(old, reference)| f64::from(old - reference))
    });
    mean(differences)
}

/// Mean and maximum over tokens of the distance between the sampler's log-probability and the trainer's.
fn mismatch(responses: &[&Response]) -> Option<(f64, f64)> {
    let differences = || {
        let tokens = responses.iter().flat_map(|response| response.old_logprobs.iter().zip(&response.sampler_logprobs));
        tokens.map(|(trainer, sampler)| f64::from(trainer - sampler).abs())
    };
    Some((mean(differences())?, differences().fold(0.0, f64::max)))
}

fn mean_length(responses: &[&Response], counts: impl Fn(&Response) -> bool) -> Option<f64> {
    mean(responses.iter().filter(|response| counts(response)).map(|response| response.tokens() as f64))
}

fn share<T>(items: &[T], counts: impl Fn(&T) -> bool) -> f64 {
    items.iter().filter(|item| counts(item)).count() as f64 / items.len().max(1) as f64
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { None } else { Some(sum / count as f64) }
}
