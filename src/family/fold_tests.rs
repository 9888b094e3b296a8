use brevity_training::model::{DType, Pretrained, Weights};

use super::super::hub::Quiet;
use super::super::test_support::{adapter, config, family};
use super::super::{Effort, load, source};
use super::*;

/// Notes what it is told; stops after so many tensors.
#[derive(Default)]
struct Heard {
    tiers: Vec<(String, f64)>,
    bytes: u64,
    tensors: usize,
    most: Option<usize>,
}

impl Folding for Heard {
    fn begin(&mut self, _: &str, bytes: u64) {
        self.bytes = bytes;
    }

    fn done(&mut self, bytes: u64) -> bool {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.tensors += 1;
        self.most.is_none_or(|most| self.tensors < most)
    }

    fn end(&mut self, tier: &str, rounding: f64) {
        assert!(self.bytes < 20_000, "all but headers and settings is counted: {}", self.bytes);
        self.tiers.push((tier.to_owned(), rounding));
    }
}

/// Folds `manifest` into `out`.
fn fold(manifest: Manifest, only: &[&str], out: &Path, heard: &mut Heard) -> Result<Manifest> {
    let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
    let fold = Fold::new(&Opened::local(manifest), &only, &Hub::new("/nowhere"), &mut Quiet)?;
    assert!(fold.bytes() > 0);
    fold.write(out, "again", heard)
}

/// Folds the family in `space` into `out` beside it.
fn folded(space: &Path, only: &[&str], heard: &mut Heard) -> Result<Manifest> {
    fold(family(&space.join("family")), only, &space.join("out"), heard)
}

fn weights(folder: &Path) -> Weights {
    Pretrained::load(folder, DType::F32, &Device::Cpu).unwrap().weights
}

#[test]
fn adapters_become_checkpoints_and_everything_else_stays() {
    let space = tempfile::tempdir().unwrap();
    let mut heard = Heard::default();
    let manifest = folded(space.path(), &[], &mut heard).unwrap();
    assert_eq!(heard.tiers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["long", "short"]);
    assert!(heard.tiers.iter().all(|(_, rounding)| *rounding < 1e-6), "the base is f32");
    let old = Manifest::load(&space.path().join("family/family.toml")).unwrap();
    assert_eq!((&manifest.effort, manifest.default_effort), (&old.effort, Effort::Medium));
    assert_eq!(manifest.base.path.as_deref(), Some(Path::new("../family/base")));
    let place = |name: &str| manifest.tier(name).unwrap().checkpoint.clone().unwrap();
    assert_eq!(place("full"), Path::new("../family/full"));
    assert_eq!((place("long"), place("short")), ("long".into(), "short".into()));
    let training = manifest.tier("long").unwrap().training.clone().unwrap();
    assert_eq!((training.recipe.as_str(), training.command.as_str(), training.steps), ("fold", "again", 0));
    // What is on disk is what was returned, and can be served.
    assert_eq!(Manifest::load(manifest.path()).unwrap(), manifest);
    let source = source::Source::Folder(space.path().join("out"));
    let loaded = load(&source, false, &Hub::new("/nowhere"), &mut Quiet).unwrap();
    assert_eq!(loaded.local().filter(|tier| tier.kind == Kind::Checkpoint).count(), 3);
    // And it is the base with the adapter's change.
    let adapter = LoraAdapter::load(&space.path().join("family/short"), &config(16), &Device::Cpu).unwrap();
    let new = weights(&space.path().join("out/short"));
    for (name, weight) in weights(&space.path().join("family/base")) {
        let wanted = adapter.fold(&name, &weight).unwrap();
        let difference: f32 = (&new[&name] - &wanted).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        assert!(difference < 1e-6, "{name}: {difference}");
    }
}

#[test]
fn one_tier_alone_may_be_folded_into_the_familys_own_folder() {
    let space = tempfile::tempdir().unwrap();
    let manifest = family(&space.path().join("family"));
    let out = space.path().join("family/inner");
    let manifest = fold(manifest, &["short"], &out, &mut Heard::default()).unwrap();
    let tier = |name: &str| manifest.tier(name).unwrap();
    assert_eq!(tier("long").adapter.as_deref(), Some(Path::new("../long")));
    assert!(tier("short").adapter.is_none() && tier("short").checkpoint.is_some());
    let loaded = load(&source::Source::Folder(out), false, &Hub::new("/nowhere"), &mut Quiet).unwrap();
    assert_eq!(loaded.local().count(), 4);
}

#[test]
fn names_that_would_share_a_folder_are_refused_before_any_work() {
    let space = tempfile::tempdir().unwrap();
    let home = space.path().join("family");
    let mut manifest = family(&home);
    manifest.upsert_tier(Tier::new("a/b", 0.5).with_adapter("one", adapter(&home.join("one"), 2, 16, 5)));
    manifest.upsert_tier(Tier::new("a_b", 0.6).with_adapter("two", adapter(&home.join("two"), 2, 16, 6)));
    let mut heard = Heard::default();
    let error = fold(manifest.clone(), &[], &space.path().join("out"), &mut heard).unwrap_err().to_string();
    assert!(error.contains("`a/b` and `a_b` would both get the folder `a_b`"), "{error}");
    assert_eq!(heard.tensors, 0);
    fold(manifest, &["a/b"], &space.path().join("out"), &mut heard).unwrap();
}

#[test]
fn what_cannot_be_folded_is_refused_and_leaves_nothing() {
    let space = tempfile::tempdir().unwrap();
    let refused = |only: &[&str], heard: &mut Heard| folded(space.path(), only, heard).unwrap_err().to_string();
    let mut heard = Heard::default();
    assert!(refused(&["shrot"], &mut heard).contains("no tier `shrot`"));
    for name in ["full", "base"] {
        assert!(refused(&[name], &mut heard).contains(&format!("`{name}` is no adapter")));
    }
    let mut stopped = Heard { most: Some(3), ..Heard::default() };
    assert!(refused(&[], &mut stopped).contains("interrupted"));
    let left: Vec<_> = std::fs::read_dir(space.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["family"]);
    std::fs::create_dir(space.path().join("out")).unwrap();
    assert!(refused(&[], &mut heard).contains("exists"));
}
