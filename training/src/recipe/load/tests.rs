use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::advantage::AdvantageNorm;
use crate::recipe::{BehavioursSection, LengthOf, Stage, TargetModule, Truncated, TuningMode};

const RL: &str = "name = \"t\"\nstage = \"rl\"\nbase = \"b\"\n[data]\nsource = \"mini\"\n";

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes")
}

fn load(name: &str) -> Recipe {
    Recipe::load(&recipes().join(name), &[]).unwrap()
}

fn set(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The message for [`RL`] with `extra` appended.
fn refusal(extra: &str) -> String {
    Recipe::parse(&format!("{RL}{extra}"), &[]).unwrap_err().to_string()
}

/// The message for [`RL`] with overrides.
fn refusal_of(pairs: &[(&str, &str)]) -> String {
    Recipe::parse(RL, &set(pairs)).unwrap_err().to_string()
}

#[test]
fn every_recipe_in_the_folder_loads_and_survives_a_round_trip() {
    let mut seen = 0;
    for entry in fs::read_dir(recipes()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let recipe = Recipe::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        let again = Recipe::parse(&recipe.to_toml().unwrap(), &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(recipe, again, "{}", path.display());
        assert_eq!(recipe.fingerprint().unwrap(), again.fingerprint().unwrap());
        seen += 1;
    }
    assert!(seen >= 6);
}

#[test]
fn defaults_are_the_numbers_of_the_paper() {
    let bare = Recipe::parse("name = 'x'\nstage = 'rl'\nbase = 'b'\ndata.path = 'd.jsonl'", &[]).unwrap();
    let paper = load("deepseek-r1-distill-qwen-1.5b.toml");
    assert_eq!(bare.rollout, paper.rollout);
    assert_eq!(bare.algorithm, paper.algorithm);
    assert_eq!(bare.objective, paper.objective);
    assert_eq!(bare.run, paper.run);
    assert_eq!(bare.seed, 42);
    assert_eq!(bare.tuning.mode, TuningMode::Full);
    assert_eq!(bare.tuning.target_modules, TargetModule::ALL);
    assert_eq!(
        (bare.optimizer.learning_rate, bare.optimizer.warmup_updates, bare.optimizer.updates_per_step),
        (5e-6, 6, 2)
    );
    assert_eq!((bare.optimizer.betas, bare.optimizer.epsilon, bare.optimizer.grad_clip), ([0.9, 0.95], 1e-8, 1.0));
    assert_eq!(load("deepseek-r1-distill-qwen-7b.toml").optimizer.learning_rate, 2e-6);
}

#[test]
fn recipes_for_real_models_count_the_phrases_that_an_evaluation_counts_without_one() {
    use crate::tasks::behaviours::{BACKTRACKING, EXPLORATION, VERIFICATION};
    for name in [
        "deepseek-r1-distill-qwen-1.5b.toml",
        "deepseek-r1-distill-qwen-7b.toml",
        "qwen3-1.7b.toml",
        "released-code.toml",
    ] {
        let BehavioursSection { verification, backtracking, exploration } = load(name).behaviours;
        assert_eq!(verification, VERIFICATION);
        assert_eq!(backtracking, BACKTRACKING);
        assert_eq!(exploration, EXPLORATION);
    }
}

#[test]
fn the_released_code_differs_from_the_text_in_three_places() {
    let (text, mut code) = (load("deepseek-r1-distill-qwen-1.5b.toml"), load("released-code.toml"));
    assert_eq!(code.algorithm.advantage_norm, AdvantageNorm::BatchToken);
    assert_eq!(code.algorithm.truncated, Truncated::Grade);
    assert_eq!(code.algorithm.length, LengthOf::PromptAndResponse);
    assert_ne!(text.fingerprint().unwrap(), code.fingerprint().unwrap());
    (code.name, code.algorithm) = (text.name.clone(), text.algorithm.clone());
    assert_eq!(text, code);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_its_neighbour() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.toml");
    fs::write(&path, format!("{RL}[optimizer]\nlearning_rat = 1e-4\n")).unwrap();
    let message = Recipe::load(&path, &[]).unwrap_err().to_string();
    let expected = "line 7: unknown key `optimizer.learning_rat`; did you mean `optimizer.learning_rate`?";
    assert_eq!(message, format!("`{}`: {expected}", path.display()));
}

#[test]
fn a_known_key_in_the_wrong_table_is_found() {
    assert_eq!(
        refusal("[rollout]\nlearning_rate = 1e-4\n"),
        "line 7: unknown key `rollout.learning_rate`; did you mean `optimizer.learning_rate`?"
    );
    assert_eq!(
        refusal("[optimiser]\nlearning_rate = 1e-4\n"),
        "line 6: unknown key `optimiser`; did you mean `optimizer`?"
    );
    assert_eq!(
        refusal("[grader]\nqqq = 1\n"),
        "line 7: unknown key `grader.qqq`; known here are `mode`, `require_box`, `after_thoughts`"
    );
}

#[test]
fn wrong_types_and_missing_keys_say_what_is_expected() {
    let cases = [
        (
            "[optimizer]\nlearning_rate = 'fast'",
            "line 7: `optimizer.learning_rate`: expected a number, got string \"fast\"",
        ),
        ("[run]\nsteps = -1", "line 7: `run.steps`: expected a whole number of at least 0, got integer `-1`"),
        ("[run]\nsteps = 1.5", "line 7: `run.steps`: expected a whole number of at least 0, got number `1.5`"),
        ("[optimizer]\nbetas = [0.9]", "line 7: `optimizer.betas`: expected a list of 2, got 1"),
        ("[optimizer]\nbetas = [0.9, 0.9, 0.9]", "line 7: `optimizer.betas`: expected a list of 2, got 3"),
        ("[objective]\nalpha = [0.1, 'b']", "line 7: `objective.alpha[1]`: expected a number, got string \"b\""),
        (
            "[objective]\nalpha = 'b'",
            "line 7: `objective.alpha`: expected a number or a list of numbers, got string \"b\"",
        ),
        (
            "[algorithm]\nkl = 'rewards'",
            "line 7: `algorithm.kl`: expected one of `reward`, `loss`, `off`, got `rewards`; did you mean `reward`?",
        ),
        ("[algorithm]\nkl = 1", "line 7: `algorithm.kl`: expected one of `reward`, `loss`, `off`, got `1`"),
        ("[[rollout]]\ntop_p = 1", "line 6: `rollout`: expected a table, got a list"),
        ("[model]\nhidden_size = 8", "line 6: missing key `model.layers`"),
    ];
    for (extra, expected) in cases {
        let message = refusal(extra);
        assert_eq!(message, expected);
    }
    assert_eq!(Recipe::parse("stage = 'rl'", &[]).unwrap_err().to_string(), "missing key `name`");
    let syntax = Recipe::parse("name = 'a'\nstage = = 'rl'", &[]).unwrap_err().to_string();
    assert!(syntax.starts_with("line 2: "), "{syntax}");
}

#[test]
fn every_range_is_checked_and_told() {
    let cases = [
        ("objective.alpha", "[0.1, 1.0]", "`objective.alpha[1]`: must be in [0, 1), got 1"),
        ("objective.alpha", "-0.1", "`objective.alpha[0]`: must be in [0, 1), got -0.1"),
        ("objective.alpha", "nan", "`objective.alpha[0]`: must be in [0, 1), got NaN"),
        ("objective.alpha", "[]", "`objective.alpha`: must have at least one value"),
        ("objective.alpha", "[0.1, 0.1]", "`objective.alpha`: must not have 0.1 twice"),
        ("rollout.prompts_per_step", "0", "`rollout.prompts_per_step`: must be at least 1, got 0"),
        (
            "rollout.samples_per_prompt",
            "1",
            "`rollout.samples_per_prompt`: must be at least 2 (the baseline is the mean of the others), got 1",
        ),
        ("rollout.top_p", "0", "`rollout.top_p`: must be in (0, 1], got 0"),
        ("rollout.top_p", "1.1", "`rollout.top_p`: must be in (0, 1], got 1.1"),
        ("rollout.max_new_tokens", "0", "`rollout.max_new_tokens`: must be at least 1, got 0"),
        ("optimizer.learning_rate", "0", "`optimizer.learning_rate`: must be greater than 0, got 0"),
        ("optimizer.learning_rate", "inf", "`optimizer.learning_rate`: must be greater than 0, got inf"),
        ("optimizer.betas", "[1, 0.9]", "`optimizer.betas[0]`: must be in [0, 1), got 1"),
        (
            "optimizer.updates_per_step",
            "3",
            "`optimizer.updates_per_step`: must divide the 256 responses of a step, got 3",
        ),
        (
            "optimizer.updates_per_step",
            "0",
            "`optimizer.updates_per_step`: must divide the 256 responses of a step, got 0",
        ),
        (
            "optimizer.warmup_updates",
            "200",
            "`optimizer.warmup_updates`: must be below the 200 updates of the run, got 200",
        ),
        ("algorithm.clip", "1", "`algorithm.clip`: must be in (0, 1), got 1"),
        ("run.checkpoint_every", "0", "`run.checkpoint_every`: must be at least 1, got 0"),
        (
            "data.levels.easi",
            "1",
            "`data.levels.easi`: no such level; expected one of `easy`, `medium`, `hard`, got `easi`; did you mean `easy`?",
        ),
        (
            "objective.name",
            "sigmoid",
            "`objective.name`: expected one of `sigmoid-length`, got `sigmoid`; did you mean `sigmoid-length`?",
        ),
        (
            "rollout.temperature",
            "0",
            "`rollout.temperature`: must be greater than 0 (at 0 all responses of a group would be the same), got 0",
        ),
        ("data.prompt_template", "x", "`data.prompt_template`: must contain `{question}`"),
        ("eval.samples", "0", "`eval.samples`: must be at least 1, got 0"),
        ("name", "a/b", "`name`: must be letters, digits, `-`, `_` and `.`, got `a/b`"),
        // What the run would ignore is refused.
        ("sft.tokens", "5", "`sft`: has no effect with `stage = \"rl\"`"),
        ("tuning.rank", "8", "`tuning.rank`: has no effect with `tuning.mode = \"full\"`"),
        ("data.question_column", "q", "`data.question_column`: has no effect with `data.source = \"mini\"`"),
    ];
    for (key, value, expected) in cases {
        assert_eq!(refusal_of(&[(key, value)]), format!("--set {key}={value}: {expected}"));
    }
    assert_eq!(
        refusal_of(&[("tuning.mode", "lora"), ("tuning.rank", "0")]),
        "--set tuning.rank=0: `tuning.rank`: must be at least 1, got 0"
    );
    assert_eq!(refusal("[optimizer]\nepsilon = 0"), "line 7: `optimizer.epsilon`: must be greater than 0, got 0");
}

#[test]
fn overrides_take_toml_values_and_bare_words() {
    let overrides = set(&[
        ("optimizer.learning_rate", "1e-4"),
        ("objective.alpha", "[0.0, 0.3]"),
        ("base", "models/other one"),
        ("tuning.mode", "lora"),
        ("rollout.temperature", "1"),
    ]);
    let recipe = Recipe::parse(RL, &overrides).unwrap();
    assert_eq!(recipe.optimizer.learning_rate, 1e-4);
    assert_eq!(recipe.objective.alpha, [0.0, 0.3]);
    assert_eq!(recipe.base, Some(PathBuf::from("models/other one")));
    assert_eq!(recipe.tuning.mode, TuningMode::Lora);
    assert_eq!(recipe.rollout.temperature, 1.0);

    assert_eq!(
        refusal_of(&[("optimizer.lr", "1")]),
        "--set optimizer.lr=1: unknown key `optimizer.lr`; known here are `learning_rate`, `betas`, `epsilon`, \
         `weight_decay`, `grad_clip`, `warmup_updates`, `updates_per_step`, `microbatch_tokens`"
    );
    assert_eq!(refusal_of(&[("name.x", "1")]), "--set name.x=1: `name` is a value, not a table");
    assert_eq!(
        refusal_of(&[("a..b", "1")]),
        "--set a..b=1: expected `KEY=VALUE` with a dotted key such as `optimizer.learning_rate`"
    );
}

#[test]
fn supervised_learning_has_rules_of_its_own() {
    let path = recipes().join("mini-sft.toml");
    let recipe = Recipe::load(&path, &[]).unwrap();
    assert_eq!(recipe.stage, Stage::Sft);
    let message = |key, value| Recipe::load(&path, &set(&[(key, value)])).unwrap_err().to_string();
    assert_eq!(
        message("optimizer.learning_rate", "1e-3"),
        "--set optimizer.learning_rate=1e-3: `optimizer.learning_rate`: has no effect with `stage = \"sft\"`; see `[sft]`"
    );
    assert_eq!(
        message("rollout.top_p", "0.5"),
        "--set rollout.top_p=0.5: `rollout`: has no effect with `stage = \"sft\"`"
    );
    assert_eq!(
        message("model.kv_heads", "3"),
        "--set model.kv_heads=3: `model.kv_heads`: must divide model.heads = 4, got 3"
    );
    assert_eq!(
        message("sft.final_ratio", "1.5"),
        "--set sft.final_ratio=1.5: `sft.final_ratio`: must be in [0, 1], got 1.5"
    );
    assert_eq!(
        message("tuning.mode", "lora"),
        "--set tuning.mode=lora: `tuning.mode`: must be `full` for a model without `base`"
    );
}

#[test]
fn the_fingerprint_covers_numbers_and_nothing_else() {
    let print = |pairs: &[(&str, &str)]| Recipe::parse(RL, &set(pairs)).unwrap().fingerprint().unwrap();
    let plain = print(&[]);
    assert_eq!(plain.len(), 64);
    for same in [
        ("name", "other"),
        ("base", "elsewhere"),
        ("objective.alpha", "0.3"),
        ("run.steps", "300"),
        ("run.checkpoint_every", "1"),
        ("eval.samples", "9"),
        ("optimizer.microbatch_tokens", "100"),
        ("optimizer.learning_rate", "0.000005"),
        ("compute.device", "cuda:1"),
        ("compute.path", "layered"),
        ("compute.memory", "24"),
        ("compute.dtype", "f32"),
    ] {
        assert_eq!(plain, print(&[same]), "{same:?}");
    }
    for other in [
        ("seed", "1"),
        ("optimizer.learning_rate", "5.1e-6"),
        ("rollout.samples_per_prompt", "4"),
        ("algorithm.kl", "loss"),
        ("data.levels.easy", "3"),
        ("tuning.mode", "lora"),
    ] {
        assert_ne!(plain, print(&[other]), "{other:?}");
    }
    let on_gpu = print(&[("compute.device", "cuda:0"), ("compute.dtype", "bf16")]);
    assert_ne!(plain, on_gpu, "half precision changes numbers");
    assert_ne!(plain, print(&[("algorithm.truncated_is", "2")]));
}

#[test]
fn the_bundled_family_is_still_what_its_recipe_makes() {
    let family = recipes().join("../../models/mini/family.toml");
    let fingerprint = load("mini.toml").fingerprint().unwrap();
    assert!(fs::read_to_string(family).unwrap().contains(&fingerprint), "keys of a recipe changed their meaning");
}

#[test]
fn devices_and_formats_that_cannot_be_are_refused() {
    for (pairs, text) in [
        (vec![("compute.device", "gpu")], "no device is called `gpu`; there are `cpu` and `cuda:0`"),
        (vec![("compute.dtype", "bf16")], "`compute.dtype`: must be `f32` on the CPU"),
        (vec![("compute.device", "cuda:0"), ("compute.path", "fused")], "must be `auto` or `layered` on cuda:0"),
        (vec![("compute.memory", "0")], "`compute.memory`: must be greater than 0"),
        (vec![("compute.dtype", "f8")], "expected one of `f32`, `bf16`"),
        (vec![("algorithm.truncated_is", "-1")], "`algorithm.truncated_is`: must be greater than 0"),
    ] {
        let message = refusal_of(&pairs);
        assert!(message.contains(text), "{message}");
    }
    let text = Recipe::parse(RL, &set(&[("compute.device", "cuda:2"), ("compute.dtype", "bf16")])).unwrap();
    assert!(text.compute.is_layered());
    assert!(text.to_toml().unwrap().contains("device = \"cuda:2\""));
    assert!(!Recipe::parse(RL, &[]).unwrap().to_toml().unwrap().contains("compute"));
}

proptest::proptest! {
    #[test]
    fn no_text_and_no_override_makes_reading_panic(text in "\\PC*", key in "[a-z_.]{0,20}", value in "\\PC*") {
        let _ = Recipe::parse(&text, &[]);
        let _ = Recipe::parse(RL, &[(key, value)]);
    }

    #[test]
    fn any_value_at_any_known_key_is_taken_or_refused_by_name(
        index in 0_usize..1000,
        value in r"-?[0-9]{1,3}(\.5)?|true|\[\]|[a-z]{1,5}",
    ) {
        let keys = known_keys();
        let key = &keys[index % keys.len()];
        match Recipe::parse(RL, &[(key.clone(), value.clone())]) {
            Ok(recipe) => {
                let again = Recipe::parse(&recipe.to_toml().unwrap(), &[]).unwrap();
                proptest::prop_assert_eq!(recipe, again);
            }
            Err(error) => {
                let message = error.to_string();
                proptest::prop_assert!(message.contains('`'), "{}", message);
            }
        }
    }
}
