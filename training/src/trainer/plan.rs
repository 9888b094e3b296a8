//! What a run will do, take and leave behind, worked out before it begins.
//!
//! A plan is arithmetic on a recipe and the shape of its model: no file is opened. Token counts and memory are upper
//! bounds; the formulas stand at the fields of [`Memory`]. Where the memory of the device is known, a [`Fit`] chooses what
//! may be chosen, or says why nothing can.

mod fit;
mod memory;

use std::fmt::{self, Display, Formatter};

pub use fit::Fit;
pub use memory::Memory;
use memory::{Needs, adapter_parameters};

use crate::model::{Architecture, ModelConfig};
use crate::recipe::{ModelSection, Recipe, Stage, TargetModule, TuningMode};
use crate::{Error, Result};

/// Bytes of a trained weight, and of a moment of Adam, in a checkpoint.
const F32: u64 = 4;
/// Text of a token, about.
const BYTES_OF_A_TOKEN: u64 = 4;

/// The sizes of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelShape {
    /// What kind of decoder it is.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Decoder layers.
    pub layers: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Width of one head.
    pub head_dim: u64,
    /// Width of the feed-forward block.
    pub intermediate: u64,
    /// Rows of the embedding.
    pub vocab: u64,
    /// Whether the output projection is the embedding.
    pub tied: bool,
    /// Bytes of one weight as the model computes with it: 4 for f32, 2 for bf16.
    pub dtype_bytes: u64,
}

impl ModelShape {
    /// The shape that a recipe's `[model]` gives, with weights of `dtype_bytes`.
    ///
    /// # Errors
    /// [`Error::Config`] when the section has no `vocab_size`.
    pub fn from_recipe(model: &ModelSection, dtype_bytes: u64) -> Result<Self> {
        let Some(vocab) = model.vocab_size else {
            return Err(Error::config("`model.vocab_size` is absent, so the size of the model is not known"));
        };
        Ok(Self {
            architecture: model.architecture,
            hidden: model.hidden_size as u64,
            layers: model.layers as u64,
            heads: model.heads as u64,
            kv_heads: model.kv_heads as u64,
            head_dim: model.head_dim() as u64,
            intermediate: model.intermediate_size as u64,
            vocab: vocab as u64,
            tied: model.tie_word_embeddings,
            dtype_bytes,
        })
    }

    /// The shape of a model on disk, with weights of `dtype_bytes`.
    #[must_use]
    pub fn from_config(config: &ModelConfig, dtype_bytes: u64) -> Self {
        Self {
            architecture: config.architecture,
            hidden: config.hidden_size as u64,
            layers: config.num_hidden_layers as u64,
            heads: config.num_attention_heads as u64,
            kv_heads: config.num_key_value_heads as u64,
            head_dim: config.head_dim as u64,
            intermediate: config.intermediate_size as u64,
            vocab: config.vocab_size as u64,
            tied: config.tie_word_embeddings,
            dtype_bytes,
        }
    }

    /// Inputs and outputs of a projection.
    fn projection(&self, module: TargetModule) -> (u64, u64) {
        let (query, key) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match module {
            TargetModule::QProj => (self.hidden, query),
            TargetModule::KProj | TargetModule::VProj => (self.hidden, key),
            TargetModule::OProj => (query, self.hidden),
            TargetModule::GateProj | TargetModule::UpProj => (self.hidden, self.intermediate),
            TargetModule::DownProj => (self.intermediate, self.hidden),
        }
    }

    /// Weights of the model: embedding, output projection unless tied, and in every layer seven projections, the biases
    /// of query, key and value or the norms of query and key heads where it has those, and two norms; a last norm.
    pub fn parameters(&self) -> u64 {
        let embeddings = self.vocab * self.hidden * if self.tied { 1 } else { 2 };
        let projections: u64 =
            TargetModule::ALL.iter().map(|&module| self.projection(module)).map(|(input, output)| input * output).sum();
        let biases = if self.architecture.has_biases() { (self.heads + 2 * self.kv_heads) * self.head_dim } else { 0 };
        let head_norms = if self.architecture.has_head_norms() { 2 * self.head_dim } else { 0 };
        embeddings + self.layers * (projections + biases + head_norms + 2 * self.hidden) + self.hidden
    }

    /// Weights of an adapter: two matrices of the rank beside every chosen projection.
    pub fn adapter_parameters(&self, rank: u64, modules: &[TargetModule]) -> u64 {
        let widths: u64 =
            modules.iter().map(|&module| self.projection(module)).map(|(input, output)| input + output).sum();
        self.layers * rank * widths
    }
}

/// What a recipe amounts to.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Name of the recipe.
    pub name: String,
    /// What is trained.
    pub stage: Stage,
    /// The penalties, one run each; empty for supervised learning, which is one run.
    pub alphas: Vec<f64>,
    /// Steps of a run; of supervised learning, its updates.
    pub steps: u64,
    /// Optimizer updates of a run.
    pub updates: u64,
    /// Responses sampled in a run.
    pub responses: u64,
    /// Most tokens of a run: of responses, or of supervised learning all.
    pub tokens: u64,
    /// Weights of the model, without adapter.
    pub parameters: u64,
    /// Weights that are trained.
    pub trained: u64,
    /// Memory of a run.
    pub memory: Memory,
    /// How the run fits into the device's memory, where that is known.
    pub fit: Option<Fit>,
    /// Files of a run's folder with their sizes in bytes; 0 for those of a few lines, or a line a step.
    pub files: Vec<(String, u64)>,
}

impl Plan {
    /// The plan of `recipe` for a model of `shape`.
    pub fn for_recipe(recipe: &Recipe, shape: &ModelShape) -> Self {
        let (rollout, optimizer) = (&recipe.rollout, &recipe.optimizer);
        let is_rl = recipe.stage == Stage::Rl;
        let parameters = shape.parameters();
        let trained = match recipe.tuning.mode {
            TuningMode::Lora => adapter_parameters(recipe, shape),
            TuningMode::Full => parameters,
        };
        let in_a_step = (rollout.prompts_per_step * rollout.samples_per_prompt) as u64;
        let (steps, updates, responses, tokens) = if is_rl {
            let steps = recipe.run.steps as u64;
            let responses = steps * in_a_step;
            (steps, steps * optimizer.updates_per_step as u64, responses, responses * rollout.max_new_tokens as u64)
        } else {
            let updates = recipe.sft.updates() as u64;
            (updates, updates, 0, recipe.sft.tokens as u64)
        };
        let sequences = if is_rl { rollout.sequences() as u64 } else { 0 };
        let cached = (sequences, rollout.cache_tokens_at_most() as u64);
        let memory = Needs::of(recipe, shape).memory(optimizer.microbatch_tokens as u64, cached);
        // Two moments and the weights in f32; weights that the model holds in another format stand beside them.
        let is_copied = recipe.tuning.mode == TuningMode::Full && shape.dtype_bytes < F32;
        let checkpoint = trained * (F32 * 3 + if is_copied { shape.dtype_bytes } else { 0 });
        let tiers = recipe.run.tier_every.filter(|_| is_rl).map_or(0, |every| recipe.run.steps / every) as u64;
        let logged = if is_rl { steps * recipe.run.log_rollouts.min(in_a_step as usize) as u64 } else { 0 };
        let logged = logged * rollout.max_new_tokens as u64 * BYTES_OF_A_TOKEN;
        let mut files = vec![("run.json", 0), ("recipe.toml", 0), ("metrics.jsonl", 0), ("timings.jsonl", 0)];
        files.extend((logged > 0).then_some(("rollouts.jsonl, at most", logged)));
        files.extend(recipe.run.eval_every.map(|_| ("held_out.jsonl", 0)));
        files.push(("events.out.tfevents.0.brevity", 0));
        files.push(("checkpoint-* (the newest two)", 2 * checkpoint));
        files.extend((tiers > 0).then_some(("tier-*", tiers * trained * F32)));
        Self {
            name: recipe.name.clone(),
            stage: recipe.stage,
            alphas: if is_rl { recipe.objective.alpha.clone() } else { Vec::new() },
            steps,
            updates,
            responses,
            tokens,
            parameters,
            trained,
            memory,
            fit: None,
            files: files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect(),
        }
    }

    /// Bytes of the weights that a run ends with, f32: an adapter, or the whole model.
    pub fn result_bytes(&self) -> u64 {
        self.trained * F32
    }

    /// The plan of `recipe` fitted into `memory` bytes of a device.
    ///
    /// # Errors
    /// As [`Fit::new`].
    pub fn fitted(recipe: &Recipe, shape: &ModelShape, memory: u64) -> Result<Self> {
        let fit = Fit::new(recipe, shape, memory)?;
        Ok(Self { fit: Some(fit), ..Self::for_recipe(&fit.apply(recipe), shape) })
    }

    /// Runs of the recipe.
    pub fn runs(&self) -> usize {
        self.alphas.len().max(1)
    }
}

impl Display for Plan {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Rl => "reinforcement learning",
            Stage::Sft => "supervised learning",
        };
        let mut lines = vec![format!("{}: {stage}", self.name), String::new()];
        let mut row = |name: &str, value: String| lines.push(format!("  {name:<34}{value:>20}"));
        row("runs", self.runs().to_string());
        if !self.alphas.is_empty() {
            row("  alpha", self.alphas.iter().map(f64::to_string).collect::<Vec<_>>().join(", "));
        }
        row("steps of a run", thousands(self.steps));
        row("updates", thousands(self.updates));
        if self.responses > 0 {
            row("responses", thousands(self.responses));
        }
        row("tokens, at most", thousands(self.tokens));
        row("parameters", thousands(self.parameters));
        row("  of which trained", thousands(self.trained));
        row("memory, at most", bytes(self.memory.peak()));
        row("  weights", bytes(self.memory.weights));
        row("  reference policy", bytes(self.memory.reference));
        row("  optimizer", bytes(self.memory.optimizer));
        row("  updates: gradients", bytes(self.memory.gradients));
        row("  updates: activations", bytes(self.memory.activations));
        row("  sampling: keys and values", bytes(self.memory.kv_cache));
        if let Some(fit) = &self.fit {
            row("memory of the device", bytes(fit.memory));
            row("  tokens of a micro-batch", thousands(fit.microbatch_tokens as u64));
            if self.responses > 0 {
                row("  sequences sampled at a time", thousands(fit.concurrent_sequences as u64));
                if let Some(tokens) = fit.cache_tokens {
                    row("  tokens of keys and values", thousands(tokens as u64));
                }
            }
        }
        row("files of a run", String::new());
        for (name, size) in &self.files {
            row(&format!("  {name}"), if *size == 0 { "small".to_owned() } else { bytes(*size) });
        }
        lines.iter().try_for_each(|line| writeln!(formatter, "{}", line.trim_end()))
    }
}

/// 1234567 as `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A size in the largest binary unit that leaves at least 1.
pub fn bytes(size: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = size as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{size} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn recipe(name: &str) -> Recipe {
        Recipe::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes").join(name), &[]).unwrap()
    }

    /// A decoder small enough to count by hand.
    const TINY: ModelShape = ModelShape {
        architecture: Architecture::Qwen2,
        hidden: 8,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        intermediate: 16,
        vocab: 10,
        tied: true,
        dtype_bytes: 4,
    };

    #[test]
    fn parameters_are_those_of_the_public_models() {
        for (name, count) in [
            ("deepseek-r1-distill-qwen-1.5b.toml", 1_777_088_000),
            ("deepseek-r1-distill-qwen-7b.toml", 7_615_616_512),
            ("qwen3-1.7b.toml", 1_720_574_976),
        ] {
            let shape = ModelShape::from_recipe(recipe(name).model.as_ref().unwrap(), 2).unwrap();
            assert_eq!(shape.parameters(), count, "{name}");
        }
        // Embedding 80; a layer: q 64, k 32, v 32, o 64, three of 128, biases 16, norms 16; a last norm 8.
        assert_eq!(TINY.parameters(), 80 + 2 * (192 + 384 + 16 + 16) + 8);
        // Two norms of 4 instead of the biases, and nothing.
        let of = |architecture| ModelShape { architecture, ..TINY }.parameters();
        assert_eq!(of(Architecture::Qwen3), 80 + 2 * (192 + 384 + 8 + 16) + 8);
        assert_eq!(of(Architecture::Llama), 80 + 2 * (192 + 384 + 16) + 8);
        // q 16, k 12, v 12, o 16, three of 24, in two layers with rank 3.
        assert_eq!(TINY.adapter_parameters(3, &TargetModule::ALL), 2 * 3 * (16 + 12 + 12 + 16 + 72));
        assert_eq!(TINY.adapter_parameters(3, &[TargetModule::KProj]), 2 * 3 * 12);
    }

    #[test]
    fn the_papers_run_has_the_papers_size() {
        let recipe = recipe("deepseek-r1-distill-qwen-1.5b.toml");
        let shape = ModelShape::from_recipe(recipe.model.as_ref().unwrap(), 2).unwrap();
        let plan = Plan::for_recipe(&recipe, &shape);
        assert_eq!((plan.runs(), plan.steps, plan.updates, plan.responses), (4, 100, 200, 25_600));
        assert_eq!(plan.tokens, 25_600 * 32_000);
        let n = 1_777_088_000;
        assert_eq!((plan.parameters, plan.trained), (n, n));
        assert_eq!((plan.memory.weights, plan.memory.reference), (2 * n, 2 * n));
        assert_eq!((plan.memory.gradients, plan.memory.optimizer), (4 * n, 12 * n));
        // 28 layers, 2 heads of 128, keys and values of 2 bytes: 28,672 bytes a token.
        assert_eq!(plan.memory.kv_cache, 28_672 * 256 * 32_512);
        // A layer: (6·1536 + 3·1536 + 4·256 + 4·8960)·2 + 4·12 = 101,424 bytes a token; logits 151,936·8.
        assert_eq!(plan.memory.activations, 32_512 * (28 * 101_424 + 1_215_488));
        // Two checkpoints of moments and masters in f32, and beside them the weights in bf16.
        assert_eq!(plan.files.last().map(|(_, bytes)| *bytes), Some(2 * 14 * n));
    }

    #[test]
    fn an_adapter_needs_no_reference_and_sampling_takes_turns_with_updates() {
        let text = "name = 'tiny'\nstage = 'rl'\nbase = 'b'\ndata.source = 'mini'\ntuning = { mode = 'lora', rank = 3 }\n\
                    [rollout]\nprompts_per_step = 2\nsamples_per_prompt = 4\nmax_new_tokens = 20\nmax_prompt_tokens = 12\n\
                    concurrent_sequences = 6\n[optimizer]\nmicrobatch_tokens = 30\n[run]\nsteps = 5\n";
        let plan = Plan::for_recipe(&Recipe::parse(text, &[]).unwrap(), &TINY);
        assert_eq!((plan.steps, plan.updates, plan.responses, plan.tokens), (5, 10, 40, 800));
        assert_eq!((plan.parameters, plan.trained, plan.result_bytes()), (1304, 768, 768 * 4));
        let memory = Memory {
            weights: (1304 + 768) * 4,
            reference: 0,
            gradients: 768 * 4,
            optimizer: 768 * 8,
            // A sequence of 32 tokens is longer than the micro-batch of 30.
            activations: 32 * (2 * ((48 + 24 + 16 + 64) * 4 + 8) + 80),
            kv_cache: 2 * 2 * 4 * 4 * 6 * 32,
        };
        assert_eq!(plan.memory, memory);
        assert_eq!(memory.peak(), 8288 + 6144 + 3072 + 41_984);
        assert_eq!(
            plan.to_string(),
            "\
tiny: reinforcement learning

  runs                                                 4
    alpha                            0.05, 0.1, 0.2, 0.4
  steps of a run                                       5
  updates                                             10
  responses                                           40
  tokens, at most                                    800
  parameters                                       1,304
    of which trained                                 768
  memory, at most                               58.1 KiB
    weights                                      8.1 KiB
    reference policy                                 0 B
    optimizer                                    6.0 KiB
    updates: gradients                           3.0 KiB
    updates: activations                        41.0 KiB
    sampling: keys and values                   12.0 KiB
  files of a run
    run.json                                       small
    recipe.toml                                    small
    metrics.jsonl                                  small
    timings.jsonl                                  small
    rollouts.jsonl, at most                      3.1 KiB
    events.out.tfevents.0.brevity                  small
    checkpoint-* (the newest two)               18.0 KiB
"
        );
    }

    #[test]
    fn supervised_learning_is_one_run_without_sampling() {
        let recipe = recipe("mini-sft.toml");
        let plan = Plan::for_recipe(&recipe, &TINY);
        assert_eq!((plan.runs(), plan.responses, plan.memory.kv_cache, plan.memory.reference), (1, 0, 0, 0));
        assert_eq!(plan.updates, recipe.sft.tokens.div_ceil(recipe.sft.batch_tokens) as u64);
        assert_eq!(plan.tokens, recipe.sft.tokens as u64);
        let message = ModelShape::from_recipe(recipe.model.as_ref().unwrap(), 4).unwrap_err().to_string();
        assert!(message.contains("model.vocab_size"));
    }
}
