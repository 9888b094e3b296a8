//! `serve tiers`: a family is looked at, checked and changed; what goes wrong changes nothing.

use crate::support::Workspace;

/// `serve tiers ... --family family`.
fn tiers<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["tiers"], arguments, &["--family", "family"]].concat()
}

fn manifest(space: &Workspace) -> toml::Table {
    space.read("family/family.toml").parse().unwrap()
}

#[test]
fn the_bundled_family_is_listed_and_whole() {
    let family = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini");
    let family = family.to_str().unwrap();
    let space = Workspace::new();
    let listed = space.succeed(&["tiers", "list", "--family", family]).stdout;
    let row = listed.lines().find(|line| line.starts_with("alpha-0.1 ")).unwrap();
    // The means of 0.980, 0.976, 0.916 and of 57.148, 98.062, 181.390.
    for text in ["0.1", "medium*", "95.7 %", "112", "adapter"] {
        assert!(row.contains(text), "no `{text}` in {row}");
    }
    let shown = space.succeed(&["tiers", "show", "alpha-0.1", "--family", family]).stdout;
    for text in ["5a365a9b3b85d062", "training/recipes/mini.toml", "mini:test on 2026-11-26", "easy", "98.0 %"] {
        assert!(shown.contains(text), "no `{text}` in {shown}");
    }
    let verified = space.succeed(&["tiers", "verify", "--family", family]).stdout;
    assert_eq!(verified.lines().filter(|line| line.starts_with("ok: ")).count(), 6, "{verified}");
    space.fail(&["tiers", "show", "alpha-0.3", "--family", family], 1, &["alpha-0.3", "did you mean"]);
    space.fail(&["tiers", "list"], 1, &["models/mini", "family.toml", "hint: ", "--family"]);
}

#[test]
fn faults_are_named_and_end_with_one() {
    let space = Workspace::with_family();
    space.succeed(&tiers(&["verify"]));
    let mut weights = space.bytes("family/alpha-0.1/adapter_model.safetensors");
    *weights.last_mut().unwrap() ^= 1;
    std::fs::write(space.path("family/alpha-0.1/adapter_model.safetensors"), weights).unwrap();
    let finished = space.serve(&tiers(&["verify"]));
    assert_eq!(finished.code, Some(1));
    assert!(finished.stdout.contains("tier `alpha-0.1`: the weights in"), "{}", finished.stdout);
    assert!(finished.stdout.contains("ok: alpha-0.2"), "{}", finished.stdout);
    assert!(finished.stderr.contains("1 of 3 tiers"), "{}", finished.stderr);
}

#[test]
fn a_trained_tier_records_its_base() {
    let space = Workspace::with_family();
    let manifest = manifest(&space);
    let tier = manifest["tier"].as_array().unwrap()[1].as_table().unwrap();
    assert_eq!(tier["training"]["base_sha256"], manifest["base"]["sha256"]);
}

#[test]
fn a_merged_tier_is_a_tier_like_any_other() {
    let space = Workspace::with_family();
    space.succeed(&tiers(&["merge", "alpha-0.1", "alpha-0.2", "--weight", "0.25", "--name", "between"]));
    let listed = space.succeed(&tiers(&["list"])).stdout;
    assert!(listed.lines().any(|line| line.starts_with("between") && line.contains("0.175")), "{listed}");
    let shown = space.succeed(&tiers(&["show", "between"])).stdout;
    assert!(shown.contains("serve tiers merge alpha-0.1 alpha-0.2 --weight 0.25 --name between"), "{shown}");
    let config: serde_json::Value = serde_json::from_str(&space.read("family/between/adapter_config.json")).unwrap();
    assert_eq!((config["r"].as_u64(), config["lora_alpha"].as_f64()), (Some(4), Some(4.0)));
    space.succeed(&tiers(&["verify"]));
    space.succeed(&["eval", "--family", "family", "--tier", "between", "--problems", "1", "--max-new-tokens", "4"]);
    let before = space.read("family/family.toml");
    space.fail(&tiers(&["merge", "alpha-0.1", "alpha-0.2", "--name", "between"]), 1, &["`between` already", "--name"]);
    space.fail(&tiers(&["merge", "alpha-0.1", "alpha-0.2", "--name", "x", "--weight", "1"]), 2, &["--weight"]);
    space.fail(&tiers(&["merge", "alpha-0.1", "alpha-0.3", "--name", "x"]), 1, &["alpha-0.3", "did you mean"]);
    assert_eq!(space.read("family/family.toml"), before);
    assert!(!space.path("family/x").exists());
}

#[test]
fn a_folded_family_is_a_family_of_checkpoints() {
    let space = Workspace::with_family();
    let said = space.succeed(&tiers(&["fold", "--out", "new/folded"])).stderr;
    assert!(said.contains("alpha-0.1: ") && said.contains("the rounding is 0.0 % of the adapter's change"), "{said}");
    assert!(said.contains("serve --family new/folded"), "{said}");
    let listed = space.succeed(&["tiers", "list", "--family", "new/folded"]).stdout;
    assert_eq!(listed.lines().filter(|line| line.contains("checkpoint")).count(), 2, "{listed}");
    space.succeed(&["tiers", "verify", "--family", "new/folded"]);
    space.succeed(&[
        "eval",
        "--family",
        "new/folded",
        "--tier",
        "alpha-0.2",
        "--problems",
        "1",
        "--max-new-tokens",
        "4",
    ]);
    space.fail(&tiers(&["fold", "--out", "new/folded"]), 1, &["`new/folded` exists"]);
    space.fail(&tiers(&["fold", "base", "--out", "x"]), 1, &["`base` is no adapter"]);
    space.fail(&["tiers", "fold", "--family", "new/folded", "--out", "x"], 1, &["no adapter that could be folded"]);
    assert!(!space.path("x").exists());
}

#[test]
fn tiers_come_and_go() {
    let space = Workspace::with_family();
    space.succeed(&["tiers", "add", "base", "--name", "copy", "--alpha", "0.3", "--family", "family"]);
    assert!(space.read("family/family.toml").contains("checkpoint = \"../base\""));
    space.succeed(&tiers(&["verify"]));
    space.fail(&tiers(&["add", "base", "--name", "copy", "--alpha", "0.3"]), 1, &["`copy` already"]);
    space.fail(&tiers(&["add", "elsewhere", "--name", "x", "--alpha", "0.3"]), 1, &["`elsewhere`"]);
    space.fail(&tiers(&["add", "runs", "--name", "x", "--alpha", "0.3"]), 1, &["neither config.json"]);
    space.fail(&tiers(&["add", "base", "--name", "x", "--alpha", "1"]), 2, &["[0, 1)"]);
    space.fail(&tiers(&["remove", "copy", "--delete"]), 1, &["lies outside", "hint: "]);
    let said = space.succeed(&tiers(&["remove", "copy"])).stderr;
    assert!(said.contains("its files stay") && space.path("base/config.json").exists(), "{said}");
    space.succeed(&tiers(&["remove", "alpha-0.1"]));
    assert!(space.path("family/alpha-0.1").exists());
    space.succeed(&tiers(&["remove", "alpha-0.2", "--delete"]));
    assert!(!space.path("family/alpha-0.2").exists());
    space.fail(&tiers(&["remove", "base"]), 1, &["the only tier"]);
    space.succeed(&tiers(&["add", "family/alpha-0.1", "--name", "back", "--alpha", "0.1"]));
    assert!(space.read("family/family.toml").contains("adapter = \"alpha-0.1\""));
}

#[test]
fn an_adapter_of_another_base_is_not_added() {
    let space = Workspace::with_family();
    let config = space.read("base/config.json");
    let adapter = space.read("family/alpha-0.1/adapter_config.json");
    space.write("family/alpha-0.1/adapter_config.json", &adapter.replace("\"r\": 2", "\"r\": 3"));
    let before = space.read("family/family.toml");
    let texts = ["tier `x`", "adapter_model.safetensors", "shape", "another base"];
    space.fail(&tiers(&["add", "family/alpha-0.1", "--name", "x", "--alpha", "0.3"]), 1, &texts);
    assert_eq!((space.read("family/family.toml"), space.read("base/config.json")), (before, config));
}

#[test]
fn efforts_lead_where_they_are_told() {
    let space = Workspace::with_family();
    space.succeed(&tiers(&["set-default", "HIGH"]));
    let said = space.succeed(&tiers(&["set-effort", "low", "base"])).stderr;
    assert!(said.contains("effort low leads to base now"), "{said}");
    let manifest = manifest(&space);
    assert_eq!(manifest["default_effort"].as_str(), Some("high"));
    assert_eq!(manifest["effort"]["low"].as_str(), Some("base"));
    space.fail(&tiers(&["set-effort", "low", "bass"]), 1, &["did you mean `base`?"]);
    space.fail(&tiers(&["set-default", "extreme"]), 2, &["none, minimal, low, medium, high, xhigh, max"]);
    space.fail(&["tiers", "set-default", "low", "--family", "base"], 1, &["no family.toml", "hint: "]);
}
