//! Recipes: everything that decides a training run, in one TOML file.
//!
//! A recipe is plain data with the paper's numbers as defaults. Reading one reports a typing mistake with file, line,
//! dotted key and the nearest key that exists, and checks every value against its range before any work begins. Nothing
//! here trains, and nothing that trains takes a number from anywhere else.

mod choices;
mod compute;
mod data;
mod fingerprint;
mod keys;
mod load;
mod model;
mod rl;
mod run;
mod validate;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use choices::{DataSource, LengthOf, SftSchedule, Stage, TargetModule, Truncated, TuningMode, Vocabulary};
pub use compute::ComputeSection;
pub use data::{BehavioursSection, DataSection, GraderSection};
pub use model::{ModelSection, TuningSection};
pub use rl::{AlgorithmSection, ObjectiveSection, OptimizerSection, RolloutSection};
pub use run::{EvalSection, RunSection, SftSection};

/// A training run, or, with several values of `objective.alpha`, a family of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the model or family: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What is trained.
    pub stage: Stage,
    /// Seed of every random draw. Default 42 (script).
    #[serde(default = "seed")]
    pub seed: u64,
    /// Folder of the base model in Hugging Face format; absent for supervised learning from random weights.
    /// Like every path of a recipe, relative to the working directory. `serve train` also takes
    /// `hf://ORGANISATION/NAME[@REVISION]`, a model on the Hugging Face hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// What adapters call their base, when that is not its folder: set by who fetched it, no key of a recipe.
    #[serde(skip)]
    pub base_name: Option<String>,
    /// `[model]`: the decoder's shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSection>,
    /// `[compute]`: device and number format.
    #[serde(default, skip_serializing_if = "ComputeSection::is_default")]
    pub compute: ComputeSection,
    /// `[tuning]`: which weights move.
    #[serde(default)]
    pub tuning: TuningSection,
    /// `[data]`: problems and prompts.
    #[serde(default)]
    pub data: DataSection,
    /// `[grader]`: what counts as right.
    #[serde(default)]
    pub grader: GraderSection,
    /// `[objective]`: what a response is worth.
    #[serde(default)]
    pub objective: ObjectiveSection,
    /// `[rollout]`: how responses are sampled.
    #[serde(default)]
    pub rollout: RolloutSection,
    /// `[optimizer]`: AdamW.
    #[serde(default)]
    pub optimizer: OptimizerSection,
    /// `[algorithm]`: PPO with a leave-one-out baseline.
    #[serde(default)]
    pub algorithm: AlgorithmSection,
    /// `[run]`: length and checkpoints.
    #[serde(default)]
    pub run: RunSection,
    /// `[sft]`: supervised learning.
    #[serde(default)]
    pub sft: SftSection,
    /// `[eval]`: measuring.
    #[serde(default)]
    pub eval: EvalSection,
    /// `[behaviours]`: phrases that are counted.
    #[serde(default)]
    pub behaviours: BehavioursSection,
}

fn seed() -> u64 {
    42
}
