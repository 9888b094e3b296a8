//! Length-penalised reinforcement learning (arXiv 2502.04463): one run trains one tier.
//!
//! A step is: draw prompts, sample a group of responses to each, grade, reward by correctness and length, compare within
//! the group, update. The loop below is that sentence; its parts are in the files beside it, the mathematics in
//! [`crate::objective`], [`crate::advantage`] and [`crate::loss`].

mod advice;
mod experience;
mod held_out;
mod prompts;
mod summary;
mod update;

use std::path::Path;
use std::time::{Instant, SystemTime};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use self::advice::Advice;
use self::experience::Collector;
use self::held_out::HeldOut;
use self::prompts::Prompts;
use self::update::Updater;
use super::passes::Passes;
use super::{identity, state};
use crate::advantage::KlPlacement;
use crate::model::{ModelConfig, Policy, Pretrained, copy_generation_config, copy_tokenizer};
use crate::objective::{Objective, SIGMOID_LENGTH, SigmoidLength};
use crate::recipe::{Recipe, Truncated, TuningMode};
use crate::text::Codec;
use crate::trainer::{
    EventWriter, Fit, MetricsLog, Observer, Phase, RolloutLog, RunFolder, StepTimings, resident_memory,
};
use crate::{Error, Result};

/// How the folders of tiers on the way begin.
const TIER: &str = "tier-";

/// What a checkpoint remembers beside tensors. Random numbers need no memory: every step has a stream of its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Progress {
    num_tokens: u64,
}

/// Trains one tier at `alpha` in the run folder `run` and writes it to `output`: a PEFT adapter, or a whole Hugging Face
/// folder when the recipe tunes all weights.
///
/// The same call resumes a run that was interrupted; on the CPU the result is the same to the bit.
///
/// # Errors
/// [`Error::Config`] and [`Error::Format`] for a recipe, base or data set that does not fit, and for a run that has gone
/// further than the recipe asks; [`Error::Interrupted`] when the observer asked to stop.
pub fn train(recipe: &Recipe, alpha: f64, run: &Path, output: &Path, observer: &mut dyn Observer) -> Result<()> {
    let Some(base_folder) = &recipe.base else {
        return Err(Error::config("reinforcement learning needs `base`, the folder of the model to start from"));
    };
    let objective = objective(recipe, alpha)?;
    let compute = &recipe.compute;
    let device = compute.device.open(compute.dtype)?;
    let config = Pretrained::config(base_folder)?;
    fits_context(recipe, &config)?;
    let fitted = Fit::fitted(recipe, &config, Fit::memory(recipe, &device)?)?;
    let base = Pretrained::load(base_folder, compute.dtype.dtype(), &device)?;
    let codec = Codec::from_folder(base_folder)?;
    let mut prompts = Prompts::from_recipe(recipe, &codec)?;
    advice::on_settings(recipe).into_iter().chain(prompts.warnings()).for_each(|remark| observer.on_warning(&remark));
    let run = RunFolder::open(run, &identity(recipe, alpha)?, recipe)?;
    let recipe = &fitted;

    let mut policy = Policy::new(base, &recipe.tuning.tuning(), &mut ChaCha8Rng::seed_from_u64(recipe.seed))?;
    if recipe.algorithm.kl == KlPlacement::Off {
        policy.forget_reference();
    }
    let passes = Passes::new(compute, &policy)?;
    let mut updater = Updater::new(recipe, &policy)?;
    let restored = state::restore(&run, &policy, &mut updater.optimizer, |warning| observer.on_warning(warning))?;
    let (mut step, mut progress) = restored.unwrap_or((0, Progress::default()));
    if step > recipe.run.steps as u64 {
        return Err(Error::config(format!(
            "the run in `{}` is at step {step} already, past `run.steps` = {}; ask for at least {step}, or choose \
             another folder for a shorter run",
            run.path().display(),
            recipe.run.steps
        )));
    }
    let mut log = MetricsLog::resume(&run, step)?;
    let mut rollouts = RolloutLog::resume(&run, step)?;
    let mut events = EventWriter::resume(&run, &log)?;
    for (metrics, timings) in log.history() {
        observer.on_step(metrics, timings.as_ref().unwrap_or(&StepTimings::default()));
    }

    let mut advice = Advice::default();
    let mut collector = Collector::new(recipe, &policy, &passes, &codec, objective)?;
    let mut held_out = HeldOut::new(recipe, prompts.take_held_out(), &run, step)?;
    loop {
        if let Some(held_out) = &mut held_out {
            match held_out.after(step, &mut collector, &policy, &passes, observer) {
                Err(Error::Interrupted) => {
                    state::save(&run, step, &policy, &updater.optimizer, &progress)?;
                    return Err(Error::Interrupted);
                }
                other => other?,
            }
        }
        if step == recipe.run.steps as u64 {
            break;
        }
        let started = Instant::now();
        let mut rng = step_rng(recipe.seed, step + 1);
        let batch = prompts.step(step, &mut rng)?;
        let experience = match collector.collect(step + 1, &policy, &passes, batch, &mut rng, observer) {
            Err(Error::Interrupted) => {
                state::save(&run, step, &policy, &updater.optimizer, &progress)?;
                return Err(Error::Interrupted);
            }
            other => other?,
        };
        let update_started = Instant::now();
        let update = updater.update(&policy, &passes, &experience, step, &mut rng, observer)?;
        let update_time = update_started.elapsed().as_secs_f64();
        step += 1;
        progress.num_tokens += experience.tokens();

        let metrics = summary::metrics(step, &experience, &update, progress.num_tokens);
        let response_tokens = experience.response_tokens() as f64;
        let timings = StepTimings {
            step,
            wall_time: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64()),
            step_time: started.elapsed().as_secs_f64(),
            rollout_time: experience.rollout_time,
            score_time: experience.score_time,
            update_time,
            rollout_tokens_per_second: response_tokens / experience.rollout_time.max(1e-9),
            train_tokens_per_second: experience.tokens() as f64 / update_time.max(1e-9),
            resident_memory: resident_memory(),
        };
        rollouts.append(step, &experience.logged)?;
        log.append(&metrics, &timings)?;
        events.append(&metrics, &timings)?;
        observer.on_step(&metrics, &timings);
        advice.on(&metrics, recipe.rollout.max_new_tokens).iter().for_each(|remark| observer.on_warning(remark));
        let last = step == recipe.run.steps as u64;
        let stop = observer.should_stop() && !last;
        if recipe.run.tier_every.is_some_and(|every| step.is_multiple_of(every as u64)) {
            // Before the checkpoint: a run that goes on from there has it.
            write_tier(&policy, recipe, base_folder, &run.file(&format!("{TIER}{step:06}")))?;
        }
        if step.is_multiple_of(recipe.run.checkpoint_every as u64) || last || stop {
            observer.on_phase(Phase::Checkpoint);
            state::save(&run, step, &policy, &updater.optimizer, &progress)?;
        }
        if stop {
            return Err(Error::Interrupted);
        }
    }
    write_tier(&policy, recipe, base_folder, output)
}

/// Writes the tier that the policy is now.
fn write_tier(policy: &Policy, recipe: &Recipe, base: &Path, output: &Path) -> Result<()> {
    let name = recipe.base_name.as_deref().map_or_else(|| base.to_string_lossy(), Into::into);
    if recipe.tuning.mode == TuningMode::Lora {
        return policy.save(output, &name);
    }
    copy_tokenizer(base, output)?;
    policy.save(output, &name)?;
    copy_generation_config(base, output)
}

/// That a prompt and a response of the recipe's greatest lengths fit into the base's context: the sampler would cut
/// responses short otherwise, and they would count as truncated.
fn fits_context(recipe: &Recipe, base: &ModelConfig) -> Result<()> {
    let (prompt, response) = (recipe.rollout.max_prompt_tokens, recipe.rollout.max_new_tokens);
    let context = base.max_position_embeddings;
    if prompt + response <= context {
        return Ok(());
    }
    Err(Error::config(format!(
        "`rollout.max_prompt_tokens` = {prompt} and `rollout.max_new_tokens` = {response} are {} tokens together, but \
         the base's context holds {context}; lower one of them",
        prompt + response
    )))
}

fn objective(recipe: &Recipe, alpha: f64) -> Result<Box<dyn Objective>> {
    match recipe.objective.name.as_str() {
        SIGMOID_LENGTH => {
            let pays_truncated = recipe.algorithm.truncated == Truncated::Grade;
            Ok(Box::new(SigmoidLength::new(alpha)?.paying_truncated(pays_truncated)))
        }
        other => Err(Error::config(format!("unknown `objective.name` \"{other}\"; there is \"{SIGMOID_LENGTH}\""))),
    }
}

/// The random numbers of one step, whatever happened before it.
fn step_rng(seed: u64, step: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(step);
    rng
}
