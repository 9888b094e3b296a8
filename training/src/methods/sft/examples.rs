//! Where supervised examples come from: the mini suite's generator, or a file of prompts and responses.

use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::sequence::Sequence;
use crate::model::SpecialTokens;
use crate::recipe::{DataSource, Recipe, SftSection};
use crate::tasks::chat::Message;
use crate::tasks::mini::{self, Level, MiniProblem, Split, TraceStyle};
use crate::text::Codec;
use crate::{Error, Result};

/// Lines in a drill of plain facts.
const DRILL_LINES: std::ops::RangeInclusive<usize> = 12..=24;

/// A source of batches.
pub(super) struct Examples<'a> {
    codec: &'a Codec,
    end: u32,
    pad: u32,
    seed: u64,
    sft: SftSection,
    levels: Vec<(Level, f64)>,
    style: TraceStyle,
}

impl<'a> Examples<'a> {
    pub(super) fn from_recipe(recipe: &Recipe, codec: &'a Codec, tokens: &SpecialTokens) -> Result<Self> {
        if recipe.data.source != DataSource::Mini {
            return Err(Error::config("`data.source` should be \"mini\" here"));
        }
        let [end, ..] = tokens.eos[..] else {
            return Err(Error::config("the model has no end-of-sequence token"));
        };
        let levels = recipe.data.levels.iter().map(|(name, &weight)| Ok((name.parse()?, weight)));
        Ok(Self {
            codec,
            end,
            pad: tokens.pad.unwrap_or(end),
            seed: recipe.seed,
            sft: recipe.sft.clone(),
            levels: levels.collect::<Result<_>>()?,
            style: TraceStyle { direct: recipe.sft.no_thinking_share, ..TraceStyle::default() },
        })
    }

    /// The batch of one update, at least `tokens` tokens; `share` is how much of the run has passed.
    pub(super) fn batch(&mut self, update: u64, share: f64, tokens: usize, _cursor: &mut u64) -> Result<Vec<Sequence>> {
        // A stream of random numbers for every update: a batch depends on its number alone.
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(update + 1);
        let drills = self.sft.drill_share[usize::from(share >= self.sft.drill_switch)];
        let mut batch = Vec::new();
        let mut size = 0;
        while size < tokens {
            let example = if rng.random::<f64>() < drills { self.drill(&mut rng)? } else { self.trace(&mut rng)? };
            size += example.ids.len();
            batch.push(example);
        }
        Ok(batch)
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
