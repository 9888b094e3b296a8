//! Where supervised examples come from: the mini suite's generator, or a file of prompts and responses.

use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::order::ShuffledPasses;
use super::super::prompt::prompt_ids;
use super::super::sequence::Sequence;
use crate::model::Pretrained;
use crate::recipe::{DataSection, DataSource, Recipe, SftSection};
use crate::tasks::chat::Message;
use crate::tasks::mini::{self, Level, MiniProblem, Split, TraceStyle, tokenizer};
use crate::tasks::readers::{Pair, read_pairs};
use crate::text::Codec;
use crate::{Error, Result};

/// Lines in a drill of plain facts.
const DRILL_LINES: std::ops::RangeInclusive<usize> = 12..=24;

/// A source of batches.
pub(super) enum Examples<'a> {
    /// Made up as they are needed.
    Mini(Box<Generator<'a>>),
    /// Read once, then seen pass after pass.
    File { sequences: Vec<Sequence>, order: ShuffledPasses },
}

impl<'a> Examples<'a> {
    /// The source that the recipe names, for a model and its tokenizer.
    pub(super) fn from_recipe(recipe: &Recipe, codec: &'a Codec, model: &Pretrained) -> Result<Self> {
        let [end, ..] = model.tokens.eos[..] else {
            return Err(Error::config("the model has no end-of-sequence token"));
        };
        match recipe.data.source {
            DataSource::Mini => {
                let levels = recipe.data.levels.iter().map(|(name, &weight)| Ok((name.parse()?, weight)));
                Ok(Self::Mini(Box::new(Generator {
                    codec,
                    end,
                    pad: model.tokens.pad.unwrap_or(end),
                    seed: recipe.seed,
                    sft: recipe.sft.clone(),
                    levels: levels.collect::<Result<_>>()?,
                    style: TraceStyle { direct: recipe.sft.no_thinking_share, ..TraceStyle::default() },
                })))
            }
            DataSource::File => {
                let sequences = read(&recipe.data, codec, end, model.config.max_position_embeddings)?;
                let order = ShuffledPasses::new(recipe.seed, sequences.len());
                Ok(Self::File { sequences, order })
            }
        }
    }

    /// The batch of one update, at least `tokens` tokens; `share` is how much of the run has passed, `cursor` the
    /// position in the data, which moves on.
    pub(super) fn batch(&mut self, update: u64, share: f64, tokens: usize, cursor: &mut u64) -> Result<Vec<Sequence>> {
        // A stream of random numbers for every update: what is generated for it depends on its number alone.
        let mut rng = match self {
            Self::Mini(generator) => generator.rng(update),
            Self::File { .. } => ChaCha8Rng::seed_from_u64(0),
        };
        let mut batch = Vec::new();
        let mut size = 0;
        while size < tokens {
            let sequence = match self {
                Self::Mini(generator) => generator.sequence(share, &mut rng)?,
                Self::File { sequences, order } => sequences[order.row(*cursor)].clone(),
            };
            *cursor += 1;
            size += sequence.ids.len();
            batch.push(sequence);
        }
        Ok(batch)
    }
}

/// Drills and over-thinking traces of the mini suite.
pub(super) struct Generator<'a> {
    codec: &'a Codec,
    end: u32,
    pad: u32,
    seed: u64,
    sft: SftSection,
    levels: Vec<(Level, f64)>,
    style: TraceStyle,
}

impl Generator<'_> {
    fn rng(&self, update: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(update + 1);
        rng
    }

    fn sequence(&self, share: f64, rng: &mut ChaCha8Rng) -> Result<Sequence> {
        let drills = self.sft.drill_share[usize::from(share >= self.sft.drill_switch)];
        if rng.random::<f64>() < drills { self.drill(rng) } else { self.trace(rng) }
    }

    fn drill(&self, rng: &mut ChaCha8Rng) -> Result<Sequence> {
        let lines = rng.random_range(DRILL_LINES);
        let mut ids = vec![self.pad];
        ids.extend(self.codec.encode(&mini::drill(rng, lines))?);
        ids.push(self.pad);
        Ok(Sequence { ids, first_target: 1 })
    }

    fn trace(&self, rng: &mut ChaCha8Rng) -> Result<Sequence> {
        let weights = WeightedIndex::new(self.levels.iter().map(|(_, weight)| weight))
            .map_err(|error| Error::config(format!("`data.levels`: {error}")))?;
        let problem = MiniProblem::draw(self.levels[weights.sample(rng)].0, Split::Train, rng);
        let trace = mini::example(&problem, &self.style, rng);
        let mut messages: Vec<Message> = mini::system_prompt(rng).map(Message::system).into_iter().collect();
        messages.push(Message::user(problem.question()));
        let mut ids = self.codec.prompt(&messages, None)?;
        let first_target = ids.len();
        ids.extend(self.codec.encode(&trace.text)?);
        ids.push(self.end);
        Ok(Sequence { ids, first_target })
    }
}

fn read(data: &DataSection, codec: &Codec, end: u32, context: usize) -> Result<Vec<Sequence>> {
    let Some(path) = &data.path else {
        return Err(Error::config("`data.source` is \"file\", so `data.path` has to name one"));
    };
    let (prompt, response) = match (&data.prompt_column, &data.response_column) {
        (Some(prompt), Some(response)) => (prompt, response),
        _ => {
            return Err(Error::config(
                "supervised learning from a file needs `data.prompt_column` and `data.response_column`",
            ));
        }
    };
    let pairs = read_pairs(path, prompt, response)?;
    let sequences = pairs.iter().enumerate().map(|(index, pair)| {
        let sequence = sequence(data, codec, end, pair)?;
        if sequence.ids.len() > context {
            let length = sequence.ids.len();
            let message = format!("row {} has {length} tokens, the model's context holds {context}", index + 1);
            return Err(Error::format(path, message));
        }
        Ok(sequence)
    });
    sequences.take(data.limit).collect()
}

fn sequence(data: &DataSection, codec: &Codec, end: u32, pair: &Pair) -> Result<Sequence> {
    let mut ids = prompt_ids(data, codec, &pair.prompt)?;
    let first_target = ids.len();
    // Templates of reasoning models open the thoughts themselves; a response that opens them too would do it twice.
    let opened = ids.last().is_some_and(|&last| codec.token_id(tokenizer::THINK) == Some(last));
    let response = match pair.response.trim_start().strip_prefix(tokenizer::THINK) {
        Some(rest) if opened => rest,
        _ => &pair.response,
    };
    ids.extend(codec.encode(response)?);
    ids.push(end);
    Ok(Sequence { ids, first_target })
}
