//! `serve train --bench`: how fast this machine samples, updates, and takes whole steps with a recipe.
//!
//! Works on the recipe's base or, where that is not on disk, on random weights of the same shape; what a model knows does
//! not change how long it takes, except through the lengths of its responses. Everything is thrown away afterwards.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use brevity::eval::Suite;
use brevity::report::{Align, Table, number};
use brevity_training::Error;
use brevity_training::methods::rl;
use brevity_training::model::{Device, Pretrained, SpecialTokens};
use brevity_training::recipe::{ComputeSection, Recipe, Stage};
use brevity_training::rollout::{CpuSampler, DeviceSampler, RolloutProgress, RolloutRequest, Sampler, SamplingParams};
use brevity_training::tasks::chat::Message;
use brevity_training::tasks::mini::tokenizer;
use brevity_training::text::Codec;
use brevity_training::trainer::{Observer, Phase, StepMetrics, StepTimings};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Failure, Result, interrupt, progress};

/// Responses sampled at the same time, one line of the table each.
const BATCHES: [usize; 4] = [1, 16, 64, 256];
/// Tokens of every response whose sampling is timed.
const TOKENS: usize = 128;
/// Most time for one batch size: large models on small machines stop early.
const PATIENCE: Duration = Duration::from_secs(10);

/// One step, as a line of JSON.
#[derive(Serialize)]
struct StepLine {
    step: u64,
    /// Seconds.
    step_time: f64,
    /// Seconds of it.
    rollout_time: f64,
    /// Seconds of it.
    score_time: f64,
    /// Seconds of it.
    update_time: f64,
    /// Response tokens that were sampled.
    rollout_tokens: u64,
    /// `rollout_tokens / step_time`.
    tokens_per_second: f64,
}

/// Measures `steps` steps of the recipe.
///
/// # Errors
/// When the recipe is none of reinforcement learning, or there is neither a base nor a shape to make one of.
pub fn run(recipe: &Recipe, steps: u64) -> Result<()> {
    if recipe.stage != Stage::Rl {
        return Err(Failure::usage("--bench measures reinforcement learning; this recipe's stage is sft"));
    }
    let scratch = tempfile::tempdir().map_err(Error::io("create", std::env::temp_dir()))?;
    let base = base(recipe, scratch.path())?;
    let mut table = Table::new([("measured", Align::Left), ("tokens/s", Align::Right), ("seconds", Align::Right)]);
    for batch in BATCHES {
        let rate = sampling(&recipe.compute, &base, batch)?;
        table.push([format!("sampling, {batch} at a time"), number::grouped(rate), String::new()]);
    }
    let alpha = recipe.objective.alpha.first().copied().unwrap_or(0.0);
    let mut timed =
        Timed { responses: recipe.rollout.prompts_per_step * recipe.rollout.samples_per_prompt, steps: vec![] };
    let mut recipe = Recipe { base: Some(base), ..recipe.clone() };
    recipe.run.steps = steps as usize;
    recipe.run.checkpoint_every = recipe.run.steps;
    rl::train(&recipe, alpha, &scratch.path().join("run"), &scratch.path().join("tier"), &mut timed).map_err(
        |error| match error {
            Error::Interrupted => Failure::interrupted("interrupted; a measurement keeps nothing"),
            other => other.into(),
        },
    )?;
    let of = |value: fn(&(StepLine, f64)) -> f64| median(timed.steps.iter().map(value).collect());
    table.push(["updates".to_owned(), number::grouped(of(|step| step.1)), format!("{:.2}", of(|s| s.0.update_time))]);
    let (rate, seconds) = (of(|step| step.0.tokens_per_second), of(|step| step.0.step_time));
    table.push([format!("whole steps, median of {steps}"), number::grouped(rate), format!("{seconds:.2}")]);
    progress::say(table.to_terminal().trim_end());
    Ok(())
}

/// The base's folder: the recipe's, or one with random weights.
fn base(recipe: &Recipe, scratch: &Path) -> Result<PathBuf> {
    let wanted = recipe.base.clone().unwrap_or_default();
    if wanted.join("config.json").is_file() {
        return Ok(wanted);
    }
    let Some(section) = &recipe.model else {
        let message = format!("there is no base model in `{}` and no [model] in the recipe", wanted.display());
        return Err(Failure::from(Error::config(message)).hint("give one of them: --set base=FOLDER"));
    };
    progress::say(&format!("no base in `{}`: measuring random weights of the shape in [model]", wanted.display()));
    let folder = scratch.join("base");
    tokenizer::write(&folder, recipe.seed)?;
    let codec = Codec::from_folder(&folder)?;
    let end = codec.token_id(tokenizer::TURN_END).into_iter().collect();
    let tokens = SpecialTokens { bos: None, eos: end, pad: codec.token_id(tokenizer::PAD) };
    let vocabulary = section.vocab_size.unwrap_or(0).max(codec.vocabulary_size());
    let mut rng = ChaCha8Rng::seed_from_u64(recipe.seed);
    let model = Pretrained::random(section.config(vocabulary), tokens, &mut rng, &Device::Cpu)?;
    model.to(recipe.compute.dtype.dtype(), &Device::Cpu)?.save(&folder)?;
    Ok(folder)
}

/// Tokens a second when `batch` responses are sampled at a time and none ends by itself.
fn sampling(compute: &ComputeSection, base: &Path, batch: usize) -> Result<f64> {
    let model = Pretrained::load(base, compute.dtype.dtype(), &compute.device.open(compute.dtype)?)?;
    let codec = Codec::from_folder(base)?;
    let problems = Suite::MINI.problems(batch.div_ceil(3))?;
    let requests = problems.iter().take(batch).enumerate().map(|(index, problem)| {
        let prompt: Arc<[u32]> = codec.prompt(&[Message::user(&problem.question)], None)?.into();
        Ok(RolloutRequest { prompt, seed: index as u64 })
    });
    let requests: Vec<RolloutRequest> = requests.collect::<brevity_training::Result<_>>()?;
    let params = SamplingParams::whole(1.0, TOKENS);
    let mut sampler: Box<dyn Sampler> = if compute.is_layered() {
        Box::new(DeviceSampler::new(model.layered()?, &[], batch)?)
    } else {
        Box::new(CpuSampler::new(&model.decoder()?, &[], batch)?)
    };
    let started = Instant::now();
    let mut last = RolloutProgress { finished: 0, tokens: 0 };
    let sampled = sampler.generate(&requests, &params, &mut |progress| {
        last = progress;
        started.elapsed() < PATIENCE && !interrupt::requested()
    });
    match sampled {
        Err(Error::Interrupted) if interrupt::requested() => {
            Err(Failure::interrupted("interrupted; a measurement keeps nothing"))
        }
        Err(Error::Interrupted) | Ok(_) => Ok(last.tokens as f64 / started.elapsed().as_secs_f64().max(1e-9)),
        Err(other) => Err(other.into()),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    brevity::eval::statistics::quantile(&values, 0.5).unwrap_or(f64::NAN)
}

/// Prints every step as it ends.
struct Timed {
    /// Responses of a step.
    responses: usize,
    /// Steps with the tokens a second of their updates.
    steps: Vec<(StepLine, f64)>,
}

impl Observer for Timed {
    fn on_step(&mut self, metrics: &StepMetrics, timings: &StepTimings) {
        let rollout_tokens = (metrics.mean_length * self.responses as f64).round() as u64;
        let line = StepLine {
            step: metrics.step,
            step_time: timings.step_time,
            rollout_time: timings.rollout_time,
            score_time: timings.score_time,
            update_time: timings.update_time,
            rollout_tokens,
            tokens_per_second: rollout_tokens as f64 / timings.step_time.max(1e-9),
        };
        if let Ok(text) = serde_json::to_string(&line) {
            progress::print(&format!("{text}\n"));
        }
        self.steps.push((line, timings.train_tokens_per_second));
    }

    fn on_phase(&mut self, _: Phase) {}

    fn on_warning(&mut self, message: &str) {
        progress::say(&format!("warning: {message}"));
    }

    fn should_stop(&self) -> bool {
        interrupt::requested()
    }
}
