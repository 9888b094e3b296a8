//! `--dry-run`: the plan of a recipe and the files it would write.

use brevity_training::model::ModelConfig;
use brevity_training::recipe::{ModelSection, Recipe, Stage, TuningMode, Vocabulary};
use brevity_training::tasks::mini::tokenizer::VOCABULARY_SIZE;
use brevity_training::trainer::{ModelShape, Plan};

use super::curves::LEARNING_CURVE;
use super::{Work, base_is_there, tier_name};
use crate::cli::{Result, progress};

/// Bytes of a weight as this program computes with it: f32.
const WEIGHT_BYTES: u64 = 4;

/// Prints the plan.
///
/// # Errors
/// When neither the recipe nor its base says how large the model is.
pub fn show(work: &Work<'_>) -> Result<()> {
    let plan = Plan::for_recipe(work.recipe, &shape(work.recipe)?);
    progress::print(&format!("{plan}\n{}", destinations(work)));
    Ok(())
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
    if let Some(base) = recipe.base.as_ref().filter(|base| recipe.model.is_none() || base.join("config.json").is_file())
    {
        base_is_there(base, recipe)?;
        return Ok(of_config(&ModelConfig::read(base)?));
    }
    let section = recipe.model.clone().map(|section| match section {
        ModelSection { vocab_size: None, vocabulary: Some(Vocabulary::Mini), .. } => {
            ModelSection { vocab_size: Some(VOCABULARY_SIZE), ..section }
        }
        other => other,
    });
    let section =
        section.ok_or_else(|| brevity_training::Error::config("the recipe has neither `base` nor `[model]`"))?;
    Ok(ModelShape::from_recipe(&section, WEIGHT_BYTES)?)
}

fn of_config(config: &ModelConfig) -> ModelShape {
    ModelShape {
        hidden: config.hidden_size as u64,
        layers: config.num_hidden_layers as u64,
        heads: config.num_attention_heads as u64,
        kv_heads: config.num_key_value_heads as u64,
        head_dim: config.head_dim as u64,
        intermediate: config.intermediate_size as u64,
        vocab: config.vocab_size as u64,
        tied: config.tie_word_embeddings,
        dtype_bytes: WEIGHT_BYTES,
    }
}
