//! From logits to a token id: one sampler a sequence, with its own seeded generator.
//!
//! The order is: penalties of generated tokens, `logit_bias`, grammar, temperature, `top_k`, `min_p`, `top_p`, draw.
//! Forced tokens (a spent thinking budget) come before all of it. Nothing here panics on any logits.

use std::collections::HashMap;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::constraint::Grammar;
use super::draw::Draw;
use super::thinking::{Beginning, Budget, Phase, Split, Splitter};
use super::vocabulary::Vocabulary;
use crate::engine::{EngineError, Sampling};

/// The log-probability of what has none: OpenAI's stand-in for an impossible token, since JSON has no infinity.
const IMPOSSIBLE: f32 = -9999.0;

/// A token that was chosen for a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Its id.
    pub id: u32,
    /// Natural logarithm of its probability under the raw logits, where log-probabilities were asked for; −9999 for a
    /// token that the logits rule out.
    pub logprob: Option<f32>,
    /// The most likely tokens at this place under the raw logits, most likely first, as many as were asked for.
    pub top: Vec<(u32, f32)>,
    /// Whether a spent thinking budget left no choice.
    pub forced: bool,
}

/// Chooses the tokens of one sequence. [`TokenSampler::choose`] is called exactly once per token.
#[derive(Debug)]
pub struct TokenSampler {
    vocabulary: Arc<Vocabulary>,
    sampling: Sampling,
    random: ChaCha8Rng,
    /// Occurrences of generated tokens; empty without penalties.
    counts: HashMap<u32, u32>,
    splitter: Splitter,
    split: Split,
    budget: Budget,
    grammar: Option<Grammar>,
    /// Whether the turn must not end yet, because an answer was promised and has nothing that a reader sees.
    owes_answer: bool,
    /// Alternatives wanted with each token.
    logprobs: Option<usize>,
    failure: Option<EngineError>,
    finished: bool,
    draw: Draw,
}

/// What a sampler is made of.
pub(super) struct SamplerParts {
    pub vocabulary: Arc<Vocabulary>,
    pub sampling: Sampling,
    pub beginning: Beginning,
    pub budget: Budget,
    pub grammar: Option<Grammar>,
    /// Whether the turn must not end before the answer has something that a reader sees.
    pub owes_answer: bool,
    pub logprobs: Option<usize>,
}

impl TokenSampler {
    pub(super) fn new(parts: SamplerParts) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(parts.sampling.seed),
            splitter: Splitter::new(Arc::clone(&parts.vocabulary), parts.beginning),
            vocabulary: parts.vocabulary,
            sampling: parts.sampling,
            counts: HashMap::new(),
            split: Split::default(),
            budget: parts.budget,
            grammar: parts.grammar,
            owes_answer: parts.owes_answer,
            logprobs: parts.logprobs,
            failure: None,
            finished: false,
            draw: Draw::default(),
        }
    }

    /// The next token, given the model's logits over its whole embedding table.
    ///
    /// Rows beyond the vocabulary are left out and `NaN` counts as −∞. When no token is left the answer is the token that
    /// ends the turn, and [`TokenSampler::failure`] says why. After the end it keeps answering with that token.
    pub fn choose(&mut self, logits: &[f32]) -> Chosen {
        let end = self.vocabulary.ends()[0];
        if self.finished {
            return Chosen { id: end, logprob: None, top: Vec::new(), forced: false };
        }
        self.draw.load(logits, self.vocabulary.size(), self.vocabulary.holes());
        let (total, top) = match self.logprobs {
            Some(wanted) => (Some(self.draw.log_total()), self.draw.most_likely(wanted)),
            None => (None, Vec::new()),
        };
        let phase = self.splitter.phase();
        let forced = self.budget.forced(phase);
        let id = match forced {
            Some(id) => id,
            None => self.draw_one(phase).unwrap_or(end),
        };
        let logit = logits.get(id as usize).copied().unwrap_or(f32::NAN);
        self.commit(id, phase, forced.is_some());
        let logprob = |logit: f32, total: f64| {
            let value = (f64::from(logit) - total) as f32;
            if value.is_finite() {
                value.min(0.0)
            } else if logit == f32::INFINITY {
                0.0
            } else {
                IMPOSSIBLE
            }
        };
        Chosen {
            id,
            logprob: total.map(|total| logprob(logit, total)),
            top: top.into_iter().map(|(id, logit)| (id, logprob(logit, total.unwrap_or(0.0)))).collect(),
            forced: forced.is_some(),
        }
    }

    /// Why no token could be chosen, if that happened; the sequence is over then.
    pub fn failure(&self) -> Option<EngineError> {
        self.failure.clone()
    }

    fn draw_one(&mut self, phase: Phase) -> Option<u32> {
        if !self.draw.any() {
            return self.fail("the model's logits are not numbers; its weights or its arithmetic are broken");
        }
        for (&id, &count) in &self.counts {
            let penalty = self.sampling.frequency_penalty * f64::from(count) + self.sampling.presence_penalty;
            self.draw.add(id, -penalty as f32);
        }
        for (&id, &bias) in &self.sampling.logit_bias {
            self.draw.add(id, bias);
        }
        if !self.splitter.may_open() {
            self.vocabulary.open.into_iter().for_each(|id| self.draw.forbid(id));
        }
        // With a grammar, an end inside the thoughts would be an end without the answer that it promises.
        if self.owes_answer || (self.grammar.is_some() && phase == Phase::Thinking) {
            self.vocabulary.ends().iter().for_each(|&id| self.draw.forbid(id));
        }
        if let Some(grammar) = &mut self.grammar
            && phase != Phase::Thinking
        {
            let opening = if phase == Phase::Opening { self.vocabulary.open } else { None };
            match grammar.mask() {
                Ok(mask) => self.draw.keep(&mask, opening),
                Err(error) => return self.end(error),
            }
        }
        if !self.draw.any() {
            return self.fail("every token is ruled out, by the grammar of the answer or because it may not end yet");
        }
        let sampling = &self.sampling;
        if sampling.temperature <= 0.0 {
            return self.draw.most_likely(1).first().map(|&(id, _)| id);
        }
        let draw = self.random.random::<f64>();
        self.draw.draw(sampling.temperature, sampling.top_k, sampling.min_p, sampling.top_p, draw)
    }

    fn commit(&mut self, id: u32, phase: Phase, forced: bool) {
        if self.sampling.frequency_penalty != 0.0 || self.sampling.presence_penalty != 0.0 {
            *self.counts.entry(id).or_default() += 1;
        }
        self.splitter.push(id, &mut self.split);
        // Up to the blank are whitespace and controls, of which a reader sees nothing.
        self.owes_answer &= self.split.answer.iter().all(|&byte| byte <= b' ');
        self.budget.count(phase, forced);
        let thought = phase == Phase::Thinking || (phase == Phase::Opening && self.split.mark);
        if !thought && self.failure.is_none() {
            let committed = self.grammar.as_mut().map_or(Ok(()), |grammar| grammar.commit(id));
            if let Err(error) = committed {
                let _ = self.end(error);
            }
        }
        self.finished |= self.failure.is_some() || (self.vocabulary.is_end(id) && !self.sampling.ignore_eos);
    }

    fn fail(&mut self, reason: &str) -> Option<u32> {
        self.end(EngineError::failed(reason))
    }

    fn end(&mut self, error: EngineError) -> Option<u32> {
        self.failure.get_or_insert(error);
        None
    }
}
