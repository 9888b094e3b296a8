//! A small family on disk, for the tests of this folder.

use std::path::Path;

use brevity_training::model::{
    Architecture, Device, LoraAdapter, LoraConfig, ModelConfig, Pretrained, SpecialTokens, copy_tokenizer,
};
use brevity_training::tasks::mini::tokenizer;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Base, Manifest, Tier, hash};

/// One layer, as small as attention goes.
pub(super) fn config(hidden_size: usize) -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen2,
        vocab_size: tokenizer::VOCABULARY_SIZE,
        hidden_size,
        intermediate_size: 24,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tie_word_embeddings: true,
    }
}

/// Writes a random model with the tokenizer of the bundled family and returns its hash.
pub(super) fn model(folder: &Path, seed: u64) -> String {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini/base");
    copy_tokenizer(&bundled, folder).unwrap();
    let tokens = SpecialTokens { bos: None, eos: vec![2], pad: Some(0) };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let model = Pretrained::random(config(16), tokens, &mut rng, &Device::Cpu).unwrap();
    model.save(folder).unwrap();
    hash::weights_sha256(folder).unwrap()
}

/// Writes a random adapter for [`config`] with this hidden size and returns its hash.
pub(super) fn adapter(folder: &Path, rank: usize, hidden_size: usize, seed: u64) -> String {
    let modules = ["q_proj", "down_proj"].map(str::to_owned).to_vec();
    let lora = LoraConfig { rank, alpha: 3.0, target_modules: modules };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut adapter = LoraAdapter::new(lora, &config(hidden_size), &mut rng, &Device::Cpu).unwrap();
    // Second factors that change something: as many columns as needed of the weights of a random model.
    let model = Pretrained::random(config(hidden_size), SpecialTokens::default(), &mut rng, &Device::Cpu).unwrap();
    for (name, factors) in &mut adapter.factors {
        factors.b = model.weights[name].narrow(1, 0, rank).unwrap().contiguous().unwrap();
    }
    adapter.save(folder, "base").unwrap();
    hash::weights_sha256(folder).unwrap()
}

/// The family of a base, the adapters `long` (α 0.1, rank 2) and `short` (α 0.4, rank 3), and the checkpoint `full` (α 0.2).
pub(super) fn family(folder: &Path) -> Manifest {
    let base = Base { path: Some("base".into()), hub: None, sha256: Some(model(&folder.join("base"), 1)) };
    let mut manifest = Manifest::new(folder.join("family.toml"), "small", base);
    manifest.upsert_tier(Tier::new("base", 0.0));
    manifest.upsert_tier(Tier::new("long", 0.1).with_adapter("long", adapter(&folder.join("long"), 2, 16, 2)));
    manifest.upsert_tier(Tier::new("full", 0.2).with_checkpoint("full", model(&folder.join("full"), 3)));
    manifest.upsert_tier(Tier::new("short", 0.4).with_adapter("short", adapter(&folder.join("short"), 3, 16, 4)));
    manifest.save().unwrap();
    manifest
}
