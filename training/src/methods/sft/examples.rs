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
use crate::tasks::mini::{self, Level, MiniProblem, Split, TraceStyle};
use crate::tasks::readers::{Pair, read_pairs};
use crate::text::Codec;
use crate::thoughts::Thoughts;
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
    /// The source that the recipe names, with what [`tokenize`] made of a file, for a model and its tokenizer.
    pub(super) fn new(recipe: &Recipe, sequences: Vec<Sequence>, codec: &'a Codec, model: &Pretrained) -> Result<Self> {
        let end = end_of_sequence(model)?;
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

/// The prompts and responses of the recipe's file, and a sentence about those that `data.limit` leaves out; none where
/// examples are generated. Needs no model, so that a mistake in the data is found before anything is made.
pub(super) fn read(data: &DataSection) -> Result<(Vec<Pair>, Option<String>)> {
    if data.source == DataSource::Mini {
        return Ok((Vec::new(), None));
    }
    let (Some(path), Some(prompt), Some(response)) = (data.file(), &data.prompt_column, &data.response_column) else {
        return Err(Error::config(
            "supervised learning from a file needs `data.path`, `data.prompt_column` and `data.response_column`",
        ));
    };
    let mut pairs = read_pairs(path, prompt, response)?;
    let (all, limit) = (pairs.len(), data.limit);
    let warning = || format!("using {limit} of the {all} pairs in `{}`; raise `data.limit` for more", path.display());
    let warning = (all > limit).then(warning);
    pairs.truncate(limit);
    Ok((pairs, warning))
}

/// What [`read`] found as tokens, for a model and its tokenizer.
pub(super) fn tokenize(recipe: &Recipe, pairs: &[Pair], codec: &Codec, model: &Pretrained) -> Result<Vec<Sequence>> {
    let (end, context) = (end_of_sequence(model)?, model.config.max_position_embeddings);
    let sequence = |(row, pair)| sequence(&recipe.data, codec, end, context, row, pair);
    pairs.iter().enumerate().map(sequence).collect()
}

fn end_of_sequence(model: &Pretrained) -> Result<u32> {
    model.tokens.eos.first().copied().ok_or_else(|| Error::config("the model has no end-of-sequence token"))
}

fn sequence(data: &DataSection, codec: &Codec, end: u32, context: usize, row: usize, pair: &Pair) -> Result<Sequence> {
    let prompt = prompt_ids(data, codec, &pair.prompt)?;
    // Templates of reasoning models open the thoughts themselves, often with a line break; a response that opens them too
    // would do it twice.
    let opened = Thoughts::of(codec).left_open(&prompt).map(|behind| codec.decode(behind)).transpose()?;
    let response = match (opened, pair.response.trim_start().strip_prefix(Thoughts::OPEN)) {
        (Some(behind), Some(rest)) => rest.strip_prefix(&behind).unwrap_or(rest),
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

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::{Architecture, ModelConfig, SpecialTokens};
    use crate::tasks::mini::tokenizer;

    const RECIPE: &str = "
name = 'pairs'
stage = 'sft'
base = 'b'
[data]
prompt_column = 'ask'
response_column = 'say'
";

    /// The mini suite's tokenizer and a model with so much context.
    fn model(context: usize) -> (tempfile::TempDir, Codec, Pretrained) {
        let folder = tempfile::tempdir().unwrap();
        tokenizer::write(folder.path(), 0).unwrap();
        let codec = Codec::from_folder(folder.path()).unwrap();
        let config = ModelConfig {
            architecture: Architecture::Qwen2,
            vocab_size: tokenizer::VOCABULARY_SIZE,
            hidden_size: 4,
            intermediate_size: 4,
            num_hidden_layers: 1,
            num_attention_heads: 1,
            num_key_value_heads: 1,
            head_dim: 4,
            max_position_embeddings: context,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: true,
        };
        let end = codec.token_id(tokenizer::TURN_END).unwrap();
        let tokens = SpecialTokens { bos: None, eos: vec![end], pad: None };
        let model = Pretrained::random(config, tokens, &mut ChaCha8Rng::seed_from_u64(0), &Device::Cpu).unwrap();
        (folder, codec, model)
    }

    /// The recipe for a file of these pairs.
    fn recipe(folder: &std::path::Path, pairs: &[(&str, &str)], set: &[(&str, &str)]) -> Recipe {
        let line = |(ask, say): &(&str, &str)| serde_json::json!({"ask": ask, "say": say}).to_string() + "\n";
        let path = folder.join("pairs.jsonl");
        std::fs::write(&path, pairs.iter().map(line).collect::<String>()).unwrap();
        let mut overrides = vec![("data.path".to_owned(), format!("{path:?}"))];
        overrides.extend(set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        Recipe::parse(RECIPE, &overrides).unwrap()
    }

    /// What is learnt of each pair, as text.
    fn learnt(recipe: &Recipe, codec: &Codec, model: &Pretrained) -> Result<Vec<String>> {
        let (pairs, _) = read(&recipe.data)?;
        let text = |sequence: &Sequence| {
            let first = sequence.targets[0];
            assert_eq!(sequence.targets, (first..sequence.ids.len()).collect::<Vec<_>>(), "the response and no more");
            assert_eq!(sequence.ids.last(), model.tokens.eos.first(), "and its end");
            codec.decode(&sequence.ids[first..])
        };
        tokenize(recipe, &pairs, codec, model)?.iter().map(text).collect()
    }

    #[test]
    fn a_response_that_opens_its_thoughts_again_is_learnt_without() {
        let (folder, codec, model) = model(512);
        let pairs = [("1 + 1", "<think>\nEasy.\n</think>\n2"), ("2 + 2", "\nEasy.\n</think>\n4")];
        let opened = |template: &str| {
            let set = [("data.chat_template", "false"), ("data.prompt_template", template)];
            learnt(&recipe(folder.path(), &pairs, &set), &codec, &model).unwrap()
        };
        let closed = opened("'{question} = '");
        let open = opened("'{question} = <think>'");
        assert_eq!(open[0].matches("<think>").count(), 0, "{open:?}");
        assert!(closed[0].len() > open[0].len() && closed[1] == open[1], "{closed:?} {open:?}");
        let thoughts = |text: &str| text.trim_start().starts_with("Easy.");
        assert!(open.iter().all(|text| thoughts(text)), "{open:?}");
        // As DeepSeek's template ends: the line break is the prompt's.
        let broken = opened(r#""{question} = <think>\n""#);
        assert!(broken[0].starts_with("Easy.") && broken[0].matches("<think>").count() == 0, "{broken:?}");
    }

    #[test]
    fn an_example_that_fills_the_context_is_named() {
        let (folder, codec, model) = model(16);
        let long = "1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 = 10";
        let set = [("data.chat_template", "false")];
        let recipe = recipe(folder.path(), &[("1 + 1", "2"), ("Sum.", long)], &set);
        let message = learnt(&recipe, &codec, &model).unwrap_err().to_string();
        assert!(
            message.starts_with("example 2 has ") && message.ends_with("the model's context holds 16"),
            "{message}"
        );
    }

    #[test]
    fn the_limit_is_said() {
        let (folder, codec, model) = model(512);
        let pairs = [("1", "1"), ("2", "2"), ("3", "3")];
        let all = recipe(folder.path(), &pairs, &[("data.limit", "3")]);
        assert_eq!(read(&all.data).unwrap().1, None);
        assert_eq!(learnt(&all, &codec, &model).unwrap().len(), 3);
        let two = recipe(folder.path(), &pairs, &[("data.limit", "2")]);
        let (kept, warning) = read(&two.data).unwrap();
        assert_eq!(kept.len(), 2);
        let warning = warning.unwrap();
        assert!(warning.starts_with("using 2 of the 3 pairs in `") && warning.contains("data.limit"), "{warning}");
    }
}
