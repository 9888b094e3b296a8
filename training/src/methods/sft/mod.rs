//! Supervised fine-tuning: next-token prediction on examples, from random weights or from a base.

mod examples;

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use self::examples::Examples;
use super::passes::Passes;
use super::sequence::{Sequence, micro_batches};
use super::{identity, state};
use crate::compute::shrinking;
use crate::model::{Policy, Pretrained, SpecialTokens, Tuning, copy_tokenizer};
use crate::optimizer::{AdamW, Gradients, StepOutcome};
use crate::recipe::{Recipe, SftSchedule, Vocabulary};
use crate::schedule::Schedule;
use crate::tasks::mini::tokenizer;
use crate::tasks::readers::Pair;
use crate::text::Codec;
use crate::trainer::{EventWriter, Fit, Line, MetricsLog, RunFolder, StepTimings, resident_memory};
use crate::{Error, Result, loss};

/// Updates between two lines of metrics.
const UPDATES_PER_REPORT: u64 = 50;

/// What supervised learning reports every few updates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SftMetrics {
    /// Updates done.
    pub step: u64,
    /// Mean negative log-likelihood of a target token since the last report, in nats.
    pub loss: f64,
    /// Norm of the last gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the last update.
    pub learning_rate: f64,
    /// Tokens seen since the start, prompts included.
    pub num_tokens: u64,
}

impl Line for SftMetrics {
    const REMEDY: &str = "the run has diverged: lower sft.learning_rate";

    fn step(&self) -> u64 {
        self.step
    }
}

/// Somebody who watches supervised learning and may end it.
pub trait SftObserver {
    /// Some updates have ended; `tokens_per_second` is over these.
    fn on_metrics(&mut self, metrics: &SftMetrics, updates: u64, tokens_per_second: f64);
    /// Something was passed over that the user should know of: a damaged checkpoint, for one. The run goes on.
    fn on_warning(&mut self, message: &str);
    /// Whether to stop; the run then ends with [`Error::Interrupted`] after writing a checkpoint.
    fn should_stop(&self) -> bool;
}

/// What a checkpoint remembers beside tensors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Progress {
    num_tokens: u64,
    /// Position in the data.
    cursor: u64,
    /// Losses of the updates since the last report.
    #[serde(default)]
    losses: Vec<f64>,
}

/// Trains as `recipe` says in the run folder `run` and writes the finished model to `output`.
///
/// The same call resumes a run that was interrupted, to the bit.
///
/// # Errors
/// [`Error::Config`] and [`Error::Format`] for a recipe or files that do not fit, [`Error::Interrupted`] when the observer
/// asked to stop.
pub fn train(recipe: &Recipe, run: &Path, output: &Path, observer: &mut dyn SftObserver) -> Result<()> {
    let device = recipe.compute.device.open(recipe.compute.dtype)?;
    let memory = Fit::memory(recipe, &device)?;
    let (pairs, warning) = examples::read(&recipe.data)?;
    if let Some(warning) = warning {
        observer.on_warning(&warning);
    }
    // What is wrong with a file is said before the run has a folder, which would belong to the wrong file.
    let from_base = recipe.base.as_deref().map(|base| Start::from_base(recipe, &pairs, base, &device)).transpose()?;
    let run = RunFolder::open(run, &identity(recipe, 0.0)?, recipe)?;
    let start = from_base.map_or_else(|| Start::from_nothing(recipe, &pairs, &run, &device), Ok)?;
    let Start { base, tokenizer_folder, codec, sequences } = start;
    let recipe = &Fit::fitted(recipe, &base.config, memory)?;
    let mut examples = Examples::new(recipe, sequences, &codec, &base)?;
    let tuning = recipe.tuning.tuning();
    let mut policy = Policy::new(base, &tuning, &mut ChaCha8Rng::seed_from_u64(recipe.seed))?;
    policy.forget_reference();
    let passes = Passes::new(&recipe.compute, &policy)?;
    let mut optimizer = AdamW::new(policy.parameters().to_vec(), recipe.optimizer.adamw())?;
    let restored = state::restore(&run, &policy, &mut optimizer, |warning| observer.on_warning(warning))?;
    let (mut update, mut progress) = restored.unwrap_or((0, Progress::default()));

    let updates = recipe.sft.updates() as u64;
    let schedule = schedule(recipe, updates);
    let mut report = Report::resume(&run, update, progress.num_tokens)?;
    let mut microbatch_tokens = recipe.optimizer.microbatch_tokens;
    while update < updates {
        let share = update as f64 / updates as f64;
        let batch = examples.batch(update, share, recipe.sft.batch_tokens, &mut progress.cursor)?;
        let longest = batch.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
        let (gradients, batch_loss) = shrinking(
            "`optimizer.microbatch_tokens`",
            &mut microbatch_tokens,
            longest,
            |tokens| batch_gradients(&policy, &passes, &batch, tokens, optimizer.gradients()),
            |warning| observer.on_warning(warning),
        )?;
        let learning_rate = schedule.learning_rate(update, recipe.sft.learning_rate);
        let outcome = optimizer.step(&gradients, learning_rate)?;
        update += 1;
        if outcome.skipped {
            let message = format!("update {update}: the gradient is not finite; {}", SftMetrics::REMEDY);
            return Err(Error::config(message));
        }
        progress.num_tokens += batch.iter().map(|sequence| sequence.ids.len() as u64).sum::<u64>();
        progress.losses.push(batch_loss);
        let stop = observer.should_stop();
        if update.is_multiple_of(UPDATES_PER_REPORT) || update == updates {
            let (metrics, timings) = report.write(update, &mut progress, outcome, learning_rate)?;
            observer.on_metrics(&metrics, updates, timings.train_tokens_per_second);
        }
        if update.is_multiple_of(recipe.run.checkpoint_every as u64) || stop || update == updates {
            state::save(&run, update, &policy, &optimizer, &progress)?;
        }
        if stop && update < updates {
            return Err(Error::Interrupted);
        }
    }
    copy_tokenizer(&tokenizer_folder, output)?;
    match tuning {
        Tuning::Full => policy.save(output, ""),
        Tuning::Lora(_) => policy.folded()?.save(output),
    }
}

/// What training starts from.
struct Start {
    base: Pretrained,
    tokenizer_folder: PathBuf,
    codec: Codec,
    /// The examples of a file.
    sequences: Vec<Sequence>,
}

impl Start {
    fn new(recipe: &Recipe, pairs: &[Pair], base: Pretrained, tokenizer_folder: PathBuf) -> Result<Self> {
        let codec = Codec::from_folder(&tokenizer_folder)?;
        let sequences = examples::tokenize(recipe, pairs, &codec, &base)?;
        Ok(Self { base, tokenizer_folder, codec, sequences })
    }

    /// From the recipe's base.
    fn from_base(recipe: &Recipe, pairs: &[Pair], base: &Path, device: &Device) -> Result<Self> {
        let model = Pretrained::load(base, recipe.compute.dtype.dtype(), device)?;
        Self::new(recipe, pairs, model, base.to_owned())
    }

    /// From random weights, with a tokenizer that is written into the run's folder.
    fn from_nothing(recipe: &Recipe, pairs: &[Pair], run: &RunFolder, device: &Device) -> Result<Self> {
        let Some(section) = &recipe.model else {
            return Err(Error::config("supervised learning needs `base`, or `[model]` to start from random weights"));
        };
        if section.vocabulary != Some(Vocabulary::Mini) {
            return Err(Error::config(
                "`model.vocabulary` is missing; \"mini\" is the one that can be made from nothing",
            ));
        }
        let folder = run.file("tokenizer");
        tokenizer::write(&folder, recipe.seed)?;
        let codec = Codec::from_folder(&folder)?;
        let id = |token: &str| codec.token_id(token).ok_or_else(|| Error::config(format!("no token `{token}`")));
        let tokens = SpecialTokens { bos: None, eos: vec![id(tokenizer::TURN_END)?], pad: Some(id(tokenizer::PAD)?) };
        let config = section.config(codec.vocabulary_size());
        let mut rng = ChaCha8Rng::seed_from_u64(recipe.seed);
        let model = Pretrained::random(config, tokens, &mut rng, &Device::Cpu)?;
        Self::new(recipe, pairs, model.to(recipe.compute.dtype.dtype(), device)?, folder)
    }
}

fn schedule(recipe: &Recipe, total: u64) -> Schedule {
    let warmup_updates = recipe.sft.warmup_updates as u64;
    match recipe.sft.schedule {
        SftSchedule::Constant => Schedule::ConstantWithWarmup { warmup_updates },
        SftSchedule::Cosine => {
            Schedule::CosineWithWarmup { warmup_updates, total, final_ratio: recipe.sft.final_ratio }
        }
    }
}

/// The gradients of the batch's mean loss over its targets, and that loss.
fn batch_gradients(
    policy: &Policy,
    passes: &Passes,
    batch: &[Sequence],
    microbatch_tokens: usize,
    mut gradients: Gradients,
) -> Result<(Gradients, f64)> {
    let targets: usize = batch.iter().map(|sequence| sequence.targets.len()).sum();
    let mut batch_loss = 0.0;
    for micro in micro_batches(batch, microbatch_tokens, |sequence| sequence.ids.len()) {
        let loss = |logprobs: &Tensor| {
            let weights = Tensor::full(1.0 / targets as f32, logprobs.dim(0)?, logprobs.device())?;
            let loss = loss::negative_log_likelihood(logprobs, &weights)?;
            let value = loss.to_scalar::<f32>()?;
            Ok((loss, f64::from(value)))
        };
        let sequences: Vec<&Sequence> = micro.iter().collect();
        batch_loss += passes.learn(policy, &sequences, 1.0, loss, &mut gradients)?;
    }
    Ok((gradients, batch_loss))
}

/// What is reported now and then, and the clock.
struct Report {
    log: MetricsLog<SftMetrics>,
    events: EventWriter,
    since: Instant,
    updates_reported: u64,
    tokens_reported: u64,
}

impl Report {
    fn resume(run: &RunFolder, updates: u64, num_tokens: u64) -> Result<Self> {
        let log = MetricsLog::resume(run, updates)?;
        let events = EventWriter::resume(run, &log)?;
        Ok(Self { log, events, since: Instant::now(), updates_reported: updates, tokens_reported: num_tokens })
    }

    /// Writes a line about the updates since the last one and forgets their losses.
    fn write(
        &mut self,
        step: u64,
        progress: &mut Progress,
        outcome: StepOutcome,
        learning_rate: f64,
    ) -> Result<(SftMetrics, StepTimings)> {
        let loss = progress.losses.iter().sum::<f64>() / progress.losses.len().max(1) as f64;
        progress.losses.clear();
        let num_tokens = progress.num_tokens;
        let metrics = SftMetrics { step, loss, grad_norm: outcome.grad_norm, learning_rate, num_tokens };
        let seconds = self.since.elapsed().as_secs_f64();
        let timings = StepTimings {
            step,
            wall_time: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64()),
            step_time: seconds / (step - self.updates_reported).max(1) as f64,
            update_time: seconds,
            train_tokens_per_second: (num_tokens - self.tokens_reported) as f64 / seconds.max(1e-9),
            resident_memory: resident_memory(),
            ..StepTimings::default()
        };
        self.log.append(&metrics, &timings)?;
        self.events.append(&metrics, &timings)?;
        (self.since, self.updates_reported, self.tokens_reported) = (Instant::now(), step, num_tokens);
        Ok((metrics, timings))
    }
}
