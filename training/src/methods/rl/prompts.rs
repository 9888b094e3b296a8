//! Which problems a step asks, and how they are put to the model.

use std::sync::Arc;

use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::order::ShuffledPasses;
use super::super::prompt::prompt_ids;
use crate::recipe::{DataSection, DataSource, Recipe};
use crate::tasks::Problem;
use crate::tasks::grader::Grader;
use crate::tasks::mini::{Level, MiniProblem, Split};
use crate::tasks::readers::{Columns, read_problems};
use crate::text::Codec;
use crate::{Error, Result};

/// The stream of random numbers that chooses what is held out; steps count up from 1, passes over the data down from the
/// greatest.
const HELD_OUT_STREAM: u64 = u64::MAX / 2 + 1;

/// A problem and its prompt's token ids.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    pub(super) problem: Problem,
    pub(super) ids: Arc<[u32]>,
}

/// The source of a run's prompts.
pub(super) struct Prompts<'a> {
    format: Format<'a>,
    per_step: usize,
    source: Source,
    /// Problems of the data set whose prompts are longer than the recipe allows.
    left_out: usize,
    /// Problems whose answers the grader does not read, where these are left out.
    not_read: usize,
    /// Problems of the data set that nobody asked for.
    unused: bool,
    /// Those that are not trained on.
    held_out: Vec<Prompt>,
}

enum Source {
    /// Drawn anew for every step.
    Mini { levels: Vec<(Level, f64)> },
    /// Each once per pass, in an order of the pass's own.
    File { prompts: Vec<Prompt>, order: ShuffledPasses },
}

/// How a problem becomes a prompt.
struct Format<'a> {
    codec: &'a Codec,
    data: DataSection,
    max_prompt_tokens: usize,
}

impl<'a> Prompts<'a> {
    /// The source that `recipe` names. A data set is read and tokenised as a whole, so that whatever is wrong with it is
    /// said before any work begins; problems with prompts that are too long are left out of it.
    pub(super) fn from_recipe(recipe: &Recipe, codec: &'a Codec) -> Result<Self> {
        let data = recipe.data.clone();
        let format = Format { codec, data, max_prompt_tokens: recipe.rollout.max_prompt_tokens };
        let (mut left_out, mut not_read, mut more) = (0, 0, false);
        let mut held_out = Vec::new();
        let mut rng = ChaCha8Rng::seed_from_u64(recipe.seed);
        rng.set_stream(HELD_OUT_STREAM);
        let source = match recipe.data.source {
            DataSource::Mini => {
                let levels = recipe.data.levels.iter().map(|(name, &weight)| Ok((name.parse()?, weight)));
                let levels = levels.collect::<Result<Vec<_>>>()?;
                held_out = drawn(&levels, recipe.data.held_out, &format, &mut rng)?;
                Source::Mini { levels }
            }
            DataSource::File => {
                let Read { problems, not_read: others, unused } = read(&recipe.data, Grader::new(recipe.grader.mode))?;
                (not_read, more) = (others, unused);
                let all = problems.into_iter().map(|problem| format.prompt(problem)).collect::<Result<Vec<_>>>()?;
                let fits = |prompt: &Prompt| prompt.ids.len() <= format.max_prompt_tokens;
                let shortest = all.iter().map(|prompt| prompt.ids.len()).min().unwrap_or(0);
                let (prompts, longer): (Vec<_>, Vec<_>) = all.into_iter().partition(fits);
                left_out = longer.len();
                if prompts.is_empty() {
                    return Err(Error::config(format!(
                        "all {left_out} prompts are longer than `rollout.max_prompt_tokens` = {}, the shortest has \
                         {shortest} tokens; raise it",
                        format.max_prompt_tokens
                    )));
                }
                let mut prompts = prompts;
                if recipe.data.held_out >= prompts.len() {
                    return Err(Error::config(format!(
                        "`data.held_out` = {} leaves none of {} problems to train on",
                        recipe.data.held_out,
                        prompts.len()
                    )));
                }
                for _ in 0..recipe.data.held_out {
                    held_out.push(prompts.remove(rng.random_range(..prompts.len())));
                }
                Source::File { order: ShuffledPasses::new(recipe.seed, prompts.len()), prompts }
            }
        };
        Ok(Self {
            format,
            per_step: recipe.rollout.prompts_per_step,
            source,
            left_out,
            not_read,
            unused: more,
            held_out,
        })
    }

    /// What was left out, a sentence for each reason.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> + use<> {
        let used = self.format.data.limit;
        let unused = self.unused.then(|| {
            format!(
                "only the first {used} problems of the data are used; raise `data.limit` for more, and shuffle a file that is \
                 sorted"
            )
        });
        let limit = self.format.max_prompt_tokens;
        let long = format!("prompts longer than `rollout.max_prompt_tokens` = {limit}; raise it to use them");
        let not_read = "answers that the grader does not read, as `data.gradable_only` asks".to_owned();
        let left_out = [(self.left_out, long), (self.not_read, not_read)].into_iter().filter(|(count, _)| *count > 0);
        let sentence = |(count, why): (usize, String)| {
            format!("{count} {} left out: {why}", if count == 1 { "problem is" } else { "problems are" })
        };
        left_out.map(sentence).chain(unused)
    }

    /// Takes the problems that are not trained on.
    pub(super) fn take_held_out(&mut self) -> Vec<Prompt> {
        std::mem::take(&mut self.held_out)
    }

    /// The prompts of the step after `done` steps; `rng` is that step's own.
    pub(super) fn step(&mut self, done: u64, rng: &mut ChaCha8Rng) -> Result<Vec<Prompt>> {
        match &mut self.source {
            Source::Mini { levels } => drawn(levels, self.per_step, &self.format, rng),
            Source::File { prompts, order } => {
                let first = done * self.per_step as u64;
                let positions = first..first + self.per_step as u64;
                Ok(positions.map(|position| prompts[order.row(position)].clone()).collect())
            }
        }
    }
}

/// So many problems of the mini suite.
fn drawn(levels: &[(Level, f64)], count: usize, format: &Format<'_>, rng: &mut ChaCha8Rng) -> Result<Vec<Prompt>> {
    let weights = WeightedIndex::new(levels.iter().map(|(_, weight)| weight))
        .map_err(|error| Error::config(format!("`data.levels`: {error}")))?;
    let draw = |_| MiniProblem::draw(levels[weights.sample(rng)].0, Split::Train, rng).to_problem();
    (0..count).map(draw).map(|problem| format.short_prompt(problem)).collect()
}

impl Format<'_> {
    fn prompt(&self, problem: Problem) -> Result<Prompt> {
        let ids = prompt_ids(&self.data, self.codec, &problem.question)?;
        Ok(Prompt { problem, ids: ids.into() })
    }

    /// A prompt that is not too long. Generated problems differ little in length, so that one that is too long says that
    /// the limit is a mistake.
    fn short_prompt(&self, problem: Problem) -> Result<Prompt> {
        let prompt = self.prompt(problem)?;
        if prompt.ids.len() > self.max_prompt_tokens {
            return Err(Error::config(format!(
                "the prompt of problem `{}` has {} tokens, more than `rollout.max_prompt_tokens` = {}; raise it",
                prompt.problem.id,
                prompt.ids.len(),
                self.max_prompt_tokens
            )));
        }
        Ok(prompt)
    }
}

/// The problems of a file.
struct Read {
    problems: Vec<Problem>,
    /// Others, whose answers the grader does not read.
    not_read: usize,
    /// There are more than the limit allows.
    unused: bool,
}

fn read(data: &DataSection, grader: Grader) -> Result<Read> {
    let Some(path) = data.file() else {
        return Err(Error::config("`data.source` is \"file\", so `data.path` has to name one"));
    };
    let mut columns = Columns::new(&data.question_column, &data.answer_column);
    columns.level = data.level_column.clone().map(|name| vec![name]);
    columns.id = data.id_column.clone().map(|name| vec![name]);
    columns.optional_answer = data.gradable_only;
    // One more than are used says whether there are more.
    let most = (!data.gradable_only).then(|| data.limit.saturating_add(1));
    let is_used = |problem: &Problem| !data.gradable_only || grader.reads(&problem.answer);
    let (mut problems, others): (Vec<_>, Vec<_>) = read_problems(path, &columns, most)?.into_iter().partition(is_used);
    if problems.is_empty() {
        let why = "none of its answers is one that the grader reads; look at `data.answer_column`, or set `data.gradable_only` to false";
        return Err(Error::format(path, why));
    }
    let unused = problems.len() > data.limit;
    problems.truncate(data.limit);
    Ok(Read { problems, not_read: others.len(), unused })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::mini::tokenizer;

    fn recipe(folder: &std::path::Path, limit: usize) -> Recipe {
        let path = folder.join("problems.jsonl");
        let problem = |sum: &str| format!("{{\"problem\": \"{sum}\", \"answer\": \"7\"}}\n");
        std::fs::write(&path, ["3 + 4", "1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 - 1", "5 + 2"].map(problem).concat()).unwrap();
        let text = "name = 't'\nstage = 'rl'\nbase = 'b'\nrollout.prompts_per_step = 4";
        let set = [
            ("data.path", format!("{path:?}")),
            ("data.chat_template", "false".to_owned()),
            ("rollout.max_prompt_tokens", limit.to_string()),
        ];
        Recipe::parse(text, &set.map(|(key, value)| (key.to_owned(), value))).unwrap()
    }

    #[test]
    fn long_prompts_are_left_out_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        tokenizer::write(folder.path(), 0).unwrap();
        let codec = Codec::from_folder(folder.path()).unwrap();
        let mut rng = rand::SeedableRng::seed_from_u64(0);
        let mut prompts = Prompts::from_recipe(&recipe(folder.path(), 12), &codec).unwrap();
        let expected =
            "1 problem is left out: prompts longer than `rollout.max_prompt_tokens` = 12; raise it to use them";
        assert_eq!(prompts.warnings().collect::<Vec<_>>(), [expected]);
        let asked = prompts.step(0, &mut rng).unwrap();
        assert_eq!(asked.len(), 4);
        assert!(asked.iter().all(|prompt| prompt.ids.len() <= 12 && prompt.problem.id != "2"));
        assert_eq!(Prompts::from_recipe(&recipe(folder.path(), 64), &codec).unwrap().warnings().count(), 0);
        let message = Prompts::from_recipe(&recipe(folder.path(), 2), &codec).err().unwrap().to_string();
        assert!(message.starts_with("all 3 prompts are longer than") && message.ends_with("; raise it"), "{message}");
    }

    #[test]
    fn answers_that_do_not_parse_are_left_out_before_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        tokenizer::write(folder.path(), 0).unwrap();
        let codec = Codec::from_folder(folder.path()).unwrap();
        let mut recipe = recipe(folder.path(), 64);
        let answers =
            [r"\\text{no } @ answer", r"So it is \\boxed{\\frac{1}{2}}.", "A solution without one: @#", "", "7", "8"];
        let lines = answers.map(|answer| format!("{{\"problem\": \"1 + 1\", \"answer\": \"{answer}\"}}\n"));
        std::fs::write(recipe.data.file().unwrap(), lines.concat()).unwrap();
        (recipe.data.gradable_only, recipe.data.limit) = (true, 2);
        let prompts = Prompts::from_recipe(&recipe, &codec).unwrap();
        let warnings: Vec<String> = prompts.warnings().collect();
        assert_eq!(
            warnings,
            [
                "3 problems are left out: answers that the grader does not read, as `data.gradable_only` asks",
                "only the first 2 problems of the data are used; raise `data.limit` for more, and shuffle a file that is sorted"
            ]
        );
        let Source::File { prompts, .. } = &prompts.source else { panic!("a file was read") };
        assert_eq!(prompts.iter().map(|prompt| prompt.problem.id.as_str()).collect::<Vec<_>>(), ["2", "5"]);
        std::fs::write(recipe.data.file().unwrap(), &lines[0]).unwrap();
        let message = Prompts::from_recipe(&recipe, &codec).err().unwrap().to_string();
        assert!(message.contains("none of its answers"), "{message}");
    }
}
