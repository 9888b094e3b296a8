use super::super::hub::{Hub, Quiet};
use super::super::test_support::{config, family};
use super::super::{Manifest, Opened};
use super::*;
use brevity_training::model::{DType, Pretrained};
use serde_json::json;

/// Merges two tiers of a new family in `space`.
fn merged(space: &Path, a: &str, b: &str, share: f64) -> Result<Tier> {
    mixed(family(space), space, (a, b), share)
}

/// Merges two tiers of the family in `space`.
fn mixed(manifest: Manifest, space: &Path, (a, b): (&str, &str), share: f64) -> Result<Tier> {
    let opened = Opened::local(manifest);
    let (hub, mut quiet) = (Hub::new("/nowhere"), Quiet);
    let mut checker = Checker::new(&opened, &hub, &mut quiet)?;
    let tier = |name: &str| opened.manifest.tier(name);
    let wish = Merge { a: tier(a)?, b: tier(b)?, share, name: "new", bf16: false, command: "again".to_owned() };
    let tier = merge(&mut checker, &wish, &space.join("new"))?;
    assert_eq!(checker.tier(&tier)?.sha256, tier.sha256.clone().unwrap_or_default());
    Ok(tier)
}

/// The change that the adapter in `folder` makes to a weight of this shape.
fn change(folder: &Path, name: &str, shape: &[usize]) -> Vec<f32> {
    let adapter = LoraAdapter::load(folder, &config(16), &Device::Cpu).unwrap();
    let factors = &adapter.factors[name];
    assert_eq!((factors.b.dim(0).unwrap(), factors.a.dim(1).unwrap()), (shape[0], shape[1]));
    let product = (factors.b.matmul(&factors.a).unwrap() * adapter.config.scale()).unwrap();
    product.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn two_adapters_interpolate_exactly() {
    let space = tempfile::tempdir().unwrap();
    let tier = merged(space.path(), "long", "short", 0.25).unwrap();
    assert_eq!(tier.alpha, 0.325);
    let training = tier.training.as_ref().unwrap();
    assert_eq!((training.recipe.as_str(), training.command.as_str()), ("merge", "again"));
    let at = |name: &str| space.path().join(name);
    assert_eq!(LoraAdapter::load(&at("new"), &config(16), &Device::Cpu).unwrap().config.rank, 5);
    for (name, shape) in
        [("model.layers.0.self_attn.q_proj.weight", [16, 16]), ("model.layers.0.mlp.down_proj.weight", [16, 24])]
    {
        let (new, long, short) =
            (change(&at("new"), name, &shape), change(&at("long"), name, &shape), change(&at("short"), name, &shape));
        assert!(new.iter().zip(&long).zip(&short).all(|((new, x), y)| (new - (0.25 * x + 0.75 * y)).abs() < 1e-6));
        assert!(new.iter().any(|value| value.abs() > 1e-2), "it changes something");
    }
}

#[test]
fn an_adapter_may_be_stored_in_half_the_size() {
    let space = tempfile::tempdir().unwrap();
    merged(space.path(), "long", "short", 0.25).unwrap();
    let opened = Opened::local(family(space.path()));
    let (hub, mut quiet) = (Hub::new("/nowhere"), Quiet);
    let mut checker = Checker::new(&opened, &hub, &mut quiet).unwrap();
    let tier = |name: &str| opened.manifest.tier(name).unwrap();
    let wish =
        Merge { a: tier("long"), b: tier("short"), share: 0.25, name: "half", bf16: true, command: String::new() };
    merge(&mut checker, &wish, &space.path().join("half")).unwrap();
    let size = |name: &str| std::fs::metadata(space.path().join(name).join("adapter_model.safetensors")).unwrap().len();
    assert!(size("half") < size("new") * 3 / 4, "{} {}", size("half"), size("new"));
    let name = "model.layers.0.mlp.down_proj.weight";
    let change = |folder: &str| change(&space.path().join(folder), name, &[16, 24]);
    let largest = change("new").iter().fold(0f32, |most, value| most.max(value.abs()));
    let apart = change("half").iter().zip(change("new")).fold(0f32, |most, (x, y)| most.max((x - y).abs()));
    assert!(apart > 0.0 && apart < largest / 50.0, "{apart} {largest}");
}

#[test]
fn with_the_base_an_adapter_is_scaled() {
    for (a, b, factor) in [("base", "short", 0.75), ("short", "base", 0.25)] {
        let space = tempfile::tempdir().unwrap();
        let tier = merged(space.path(), a, b, 0.25).unwrap();
        assert!((tier.alpha - 0.4 * f64::from(factor)).abs() < 1e-9);
        let name = "model.layers.0.self_attn.q_proj.weight";
        let (new, short) =
            (change(&space.path().join("new"), name, &[16, 16]), change(&space.path().join("short"), name, &[16, 16]));
        assert!(new.iter().zip(&short).all(|(new, x)| (new - factor * x).abs() < 1e-6));
    }
}

#[test]
fn checkpoints_interpolate_tensor_by_tensor() {
    let space = tempfile::tempdir().unwrap();
    let tier = merged(space.path(), "full", "base", 0.25).unwrap();
    assert!(tier.checkpoint.is_some() && tier.alpha == 0.05);
    let read = |name: &str| Pretrained::load(&space.path().join(name), DType::F32, &Device::Cpu).unwrap().weights;
    let (new, full, base) = (read("new"), read("full"), read("base"));
    for (name, tensor) in &new {
        let expected = ((&full[name] * 0.25).unwrap() + (&base[name] * 0.75).unwrap()).unwrap();
        let off = (tensor - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(off.to_scalar::<f32>().unwrap() < 1e-6, "{name}");
    }
    assert!(space.path().join("new/tokenizer.json").is_file());
}

/// A whole folder as another trainer lays its settings out.
#[test]
fn settings_in_another_layout_are_the_same() {
    let space = tempfile::tempdir().unwrap();
    let manifest = family(space.path());
    let place = space.path().join("full/config.json");
    let mut config: Map<String, Value> = files::read_json(&place).unwrap();
    let theta = config.remove("rope_theta").unwrap();
    config.insert("rope_parameters".into(), json!({"rope_type": "default", "rope_theta": theta}));
    config.insert("rope_scaling".into(), Value::Null);
    files::write_json(&place, &config).unwrap();
    mixed(manifest, space.path(), ("base", "full"), 0.5).unwrap();
    config.insert("rms_norm_eps".into(), json!(1e-5));
    files::write_json(&place, &config).unwrap();
    let manifest = Manifest::load(&space.path().join("family.toml")).unwrap();
    std::fs::remove_dir_all(space.path().join("new")).unwrap();
    let message = mixed(manifest, space.path(), ("base", "full"), 0.5).unwrap_err().to_string();
    assert!(message.contains("differs from") && message.contains("do not mix"), "{message}");
}

#[test]
fn what_does_not_mix_is_refused_and_leaves_nothing() {
    for (a, b, share, said) in [
        ("long", "full", 0.5, "an adapter and a checkpoint cannot be mixed"),
        ("long", "long", 0.5, "itself"),
        ("long", "short", 1.0, "outside (0, 1)"),
        ("long", "short", f64::NAN, "outside (0, 1)"),
    ] {
        let space = tempfile::tempdir().unwrap();
        let message = merged(space.path(), a, b, share).unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
        let names: Vec<_> = std::fs::read_dir(space.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 5, "four folders and the manifest: {names:?}");
    }
    let space = tempfile::tempdir().unwrap();
    merged(space.path(), "long", "short", 0.5).unwrap();
    let message = merged(space.path(), "long", "short", 0.5).unwrap_err().to_string();
    assert!(message.contains("exists"), "{message}");
    let manifest = Manifest::load(&space.path().join("family.toml")).unwrap();
    assert_eq!(manifest.tiers.len(), 4, "the manifest is the caller's");
}
