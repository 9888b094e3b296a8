//! `serve train`: from a recipe to a model folder, or to the tiers of a family.

mod curves;
mod destination;
mod devices;
mod dry_run;
mod remote;
mod tiers;

use std::path::{Path, PathBuf};

use brevity::family::{HubId, MANIFEST};
use brevity_training::Error;
use brevity_training::compute::DeviceName;
use brevity_training::methods::sft;
use brevity_training::recipe::{DataSource, Recipe, Stage};
use clap::{Args, ValueEnum};

use self::devices::Devices;
use super::dtype::Dtype;
use super::progress::{self, Supervised};
use super::remote::address;
use super::{Failure, Result, bench, interrupt};

const EXAMPLES: &str = "\
Examples:
  serve train --recipe training/recipes/mini-sft.toml --out models/mini/base
      the base of the bundled family, from random weights
  serve train --recipe training/recipes/mini.toml
      its tiers, one for each alpha; the same command resumes after an interruption
  serve train --recipe training/recipes/mini.toml --alpha 0.1 --set run.steps=50 \\
      --out models/trial --runs runs/trial
      one tier, half as long, somewhere else
  serve train --recipe training/recipes/deepseek-r1-distill-qwen-1.5b.toml --dry-run
      what a run would take and write
  serve train --recipe training/recipes/deepseek-r1-distill-qwen-1.5b.toml \\
      --device cuda:0 --dtype bf16 --set tuning.mode=lora --set optimizer.learning_rate=5e-5
      an adapter of a real model on one GPU, in a build with CUDA
  serve train --recipe training/recipes/deepseek-r1-distill-qwen-7b.toml \\
      --devices cuda:0,cuda:1,cuda:2,cuda:3 --dtype bf16 \\
      --set tuning.mode=lora --set optimizer.learning_rate=2e-5
      a tier on each of four GPUs
  serve train --recipe training/recipes/mini.toml --bench --steps 5
      how fast this machine is";

/// Train the tiers of a family, or a base model, as a recipe says
///
/// Reinforcement learning trains one tier for every alpha: an adapter (or a model) in OUT/alpha-A, listed in
/// OUT/family.toml, with learning curves in OUT/curves. Supervised learning trains one model, OUT itself, with
/// OUT/learning-curve.svg. Checkpoints, metrics.jsonl and TensorBoard events go to RUNS. Interrupted work goes on with the same command, and ends with the same
/// bytes as if nothing had happened; finished work is left as it is.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The recipe, a TOML file; see training/recipes
    #[arg(long, env = "BREVITY_RECIPE", hide_env_values = true, value_name = "FILE")]
    recipe: PathBuf,

    /// What to train; overrides `stage` of the recipe
    #[arg(long, value_name = "STAGE")]
    stage: Option<StageName>,

    /// Strengths of the length penalty, each in [0, 1), one tier each; overrides `objective.alpha`
    #[arg(long, value_name = "A,…", value_delimiter = ',', value_parser = alpha)]
    alpha: Vec<f64>,

    /// Set a key of the recipe, as in `--set optimizer.learning_rate=1e-4`; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,

    /// Where to train: `cpu`, or `cuda:N` in a build with CUDA; overrides `compute.device`
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceName>,

    /// Train several tiers at a time, each on the next of these devices that is free, as in `cuda:0,cuda:1`
    #[arg(long, value_name = "DEVICE,…", value_delimiter = ',', conflicts_with_all = ["device", "bench"])]
    devices: Vec<DeviceName>,

    /// Number format of weights and activations; overrides `compute.dtype`
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<Dtype>,

    /// How much of the device's memory a run may take, in GiB or as in `80GiB` [default: what is free]; overrides
    /// `compute.memory`
    #[arg(long, value_name = "SIZE", value_parser = gibibytes)]
    memory: Option<f64>,

    /// Folder of the family (or, supervised, of the model) [default: models/NAME, NAME being the recipe's]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Folder for checkpoints and metrics [default: runs/NAME]
    #[arg(long, env = "BREVITY_RUNS", hide_env_values = true, value_name = "DIR")]
    runs: Option<PathBuf>,

    /// Say what would be done, how much memory it takes and what it would write, and do nothing
    #[arg(long, conflicts_with = "bench")]
    dry_run: bool,

    /// Measure sampling, updates and whole steps on this machine, and keep nothing
    #[arg(long)]
    bench: bool,

    /// Steps that --bench measures
    #[arg(long, value_name = "N", default_value_t = 5, requires = "bench", value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
}

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StageName {
    /// Supervised learning of traces or of a file of pairs
    Sft,
    /// Length-penalised reinforcement learning
    Rl,
}

/// A recipe and where its results go.
struct Work<'a> {
    recipe: &'a Recipe,
    /// The recipe's file, as it was given.
    file: &'a Path,
    /// What tiers are trained on.
    devices: Devices,
    /// The base's repository and commit, when it is on the hub.
    base_hub: Option<HubId>,
    /// The family's or the model's folder.
    out: PathBuf,
    /// The folder of the run, or of the runs.
    runs: PathBuf,
}

impl Work<'_> {
    /// The run folder of an alpha.
    fn run(&self, alpha: f64) -> PathBuf {
        self.runs.join(tier_name(alpha))
    }

    /// The family's manifest.
    fn manifest(&self) -> PathBuf {
        self.out.join(MANIFEST)
    }

    /// The folder of an alpha's tier.
    fn tier(&self, alpha: f64) -> PathBuf {
        self.out.join(tier_name(alpha))
    }
}

/// The name of an alpha's tier and of its folders.
fn tier_name(alpha: f64) -> String {
    format!("alpha-{alpha}")
}

/// Runs `serve train`.
///
/// # Errors
/// When something does not fit, cannot be read or written, or somebody asked to stop.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut recipe = recipe(arguments)?;
    let base_hub = if arguments.dry_run { None } else { remote::fetch(&mut recipe)? };
    let work = Work {
        recipe: &recipe,
        file: &arguments.recipe,
        devices: Devices::new(&arguments.devices, &recipe)?,
        base_hub,
        out: arguments.out.clone().unwrap_or_else(|| Path::new("models").join(&recipe.name)),
        runs: arguments.runs.clone().unwrap_or_else(|| Path::new("runs").join(&recipe.name)),
    };
    if arguments.bench {
        return bench::run(&recipe, arguments.steps);
    }
    if arguments.dry_run {
        return dry_run::show(&work);
    }
    if let Some(base) = &recipe.base {
        base_is_there(base, &recipe)?;
    }
    data_is_there(&recipe)?;
    match recipe.stage {
        Stage::Rl => tiers::train(&work),
        Stage::Sft => supervised(&work),
    }
}

/// The recipe with everything that the arguments override.
fn recipe(arguments: &Arguments) -> Result<Recipe> {
    let mut overrides = arguments.set.clone();
    if let Some(stage) = arguments.stage {
        let name = if stage == StageName::Rl { "rl" } else { "sft" };
        overrides.push(("stage".to_owned(), format!("{name:?}")));
    }
    if let Some(device) = arguments.device.or_else(|| arguments.devices.first().copied()) {
        overrides.push(("compute.device".to_owned(), format!("{:?}", device.to_string())));
    }
    if let Some(dtype) = arguments.dtype {
        let name = if dtype == Dtype::F32 { "f32" } else { "bf16" };
        overrides.push(("compute.dtype".to_owned(), format!("{name:?}")));
    }
    if let Some(memory) = arguments.memory {
        overrides.push(("compute.memory".to_owned(), format!("{memory:?}")));
    }
    let mut recipe = Recipe::load(&arguments.recipe, &overrides)?;
    if !arguments.alpha.is_empty() {
        if recipe.stage == Stage::Sft {
            return Err(Failure::usage("--alpha belongs to reinforcement learning; this recipe's stage is sft"));
        }
        overrides.push(("objective.alpha".to_owned(), format!("{:?}", arguments.alpha)));
        recipe = Recipe::load(&arguments.recipe, &overrides)?;
    }
    if !arguments.devices.is_empty() && recipe.stage == Stage::Sft {
        let hint = "this recipe's stage is sft, which trains one model; name its device with --device";
        return Err(Failure::usage("--devices trains tiers side by side").hint(hint));
    }
    Ok(recipe)
}

/// Says how to get a base that is not there.
fn base_is_there(base: &Path, recipe: &Recipe) -> Result<()> {
    if base.join("config.json").is_file() {
        return Ok(());
    }
    let message = format!("there is no base model in `{}`: no config.json", base.display());
    let hint = match recipe.data.source {
        DataSource::Mini => {
            let shown = base.display();
            format!("train one with `serve train --recipe training/recipes/mini-sft.toml --out {shown}`")
        }
        DataSource::File => "put the model's Hugging Face folder there, or name another with --set base=FOLDER or \
                             --set base=hf://ORGANISATION/NAME"
            .into(),
    };
    Err(Failure::from(Error::config(message)).hint(hint))
}

/// Says how to get data that are not there.
fn data_is_there(recipe: &Recipe) -> Result<()> {
    match recipe.data.file() {
        Some(file) if recipe.data.source == DataSource::File && address(Some(file)).is_none() && !file.is_file() => {
            let message = format!("there is no data set in `{}`", file.display());
            let hint = "put it there, or name another with --set data.path=FILE or --set data.path=hf://datasets/\
                        ORGANISATION/NAME/FILE";
            Err(Failure::from(Error::config(message)).hint(hint))
        }
        _ => Ok(()),
    }
}

/// Supervised learning: one run, one model.
fn supervised(work: &Work<'_>) -> Result<()> {
    destination::prepare(work)?;
    let mut observer = Supervised::new(&work.recipe.name);
    let trained = sft::train(work.recipe, &work.runs, &work.out, &mut observer);
    observer.finish();
    trained.map_err(|error| interrupted(error, &work.runs))?;
    curves::draw_supervised(work)?;
    let done = if observer.is_idle() { "was finished before" } else { "is finished" };
    progress::say(&format!("{} {done}: model in {}, run in {}", work.recipe.name, shown(&work.out), shown(&work.runs)));
    Ok(())
}

/// An interruption as a sentence that says what is safe.
fn interrupted(error: Error, run: &Path) -> Failure {
    match error {
        Error::Interrupted => Failure::interrupted(format!("interrupted; the state is saved in `{}`", run.display()))
            .hint("the same command goes on from there"),
        other => other.into(),
    }
}

fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}

/// Whether to stop before the next tier.
fn stop_between(work: &Work<'_>) -> Result<()> {
    if interrupt::requested() { Err(interrupted(Error::Interrupted, &work.runs)) } else { Ok(()) }
}

/// Reads an alpha of the command line.
///
/// # Errors
/// Why it is none.
pub fn alpha(text: &str) -> std::result::Result<f64, String> {
    match text.trim().parse() {
        Ok(alpha) if (0.0..1.0).contains(&alpha) => Ok(alpha),
        Ok(_) => Err("alpha lies in [0, 1): at 1 a long correct answer would earn nothing".to_owned()),
        Err(_) => Err("expected a number in [0, 1)".to_owned()),
    }
}

fn gibibytes(text: &str) -> std::result::Result<f64, String> {
    let number = text.trim().trim_end_matches("GiB").trim_end();
    match number.parse::<f64>() {
        Ok(size) if size > 0.0 && size.is_finite() => Ok(size),
        _ => Err("expected a size in GiB greater than 0, as in `80` or `80GiB`".to_owned()),
    }
}

fn assignment(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
