//! Fitting a run into a device's memory before it begins.

use super::memory::{Needs, Pass};
use super::{ModelShape, bytes};
use crate::compute::{Precision, free_memory};
use crate::model::{Device, ModelConfig};
use crate::recipe::{ComputeSection, Recipe, Stage, TuningMode};
use crate::{Error, Result};

/// Parts in a hundred of the memory that a run is given; the rest is for what allocators and libraries keep.
const USABLE: u64 = 92;

/// The numbers of a run that change its memory and not its mathematics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// Bytes that the run was fitted into.
    pub memory: u64,
    /// For `optimizer.microbatch_tokens`.
    pub microbatch_tokens: usize,
    /// For `rollout.concurrent_sequences`.
    pub concurrent_sequences: usize,
    /// For `rollout.cache_tokens`, where the model runs layer by layer.
    pub cache_tokens: Option<usize>,
}

impl Fit {
    /// The largest numbers, up to the recipe's own, with which a run on a model of `shape` stays within `memory` bytes.
    ///
    /// # Errors
    /// [`Error::Config`] with the numbers and what to change, when not even one sequence fits.
    pub fn new(recipe: &Recipe, shape: &ModelShape, memory: u64) -> Result<Self> {
        let needs = Needs::of(recipe, shape);
        let usable = memory / 100 * USABLE;
        let lasting = needs.weights + needs.reference + needs.optimizer;
        let least = if recipe.stage == Stage::Rl { needs.longest } else { 1 };
        let for_updates = usable.saturating_sub(lasting + needs.gradients);
        let tokens = needs.activations.within(for_updates);
        if tokens < least {
            let needed = lasting + needs.gradients + needs.activations.at(least);
            let parts = [
                ("weights", needs.weights),
                ("reference policy", needs.reference),
                ("optimizer", needs.optimizer),
                ("gradients", needs.gradients),
                ("activations of the longest sequence", needs.activations.at(least)),
            ];
            return Err(refusal(recipe, "an update", needed, usable, memory, &parts));
        }
        let for_sampling = usable.saturating_sub(lasting);
        let rollout = &recipe.rollout;
        let sampled = match recipe.stage {
            Stage::Rl => needs.sampling.within(for_sampling, rollout.sequences() as u64, needs.longest),
            Stage::Sft => Some((rollout.concurrent_sequences as u64, 0)),
        };
        let Some((sequences, tokens_cached)) = sampled else {
            let one = needs.sampling.at(1, needs.longest);
            let parts = [
                ("weights", needs.weights),
                ("reference policy", needs.reference),
                ("optimizer", needs.optimizer),
                ("keys and values of one sequence", one),
            ];
            return Err(refusal(recipe, "sampling", lasting + one, usable, memory, &parts));
        };
        let is_bounded = recipe.stage == Stage::Rl && recipe.compute.is_layered();
        let cache_tokens = is_bounded.then(|| rollout.cache_tokens_at_most().min(tokens_cached as usize));
        // A sequence that is longer than a micro-batch makes one of its own, so less than the longest may be asked for.
        let microbatch_tokens = recipe.optimizer.microbatch_tokens.min(tokens as usize);
        Ok(Self { memory, microbatch_tokens, concurrent_sequences: sequences as usize, cache_tokens })
    }

    /// How many of `sequences` to sample at a time with a model that is loaded already, the longest of `longest` tokens, and
    /// how many tokens of keys and values to hold, in the `free` bytes of its device.
    ///
    /// # Errors
    /// [`Error::Config`] with the numbers when not even one sequence fits.
    pub fn sampling(
        compute: &ComputeSection,
        config: &ModelConfig,
        free: u64,
        sequences: usize,
        longest: usize,
    ) -> Result<(usize, usize)> {
        let shape = ModelShape::from_config(config, compute.dtype.bytes());
        let (usable, longest) = (free / 100 * USABLE, longest as u64);
        let sampling = Pass::of(compute, &shape).sampling(&shape, longest);
        let (sequences, tokens) = sampling.within(usable, sequences as u64, longest).ok_or_else(|| {
            let one = bytes(sampling.at(1, longest));
            let free = bytes(free);
            Error::config(format!(
                "sampling one response of {longest} tokens with its prompt takes {one} beside the weights, and {free} are free: \
                 take shorter responses or a larger device"
            ))
        })?;
        Ok((sequences as usize, tokens as usize))
    }

    /// The memory that a run may take: what its recipe says, or what is free on `device` before anything is loaded; `None`
    /// where neither is known.
    ///
    /// # Errors
    /// As [`free_memory`].
    pub fn memory(recipe: &Recipe, device: &Device) -> Result<Option<u64>> {
        recipe.compute.memory_bytes().map_or_else(|| free_memory(device), |memory| Ok(Some(memory)))
    }

    /// The recipe of a run on a model of `config`, fitted into `memory` where that is known.
    ///
    /// # Errors
    /// As [`Fit::new`].
    pub fn fitted(recipe: &Recipe, config: &ModelConfig, memory: Option<u64>) -> Result<Recipe> {
        let Some(memory) = memory else {
            return Ok(recipe.clone());
        };
        let shape = ModelShape::from_config(config, recipe.compute.dtype.bytes());
        Ok(Self::new(recipe, &shape, memory)?.apply(recipe))
    }

    /// The recipe with these numbers; its identity stays.
    #[must_use]
    pub fn apply(&self, recipe: &Recipe) -> Recipe {
        let mut recipe = recipe.clone();
        recipe.optimizer.microbatch_tokens = self.microbatch_tokens;
        recipe.rollout.concurrent_sequences = self.concurrent_sequences;
        recipe.rollout.cache_tokens = self.cache_tokens.or(recipe.rollout.cache_tokens);
        recipe
    }
}

fn refusal(recipe: &Recipe, what: &str, needed: u64, usable: u64, memory: u64, parts: &[(&str, u64)]) -> Error {
    let parts: Vec<String> =
        parts.iter().filter(|(_, size)| *size > 0).map(|(name, size)| format!("{name} {}", bytes(*size))).collect();
    let mut advice = vec!["a larger device"];
    if recipe.tuning.mode == TuningMode::Full {
        advice.push("an adapter (`tuning.mode = \"lora\"`)");
    }
    if recipe.compute.dtype == Precision::F32 {
        advice.push("bf16 on a GPU (`compute.dtype`)");
    }
    if recipe.stage == Stage::Rl {
        advice.push("shorter responses (`rollout.max_new_tokens`)");
    }
    Error::config(format!(
        "{what} needs {} of memory at least, and {} of {} can be used: {}. It takes {}",
        bytes(needed),
        bytes(usable),
        bytes(memory),
        parts.join(", "),
        advice.join(", or "),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::Plan;

    const GIB: u64 = 1 << 30;

    fn recipe(name: &str, pairs: &[(&str, &str)]) -> Recipe {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes").join(name);
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Recipe::load(&path, &pairs).unwrap()
    }

    const CUDA: (&str, &str) = ("compute.device", "'cuda:0'");
    const BF16: (&str, &str) = ("compute.dtype", "'bf16'");
    const LORA: (&str, &str) = ("tuning.mode", "'lora'");
    const SHORT: (&str, &str) = ("rollout.max_new_tokens", "16000");

    fn shape(recipe: &Recipe) -> ModelShape {
        ModelShape::from_recipe(recipe.model.as_ref().unwrap(), recipe.compute.dtype.bytes()).unwrap()
    }

    fn fit(recipe: &Recipe, gib: u64) -> Result<Fit> {
        Fit::new(recipe, &shape(recipe), gib * GIB)
    }

    #[test]
    fn what_is_chosen_stays_within_the_memory_and_one_more_would_not() {
        for (name, pairs, gib) in [
            ("deepseek-r1-distill-qwen-1.5b.toml", vec![CUDA, BF16], 140),
            ("deepseek-r1-distill-qwen-1.5b.toml", vec![CUDA, BF16, LORA, SHORT], 80),
            ("deepseek-r1-distill-qwen-7b.toml", vec![CUDA, BF16, LORA, SHORT], 80),
            ("qwen3-1.7b.toml", vec![CUDA, BF16, SHORT], 80),
        ] {
            let recipe = recipe(name, &pairs);
            let fit = fit(&recipe, gib).unwrap();
            let (rollout, tokens) = (&recipe.rollout, fit.cache_tokens.unwrap());
            assert!(fit.microbatch_tokens >= 16_512 && tokens >= rollout.longest(), "{name}: {fit:?}");
            // All at a time, though far from all at full length.
            assert_eq!(fit.concurrent_sequences, rollout.concurrent_sequences, "{name}");
            assert!(tokens < rollout.concurrent_sequences * rollout.longest() * 2 / 3, "{name}: {fit:?}");
            let memory = |fit: &Fit| Plan::for_recipe(&fit.apply(&recipe), &shape(&recipe)).memory;
            let within = memory(&fit);
            assert!(within.peak() <= gib * GIB / 100 * USABLE, "{name}: {within:?}");
            let more = Fit { cache_tokens: Some(tokens + 1), ..fit };
            assert!(memory(&more).peak() > gib * GIB / 100 * USABLE, "{name}");
            assert_eq!(fit.apply(&recipe).fingerprint().unwrap(), recipe.fingerprint().unwrap());
        }
    }

    #[test]
    fn what_cannot_fit_is_refused_with_numbers_and_advice() {
        let full = recipe("deepseek-r1-distill-qwen-7b.toml", &[CUDA, BF16]);
        let error = fit(&full, 140).unwrap_err().to_string();
        for text in ["an update needs", "of 140.0 GiB", "weights 14.2 GiB", "optimizer 85.1 GiB", "tuning.mode"] {
            assert!(error.contains(text), "{error}");
        }
        assert!(!error.contains("compute.dtype"), "{error}");
        let long = recipe("deepseek-r1-distill-qwen-7b.toml", &[CUDA, BF16, LORA]);
        let error = fit(&long, 17).unwrap_err().to_string();
        assert!(error.contains("rollout.max_new_tokens") && !error.contains("tuning.mode"), "{error}");
    }

    #[test]
    fn a_loaded_model_samples_as_many_as_the_free_memory_takes() {
        let recipe = recipe("deepseek-r1-distill-qwen-1.5b.toml", &[CUDA, BF16]);
        let config = recipe.model.as_ref().unwrap().config(151_936);
        let fit = |free: u64, sequences| Fit::sampling(&recipe.compute, &config, free, sequences, 4096);
        let (sequences, tokens) = fit(20 * GIB, 256).unwrap();
        let sampling = Needs::of(&recipe, &shape(&recipe)).sampling;
        assert!(sequences == 256 && (4096..256 * 4096).contains(&tokens), "{tokens}");
        assert!(sampling.each_token * tokens as u64 <= 20 * GIB);
        assert_eq!(fit(100 * GIB, 8).unwrap(), (8, 8 * 4096));
        assert!(fit(GIB / 8, 8).unwrap_err().to_string().contains("4096 tokens"));
    }

    #[test]
    fn few_sequences_are_sampled_at_a_time_where_their_logits_take_the_room() {
        let recipe = recipe("deepseek-r1-distill-qwen-1.5b.toml", &[CUDA, BF16, LORA, SHORT]);
        let needs = Needs::of(&recipe, &shape(&recipe));
        let one = needs.sampling.at(0, needs.longest) + needs.sampling.each_sequence;
        assert_eq!(needs.sampling.within(one - 1, 256, needs.longest), None);
        assert_eq!(needs.sampling.within(one, 256, needs.longest), Some((1, needs.longest)));
        let three = one + 2 * needs.sampling.each_sequence;
        assert_eq!(needs.sampling.within(three, 256, needs.longest), Some((3, needs.longest)));
        assert_eq!(needs.sampling.within(1 << 50, 256, needs.longest), Some((256, 256 * needs.longest)));
    }

    #[test]
    fn supervised_learning_may_take_any_number_of_tokens() {
        let recipe = recipe("mini-sft.toml", &[("model.vocab_size", "400"), ("compute.path", "'layered'")]);
        let shape = shape(&recipe);
        let fit = |memory| Fit::new(&recipe, &shape, memory);
        assert_eq!(fit(8 * GIB).unwrap().microbatch_tokens, recipe.optimizer.microbatch_tokens);
        let needs = Needs::of(&recipe, &shape);
        let tight =
            (needs.weights + needs.optimizer + needs.gradients + needs.activations.at(100)) * 100 / USABLE + 200;
        let tokens = fit(tight).unwrap().microbatch_tokens;
        assert!((95..110).contains(&tokens), "{tokens}");
        assert!(fit(1 << 20).is_err());
    }
}
