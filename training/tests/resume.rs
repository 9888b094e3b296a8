//! A run that is stopped and killed at any place ends with the bytes of one that was left alone, whatever it trains.
//!
//! To be killed is a panic of the observer: the process that the run was in is gone, without a checkpoint. Stopping writes
//! one. `tests/resume.rs` of the program does the same with signals, for one kind of run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use brevity_training::methods::{rl, sft};
use brevity_training::model::{Architecture, ModelConfig, Pretrained, SpecialTokens};
use brevity_training::recipe::Recipe;
use brevity_training::tasks::mini::tokenizer;
use brevity_training::trainer::{Observer, Phase, StepMetrics, StepTimings};
use brevity_training::{Error, Result};
use candle_core::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What ends a run early.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// In good order.
    Stopped,
    /// At once.
    Killed,
}

/// Ends a run when it asks for the `at`-th time whether to stop.
struct Watch {
    end: Option<(End, usize)>,
    asked: Cell<usize>,
}

impl Watch {
    fn new(end: Option<(End, usize)>) -> Self {
        Self { end, asked: Cell::new(0) }
    }

    fn ask(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        match self.end {
            Some((End::Stopped, at)) => self.asked.get() >= at,
            Some((End::Killed, at)) if self.asked.get() >= at => panic!("killed"),
            _ => false,
        }
    }
}

impl Observer for Watch {
    fn on_step(&mut self, _: &StepMetrics, _: &StepTimings) {}
    fn on_phase(&mut self, _: Phase) {}
    fn on_warning(&mut self, _: &str) {}
    fn should_stop(&self) -> bool {
        self.ask()
    }
}

impl sft::SftObserver for Watch {
    fn on_metrics(&mut self, _: &sft::SftMetrics, _: u64, _: f64) {}
    fn on_warning(&mut self, _: &str) {}
    fn should_stop(&self) -> bool {
        self.ask()
    }
}

/// A folder with a tiny base, problems and pairs.
struct Space(tempfile::TempDir);

impl Space {
    fn new() -> Self {
        let space = Self(tempfile::tempdir().unwrap());
        let base = space.path("base");
        tokenizer::write(&base, 0).unwrap();
        let config = ModelConfig {
            architecture: Architecture::Qwen2,
            vocab_size: tokenizer::VOCABULARY_SIZE,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 8,
            max_position_embeddings: 512,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: true,
        };
        let tokens = SpecialTokens { bos: None, eos: vec![2], pad: Some(0) };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        Pretrained::random(config, tokens, &mut rng, &Device::Cpu).unwrap().save(&base).unwrap();
        let problem = |number: usize| format!("{{\"problem\": \"{number} + {}\", \"answer\": \"7\"}}\n", 7 - number);
        std::fs::write(space.path("problems.jsonl"), (0..8).map(problem).collect::<String>()).unwrap();
        let pair = |number: usize| format!("{{\"ask\": \"{number} + 1\", \"say\": \"{}\"}}\n", number + 1);
        std::fs::write(space.path("pairs.jsonl"), (0..40).map(pair).collect::<String>()).unwrap();
        space
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn recipe(&self, text: &str) -> Recipe {
        let paths = ["base", "problems.jsonl", "pairs.jsonl"];
        let whole = |text: String, name| text.replace(&format!("@{name}"), &self.path(name).display().to_string());
        Recipe::parse(&paths.into_iter().fold(text.to_owned(), whole), &[]).unwrap()
    }

    /// Trains in the folder `name` until the end or until `end` ends it.
    fn train(&self, recipe: &Recipe, name: &str, end: Option<(End, usize)>) -> Result<()> {
        let (run, out) = (self.path(&format!("{name}/run")), self.path(&format!("{name}/out")));
        let mut watch = Watch::new(end);
        match recipe.stage {
            brevity_training::recipe::Stage::Rl => rl::train(recipe, 0.2, &run, &out, &mut watch),
            brevity_training::recipe::Stage::Sft => sft::train(recipe, &run, &out, &mut watch),
        }
    }

    /// Everything that a run leaves, by name; a clock's word left out.
    fn result(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        fn collect(folder: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let file = path.file_name().unwrap().to_string_lossy().into_owned();
                if path.is_dir() {
                    collect(&path, into);
                } else if !["timings.jsonl", "run.lock"].contains(&file.as_str()) && !file.starts_with("events.") {
                    let place = format!("{}/{file}", folder.file_name().unwrap().to_string_lossy());
                    into.insert(place, std::fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        for part in ["run", "out"] {
            collect(&self.path(&format!("{name}/{part}")), &mut files);
        }
        // Which two checkpoints are kept depends on where the run was stopped; the newest is the result.
        let newest = files.keys().filter(|name| name.starts_with("checkpoint-")).max().unwrap();
        let newest = newest.split_once('/').unwrap().0.to_owned();
        files.retain(|name, _| !name.starts_with("checkpoint-") || name.starts_with(&newest));
        files
    }
}

/// The run of `text`, once alone and once ended at each of `ends` in turn (when it asks for the n-th time whether to stop).
fn assert_resumes(text: &str, ends: &[(End, usize)]) {
    let space = Space::new();
    let recipe = space.recipe(text);
    space.train(&recipe, "alone", None).unwrap();
    for &(end, at) in ends {
        let ended = catch_unwind(AssertUnwindSafe(|| space.train(&recipe, "ended", Some((end, at)))));
        match ended {
            Ok(Err(Error::Interrupted)) => assert_eq!(end, End::Stopped),
            Ok(other) => panic!("{end:?} at {at}: {other:?}"),
            Err(_) => assert_eq!(end, End::Killed),
        }
        assert!(!space.path("ended/out").exists(), "no half of a result");
    }
    space.train(&recipe, "ended", None).unwrap();
    let (alone, ended) = (space.result("alone"), space.result("ended"));
    assert_eq!(alone.keys().collect::<Vec<_>>(), ended.keys().collect::<Vec<_>>());
    for (name, bytes) in &alone {
        assert!(ended[name] == *bytes, "{name} differs");
    }
    let metrics = String::from_utf8(alone["run/metrics.jsonl"].clone()).unwrap();
    assert!(metrics.lines().count() >= 2, "{metrics}");
}

const RL: &str = "
name = 'resumed'
stage = 'rl'
base = '@base'
seed = 3
[data]
path = '@problems.jsonl'
[grader]
require_box = false
[rollout]
prompts_per_step = 3
samples_per_prompt = 4
max_new_tokens = 12
max_prompt_tokens = 64
[optimizer]
learning_rate = 1e-2
warmup_updates = 2
microbatch_tokens = 200
[run]
steps = 9
checkpoint_every = 2
";

/// Stopped in the rollout right after a checkpoint and elsewhere, killed before the first checkpoint and between others.
const RL_ENDS: [(End, usize); 6] =
    [(End::Killed, 3), (End::Stopped, 1), (End::Stopped, 40), (End::Stopped, 1), (End::Killed, 55), (End::Stopped, 30)];

#[test]
fn reinforcement_learning_of_an_adapter() {
    assert_resumes(&format!("tuning = {{ mode = 'lora', rank = 2 }}\n{RL}"), &RL_ENDS);
}

#[test]
fn reinforcement_learning_of_all_weights() {
    assert_resumes(RL, &RL_ENDS);
    let kl = "algorithm = { kl = 'loss', advantage_norm = 'batch-token', loss_aggregation = 'token-mean' }\n";
    assert_resumes(&format!("{kl}{RL}"), &RL_ENDS);
}

#[test]
fn problems_held_out_are_asked_once_and_change_nothing() {
    let looking = |every: usize| {
        let data = RL.replace("[grader]", "held_out = 2\n[grader]");
        data.replace("checkpoint_every = 2", &format!("checkpoint_every = 2\neval_every = {every}"))
    };
    assert_resumes(&looking(4), &RL_ENDS);
    let space = Space::new();
    for every in [4, 5] {
        space.train(&space.recipe(&looking(every)), &every.to_string(), None).unwrap();
    }
    let (four, five) = (space.result("4"), space.result("5"));
    let steps = |run: &BTreeMap<String, Vec<u8>>| -> Vec<u64> {
        let lines = String::from_utf8(run["run/held_out.jsonl"].clone()).unwrap();
        let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap();
        lines.lines().map(step).collect()
    };
    assert_eq!((steps(&four), steps(&five)), (vec![0, 4, 8, 9], vec![0, 5, 9]));
    assert!(four["run/metrics.jsonl"] == five["run/metrics.jsonl"], "training does not see them");
    let texts = String::from_utf8(four["run/rollouts.jsonl"].clone()).unwrap();
    let asked: std::collections::BTreeSet<String> = texts
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(asked.len() <= 6, "two of eight are held out: {asked:?}");
}

const SFT: &str = "
name = 'resumed'
stage = 'sft'
seed = 3
[sft]
tokens = 3600
batch_tokens = 30
learning_rate = 1e-2
warmup_updates = 3
[run]
checkpoint_every = 7
";

/// The 120 updates are reported in windows of 50: ended inside the first, in the second, and at an update that is a
/// checkpoint's.
const SFT_ENDS: [(End, usize); 5] =
    [(End::Killed, 5), (End::Stopped, 33), (End::Killed, 30), (End::Stopped, 7), (End::Killed, 40)];

#[test]
fn supervised_learning_of_generated_traces() {
    let model = "\
        data.source = 'mini'\n\
        model = { hidden_size = 16, layers = 1, heads = 2, kv_heads = 1, intermediate_size = 24, \
        max_position_embeddings = 1024, vocabulary = 'mini' }\n";
    assert_resumes(&format!("{model}{SFT}"), &SFT_ENDS);
}

#[test]
fn supervised_learning_of_a_file() {
    let file = "\
        base = '@base'\n\
        data = { path = '@pairs.jsonl', prompt_column = 'ask', response_column = 'say' }\n";
    assert_resumes(&format!("{file}{SFT}"), &SFT_ENDS);
    let adapter = "tuning = { mode = 'lora', rank = 2 }\n";
    assert_resumes(&format!("{adapter}{file}{SFT}"), &SFT_ENDS);
}

#[test]
fn a_run_that_has_gone_further_is_not_cut_back() {
    let space = Space::new();
    let recipe = space.recipe(RL);
    space.train(&recipe, "run", None).unwrap();
    let before = space.result("run");
    let mut shorter = recipe.clone();
    shorter.run.steps = 5;
    let message = space.train(&shorter, "run", None).unwrap_err().to_string();
    assert!(message.contains("is at step 9 already, past `run.steps` = 5"), "{message}");
    let kept = |(name, _): &(&String, &Vec<u8>)| *name != "run/recipe.toml";
    assert!(space.result("run").iter().filter(kept).eq(before.iter().filter(kept)), "nothing has changed");
}

#[test]
fn what_does_not_fit_the_context_is_refused_before_any_work() {
    let space = Space::new();
    let mut recipe = space.recipe(RL);
    recipe.rollout.max_new_tokens = 500;
    let message = space.train(&recipe, "run", None).unwrap_err().to_string();
    assert!(message.contains("564 tokens together") && message.contains("context holds 512"), "{message}");
    assert!(!space.path("run").exists());
}

#[test]
fn a_run_whose_data_or_base_has_changed_is_not_gone_on_with() {
    let space = Space::new();
    let recipe = space.recipe(RL);
    let begun = space.train(&recipe, "run", Some((End::Stopped, 20)));
    assert!(matches!(begun, Err(Error::Interrupted)));
    let settings = "configuration, tokenizer or chat template of the base model has changed";
    for (file, added, expected) in [
        ("problems.jsonl", "{\"problem\": \"7\", \"answer\": \"7\"}\n", "the data file has changed"),
        ("base/config.json", "\n", settings),
        ("base/tokenizer_config.json", "\n", settings),
    ] {
        let before = std::fs::read_to_string(space.path(file)).unwrap();
        std::fs::write(space.path(file), format!("{before}{added}")).unwrap();
        let message = space.train(&recipe, "run", None).unwrap_err().to_string();
        assert!(message.contains(expected), "{file}: {message}");
        std::fs::write(space.path(file), before).unwrap();
    }
    space.train(&recipe, "run", None).unwrap();
}
