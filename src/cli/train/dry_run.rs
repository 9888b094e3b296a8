//! `--dry-run`: the plan of a recipe and the files it would write.

use brevity_training::model::ModelConfig;
use brevity_training::recipe::{ModelSection, Recipe, Stage, TuningMode, Vocabulary};
use brevity_training::tasks::mini::tokenizer::VOCABULARY_SIZE;
use brevity_training::trainer::{Fit, ModelShape, Plan};

use super::curves::LEARNING_CURVE;
use super::{Work, base_is_there, data_is_there, destination, tier_name};
use crate::cli::remote::address;
use crate::cli::{Result, progress};

/// Prints the plan.
///
/// # Errors
/// When neither the recipe nor its base says how large the model is, or the run cannot fit into the device's memory.
pub fn show(work: &Work<'_>) -> Result<()> {
    let shape = shape(work.recipe)?;
    let plan = match memory(work.recipe) {
        Some(memory) => Plan::fitted(work.recipe, &shape, memory)?,
        None => Plan::for_recipe(work.recipe, &shape),
    };
    progress::print(&format!("{plan}\n{}", destinations(work)));
    match &work.recipe.base {
        Some(base) if address(Some(base)).is_some() => {
            if work.recipe.model.is_some() {
                progress::say("the size is that of the recipe's `[model]`: the base on the hub was not looked at");
            }
        }
        base => {
            let base = base.as_ref().map_or(Ok(()), |base| base_is_there(base, work.recipe));
            let data = base.and_then(|()| data_is_there(work.recipe));
            if let Err(obstacle) = data.and_then(|()| destination::may_begin(work)) {
                progress::say(&format!("warning: as things are, the run would be refused: {obstacle}"));
            }
        }
    }
    Ok(())
}

/// The memory that a run would be fitted into: what was given, or what is free on the device if it is here.
fn memory(recipe: &Recipe) -> Option<u64> {
    let compute = &recipe.compute;
    let free = || Fit::memory(recipe, &compute.device.open(compute.dtype).ok()?).ok()?;
    compute.memory_bytes().or_else(free)
}

/// Where what would go, a line each.
fn destinations(work: &Work<'_>) -> String {
    let (out, runs) = (work.out.display(), work.runs.display());
    if work.recipe.stage == Stage::Sft {
        return format!("would write\n  {runs}/\n  {out}/ (model and tokenizer)\n  {out}/{LEARNING_CURVE}\n");
    }
    let kind = if work.recipe.tuning.mode == TuningMode::Lora { "adapter" } else { "model and tokenizer" };
    let tier = |alpha: &f64| {
        let name = tier_name(*alpha);
        format!("  {runs}/{name}/\n  {out}/{name}/ ({kind})\n  {out}/curves/{name}.svg\n")
    };
    let tiers: String = work.recipe.objective.alpha.iter().map(tier).collect();
    format!("would write\n{tiers}  {out}/curves/family.svg\n  {out}/family.toml\n")
}

/// The size of the model: that of the base on disk, else what the recipe says.
///
/// # Errors
/// When neither says it, or the base's configuration cannot be read.
pub fn shape(recipe: &Recipe) -> Result<ModelShape> {
    let weight_bytes = recipe.compute.dtype.bytes();
    if let Some(base) = recipe.base.as_ref().filter(|base| recipe.model.is_none() || base.join("config.json").is_file())
    {
        base_is_there(base, recipe)?;
        return Ok(ModelShape::from_config(&ModelConfig::read(base)?, weight_bytes));
    }
    let section = recipe.model.clone().map(|section| match section {
        ModelSection { vocab_size: None, vocabulary: Some(Vocabulary::Mini), .. } => {
            ModelSection { vocab_size: Some(VOCABULARY_SIZE), ..section }
        }
        other => other,
    });
    let section =
        section.ok_or_else(|| brevity_training::Error::config("the recipe has neither `base` nor `[model]`"))?;
    Ok(ModelShape::from_recipe(&section, weight_bytes)?)
}
