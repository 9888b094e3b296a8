//! What goes wrong is said with the place and the way out, before any work, and never leaves half a tier.

use crate::support::{TINY, Workspace, recipe};

const TRAIN: &[&str] = &["train", "--recipe", "tiny.toml", "--alpha", "0.1,0.2", "--out", "family", "--runs", "runs"];

/// A workspace with the recipe [`TINY`], changed.
fn workspace(change: impl Fn(&str) -> String) -> Workspace {
    let space = Workspace::with_base();
    space.write("tiny.toml", &change(TINY));
    space
}

/// Training fails with these texts and leaves no tier and no manifest.
fn refuses(space: &Workspace, arguments: &[&str], texts: &[&str]) {
    space.fail(arguments, 1, texts);
    assert_no_tier(space);
}

fn assert_no_tier(space: &Workspace) {
    for name in ["family/family.toml", "family/alpha-0.1", "family/alpha-0.2"] {
        assert!(!space.path(name).exists(), "{name} was left behind");
    }
}

#[test]
fn a_mistyped_key_is_told_with_the_one_that_was_meant() {
    let space = workspace(|recipe| recipe.replace("learning_rate", "learning_rat"));
    refuses(
        &space,
        TRAIN,
        &["tiny.toml", "line 25", "`optimizer.learning_rat`", "did you mean `optimizer.learning_rate`?"],
    );
    let space = workspace(str::to_owned);
    let set = [TRAIN, &["--set", "rollout.temprature=2"]].concat();
    refuses(&space, &set, &["--set rollout.temprature=2", "did you mean `rollout.temperature`?"]);
}

#[test]
fn an_alpha_of_one_is_refused() {
    let space = workspace(str::to_owned);
    space.fail(&["train", "--recipe", "tiny.toml", "--alpha", "0.1,1.0"], 2, &["--alpha", "[0, 1)"]);
    space.fail(&["train", "--recipe", "tiny.toml", "--set", "objective.alpha=[0.1, 1.0]"], 1, &["objective.alpha[1]"]);
    space.fail(&["train", "--recipe", "tiny.toml", "--alpha", "0.1,0.1"], 1, &["twice"]);
    assert_no_tier(&space);
}

#[test]
fn a_missing_base_is_told_with_how_to_get_one() {
    let space = workspace(|recipe| recipe.replace("\"base\"", "\"elsewhere\""));
    refuses(&space, TRAIN, &["`elsewhere`", "hint: ", "--set base=FOLDER"]);
    space.fail(&["train", "--recipe", &recipe("mini.toml")], 1, &["models/mini/base", "hint: ", "mini-sft.toml"]);
    space.fail(&["eval"], 1, &["models/mini", "family.toml", "hint: "]);
    space.fail(&["eval", "--model", "elsewhere"], 1, &["`elsewhere`"]);
}

#[test]
fn data_sets_that_do_not_fit_are_refused() {
    let space = workspace(str::to_owned);
    space.write("problems.jsonl", "");
    refuses(&space, TRAIN, &["problems.jsonl", "no rows"]);
    space.write("problems.jsonl", "{\"problem\": \"1 + 1\", \"answr\": \"2\"}\n");
    refuses(&space, TRAIN, &["problems.jsonl", "line 1", "no column `answer`", "did you mean `answr`?"]);
    std::fs::remove_file(space.path("problems.jsonl")).unwrap();
    refuses(&space, TRAIN, &["no data set in `problems.jsonl`", "--set data.path=hf://datasets/"]);
    // The mistake put right, the same command works: nothing of it was remembered.
    space.write("problems.jsonl", "{\"problem\": \"1 + 1\", \"answer\": \"2\"}\n");
    space.succeed(TRAIN);
}

#[test]
fn weights_that_do_not_match_their_config_are_refused() {
    let space = workspace(str::to_owned);
    let config = space.read("base/config.json");
    space.write("base/config.json", &config.replace("\"intermediate_size\": 24", "\"intermediate_size\": 32"));
    refuses(&space, TRAIN, &["model.layers.0.mlp.gate_proj.weight", "[24, 16]", "[32, 16]"]);
    space.fail(&["eval", "--model", "base"], 1, &["[24, 16]", "[32, 16]"]);
    space.write("base/config.json", &config);
    space.write("base/model.safetensors", "torn");
    refuses(&space, TRAIN, &["model.safetensors", "safetensors"]);
}

#[test]
fn what_another_recipe_made_is_left_alone() {
    let space = workspace(str::to_owned);
    space.succeed(TRAIN);
    let before = (space.read("family/family.toml"), space.bytes("family/alpha-0.1/adapter_model.safetensors"));
    let other = [TRAIN, &["--set", "seed=4"]].concat();
    space.fail(&other, 1, &["belongs to a different run", "`seed` is 4, was 3", "--runs"]);
    let elsewhere = [&TRAIN[..TRAIN.len() - 1], &["others", "--set", "seed=4"]].concat();
    space.fail(&elsewhere, 1, &["alpha-0.1", "another recipe", "--out"]);
    let after = (space.read("family/family.toml"), space.bytes("family/alpha-0.1/adapter_model.safetensors"));
    assert_eq!(before, after);
}

#[test]
fn a_shorter_run_elsewhere_does_not_get_the_weights_of_a_longer_one() {
    let space = workspace(str::to_owned);
    space.succeed(TRAIN);
    let shorter = [&TRAIN[..5], &["--out", "shorter", "--runs", "runs", "--set", "run.steps=1"]].concat();
    space.fail(&shorter, 1, &["is at step 2 already, past `run.steps` = 1", "another folder"]);
    assert!(!space.path("shorter/family.toml").exists() && !space.path("shorter/alpha-0.1").exists());
}

#[test]
fn a_tier_that_the_family_does_not_list_is_left_alone() {
    let space = workspace(str::to_owned);
    let first = [&TRAIN[..4], &["0.1"], &TRAIN[5..]].concat();
    space.succeed(&first);
    std::fs::create_dir_all(space.path("family/alpha-0.2")).unwrap();
    space.write("family/alpha-0.2/diary.txt", "dear diary");
    space.fail(TRAIN, 1, &["family/alpha-0.2` is not empty", "neither does a family.toml list it", "--out"]);
    assert_eq!(space.read("family/alpha-0.2/diary.txt"), "dear diary");
    space.succeed(&first);
}

/// The shell's limit on the size of a file, its signal ignored, is as good as a full disk.
#[cfg(unix)]
#[test]
fn a_place_without_room_is_found_before_any_work() {
    let space = workspace(str::to_owned);
    let limited = |arguments: &[&str]| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_serve")]);
        let output = shell.args(arguments).current_dir(space.path("")).output().unwrap();
        crate::support::Finished::new(output)
    };
    for arguments in [TRAIN, &["eval", "--model", "base", "--out", "family"]] {
        let finished = limited(arguments);
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        for text in ["cannot write `family`", "hint: ", "--out"] {
            assert!(finished.stderr.contains(text), "no `{text}` in:\n{}", finished.stderr);
        }
        assert!(!finished.stderr.contains("step"), "{}", finished.stderr);
    }
    assert_no_tier(&space);
    assert_eq!(std::fs::read_dir(space.path("family")).unwrap().count(), 0, "no trial stays behind");
    let larger = "[model]\nhidden_size = 1000000\nlayers = 1000\nheads = 1000\nkv_heads = 1\n\
                  intermediate_size = 1000000\nvocab_size = 1000000\n";
    space.write(
        "huge.toml",
        &format!("{}{larger}vocabulary = 'mini'\n", "name = 'huge'\nstage = 'sft'\ndata.source = 'mini'\n"),
    );
    let huge = ["train", "--recipe", "huge.toml", "--out", "huge", "--runs", "huge-run"];
    space.fail(&huge, 1, &["the disk of", "left", "are needed", "hint: "]);
}

#[test]
fn folders_with_something_else_in_them_are_left_alone() {
    let space = workspace(str::to_owned);
    std::fs::create_dir_all(space.path("family")).unwrap();
    space.write("family/diary.txt", "dear diary");
    refuses(&space, TRAIN, &["`diary.txt`", "--out"]);
    std::fs::remove_file(space.path("family/diary.txt")).unwrap();
    std::fs::create_dir_all(space.path("runs/alpha-0.2")).unwrap();
    space.write("runs/alpha-0.2/diary.txt", "dear diary");
    refuses(&space, TRAIN, &["runs/alpha-0.2", "holds no run"]);
    let sft = recipe("mini-sft.toml");
    space.fail(&["train", "--recipe", &sft, "--out", "base", "--runs", "new"], 1, &["`base` is not empty", "--out"]);
}

#[test]
fn a_file_where_a_folder_should_be_is_named() {
    for (file, option) in [("family", "--out"), ("runs", "--runs"), ("runs/alpha-0.2", "--runs")] {
        let space = workspace(str::to_owned);
        std::fs::create_dir_all(space.path(file).parent().unwrap()).unwrap();
        space.write(file, "");
        refuses(&space, TRAIN, &[file, option]);
    }
    let space = workspace(str::to_owned);
    space.write("out", "");
    space.fail(&["eval", "--model", "base", "--out", "out"], 1, &["out", "--out"]);
    space.fail(&["eval", "--model", "base", "--problems", "0"], 2, &["--problems"]);
    space.fail(&["eval", "--model", "base", "--top-p", "1.5"], 2, &["--top-p"]);
}

#[test]
fn a_tier_with_other_weights_than_the_manifest_lists_is_not_measured() {
    let space = workspace(str::to_owned);
    space.succeed(TRAIN);
    let mut weights = space.bytes("family/alpha-0.1/adapter_model.safetensors");
    *weights.last_mut().unwrap() ^= 1;
    std::fs::write(space.path("family/alpha-0.1/adapter_model.safetensors"), weights).unwrap();
    space.fail(&["eval", "--family", "family"], 1, &["alpha-0.1", "not those of", "hint: "]);
    space.fail(&["eval", "--family", "family", "--tier", "alpha-0.3"], 1, &["alpha-0.3", "did you mean"]);
}
