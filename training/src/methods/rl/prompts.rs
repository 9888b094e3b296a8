//! Which problems a step asks, and how they are put to the model.

use std::sync::Arc;

use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand_chacha::ChaCha8Rng;

use super::super::order::ShuffledPasses;
use super::super::prompt::prompt_ids;
use crate::recipe::{DataSection, DataSource, Recipe};
use crate::tasks::Problem;
use crate::tasks::mini::{Level, MiniProblem, Split};
use crate::tasks::readers::{Columns, read_problems};
use crate::text::Codec;
use crate::{Error, Result};

/// A problem and its prompt's token ids.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    pub(super) problem: Problem,
    pub(super) ids: Arc<[u32]>,
}

/// The source of a run's prompts.
pub(super) struct Prompts<'a> {
    codec: &'a Codec,
    data: DataSection,
    per_step: usize,
    max_prompt_tokens: usize,
    source: Source,
}

enum Source {
    /// Drawn anew for every step.
    Mini { levels: Vec<(Level, f64)> },
    /// Each once per pass, in an order of the pass's own.
    File { problems: Vec<Problem>, order: ShuffledPasses },
}

impl<'a> Prompts<'a> {
    pub(super) fn from_recipe(recipe: &Recipe, codec: &'a Codec) -> Result<Self> {
        let data = recipe.data.clone();
        let source = match data.source {
            DataSource::Mini => {
                let levels = data.levels.iter().map(|(name, &weight)| Ok((name.parse()?, weight)));
                Source::Mini { levels: levels.collect::<Result<_>>()? }
            }
            DataSource::File => {
                let problems = read(&data)?;
                Source::File { order: ShuffledPasses::new(recipe.seed, problems.len()), problems }
            }
        };
        Ok(Self {
            codec,
            data,
            per_step: recipe.rollout.prompts_per_step,
            max_prompt_tokens: recipe.rollout.max_prompt_tokens,
            source,
        })
    }

    /// The prompts of the step after `done` steps; `rng` is that step's own.
    pub(super) fn step(&mut self, done: u64, rng: &mut ChaCha8Rng) -> Result<Vec<Prompt>> {
        let problems: Vec<Problem> = match &mut self.source {
            Source::Mini { levels } => {
                let weights = WeightedIndex::new(levels.iter().map(|(_, weight)| weight))
                    .map_err(|error| Error::config(format!("`data.levels`: {error}")))?;
                let draw = |rng: &mut ChaCha8Rng| {
                    MiniProblem::draw(levels[weights.sample(rng)].0, Split::Train, rng).to_problem()
                };
                (0..self.per_step).map(|_| draw(rng)).collect()
            }
            Source::File { problems, order } => {
                let first = done * self.per_step as u64;
                (first..first + self.per_step as u64).map(|position| problems[order.row(position)].clone()).collect()
            }
        };
        problems.into_iter().map(|problem| self.prompt(problem)).collect()
    }

    fn prompt(&self, problem: Problem) -> Result<Prompt> {
        let ids = prompt_ids(&self.data, self.codec, &problem.question)?;
        if ids.len() > self.max_prompt_tokens {
            return Err(Error::config(format!(
                "the prompt of problem `{}` has {} tokens, more than `rollout.max_prompt_tokens` = {}",
                problem.id,
                ids.len(),
                self.max_prompt_tokens
            )));
        }
        Ok(Prompt { problem, ids: ids.into() })
    }
}

fn read(data: &DataSection) -> Result<Vec<Problem>> {
    let Some(path) = &data.path else {
        return Err(Error::config("`data.source` is \"file\", so `data.path` has to name one"));
    };
    let mut columns = Columns::new(&data.question_column, &data.answer_column);
    columns.level = data.level_column.clone().map(|name| vec![name]);
    columns.id = data.id_column.clone().map(|name| vec![name]);
    read_problems(path, &columns, Some(data.limit))
}
