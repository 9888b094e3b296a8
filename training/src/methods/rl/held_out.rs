//! How the policy does on problems that it is not trained on, every so many steps.
//!
//! A step's own accuracy is of other problems every time, so that a change of a few points does not show in it. These are
//! the same problems under the same random numbers each time, and the numbers say which step's tier is the best. Nothing
//! is learned here, and no number of the training depends on it.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::passes::Passes;
use super::experience::{Asked, Collector};
use super::prompts::Prompt;
use crate::Result;
use crate::model::Policy;
use crate::recipe::Recipe;
use crate::rollout::SamplingParams;
use crate::trainer::{HeldOutLog, HeldOutMetrics, Observer, RunFolder};

/// The stream of random numbers that draws them; steps count up from 1, passes over the data down from the greatest.
const STREAM: u64 = u64::MAX / 2;

/// Problems that are held out, and when they are asked.
pub(super) struct HeldOut {
    prompts: Vec<Prompt>,
    every: u64,
    steps: u64,
    seed: u64,
    samples: usize,
    params: SamplingParams,
    log: HeldOutLog,
}

impl HeldOut {
    /// Those of `recipe` in the run folder `run`, whose checkpoint is of step `done`; `None` where it asks for none.
    pub(super) fn new(recipe: &Recipe, prompts: Vec<Prompt>, run: &RunFolder, done: u64) -> Result<Option<Self>> {
        let Some(every) = recipe.run.eval_every.filter(|_| !prompts.is_empty()) else { return Ok(None) };
        let (eval, rollout) = (&recipe.eval, &recipe.rollout);
        let params = SamplingParams {
            temperature: eval.temperature.unwrap_or(rollout.temperature),
            top_p: eval.top_p.unwrap_or(1.0),
            top_k: eval.top_k.filter(|&k| k > 0),
            min_p: eval.min_p.unwrap_or(0.0),
            max_new_tokens: rollout.max_new_tokens,
        };
        Ok(Some(Self {
            prompts,
            every: every as u64,
            steps: recipe.run.steps as u64,
            seed: recipe.seed,
            samples: eval.samples.unwrap_or(1),
            params,
            log: HeldOutLog::resume(run, done)?,
        }))
    }

    /// Asks them after `done` steps where it is time to, before the first and after the last among others, unless the run did
    /// so before it was interrupted.
    pub(super) fn after(
        &mut self,
        done: u64,
        collector: &mut Collector<'_>,
        policy: &Policy,
        passes: &Passes,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let is_time = done.is_multiple_of(self.every) || done == self.steps;
        if !is_time || self.log.has(done) {
            return Ok(());
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(STREAM);
        let seeds: Vec<u64> = (0..self.prompts.len() * self.samples).map(|_| rng.random()).collect();
        let found = collector.ask(policy, passes, &self.prompts, &seeds, &self.params, observer)?;
        let mean =
            |value: fn(&Asked) -> usize| found.iter().map(value).sum::<usize>() as f64 / found.len().max(1) as f64;
        let metrics = HeldOutMetrics {
            step: done,
            responses: found.len(),
            accuracy: mean(|asked| usize::from(asked.correct)),
            mean_length: mean(|asked| asked.tokens),
            clipped_ratio: mean(|asked| usize::from(asked.truncated)),
        };
        self.log.append(&metrics)?;
        observer.on_held_out(&metrics);
        Ok(())
    }
}
