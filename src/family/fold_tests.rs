use brevity_training::model::{DType, Pretrained, Weights};

use super::super::hub::Quiet;
use super::super::test_support::{config, family};
use super::super::{Effort, load, source};
use super::*;

/// Notes what it is told; stops after so many tensors.
#[derive(Default)]
struct Heard {
    tiers: Vec<(String, Folded)>,
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

    fn end(&mut self, tier: &str, folded: &Folded) {
        assert!(self.bytes < 20_000, "all but headers and settings is counted: {}", self.bytes);
        self.tiers.push((tier.to_owned(), *folded));
    }
}

/// Folds the family in `space` into `out` beside it.
fn folded(space: &Path, only: &[&str], heard: &mut Heard) -> Result<Manifest> {
    let opened = Opened::local(family(&space.join("family")));
    let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
    fold(&opened, &only, &space.join("out"), (&Hub::new("/nowhere"), &mut Quiet), heard)
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
    let old = Manifest::load(&space.path().join("family/family.toml")).unwrap();
    assert_eq!((&manifest.effort, manifest.default_effort), (&old.effort, Effort::Medium));
    assert_eq!(manifest.base.path.as_deref(), Some(Path::new("../family/base")));
    let place = |name: &str| manifest.tier(name).unwrap().checkpoint.clone().unwrap();
    assert_eq!(place("full"), Path::new("../family/full"));
    assert_eq!((place("long"), place("short")), ("long".into(), "short".into()));
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
fn one_tier_alone_may_be_folded() {
    let space = tempfile::tempdir().unwrap();
    let manifest = folded(space.path(), &["short"], &mut Heard::default()).unwrap();
    let tier = |name: &str| manifest.tier(name).unwrap();
    assert_eq!(tier("long").adapter.as_deref(), Some(Path::new("../family/long")));
    assert!(tier("short").adapter.is_none() && tier("short").checkpoint.is_some());
}

#[test]
fn what_cannot_be_folded_is_refused_and_leaves_nothing() {
    let space = tempfile::tempdir().unwrap();
    let refused = |only: &[&str], heard: &mut Heard| folded(space.path(), only, heard).unwrap_err().to_string();
    let mut heard = Heard::default();
    assert!(refused(&["shrot"], &mut heard).contains("no tier `shrot`"));
    assert!(refused(&["full"], &mut heard).contains("`full` is a checkpoint: only an adapter"));
    let mut stopped = Heard { most: Some(3), ..Heard::default() };
    assert!(refused(&[], &mut stopped).contains("interrupted"));
    let left: Vec<_> = std::fs::read_dir(space.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["family"]);
    std::fs::create_dir(space.path().join("out")).unwrap();
    assert!(refused(&[], &mut heard).contains("exists"));
}
