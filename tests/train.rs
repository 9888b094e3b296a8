//! From random weights to a measured family, with every command along the way.

use crate::support::{TINY, Workspace, recipe};

/// The base's recipe, shrunk to a second: a narrow model and a few updates.
fn train_base(space: &Workspace) -> String {
    let recipe = recipe("mini-sft.toml");
    let arguments = [
        ["train", "--recipe", &recipe],
        ["--out", "models/mini/base", "--runs"],
        ["runs/base", "--set", "model.hidden_size=32"],
        ["--set", "model.layers=1", "--set"],
        ["model.intermediate_size=48", "--set", "sft.tokens=8192"],
        ["--set", "sft.batch_tokens=1024", "--set"],
    ];
    let mut arguments: Vec<&str> = arguments.as_flattened().to_vec();
    arguments.push("sft.warmup_updates=2");
    space.succeed(&arguments).stderr
}

#[test]
fn a_family_is_made_and_measured() {
    let space = Workspace::new();
    let said = train_base(&space);
    assert!(said.contains("update 8/8") && said.contains("is finished"), "{said}");
    let base = space.bytes("models/mini/base/model.safetensors");
    let said = train_base(&space);
    assert!(said.contains("was finished before"), "{said}");
    assert!(space.bytes("models/mini/base/model.safetensors") == base);
    let picture = space.read("models/mini/base/learning-curve.svg");
    assert!(picture.contains("nats per target token") && picture == space.read("runs/base/learning-curve.svg"));

    let smoke = recipe("smoke.toml");
    let train = ["train", "--recipe", &smoke, "--set", "run.steps=2", "--alpha", "0.2,0.1", "--out", "models/mini"];
    let said = space.succeed(&train).stderr;
    assert!(said.contains("alpha-0.1: step 2/2") && said.contains("alpha-0.2: step 2/2"), "{said}");
    let manifest = space.read("models/mini/family.toml");
    for text in ["path = \"base\"", "adapter = \"alpha-0.1\"", "steps = 2", "command = \"serve train --recipe "] {
        assert!(manifest.contains(text), "{manifest}");
    }
    for picture in ["curves/alpha-0.1.svg", "curves/alpha-0.2.svg", "curves/family.svg"] {
        assert!(space.read(&format!("models/mini/{picture}")).contains("</svg>"), "{picture}");
    }
    assert!(space.read("runs/smoke/alpha-0.1/learning-curve.svg").contains("</svg>"));

    let said = space.succeed(&train).stderr;
    assert!(said.contains("alpha-0.1 was finished before") && !said.contains("step"), "{said}");
    assert_eq!(space.read("models/mini/family.toml"), manifest, "nothing is done twice");

    let evaluated = space.succeed(&["eval", "--recipe", &smoke, "--problems", "3", "--samples", "2", "--write-cards"]);
    assert!(evaluated.stdout.contains("against the base: tokens "), "{}", evaluated.stdout);
    let report: serde_json::Value = serde_json::from_str(&space.read("runs/eval-smoke/eval.json")).unwrap();
    let names: Vec<_> = report["tiers"].as_array().unwrap().iter().map(|tier| tier["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["base", "alpha-0.1", "alpha-0.2"]);
    assert_eq!(report["tiers"][1]["versus_base"][0]["paired"], true);
    assert!(space.read("runs/eval-smoke/frontier.svg").contains("</svg>"));
    assert_eq!(space.read("runs/eval-smoke/responses-base.jsonl").lines().count(), 3 * 3 * 2);
    assert_eq!(space.read("models/mini/family.toml").matches("[tier.card]").count(), 3);
    assert_eq!(space.read("models/mini/frontier.svg"), space.read("runs/eval-smoke/frontier.svg"));

    let again =
        space.succeed(&["eval", "--recipe", &smoke, "--problems", "3", "--samples", "2", "--tier", "alpha-0.2"]);
    assert!(!again.stdout.contains("alpha-0.1"), "{}", again.stdout);
}

#[test]
fn a_whole_model_may_be_a_tier() {
    let space = Workspace::with_base();
    space.write("tiny.toml", &TINY.replace("mode = \"lora\"\nrank = 2", "mode = \"full\""));
    space.succeed(&["train", "--recipe", "tiny.toml", "--alpha", "0.3", "--out", "family", "--runs", "runs"]);
    assert!(space.read("family/family.toml").contains("checkpoint = \"alpha-0.3\""));
    assert!(space.read("family/family.toml").contains("path = \"../base\""));
    let limits = ["--problems", "2", "--max-new-tokens", "8"];
    space.succeed(&[&["eval", "--family", "family"][..], &limits].concat());
    space.succeed(&[&["eval", "--model", "family/alpha-0.3", "--out", "out"][..], &limits].concat());
    let report: serde_json::Value = serde_json::from_str(&space.read("out/eval.json")).unwrap();
    assert_eq!(report["name"], "alpha-0.3");
    // A suite from a file, cut to a number of problems.
    space.write("gsm8k.jsonl", &"{\"question\": \"1 + 1\", \"answer\": \"So. #### 2\"}\n".repeat(5));
    space
        .succeed(&[&["eval", "--model", "base", "--suite", "gsm8k:gsm8k.jsonl", "--out", "out"][..], &limits].concat());
    let responses = space.read("out/responses-base.jsonl");
    assert_eq!(responses.lines().count(), 2);
    // Another form, with as many responses as the paper samples, and a file of no known form.
    space.write("aime.jsonl", "{\"problem\": \"1 + 1\", \"answer\": \"2\"}\n");
    space.succeed(&[&["eval", "--model", "base", "--suite", "aime:aime.jsonl", "--out", "out"][..], &limits].concat());
    assert_eq!(space.read("out/responses-base.jsonl").lines().count(), 10);
    space.write("own.jsonl", "{\"ask\": \"1 + 1\", \"gold\": \"2\"}\n");
    let own = ["eval", "--model", "base", "--suite", "file:own.jsonl", "--out", "out", "--question-column", "ask"];
    space.fail(&[&own[..], &limits].concat(), 1, &["own.jsonl", "no column `answer`", "`gold`"]);
    space.succeed(&[&own[..], &limits, &["--answer-column", "gold"]].concat());
    assert!(space.read("out/responses-base.jsonl").contains("\"question\":\"1 + 1\""));
    space.fail(&["eval", "--model", "base", "--level-column", "x", "--out", "out"], 1, &["mini suite is no file"]);
}

#[test]
fn a_dry_run_says_what_stands_in_the_way_and_touches_nothing() {
    let space = Workspace::with_base();
    space.write("tiny.toml", TINY);
    let options = ["train", "--recipe", "tiny.toml", "--alpha", "0.1", "--out", "family", "--runs", "runs"];
    let dry = |more: &[&str]| space.succeed(&[&options[..], &["--dry-run"], more].concat()).stderr;
    assert!(!dry(&[]).contains("warning"), "nothing does");
    assert!(!space.path("runs").exists() && !space.path("family").exists());
    space.succeed(&options);
    assert!(!dry(&[]).contains("warning"), "it may be gone on with");
    let recipe = space.read("runs/alpha-0.1/recipe.toml");
    let said = dry(&["--set", "optimizer.learning_rate=0.5"]);
    assert!(said.contains("would be refused: ") && said.contains("optimizer.learning_rate"), "{said}");
    assert_eq!(space.read("runs/alpha-0.1/recipe.toml"), recipe);
}

#[test]
fn an_evaluation_runs_a_model_as_its_recipe_says() {
    let space = Workspace::with_family();
    let mut texts = Vec::new();
    for path in ["fused", "layered"] {
        space.write("recipe.toml", &format!("{TINY}[compute]\npath = '{path}'\n"));
        let options = ["--recipe", "recipe.toml", "--problems", "2", "--max-new-tokens", "12", "--temperature", "0"];
        space.succeed(
            &[&["eval", "--family", "family", "--tier", "base,alpha-0.2", "--out", path][..], &options].concat(),
        );
        texts.push(["base", "alpha-0.2"].map(|tier| space.read(&format!("{path}/responses-{tier}.jsonl"))));
    }
    assert_eq!(texts[0], texts[1]);
    space.fail(&["eval", "--family", "family", "--dtype", "bf16"], 1, &["bf16", "`f32`, or a GPU"]);
}

#[test]
fn a_base_is_made_from_a_file_of_pairs() {
    let space = Workspace::with_base();
    let recipe = "name = 'pairs'\nstage = 'rl'\nbase = 'base'\n[data]\npath = 'pairs.jsonl'\n\
                  prompt_column = 'ask'\nresponse_column = 'say'\n[sft]\ntokens = 600\nbatch_tokens = 60\n\
                  learning_rate = 1e-2\nwarmup_updates = 1\n";
    space.write("pairs.toml", recipe);
    let pair = |ask: &str, say: &str| format!("{{\"ask\": \"{ask}\", \"say\": \"{say}\"}}\n");
    let pairs = [("1 + 1", "2"), ("2 + 2", "<think>Easy.</think>4"), ("3 + 3", "6")].map(|(ask, say)| pair(ask, say));
    let train = ["train", "--recipe", "pairs.toml", "--stage", "sft", "--out", "out", "--runs", "runs"];
    space.fail(&train, 1, &["no data set in `pairs.jsonl`", "--set data.path=FILE"]);
    space.write("pairs.jsonl", &(pairs.concat() + &pair("4 + 4", "")));
    space.fail(&train, 1, &["pairs.jsonl", "line 4", "column `say` is empty"]);
    space.write("pairs.jsonl", &pairs.concat().replace("say", "sya"));
    space.fail(&train, 1, &["pairs.jsonl", "line 1", "no column `say`; there are `ask`, `sya`"]);
    space.write("pairs.jsonl", &(pairs.concat() + &pair(&"4 + ".repeat(300), "no")));
    space.fail(&train, 1, &["example 4 has ", "the model's context holds 512"]);
    assert!(!space.path("out/model.safetensors").exists(), "no half of a model");

    // The mistake put right, the same command works: nothing of it was remembered.
    space.write("pairs.jsonl", &pairs.concat());
    let said = space.succeed(&[&train[..], &["--set", "data.limit=2"]].concat()).stderr;
    assert!(said.contains("warning: pairs: using 2 of the 3 pairs in `pairs.jsonl`"), "{said}");
    let two = space.bytes("out/model.safetensors");
    let all = ["train", "--recipe", "pairs.toml", "--stage", "sft", "--out", "all", "--runs", "runs-all"];
    let said = space.succeed(&all).stderr;
    assert!(said.contains("update 10/10") && !said.contains("warning"), "{said}");
    let made = space.bytes("all/model.safetensors");
    assert!(made != two && made != space.bytes("base/model.safetensors"));
    assert_eq!(space.read("runs-all/metrics.jsonl").lines().count(), 1);
    assert_eq!(space.bytes("all/tokenizer.json"), space.bytes("base/tokenizer.json"));
    space.succeed(&["eval", "--model", "all", "--problems", "1", "--max-new-tokens", "8", "--out", "eval"]);
}

#[test]
fn plans_are_made_without_a_base() {
    let space = Workspace::new();
    for name in [
        "mini-sft.toml",
        "deepseek-r1-distill-qwen-1.5b.toml",
        "deepseek-r1-distill-qwen-7b.toml",
        "qwen3-1.7b.toml",
        "released-code.toml",
    ] {
        let plan = space.succeed(&["train", "--recipe", &recipe(name), "--dry-run"]).stdout;
        assert!(plan.contains("memory, at most") && plan.contains("would write"), "{name}: {plan}");
        assert_eq!(plan.contains("learning-curve.svg"), name == "mini-sft.toml", "{name}: {plan}");
    }
    assert_eq!(std::fs::read_dir(space.path("")).unwrap().count(), 0, "a plan writes nothing");
    let space = Workspace::with_base();
    for name in ["mini.toml", "smoke.toml"] {
        let plan = space.succeed(&["train", "--recipe", &recipe(name), "--set", "base=base", "--dry-run"]).stdout;
        assert!(plan.contains("family.toml"), "{name}: {plan}");
    }
}

#[test]
fn a_bench_prints_a_line_of_json_for_every_step_and_keeps_nothing() {
    let space = Workspace::with_base();
    space.write("tiny.toml", TINY);
    let before = std::fs::read_dir(space.path("")).unwrap().count();
    let bench = space.succeed(&["train", "--recipe", "tiny.toml", "--bench", "--steps", "2"]);
    let lines: Vec<serde_json::Value> = bench.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert!(line["step_time"].as_f64().unwrap() > 0.0 && line["rollout_tokens"].as_u64().unwrap() >= 32, "{line}");
    }
    assert!(bench.stderr.contains("sampling, 256 at a time"), "{}", bench.stderr);
    assert_eq!(std::fs::read_dir(space.path("")).unwrap().count(), before);
    // Without a base, random weights of the shape in [model].
    space.write("tiny.toml", &format!(
        "{}\n[model]\nhidden_size = 16\nlayers = 1\nheads = 2\nkv_heads = 1\nintermediate_size = 24\nvocab_size = 400\n",
        TINY.replace("base = \"base\"", "base = \"absent\"")
    ));
    let bench = space.succeed(&["train", "--recipe", "tiny.toml", "--bench", "--steps", "1"]);
    assert!(bench.stderr.contains("random weights"), "{}", bench.stderr);
}

#[test]
fn tiers_trained_side_by_side_are_those_trained_one_after_the_other() {
    let space = Workspace::with_family();
    let train = ["train", "--recipe", "tiny.toml", "--alpha", "0.1,0.2", "--out", "beside", "--runs", "runs-beside"];
    let said = space.succeed(&[&train[..], &["--devices", "cpu,cpu"]].concat()).stderr;
    assert!(said.contains("alpha-0.1 is finished") && said.contains("alpha-0.2 is finished"), "{said}");
    for tier in ["alpha-0.1", "alpha-0.2"] {
        let weights = |family: &str| space.bytes(&format!("{family}/{tier}/adapter_model.safetensors"));
        assert!(weights("beside") == weights("family"), "{tier}");
        let metrics = |runs: &str| space.read(&format!("{runs}/{tier}/metrics.jsonl"));
        assert_eq!(metrics("runs-beside"), metrics("runs"));
    }
    assert_eq!(space.read("beside/family.toml").matches("[tier.training]").count(), 2);
    let said = space.succeed(&[&train[..], &["--devices", "cpu,cpu"]].concat()).stderr;
    assert_eq!(said.matches("was finished before").count(), 2, "{said}");
}
