use std::fs;
use std::path::Path;

use super::super::hub::Quiet;
use super::super::test_support::{adapter, family, model};
use super::super::{Base, Kind, Tier, TierCard, TierTraining, Upstream};
use super::*;

fn from(folder: &Path, allow_partial: bool) -> Result<LoadedFamily> {
    load(&Source::Folder(folder.to_owned()), allow_partial, &Hub::new("/nowhere"), &mut Quiet)
}

/// The family after `change`; the message of loading it whole, which must also be the reason of the only broken tier.
fn broken(name: &str, change: impl FnOnce(&Path, &mut Manifest)) -> String {
    let space = tempfile::tempdir().unwrap();
    let mut manifest = family(space.path());
    change(space.path(), &mut manifest);
    manifest.save().unwrap();
    let message = from(space.path(), false).unwrap_err().to_string();
    let partial = from(space.path(), true).unwrap();
    let reasons: Vec<&BrokenTier> = partial.broken().collect();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert_eq!(reasons[0].name, name);
    assert!(message.contains(&reasons[0].reason) && message.contains("family `small`"), "{message}");
    assert!(reasons[0].reason.starts_with(&format!("tier `{name}`: ")), "{message}");
    assert_eq!(partial.manifest.effort, manifest.effort, "the map of efforts stays as it is");
    assert_eq!(partial.local().count(), 3);
    message
}

fn training(base_sha256: &str) -> TierTraining {
    TierTraining {
        recipe: "r".to_owned(),
        fingerprint: "f".to_owned(),
        steps: 1,
        seed: 0,
        wall_seconds: 1.0,
        command: "c".to_owned(),
        base_sha256: Some(base_sha256.to_owned()),
    }
}

#[test]
fn a_good_family_is_ready_as_a_whole() {
    let space = tempfile::tempdir().unwrap();
    let manifest = family(space.path());
    let loaded = from(space.path(), false).unwrap();
    let tiers: Vec<_> = loaded.local().map(|tier| (tier.name.as_str(), tier.kind, tier.folder.clone())).collect();
    let at = |name: &str| space.path().join(name);
    assert_eq!(
        tiers,
        [
            ("base", Kind::Base, at("base")),
            ("long", Kind::Adapter, at("long")),
            ("full", Kind::Checkpoint, at("full")),
            ("short", Kind::Adapter, at("short")),
        ]
    );
    assert_eq!(loaded.broken().count(), 0);
    assert_eq!(loaded.base.map(|base| base.sha256), manifest.base.sha256);
    assert!(loaded.warnings.is_empty());
}

fn elsewhere(key: Option<&str>) -> Upstream {
    let (url, model) = ("http://gpu:8000/v1".to_owned(), "m".to_owned());
    Upstream { url, model, api_key_env: key.map(str::to_owned), ..Upstream::default() }
}

#[test]
fn some_tiers_may_be_elsewhere() {
    let space = tempfile::tempdir().unwrap();
    let mut manifest = family(space.path());
    manifest.upsert_tier(Tier::new("full", 0.2).with_upstream(elsewhere(None)));
    manifest.save().unwrap();
    let loaded = from(space.path(), false).unwrap();
    let remote: Vec<&str> = loaded.remote().map(|tier| tier.name.as_str()).collect();
    assert_eq!((remote, loaded.local().count(), loaded.base.is_some()), (vec!["full"], 3, true));
    let (opened, hub, mut quiet) = (Opened::local(manifest), Hub::new("/nowhere"), Quiet);
    let tier = opened.manifest.tier("full").unwrap();
    let error = Checker::new(&opened, &hub, &mut quiet).unwrap().tier(tier).unwrap_err().to_string();
    assert!(error.contains("tier `full`") && error.contains("m at http://gpu:8000/v1"), "{error}");
}

#[test]
fn a_family_that_is_all_elsewhere_needs_neither_base_nor_folders() {
    let space = tempfile::tempdir().unwrap();
    let mut manifest = Manifest::new(space.path().join("family.toml"), "far", Base::default());
    manifest.upsert_tier(Tier::new("long", 0.0).with_upstream(elsewhere(None)));
    manifest.upsert_tier(Tier::new("short", 0.4).with_upstream(elsewhere(Some("BREVITY_TEST_KEY_THAT_IS_NOT_SET"))));
    manifest.save().unwrap();
    let message = from(space.path(), false).unwrap_err().to_string();
    assert!(message.contains("tier `short`: the environment variable BREVITY_TEST_KEY_THAT_IS_NOT_SET"), "{message}");
    let loaded = from(space.path(), true).unwrap();
    assert_eq!((loaded.remote().count(), loaded.broken().count(), loaded.base.is_none()), (1, 1, true));
    let (opened, hub, mut quiet) = (Opened::local(manifest), Hub::new("/nowhere"), Quiet);
    let error = Checker::new(&opened, &hub, &mut quiet).err().unwrap().to_string();
    assert!(error.contains("family.toml") && error.contains("weights on this machine"), "{error}");
}

#[test]
fn missing_files_are_named() {
    let message = broken("long", |space, _| fs::remove_dir_all(space.join("long")).unwrap());
    assert!(message.contains("family.toml") && message.contains("no folder") && message.contains("long"), "{message}");
    let message = broken("long", |space, _| fs::remove_file(space.join("long/adapter_config.json")).unwrap());
    assert!(message.contains("adapter_config.json"), "{message}");
    let message = broken("full", |space, _| fs::remove_file(space.join("full/model.safetensors")).unwrap());
    assert!(message.contains("model.safetensors"), "{message}");
    let message = broken("full", |space, _| fs::write(space.join("full/config.json"), "{}").unwrap());
    assert!(message.contains("config.json") && message.contains("`model_type`"), "{message}");
}

#[test]
fn other_weights_are_found() {
    let message = broken("short", |space, _| drop(adapter(&space.join("short"), 3, 16, 9)));
    assert!(message.contains("are not those of") && message.contains("family.toml"), "{message}");
    let message = broken("short", |space, _| {
        let place = space.join("short/adapter_model.safetensors");
        let bytes = fs::read(&place).unwrap();
        fs::write(&place, &bytes[..bytes.len() - 1]).unwrap();
    });
    assert!(message.contains("adapter_model.safetensors") && message.contains("not a whole"), "{message}");
}

#[test]
fn an_adapter_of_another_base_is_found() {
    let message = broken("short", |space, manifest| {
        let sha256 = adapter(&space.join("short"), 3, 32, 4);
        manifest.upsert_tier(Tier::new("short", 0.4).with_adapter("short", sha256));
    });
    assert!(
        message.contains("another base") && message.contains("[32, 3]") && message.contains("[16, 3]"),
        "{message}"
    );
    let message = broken("short", |_, manifest| {
        let other = manifest.tiers[2].sha256.clone().unwrap();
        manifest.tiers[3].training = Some(training(&other));
    });
    assert!(message.contains("training.base_sha256") && message.contains("use that base"), "{message}");
}

#[test]
fn another_tokenizer_is_found() {
    let message = broken("full", |space, _| {
        let place = space.join("full/tokenizer.json");
        let mut json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&place).unwrap()).unwrap();
        json["added_tokens"][0]["content"] = "<other>".into();
        fs::write(&place, json.to_string()).unwrap();
    });
    let both = ["base/tokenizer.json", "full/tokenizer.json", "<other>"];
    assert!(both.iter().all(|text| message.contains(text)), "{message}");
}

#[test]
fn a_broken_base_is_an_error_even_for_a_part() {
    let space = tempfile::tempdir().unwrap();
    family(space.path());
    model(&space.path().join("base"), 7);
    let message = from(space.path(), true).unwrap_err().to_string();
    assert!(
        message.contains("family `small`: the base: the weights in") && message.contains("not those of"),
        "{message}"
    );
}

#[test]
fn a_family_without_any_good_tier_is_an_error() {
    let space = tempfile::tempdir().unwrap();
    let mut manifest = family(space.path());
    for name in ["base", "full"] {
        manifest.remove_tier(name).unwrap();
    }
    manifest.save().unwrap();
    fs::remove_dir_all(space.path().join("long")).unwrap();
    assert_eq!(from(space.path(), true).unwrap().local().count(), 1);
    fs::remove_dir_all(space.path().join("short")).unwrap();
    let message = from(space.path(), true).unwrap_err().to_string();
    assert!(message.contains("no tier can be served") && message.contains("`long`") && message.contains("`short`"));
}

#[test]
fn a_stale_card_is_a_warning() {
    let space = tempfile::tempdir().unwrap();
    let mut manifest = family(space.path());
    let weights = manifest.base.sha256.clone().unwrap();
    manifest.tiers[1].card = Some(TierCard {
        dataset: "mini:test".to_owned(),
        date: "2025-03-31".to_owned(),
        seed: 0,
        temperature: 1.0,
        top_p: 1.0,
        top_k: None,
        min_p: 0.0,
        samples: 1,
        weights_sha256: weights,
        levels: Vec::new(),
    });
    manifest.save().unwrap();
    let loaded = from(space.path(), false).unwrap();
    assert!(loaded.local().any(|tier| tier.name == "long" && tier.is_card_stale()));
    assert!(
        matches!(loaded.warnings.as_slice(), [warning] if warning.contains("`long`") && warning.contains("serve eval"))
    );
}

#[test]
fn a_checkpoint_alone_is_a_family() {
    let space = tempfile::tempdir().unwrap();
    let folder = space.path().join("alone");
    let sha256 = model(&folder, 1);
    let loaded = from(&folder, false).unwrap();
    assert_eq!(loaded.manifest.name, "alone");
    let tiers: Vec<_> = loaded.local().map(|tier| (tier.name.as_str(), tier.kind, &tier.sha256)).collect();
    assert_eq!(tiers, [("base", Kind::Base, &sha256)]);
    assert!(!folder.join("family.toml").exists());
}
