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
    /// The source that the recipe names, with what [`read`] found, for a model and its tokenizer.
    pub(super) fn new(recipe: &Recipe, pairs: &[Pair], codec: &'a Codec, model: &Pretrained) -> Result<Self> {
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
                let context = model.config.max_position_embeddings;
                let sequence = |(row, pair)| sequence(&recipe.data, codec, end, context, row, pair);
                let sequences = pairs.iter().enumerate().map(sequence).collect::<Result<Vec<_>>>()?;
                let order = ShuffledPasses::new(recipe.seed, sequences.len());
                Ok(Self::File { sequences, order })
            }
        }
    }

    /// The batch of one update, at least `tokens` tokens; `share` is how much of the run has passed, `cursor` the
    /// position in the data, which moves on.
    pub(super) fn batch(&mut self, update: u64, share: f64, tokens: usize, cursor: &mut u64) -> Result<Vec<Sequence>> {
        match self {
            Self::Mini(generator) => {
                // A stream of random numbers for every update: what is generated for it depends on its number alone.
                let mut rng = generator.rng(update);
                fill(tokens, cursor, |_| generator.sequence(share, &mut rng))
            }
            Self::File { sequences, order } => fill(tokens, cursor, |row| Ok(sequences[order.row(row)].clone())),
        }
    }
}

/// A batch of at least `tokens` tokens; `next` gives the sequence at a position of the data, where `cursor` stands.
fn fill(tokens: usize, cursor: &mut u64, mut next: impl FnMut(u64) -> Result<Sequence>) -> Result<Vec<Sequence>> {
    let mut batch = Vec::new();
    let mut size = 0;
    while size < tokens {
        let sequence = next(*cursor)?;
        *cursor += 1;
        size += sequence.ids.len();
        batch.push(sequence);
    }
    Ok(batch)
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
        let drill = mini::drill(rng, lines);
        let mut sequence = Sequence { ids: vec![self.pad], targets: Vec::new() };
        for (id, bytes) in self.codec.encode_with_offsets(&drill.text)? {
            // Tokens may begin before the learnt part: a minus sign is one token with the `=` before it.
            let learnt = drill.learnt.iter().any(|learnt| bytes.start < learnt.end && learnt.start < bytes.end);
            if learnt {
                sequence.targets.push(sequence.ids.len());
            }
            sequence.ids.push(id);
        }
        Ok(sequence)
    }

    fn trace(&self, rng: &mut ChaCha8Rng) -> Result<Sequence> {
        let weights = WeightedIndex::new(self.levels.iter().map(|(_, weight)| weight))
            .map_err(|error| Error::config(format!("`data.levels`: {error}")))?;
        let problem = MiniProblem::draw(self.levels[weights.sample(rng)].0, Split::Train, rng);
        let trace = mini::example(&problem, &self.style, rng);
        let mut messages: Vec<Message> = mini::system_prompt(rng).map(Message::system).into_iter().collect();
        messages.push(Message::user(problem.question()));
        let prompt = self.codec.prompt(&messages, None)?;
        let mut response = self.codec.encode(&trace.text)?;
        response.push(self.end);
        Ok(Sequence::response(&prompt, &response))
    }
}

/// The prompts and responses of the recipe's file; none where examples are generated. Needs no model, so that a mistake
/// in the data is found before anything is made.
pub(super) fn read(data: &DataSection) -> Result<Vec<Pair>> {
    if data.source == DataSource::Mini {
        return Ok(Vec::new());
    }
    let (Some(path), Some(prompt), Some(response)) = (&data.path, &data.prompt_column, &data.response_column) else {
        return Err(Error::config(
            "supervised learning from a file needs `data.path`, `data.prompt_column` and `data.response_column`",
        ));
    };
    let mut pairs = read_pairs(path, prompt, response)?;
    pairs.truncate(data.limit);
    Ok(pairs)
}

fn sequence(data: &DataSection, codec: &Codec, end: u32, context: usize, row: usize, pair: &Pair) -> Result<Sequence> {
    let prompt = prompt_ids(data, codec, &pair.prompt)?;
    // Templates of reasoning models open the thoughts themselves; a response that opens them too would do it twice.
    let opened = prompt.last().is_some_and(|&last| codec.token_id(tokenizer::THINK) == Some(last));
    let response = match pair.response.trim_start().strip_prefix(tokenizer::THINK) {
        Some(rest) if opened => rest,
        _ => &pair.response,
    };
    let mut ids = codec.encode(response)?;
    ids.push(end);
    let length = prompt.len() + ids.len();
    if length > context {
        let row = row + 1;
        return Err(Error::config(format!("example {row} has {length} tokens, the model's context holds {context}")));
    }
    Ok(Sequence::response(&prompt, &ids))
}
