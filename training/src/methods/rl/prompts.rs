//! Which problems a step asks, and how they are put to the model.

use std::sync::Arc;

use rand::SeedableRng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::recipe::{DataSection, DataSource, Recipe};
use crate::tasks::Problem;
use crate::tasks::chat::Message;
use crate::tasks::mini::{Level, MiniProblem, Split};
use crate::tasks::readers::{Columns, read_problems};
use crate::text::Codec;
use crate::{Error, Result};

/// Streams of random numbers from here down belong to the order of a data set, one for each pass over it.
const ORDER_STREAM: u64 = u64::MAX;

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
    seed: u64,
    source: Source,
}

enum Source {
    /// Drawn anew for every step.
    Mini { levels: Vec<(Level, f64)> },
    /// Each once per pass, in an order of the pass's own.
    File { problems: Vec<Problem> },
}

impl<'a> Prompts<'a> {
    pub(super) fn from_recipe(recipe: &Recipe, codec: &'a Codec) -> Result<Self> {
        let data = recipe.data.clone();
        let source = match data.source {
            DataSource::Mini => {
                let levels = data.levels.iter().map(|(name, &weight)| Ok((name.parse()?, weight)));
                Source::Mini { levels: levels.collect::<Result<_>>()? }
            }
            DataSource::File => Source::File { problems: read(&data)? },
        };
        Ok(Self {
            codec,
            data,
            per_step: recipe.rollout.prompts_per_step,
            max_prompt_tokens: recipe.rollout.max_prompt_tokens,
            seed: recipe.seed,
            source,
        })
    }

    /// The prompts of the step after `done` steps; `rng` is that step's own.
    pub(super) fn step(&self, done: u64, rng: &mut ChaCha8Rng) -> Result<Vec<Prompt>> {
        let problems: Vec<Problem> = match &self.source {
            Source::Mini { levels } => {
                let weights = WeightedIndex::new(levels.iter().map(|(_, weight)| weight))
                    .map_err(|error| Error::config(format!("`data.levels`: {error}")))?;
                let draw = |rng: &mut ChaCha8Rng| {
                    MiniProblem::draw(levels[weights.sample(rng)].0, Split::Train, rng).to_problem()
                };
                (0..self.per_step).map(|_| draw(rng)).collect()
            }
            Source::File { problems } => {
                let first = done as usize * self.per_step;
                (first..first + self.per_step).map(|position| self.at(problems, position)).collect()
            }
        };
        problems.into_iter().map(|problem| self.prompt(problem)).collect()
    }

    /// The problem at a position of the endless sequence of shuffled passes.
    fn at(&self, problems: &[Problem], position: usize) -> Problem {
        let (pass, index) = (position / problems.len(), position % problems.len());
        let mut order: Vec<usize> = (0..problems.len()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(ORDER_STREAM - pass as u64);
        order.shuffle(&mut rng);
        problems[order[index]].clone()
    }

    fn prompt(&self, problem: Problem) -> Result<Prompt> {
        let question = self.data.prompt_template.replace("{question}", &problem.question);
        let ids = if self.data.chat_template {
            let mut messages: Vec<Message> = self.data.system.iter().map(Message::system).collect();
            messages.push(Message::user(question));
            self.codec.prompt(&messages, None)?
        } else {
            self.codec.encode(&question)?
        };
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
