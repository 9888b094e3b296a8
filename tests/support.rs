//! A workspace of a test: its folder, a tiny base, data, and the binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use brevity_training::model::{Architecture, Device, ModelConfig, Pretrained, SpecialTokens};
use brevity_training::tasks::mini::tokenizer;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A folder of its own, in which the binary runs.
pub struct Workspace {
    folder: tempfile::TempDir,
}

impl Workspace {
    /// An empty one.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// One with a family of the tiers base, alpha-0.1 and alpha-0.2 in `family`, trained from the base beside it.
    pub fn with_family() -> Self {
        let space = Self::with_base();
        space.write("tiny.toml", TINY);
        space.succeed(&["train", "--recipe", "tiny.toml", "--alpha", "0.1,0.2", "--out", "family", "--runs", "runs"]);
        space
    }

    /// One with a tiny random model in `base` and eight problems, all with the answer 7, in `problems.jsonl`.
    pub fn with_base() -> Self {
        let space = Self::new();
        tokenizer::write(&space.path("base"), 0).unwrap();
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
        let model = Pretrained::random(config, tokens, &mut rng, &Device::Cpu).unwrap();
        model.save(&space.path("base")).unwrap();
        let problem = |number: usize| format!("{{\"problem\": \"{number} + {}\", \"answer\": \"7\"}}\n", 7 - number);
        space.write("problems.jsonl", &(0..8).map(problem).collect::<String>());
        space
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The text of a file.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The bytes of a file.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The binary with arguments, ready to start.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_serve"));
        command.args(arguments).current_dir(self.folder.path());
        let ours = |name: &str| name.starts_with("BREVITY_") || ["COLUMNS", "RUST_LOG"].contains(&name);
        for name in std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_str().is_some_and(ours)) {
            command.env_remove(name);
        }
        command
    }

    /// Runs the binary to its end.
    pub fn serve(&self, arguments: &[&str]) -> Finished {
        Finished::new(self.command(arguments).output().unwrap())
    }

    /// Runs it and expects success.
    pub fn succeed(&self, arguments: &[&str]) -> Finished {
        let finished = self.serve(arguments);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished
    }

    /// Runs it and expects the exit code and each of the texts in the error message.
    pub fn fail(&self, arguments: &[&str], code: i32, texts: &[&str]) {
        let finished = self.serve(arguments);
        assert_eq!(finished.code, Some(code), "{}", finished.stderr);
        assert!(finished.stderr.contains("error: "), "{}", finished.stderr);
        for text in texts {
            assert!(finished.stderr.contains(text), "no `{text}` in:\n{}", finished.stderr);
        }
    }
}

/// What a process left.
pub struct Finished {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// What a process left.
    pub fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A recipe of this repository.
pub fn recipe(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("training/recipes").join(name).display().to_string()
}

/// A recipe for [`Workspace::with_base`]: a few short steps on `problems.jsonl`, with a learning rate that moves weights.
pub const TINY: &str = r#"
name = "tiny"
stage = "rl"
seed = 3
base = "base"

[tuning]
mode = "lora"
rank = 2

[data]
source = "file"
path = "problems.jsonl"

[grader]
require_box = false # the model is random, and hits a number at times but never a box

[rollout]
prompts_per_step = 4
samples_per_prompt = 8
max_new_tokens = 16
max_prompt_tokens = 64

[optimizer]
learning_rate = 1e-2
warmup_updates = 0

[run]
steps = 2
checkpoint_every = 3
"#;
