//! A response while it is being sampled, and what every sampler asks of its requests.

use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::draw::Drawn;
use super::{FinishReason, Rollout, RolloutRequest, SamplingParams};
use crate::model::ModelConfig;
use crate::{Error, Result};

/// A response so far.
pub(super) struct Response {
    /// Index of its request.
    pub(super) request: usize,
    pub(super) prompt: Arc<[u32]>,
    /// Its own random numbers.
    pub(super) rng: ChaCha8Rng,
    limit: usize,
    ids: Vec<u32>,
    logprobs: Vec<f32>,
    finish: Option<FinishReason>,
}

impl Response {
    /// Nothing yet of the response to a request that [`check`] has passed.
    pub(super) fn new(index: usize, request: &RolloutRequest, params: &SamplingParams, config: &ModelConfig) -> Self {
        Self {
            request: index,
            prompt: request.prompt.clone(),
            rng: ChaCha8Rng::seed_from_u64(request.seed),
            limit: params.max_new_tokens.min(config.max_position_embeddings - request.prompt.len()),
            ids: Vec::new(),
            logprobs: Vec::new(),
            finish: None,
        }
    }

    /// The tokens that the next step adds: the prompt first, then always the last one drawn.
    pub(super) fn pending(&self) -> &[u32] {
        match self.ids.last() {
            Some(last) => std::slice::from_ref(last),
            None => &self.prompt,
        }
    }

    /// All tokens so far; the prompt's own allocation where there is nothing more.
    pub(super) fn tokens(&self) -> Arc<[u32]> {
        match self.ids.as_slice() {
            [] => self.prompt.clone(),
            ids => self.prompt.iter().chain(ids).copied().collect(),
        }
    }

    /// Tokens of prompt and response.
    pub(super) fn length(&self) -> usize {
        self.prompt.len() + self.ids.len()
    }

    /// Notes a token and whether the response has ended with it.
    pub(super) fn push(&mut self, Drawn { id, logprob }: Drawn, end_of_sequence: &[u32]) {
        self.ids.push(id);
        self.logprobs.push(logprob);
        if end_of_sequence.contains(&id) {
            self.finish = Some(FinishReason::Stop);
        } else if self.ids.len() >= self.limit {
            self.finish = Some(FinishReason::Length);
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// What was sampled, once it is finished.
    pub(super) fn into_rollout(self) -> Option<Rollout> {
        Some(Rollout { ids: self.ids, logprobs: self.logprobs, finish: self.finish? })
    }
}

/// Refuses parameters out of range, prompts that are empty or fill the context, and ids outside the vocabulary.
pub(super) fn check(requests: &[RolloutRequest], params: &SamplingParams, config: &ModelConfig) -> Result<()> {
    if !(params.temperature >= 0.0 && params.temperature.is_finite()) {
        return Err(Error::config(format!("temperature {} is not a number of at least 0", params.temperature)));
    }
    if !(params.top_p > 0.0 && params.top_p <= 1.0) {
        return Err(Error::config(format!("top_p {} lies outside (0, 1]", params.top_p)));
    }
    if params.top_k == Some(0) {
        return Err(Error::config("top_k is 0, so nothing could be drawn"));
    }
    if !(0.0..=1.0).contains(&params.min_p) {
        return Err(Error::config(format!("min_p {} lies outside [0, 1]", params.min_p)));
    }
    if params.max_new_tokens == 0 {
        return Err(Error::config("max_new_tokens is 0, so nothing would be sampled"));
    }
    let (context, vocabulary) = (config.max_position_embeddings, config.vocab_size);
    for (index, request) in requests.iter().enumerate() {
        if request.prompt.is_empty() || request.prompt.len() >= context {
            let length = request.prompt.len();
            return Err(Error::config(format!("prompt {index} has {length} tokens; the context holds 1 to {context}")));
        }
        if let Some(id) = request.prompt.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(Error::config(format!("prompt {index} holds token id {id}, outside the vocabulary")));
        }
    }
    Ok(())
}
