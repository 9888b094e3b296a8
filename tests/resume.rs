//! A run that is killed or interrupted ends with the same bytes as one that was left alone.

#![cfg(unix)]

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{TINY, Workspace};

const STEPS: usize = 24;

fn arguments<'a>(out: &'a str, runs: &'a str) -> [&'a str; 9] {
    ["train", "--recipe", "tiny.toml", "--alpha", "0.1", "--out", out, "--runs", runs]
}

fn start(space: &Workspace) -> Child {
    space.command(&arguments("b", "runs-b")).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the run has `lines` lines of metrics.
fn wait_for(space: &Workspace, child: &mut Child, lines: usize) {
    let began = Instant::now();
    loop {
        let text = std::fs::read_to_string(space.path("runs-b/alpha-0.1/metrics.jsonl")).unwrap_or_default();
        if text.lines().count() >= lines {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "the run ended after {} lines", text.lines().count());
        assert!(began.elapsed() < Duration::from_secs(120), "no {lines} lines in two minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The checkpoint with the highest step.
fn newest_checkpoint(space: &Workspace) -> String {
    let run = "runs-b/alpha-0.1";
    let names =
        std::fs::read_dir(space.path(run)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let newest = names.filter(|name| name.starts_with("checkpoint-")).max().unwrap();
    format!("{run}/{newest}")
}

#[test]
fn killed_interrupted_and_resumed_is_the_same_as_left_alone() {
    let space = Workspace::with_base();
    space.write("tiny.toml", &TINY.replace("steps = 2", &format!("steps = {STEPS}\ntier_every = 8")));
    space.succeed(&arguments("a", "runs-a"));

    // Between two checkpoints (there is one every three steps), so that steps are done again.
    let mut child = start(&space);
    wait_for(&space, &mut child, 5);
    child.kill().unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), None, "killed");
    assert!(!space.path("b/alpha-0.1").exists() && !space.path("b/family.toml").exists(), "no half of a tier");

    let mut child = start(&space);
    wait_for(&space, &mut child, 10);
    // SAFETY: `kill` sends a signal to a process that this test started and has not yet waited for.
    assert_eq!(unsafe { libc::kill(child.id().try_into().unwrap(), libc::SIGINT) }, 0);
    let stopped = child.wait_with_output().unwrap();
    let said = String::from_utf8(stopped.stderr).unwrap();
    assert_eq!(stopped.status.code(), Some(130), "{said}");
    assert!(said.contains("goes on after step") && said.contains("hint: the same command goes on"), "{said}");
    assert!(!space.path("b/alpha-0.1").exists(), "no half of a tier");

    // The newest checkpoint loses its end, as on a disk that filled up: the one before it is taken, and that is said.
    let newest = newest_checkpoint(&space);
    let tensors = space.bytes(&format!("{newest}/tensors.safetensors"));
    std::fs::write(space.path(&format!("{newest}/tensors.safetensors")), &tensors[..tensors.len() / 2]).unwrap();
    let said = space.succeed(&arguments("b", "runs-b")).stderr;
    assert!(said.contains("warning: ") && said.contains("is damaged and left out"), "{said}");
    assert!(said.contains("goes on after step"), "{said}");
    let metrics = space.read("runs-a/alpha-0.1/metrics.jsonl");
    assert_eq!(metrics, space.read("runs-b/alpha-0.1/metrics.jsonl"));
    assert_eq!(metrics.lines().count(), STEPS);
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        assert!(space.bytes(&format!("a/alpha-0.1/{file}")) == space.bytes(&format!("b/alpha-0.1/{file}")), "{file}");
    }
    // The tiers on the way are there too, and the last of them is the result.
    let tier =
        |run: &str, step: usize| space.bytes(&format!("{run}/alpha-0.1/tier-{step:06}/adapter_model.safetensors"));
    for step in [8, 16, 24] {
        assert!(tier("runs-a", step) == tier("runs-b", step), "step {step}");
    }
    assert!(tier("runs-a", 8) != tier("runs-a", 16));
    assert!(tier("runs-a", 24) == space.bytes("a/alpha-0.1/adapter_model.safetensors"));
    let early = ["tiers", "add", "runs-a/alpha-0.1/tier-000008", "--name", "early", "--alpha", "0.1", "--family", "a"];
    space.succeed(&early);
    let learnt = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        (value["reward"].as_f64().unwrap() > 0.0, value["kl"].as_f64().unwrap() != 0.0)
    };
    assert!(metrics.lines().any(|line| learnt(line).0), "something was rewarded, so something was learnt");
    assert!(metrics.lines().any(|line| learnt(line).1), "and the policy moved away from its base");
}
