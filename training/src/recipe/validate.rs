//! Every value within its range, and no value that would silently have no effect.
//!
//! One line a rule. A violation names the dotted key, the allowed range and what was found.

use super::keys::{KeyError, one_of};
use super::{DataSource, Recipe, SftSchedule, Stage, TuningMode};
use crate::advantage::KlPlacement;
use crate::compute::{DeviceName, Precision, RunPath};
use crate::objective;

type Check = Result<(), KeyError>;

/// A range of numbers, in words and as a test that no NaN passes.
struct Range(&'static str, fn(f64) -> bool);

const POSITIVE: Range = Range("greater than 0", |x| x > 0.0 && x.is_finite());
const NOT_NEGATIVE: Range = Range("at least 0", |x| x >= 0.0 && x.is_finite());
const UNIT: Range = Range("in [0, 1]", |x| (0.0..=1.0).contains(&x));
const BELOW_ONE: Range = Range("in [0, 1)", |x| (0.0..1.0).contains(&x));
const NUCLEUS: Range = Range("in (0, 1]", |x| x > 0.0 && x <= 1.0);
const INSIDE: Range = Range("in (0, 1)", |x| x > 0.0 && x < 1.0);

fn number(key: &str, value: f64, range: &Range) -> Check {
    ensure((range.1)(value), key, || format!("must be {}, got {value}", range.0))
}

fn count(key: &str, value: usize) -> Check {
    ensure(value > 0, key, || format!("must be at least 1, got {value}"))
}

fn ensure(holds: bool, key: &str, message: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(KeyError::value(key, message())) }
}

impl Recipe {
    /// Checks every value against its range and against the others.
    ///
    /// # Errors
    /// [`crate::Error::Config`] naming the dotted key and what is allowed.
    pub fn validate(&self) -> crate::Result<()> {
        self.check().map_err(|error| crate::Error::config(error.to_string()))
    }

    /// A recipe with every default and nothing else, to compare with.
    pub(super) fn bare() -> Self {
        Self {
            name: "bare".to_owned(),
            stage: Stage::Rl,
            seed: super::seed(),
            base: None,
            base_name: None,
            model: None,
            compute: Default::default(),
            tuning: Default::default(),
            data: Default::default(),
            grader: Default::default(),
            objective: Default::default(),
            rollout: Default::default(),
            optimizer: Default::default(),
            algorithm: Default::default(),
            run: Default::default(),
            sft: Default::default(),
            eval: Default::default(),
            behaviours: Default::default(),
        }
    }

    pub(super) fn check(&self) -> Check {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        ensure(!self.name.is_empty() && !self.name.starts_with('.') && self.name.chars().all(plain), "name", || {
            format!("must be letters, digits, `-`, `_` and `.`, got `{}`", self.name)
        })?;
        // Larger seeds could not be written back: TOML's integers are signed.
        ensure(i64::try_from(self.seed).is_ok(), "seed", || format!("must be below 2^63, got {}", self.seed))?;
        self.check_model()?;
        self.check_compute()?;
        self.check_data()?;
        self.check_optimizer()?;
        match self.stage {
            Stage::Rl => self.check_rl()?,
            Stage::Sft => self.check_sft()?,
        }
        count("run.checkpoint_every", self.run.checkpoint_every)?;
        count("run.tier_every", self.run.tier_every.unwrap_or(1))?;
        count("run.eval_every", self.run.eval_every.unwrap_or(1))?;
        self.check_eval()?;
        self.check_effect()
    }

    fn check_model(&self) -> Check {
        if let Some(model) = &self.model {
            count("model.hidden_size", model.hidden_size)?;
            count("model.layers", model.layers)?;
            count("model.heads", model.heads)?;
            count("model.kv_heads", model.kv_heads)?;
            count("model.intermediate_size", model.intermediate_size)?;
            count("model.max_position_embeddings", model.max_position_embeddings)?;
            number("model.rope_theta", model.rope_theta, &POSITIVE)?;
            number("model.rms_norm_eps", model.rms_norm_eps, &POSITIVE)?;
            ensure(model.heads.is_multiple_of(model.kv_heads), "model.kv_heads", || {
                format!("must divide model.heads = {}, got {}", model.heads, model.kv_heads)
            })?;
            ensure(model.head_dim.is_some() || model.hidden_size.is_multiple_of(model.heads), "model.heads", || {
                format!("must divide model.hidden_size = {}, got {}", model.hidden_size, model.heads)
            })?;
            ensure(model.head_dim() > 0 && model.head_dim().is_multiple_of(2), "model.head_dim", || {
                format!("must be even and at least 2, got {}", model.head_dim())
            })?;
            if let Some(rows) = model.vocab_size {
                count("model.vocab_size", rows)?;
            }
            ensure(self.base.is_none() || model.vocabulary.is_none(), "model.vocabulary", || {
                "must be absent where there is a `base`, which brings its own tokenizer".to_owned()
            })?;
        }
        if self.tuning.mode == TuningMode::Lora {
            count("tuning.rank", self.tuning.rank)?;
            number("tuning.lora_alpha", self.tuning.lora_alpha, &POSITIVE)?;
            let modules = &self.tuning.target_modules;
            ensure(!modules.is_empty(), "tuning.target_modules", || "must name at least one projection".to_owned())?;
            let twice = modules.iter().enumerate().find(|(index, module)| modules[..*index].contains(module));
            ensure(twice.is_none(), "tuning.target_modules", || "must not name a projection twice".to_owned())?;
            ensure(self.base.is_some(), "tuning.mode", || "must be `full` for a model without `base`".to_owned())?;
        }
        Ok(())
    }

    fn check_compute(&self) -> Check {
        let compute = &self.compute;
        let plain = compute.device == DeviceName::Cpu && compute.dtype == Precision::F32;
        ensure(compute.device != DeviceName::Cpu || compute.dtype == Precision::F32, "compute.dtype", || {
            "must be `f32` on the CPU, which has no matrix product in bf16".to_owned()
        })?;
        ensure(compute.path != RunPath::Fused || plain, "compute.path", || {
            format!("must be `auto` or `layered` on {}; `fused` operations are f32 on the CPU", compute.device)
        })?;
        compute.memory.map_or(Ok(()), |memory| number("compute.memory", memory, &POSITIVE))
    }

    fn check_data(&self) -> Check {
        let data = &self.data;
        count("data.limit", data.limit)?;
        ensure(data.prompt_template.contains("{question}"), "data.prompt_template", || {
            "must contain `{question}`".to_owned()
        })?;
        ensure(data.chat_template || data.system.is_none(), "data.system", || {
            "must be absent with `chat_template = false`; write it into the template".to_owned()
        })?;
        match data.source {
            DataSource::File => ensure(data.path.is_some(), "data.path", || {
                "must name a JSONL, Parquet or Arrow file with `source = \"file\"`".to_owned()
            })?,
            DataSource::Mini => {
                ensure(data.path.is_none(), "data.path", || "must be absent with `source = \"mini\"`".to_owned())?;
                ensure(!data.gradable_only, "data.gradable_only", || {
                    "is for files; generated answers all parse".to_owned()
                })?;
                for (level, share) in &data.levels {
                    let levels = ["easy", "medium", "hard"];
                    let key = format!("data.levels.{level}");
                    ensure(levels.contains(&level.as_str()), &key, || {
                        format!("no such level; {}", one_of(&levels, level))
                    })?;
                    number(&format!("data.levels.{level}"), *share, &NOT_NEGATIVE)?;
                }
                ensure(data.levels.values().sum::<f64>() > 0.0, "data.levels", || {
                    "must have a share greater than 0".to_owned()
                })?;
            }
        }
        ensure(!data.gradable_only || self.stage == Stage::Rl, "data.gradable_only", || {
            "must be absent in supervised learning, which grades nothing".to_owned()
        })?;
        ensure(data.prompt_column.is_some() == data.response_column.is_some(), "data.prompt_column", || {
            "must be given together with `response_column`".to_owned()
        })
    }

    fn check_optimizer(&self) -> Check {
        let optimizer = &self.optimizer;
        number("optimizer.learning_rate", optimizer.learning_rate, &POSITIVE)?;
        number("optimizer.betas[0]", optimizer.betas[0], &BELOW_ONE)?;
        number("optimizer.betas[1]", optimizer.betas[1], &BELOW_ONE)?;
        number("optimizer.epsilon", optimizer.epsilon, &POSITIVE)?;
        number("optimizer.weight_decay", optimizer.weight_decay, &NOT_NEGATIVE)?;
        number("optimizer.grad_clip", optimizer.grad_clip, &POSITIVE)?;
        count("optimizer.microbatch_tokens", optimizer.microbatch_tokens)
    }

    fn check_rl(&self) -> Check {
        ensure(self.base.is_some(), "base", || "must name the folder of a model with `stage = \"rl\"`".to_owned())?;
        let name = self.objective.name.as_str();
        ensure(objective::NAMES.contains(&name), "objective.name", || one_of(&objective::NAMES, name))?;
        let alphas = &self.objective.alpha;
        ensure(!alphas.is_empty(), "objective.alpha", || "must have at least one value".to_owned())?;
        for (index, &alpha) in alphas.iter().enumerate() {
            number(&format!("objective.alpha[{index}]"), alpha, &BELOW_ONE)?;
            ensure(!alphas[..index].contains(&alpha), "objective.alpha", || format!("must not have {alpha} twice"))?;
        }
        let rollout = &self.rollout;
        count("rollout.prompts_per_step", rollout.prompts_per_step)?;
        ensure(rollout.samples_per_prompt >= 2, "rollout.samples_per_prompt", || {
            format!("must be at least 2 (the baseline is the mean of the others), got {}", rollout.samples_per_prompt)
        })?;
        ensure((POSITIVE.1)(rollout.temperature), "rollout.temperature", || {
            let found = rollout.temperature;
            format!("must be greater than 0 (at 0 all responses of a group would be the same), got {found}")
        })?;
        number("rollout.top_p", rollout.top_p, &NUCLEUS)?;
        count("rollout.max_new_tokens", rollout.max_new_tokens)?;
        count("rollout.concurrent_sequences", rollout.concurrent_sequences)?;
        if let Some(tokens) = rollout.cache_tokens {
            let longest = rollout.longest();
            ensure(tokens >= longest, "rollout.cache_tokens", || {
                format!("must hold one response of full length with its prompt, {longest} tokens, got {tokens}")
            })?;
        }
        count("rollout.max_prompt_tokens", rollout.max_prompt_tokens)?;
        if let Some(model) = &self.model {
            let longest = rollout.longest();
            ensure(longest <= model.max_position_embeddings, "rollout.max_new_tokens", || {
                let limit = model.max_position_embeddings;
                format!("must fit with max_prompt_tokens into model.max_position_embeddings = {limit}, got {longest}")
            })?;
        }
        count("run.steps", self.run.steps)?;
        let (responses, updates) =
            (rollout.prompts_per_step * rollout.samples_per_prompt, self.optimizer.updates_per_step);
        ensure(updates > 0 && responses.is_multiple_of(updates), "optimizer.updates_per_step", || {
            format!("must divide the {responses} responses of a step, got {updates}")
        })?;
        let all = self.run.steps * updates;
        ensure(self.optimizer.warmup_updates < all, "optimizer.warmup_updates", || {
            format!("must be below the {all} updates of the run, got {}", self.optimizer.warmup_updates)
        })?;
        number("algorithm.clip", self.algorithm.clip, &INSIDE)?;
        if let Some(limit) = self.algorithm.truncated_is {
            number("algorithm.truncated_is", limit, &POSITIVE)?;
        }
        number("algorithm.kl_coefficient", self.algorithm.kl_coefficient, &NOT_NEGATIVE)
    }

    fn check_sft(&self) -> Check {
        ensure(self.base.is_some() || self.model.is_some(), "model", || {
            "must give the shape of a model without `base`".to_owned()
        })?;
        if let (None, Some(model)) = (&self.base, &self.model) {
            ensure(model.vocabulary.is_some(), "model.vocabulary", || {
                "must be `mini` for a model without `base`".to_owned()
            })?;
        }
        ensure(
            self.data.source == DataSource::Mini || self.data.prompt_column.is_some(),
            "data.prompt_column",
            || "must name a column of the file with `stage = \"sft\"`".to_owned(),
        )?;
        let sft = &self.sft;
        count("sft.tokens", sft.tokens)?;
        count("sft.batch_tokens", sft.batch_tokens)?;
        number("sft.learning_rate", sft.learning_rate, &POSITIVE)?;
        ensure(sft.warmup_updates < sft.updates(), "sft.warmup_updates", || {
            format!("must be below the {} updates of the run, got {}", sft.updates(), sft.warmup_updates)
        })?;
        number("sft.final_ratio", sft.final_ratio, &UNIT)?;
        number("sft.drill_share[0]", sft.drill_share[0], &UNIT)?;
        number("sft.drill_share[1]", sft.drill_share[1], &UNIT)?;
        number("sft.drill_switch", sft.drill_switch, &UNIT)?;
        number("sft.no_thinking_share", sft.no_thinking_share, &UNIT)
    }

    fn check_eval(&self) -> Check {
        number("eval.temperature", self.eval.temperature.unwrap_or(0.0), &NOT_NEGATIVE)?;
        number("eval.top_p", self.eval.top_p.unwrap_or(1.0), &NUCLEUS)?;
        number("eval.min_p", self.eval.min_p.unwrap_or(0.0), &UNIT)?;
        count("eval.samples", self.eval.samples.unwrap_or(1))?;
        count("eval.problems_per_level", self.eval.problems_per_level.unwrap_or(1))?;
        count("eval.max_new_tokens", self.eval.max_new_tokens.unwrap_or(1))?;
        ensure(i64::try_from(self.eval.seed).is_ok(), "eval.seed", || {
            format!("must be below 2^63, got {}", self.eval.seed)
        })?;
        for (key, phrases) in [
            ("behaviours.verification", &self.behaviours.verification),
            ("behaviours.backtracking", &self.behaviours.backtracking),
            ("behaviours.exploration", &self.behaviours.exploration),
        ] {
            ensure(phrases.iter().all(|phrase| !phrase.trim().is_empty()), key, || {
                "must not have an empty phrase".to_owned()
            })?;
        }
        Ok(())
    }

    /// Refuses a setting that the run would ignore. One that has its default value is harmless and passes.
    fn check_effect(&self) -> Check {
        let bare = Self::bare();
        let inert =
            |same: bool, key: &str, because: &str| ensure(same, key, || format!("has no effect with {because}"));
        let (tuning, data) = (&self.tuning, &self.data);
        if tuning.mode == TuningMode::Full {
            let because = "`tuning.mode = \"full\"`";
            inert(tuning.rank == bare.tuning.rank, "tuning.rank", because)?;
            inert(tuning.lora_alpha == bare.tuning.lora_alpha, "tuning.lora_alpha", because)?;
            inert(tuning.target_modules == bare.tuning.target_modules, "tuning.target_modules", because)?;
        }
        if data.source == DataSource::Mini {
            let because = "`data.source = \"mini\"`";
            inert(data.question_column == bare.data.question_column, "data.question_column", because)?;
            inert(data.answer_column == bare.data.answer_column, "data.answer_column", because)?;
            inert(data.level_column.is_none(), "data.level_column", because)?;
            inert(data.id_column.is_none(), "data.id_column", because)?;
            inert(data.prompt_column.is_none(), "data.prompt_column", because)?;
            inert(data.limit == bare.data.limit, "data.limit", because)?;
        } else {
            let because = "`data.source = \"file\"`";
            inert(data.levels == bare.data.levels, "data.levels", because)?;
            inert(self.sft.drill_share == bare.sft.drill_share, "sft.drill_share", because)?;
            inert(self.sft.drill_switch == bare.sft.drill_switch, "sft.drill_switch", because)?;
            inert(self.sft.no_thinking_share == bare.sft.no_thinking_share, "sft.no_thinking_share", because)?;
        }
        if self.stage == Stage::Rl {
            let asks = self.run.eval_every.is_some();
            inert(!asks || data.held_out > 0, "run.eval_every", "`data.held_out = 0`; say how many problems")?;
            inert(asks || data.held_out == 0, "data.held_out", "no `run.eval_every`; say every how many steps")?;
            inert(self.sft == bare.sft, "sft", "`stage = \"rl\"`")?;
            inert(data.prompt_column.is_none(), "data.prompt_column", "`stage = \"rl\"`")?;
            let off = self.algorithm.kl == KlPlacement::Off;
            let same = self.algorithm.kl_coefficient == bare.algorithm.kl_coefficient;
            inert(!off || same, "algorithm.kl_coefficient", "`algorithm.kl = \"off\"`")
        } else {
            let because = "`stage = \"sft\"`";
            let (optimizer, of_bare) = (&self.optimizer, &bare.optimizer);
            inert(self.objective == bare.objective, "objective", because)?;
            inert(self.rollout == bare.rollout, "rollout", because)?;
            inert(self.algorithm == bare.algorithm, "algorithm", because)?;
            inert(self.run.steps == bare.run.steps, "run.steps", "`stage = \"sft\"`; see `sft.tokens`")?;
            inert(self.run.tier_every.is_none(), "run.tier_every", because)?;
            inert(self.run.log_rollouts == bare.run.log_rollouts, "run.log_rollouts", because)?;
            inert(self.run.eval_every.is_none(), "run.eval_every", because)?;
            inert(data.held_out == bare.data.held_out, "data.held_out", because)?;
            let see = "`stage = \"sft\"`; see `[sft]`";
            inert(optimizer.learning_rate == of_bare.learning_rate, "optimizer.learning_rate", see)?;
            inert(optimizer.warmup_updates == of_bare.warmup_updates, "optimizer.warmup_updates", see)?;
            inert(optimizer.updates_per_step == of_bare.updates_per_step, "optimizer.updates_per_step", because)?;
            let same = self.sft.final_ratio == bare.sft.final_ratio || self.sft.schedule == SftSchedule::Cosine;
            inert(same, "sft.final_ratio", "`sft.schedule = \"constant\"`")
        }
    }
}
