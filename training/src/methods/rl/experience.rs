//! One step's experience: responses, what they are worth, and under which probabilities they were sampled.

use std::time::Instant;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::super::passes::{Model, Passes, PolicySampler};
use super::super::sequence::{Sequence, micro_batches};
use super::prompts::Prompt;
use crate::advantage::{AdvantageNorm, KlPlacement, ScoredResponse, token_advantages};
use crate::compute::shrinking;
use crate::model::Policy;
use crate::objective::{Objective, Outcome};
use crate::recipe::{LengthOf, Recipe, RolloutSection, Truncated};
use crate::rollout::{FinishReason, Rollout, RolloutRequest, SamplingParams};
use crate::tasks::Grader;
use crate::text::Codec;
use crate::thoughts::Thoughts;
use crate::trainer::{LoggedRollout, Observer, Phase};
use crate::{Error, Result};

/// One response with everything that is known of it.
pub(super) struct Response {
    pub(super) sequence: Sequence,
    /// Tokens of the prompt.
    pub(super) prompt_tokens: usize,
    pub(super) correct: bool,
    pub(super) truncated: bool,
    /// The grader came to no verdict, so that it counts as incorrect.
    pub(super) undecided: bool,
    /// The answer that the grader found.
    pub(super) extracted: Option<String>,
    pub(super) level: Option<String>,
    pub(super) reward: f64,
    /// As the sampler saw it, `[response tokens]`.
    pub(super) sampler_logprobs: Vec<f32>,
    /// Under the policy before the step's updates, `[response tokens]`.
    pub(super) old_logprobs: Vec<f32>,
    /// Under the reference policy; absent where no KL is charged.
    pub(super) reference_logprobs: Option<Vec<f32>>,
    /// `[response tokens]`.
    pub(super) advantages: Vec<f32>,
}

impl Response {
    /// Response tokens, the end-of-sequence token included.
    pub(super) fn tokens(&self) -> usize {
        self.sequence.targets.len()
    }

    /// Truncated importance sampling: weighs every token's advantage by the trainer's probability over the sampler's, at
    /// most `limit`. PPO's clipped term is linear in a positive factor of the advantage, so this weighs the policy loss
    /// and leaves a KL term in the loss alone.
    fn correct_for_sampler(&mut self, limit: f64) {
        let probabilities = self.old_logprobs.iter().zip(&self.sampler_logprobs);
        for (advantage, (trainer, sampler)) in self.advantages.iter_mut().zip(probabilities) {
            *advantage *= f64::from(trainer - sampler).exp().min(limit) as f32;
        }
    }
}

/// All responses of a step; those to one prompt are neighbours.
pub(super) struct Experience {
    pub(super) responses: Vec<Response>,
    /// Responses to each prompt.
    pub(super) group_size: usize,
    /// Some of the responses as text.
    pub(super) logged: Vec<LoggedRollout>,
    /// Mean entropy of the policy over response tokens, in nats.
    pub(super) entropy: f64,
    /// Seconds.
    pub(super) rollout_time: f64,
    /// Seconds.
    pub(super) score_time: f64,
}

impl Experience {
    pub(super) fn response_tokens(&self) -> u64 {
        self.responses.iter().map(|response| response.tokens() as u64).sum()
    }

    /// Tokens of prompts and responses.
    pub(super) fn tokens(&self) -> u64 {
        self.responses.iter().map(|response| response.sequence.ids.len() as u64).sum()
    }
}

/// What became of a response that nothing is learned from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) correct: bool,
    pub(super) truncated: bool,
    /// Its tokens, the end-of-sequence token included.
    pub(super) tokens: usize,
}

/// Collects experience with a policy.
pub(super) struct Collector<'a> {
    codec: &'a Codec,
    sampler: PolicySampler,
    reference: Option<Model>,
    grader: Grader,
    /// The marks behind which an answer has to be.
    thoughts: Option<Thoughts>,
    objective: Box<dyn Objective>,
    rollout: RolloutSection,
    /// Most tokens of keys and values at a time.
    cache_tokens: usize,
    norm: AdvantageNorm,
    kl: KlPlacement,
    kl_coefficient: f64,
    truncated: Truncated,
    length: LengthOf,
    truncated_is: Option<f64>,
    microbatch_tokens: usize,
    /// Responses of a step that are kept as text.
    log_rollouts: usize,
}

impl<'a> Collector<'a> {
    pub(super) fn new(
        recipe: &Recipe,
        policy: &Policy,
        passes: &Passes,
        codec: &'a Codec,
        objective: Box<dyn Objective>,
    ) -> Result<Self> {
        let algorithm = &recipe.algorithm;
        let (end_of_sequence, concurrent) = (&policy.base().tokens.eos, recipe.rollout.concurrent_sequences);
        Ok(Self {
            codec,
            sampler: passes.policy(policy)?.sampler(end_of_sequence, concurrent)?,
            reference: if algorithm.kl == KlPlacement::Off { None } else { Some(passes.reference(policy)?) },
            grader: Grader::new(recipe.grader.mode).requiring_box(recipe.grader.require_box),
            thoughts: recipe.grader.after_thoughts.then(|| Thoughts::of(codec)),
            objective,
            rollout: recipe.rollout.clone(),
            cache_tokens: recipe.rollout.cache_tokens_at_most(),
            norm: algorithm.advantage_norm,
            kl: algorithm.kl,
            kl_coefficient: algorithm.kl_coefficient,
            truncated: algorithm.truncated,
            length: algorithm.length,
            truncated_is: algorithm.truncated_is,
            microbatch_tokens: recipe.optimizer.microbatch_tokens,
            log_rollouts: recipe.run.log_rollouts,
        })
    }

    /// Samples a group of responses to every prompt of `step`, grades, rewards and scores them.
    pub(super) fn collect(
        &mut self,
        step: u64,
        policy: &Policy,
        passes: &Passes,
        prompts: Vec<Prompt>,
        rng: &mut ChaCha8Rng,
        observer: &mut dyn Observer,
    ) -> Result<Experience> {
        let started = Instant::now();
        let model = passes.policy(policy)?;
        self.sampler.follow(&model)?;
        let mut responses = self.sample(&prompts, rng, observer)?;
        let rollout_time = started.elapsed().as_secs_f64();

        let started = Instant::now();
        observer.on_phase(Phase::Score);
        let rewards = self.reward(&prompts, &mut responses)?;
        let logged = self.logged(step, &prompts, &responses)?;
        let entropy = self.score(&model, &mut responses, observer)?;
        let scored: Vec<ScoredResponse<'_>> = responses
            .iter()
            .map(|response| ScoredResponse {
                old_logprobs: &response.old_logprobs,
                reference_logprobs: response.reference_logprobs.as_deref(),
            })
            .collect();
        let advantages = token_advantages(&rewards, &scored, self.norm, self.kl, self.kl_coefficient)?;
        for (response, advantages) in responses.iter_mut().zip(advantages) {
            response.advantages = advantages;
            if let Some(limit) = self.truncated_is {
                response.correct_for_sampler(limit);
            }
        }
        let group_size = self.rollout.samples_per_prompt;
        let score_time = started.elapsed().as_secs_f64();
        Ok(Experience { responses, group_size, logged, entropy, rollout_time, score_time })
    }

    /// The first responses as text, as many as the recipe asks for.
    fn logged(&self, step: u64, prompts: &[Prompt], responses: &[Response]) -> Result<Vec<LoggedRollout>> {
        let log = |(index, response): (usize, &Response)| {
            let problem = &prompts[index / self.rollout.samples_per_prompt].problem;
            let whole = &response.sequence.ids[response.prompt_tokens..];
            Ok(LoggedRollout {
                extracted: response.extracted.clone(),
                correct: response.correct,
                undecided: response.undecided,
                truncated: response.truncated,
                tokens: response.tokens(),
                reward: response.reward,
                ..LoggedRollout::to_problem(step, problem, self.codec.decode(whole)?)
            })
        };
        responses.iter().enumerate().take(self.log_rollouts).map(log).collect()
    }

    /// What is graded of a response, as text.
    fn graded(&self, prompt: &[u32], response: &[u32]) -> Result<String> {
        self.codec.decode(self.thoughts.map_or(response, |thoughts| thoughts.answer(prompt, response)))
    }

    fn sample(
        &mut self,
        prompts: &[Prompt],
        rng: &mut ChaCha8Rng,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Response>> {
        let group = self.rollout.samples_per_prompt;
        let requests: Vec<RolloutRequest> = prompts
            .iter()
            .flat_map(|prompt| std::iter::repeat_n(prompt, group))
            .map(|prompt| RolloutRequest { prompt: prompt.ids.clone(), seed: rng.random() })
            .collect();
        let whole = SamplingParams::whole(self.rollout.temperature, self.rollout.max_new_tokens);
        let params = SamplingParams { top_p: self.rollout.top_p, ..whole };
        let rollouts = self.generate(&requests, &params, observer)?;
        let responses = rollouts.into_iter().enumerate().map(|(index, rollout)| {
            let prompt = &prompts[index / group];
            Response {
                sequence: Sequence::response(&prompt.ids, &rollout.ids),
                prompt_tokens: prompt.ids.len(),
                correct: false,
                truncated: rollout.finish == FinishReason::Length,
                undecided: false,
                extracted: None,
                level: prompt.problem.level.clone(),
                reward: 0.0,
                sampler_logprobs: rollout.logprobs,
                old_logprobs: Vec::new(),
                reference_logprobs: None,
                advantages: Vec::new(),
            }
        });
        Ok(responses.collect())
    }

    /// Continues every request, with less memory for keys and values where there is not enough.
    fn generate(
        &mut self,
        requests: &[RolloutRequest],
        params: &SamplingParams,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Rollout>> {
        let total = requests.len();
        let mut warnings = Vec::new();
        let rollouts = shrinking(
            "`rollout.cache_tokens`",
            &mut self.cache_tokens,
            self.rollout.longest(),
            |tokens| {
                self.sampler.generate(requests, params, tokens, &mut |progress| {
                    observer.on_phase(Phase::Rollout { finished: progress.finished, total, tokens: progress.tokens });
                    !observer.should_stop()
                })
            },
            |warning| warnings.push(warning.to_owned()),
        );
        warnings.iter().for_each(|warning| observer.on_warning(warning));
        rollouts
    }

    /// Responses to `prompts` that nothing is learned from, as many to each as there are seeds for.
    pub(super) fn ask(
        &mut self,
        policy: &Policy,
        passes: &Passes,
        prompts: &[Prompt],
        seeds: &[u64],
        params: &SamplingParams,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Asked>> {
        self.sampler.follow(&passes.policy(policy)?)?;
        let samples = seeds.len() / prompts.len().max(1);
        let prompt = |index: usize| &prompts[index / samples.max(1)];
        let request = |(index, &seed): (usize, &u64)| RolloutRequest { prompt: prompt(index).ids.clone(), seed };
        let requests: Vec<RolloutRequest> = seeds.iter().enumerate().map(request).collect();
        let rollouts = self.generate(&requests, params, observer)?;
        let judge = |(index, rollout): (usize, Rollout)| {
            let Prompt { problem, ids } = prompt(index);
            let truncated = rollout.finish == FinishReason::Length;
            let correct = self.grader.grade_safely(&self.graded(ids, &rollout.ids)?, &problem.answer).correct;
            Ok(Asked { correct: correct && !truncated, truncated, tokens: rollout.ids.len() })
        };
        rollouts.into_iter().enumerate().map(judge).collect()
    }

    /// Grades every response and rewards each group; the rewards by group are returned and noted.
    fn reward(&self, prompts: &[Prompt], responses: &mut [Response]) -> Result<Vec<Vec<f64>>> {
        let mut rewards = Vec::with_capacity(prompts.len());
        for (prompt, group) in prompts.iter().zip(responses.chunks_mut(self.rollout.samples_per_prompt)) {
            let mut outcomes = Vec::with_capacity(group.len());
            for response in group.iter_mut() {
                let whole = &response.sequence.ids[response.prompt_tokens..];
                let grade = self.grader.grade_safely(&self.graded(&prompt.ids, whole)?, &prompt.problem.answer);
                let reached = grade.correct;
                response.undecided = grade.undecided;
                response.extracted = grade.extracted;
                response.correct = reached && (self.truncated == Truncated::Grade || !response.truncated);
                let tokens = match self.length {
                    LengthOf::Response => response.tokens(),
                    LengthOf::PromptAndResponse => response.sequence.ids.len(),
                };
                outcomes.push(Outcome { correct: reached, truncated: response.truncated, tokens });
            }
            let group_rewards = self.objective.rewards(&outcomes);
            for (response, &reward) in group.iter_mut().zip(&group_rewards) {
                response.reward = reward;
            }
            rewards.push(group_rewards);
        }
        Ok(rewards)
    }

    /// Log-probabilities of every response under the policy and the reference; returns the policy's mean entropy.
    ///
    /// The loss takes these and not the sampler's own: those of the update's forward pass are the same numbers to the bit at
    /// the first update, so that its probability ratios are exactly 1. The sampler's are compared with them, and weigh
    /// tokens where `algorithm.truncated_is` says so.
    fn score(&mut self, policy: &Model, responses: &mut [Response], observer: &mut dyn Observer) -> Result<f64> {
        let (mut entropy, mut tokens) = (0.0, 0);
        let temperature = self.rollout.temperature;
        let mut from = 0;
        while from < responses.len() {
            if observer.should_stop() {
                return Err(Error::Interrupted);
            }
            let rest = &responses[from..];
            let size = |response: &Response| response.sequence.ids.len();
            let (count, old, reference) = shrinking(
                "`optimizer.microbatch_tokens`",
                &mut self.microbatch_tokens,
                size(&rest[0]),
                |limit| {
                    let micro = micro_batches(rest, limit, size).next().unwrap_or_default();
                    let sequences: Vec<&Sequence> = micro.iter().map(|response| &response.sequence).collect();
                    let old = policy.score(&sequences, temperature)?;
                    let reference = self.reference.as_ref().map(|model| model.score(&sequences, temperature));
                    Ok((micro.len(), old, reference.transpose()?))
                },
                |warning| observer.on_warning(warning),
            )?;
            entropy += old.entropy;
            tokens += old.logprobs.len();
            let mut at = 0;
            for response in &mut responses[from..from + count] {
                let range = at..at + response.tokens();
                at = range.end;
                response.old_logprobs = old.logprobs[range.clone()].to_vec();
                response.reference_logprobs = reference.as_ref().map(|scores| scores.logprobs[range].to_vec());
            }
            from += count;
        }
        Ok(entropy / tokens.max(1) as f64)
    }
}

#[cfg(test)]
mod tests;
