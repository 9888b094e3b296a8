//! `serve load-test` against servers of every kind: good, refusing, hanging, breaking off, and gone.

mod fake;
mod scripted;

use std::time::Duration;

use brevity::engine::EngineError;
use brevity::engine::scripted::{Fault, Script, Scripted};
use brevity::family::Effort;
use serde_json::Value;

use self::fake::Fake;
use crate::support::Workspace;

/// Eight prompts with answers; the fake server answers all of them with 7.
fn workspace() -> Workspace {
    let space = Workspace::new();
    let prompt = |number: u32| {
        let answer = if number < 6 { 7 } else { 8 };
        format!("{{\"id\": \"p{number}\", \"prompt\": \"question {number}\", \"answer\": {answer}}}\n")
    };
    space.write("prompts.jsonl", &(0..8).map(prompt).collect::<String>());
    space
}

/// Runs a load test on the fake server with more options, into the folder `out`.
fn arguments<'a>(fake: &'a Fake, options: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["load-test", "--url", fake.url(), "--prompts", "prompts.jsonl", "--grader", "strict"];
    [&fixed[..], options].concat()
}

fn summary(space: &Workspace, folder: &str) -> Value {
    serde_json::from_str(&space.read(&format!("{folder}/summary.json"))).unwrap()
}

fn effort<'a>(summary: &'a Value, name: &str) -> &'a Value {
    summary["efforts"].as_array().unwrap().iter().find(|effort| effort["effort"] == name).unwrap()
}

#[test]
fn a_good_server_gives_a_whole_report() {
    let (space, fake) = (workspace(), Fake::start());
    let options = ["--efforts", "low,high", "--out", "out", "--price-per-million-output", "2", "--goodput", "e2e:60s"];
    let finished = space.succeed(&arguments(&fake, &options));
    let summary = summary(&space, "out");
    assert_eq!(summary["schema"], "brevity.load-test/2");
    assert_eq!(summary["head"]["model"], "fake-model");
    let (low, high) = (effort(&summary, "low"), effort(&summary, "high"));
    // Three thoughts and one answer against twelve and one, with one token more each for the end.
    assert_eq!(low["metrics"]["tokens"]["mean"], 5.0);
    assert_eq!(high["metrics"]["tokens"]["max"], 14.0);
    assert_eq!(low["metrics"]["reasoning_tokens"]["p50"], 3.0);
    assert_eq!(low["accuracy"]["value"], 0.75);
    assert_eq!(low["goodput"], 1.0);
    assert_eq!(low["forced_closings"], Value::Null, "this server does not say");
    assert_eq!(summary["total"]["goodput"]["share"], 1.0);
    assert!(low.get("requests_per_second").is_none(), "the efforts share one machine");
    assert_eq!((&low["requests"], &low["succeeded"]), (&Value::from(8), &Value::from(8)));
    let comparison = &summary["comparisons"][0];
    assert_eq!((&comparison["pairs"], &comparison["reference"]), (&Value::from(8), &Value::from("high")));
    let ratios = comparison["ratios"].as_array().unwrap();
    let tokens = ratios.iter().find(|ratio| ratio["metric"] == "tokens" && ratio["statistic"] == "mean").unwrap();
    assert!((tokens["value"].as_f64().unwrap() - 5.0 / 14.0).abs() < 1e-12, "{tokens}");
    assert_eq!(space.read("out/requests.jsonl").lines().count(), 16);
    assert!(
        space.read("out/summary.csv").starts_with("effort,metric,count,mean,p50,p90,p95,p99,max\nlow,end_to_end,8,")
    );
    assert!(space.read("out/config.toml").contains("efforts = [\"low\", \"high\"]"));
    assert!(space.read("out/report.html").contains("<svg"));
    for words in ["low answers", "Against `high`", "−64.3 %", "75.0 %", "Generator: "] {
        assert!(finished.stdout.contains(words), "no `{words}` in\n{}", finished.stdout);
    }
}

#[test]
fn requests_are_paired_interleaved_and_repeatable() {
    let space = workspace();
    let order = |seed: &str| {
        let fake = Fake::start();
        let options = ["--efforts", "low,high", "--seed", seed, "--warmup", "3", "--out", "out"];
        space.succeed(&arguments(&fake, &options));
        fake.requests().split_off(3)
    };
    let first = order("7");
    assert_eq!(first.len(), 16);
    for block in first.chunks(2) {
        assert_eq!((&block[0].prompt, block[0].seed), (&block[1].prompt, block[1].seed));
        assert_ne!(block[0].effort, block[1].effort);
    }
    assert!(
        first.chunks(2).any(|block| block[0].effort == "low") && first.chunks(2).any(|block| block[0].effort == "high")
    );
    assert_eq!(first, order("7"));
    assert_ne!(first, order("8"));
    assert_eq!(summary(&space, "out")["efforts"][0]["requests"], 8, "warm-up is left out");
}

#[test]
fn every_kind_of_failure_is_counted_and_none_stops_the_run() {
    let (space, fake) = (workspace(), Fake::start());
    let kinds = "low,status,error-event,truncated,garbage,cut,hanging,silent";
    let limits = ["--problems", "4", "--timeout", "3s", "--concurrency", "8", "--warmup", "0"];
    let options = [&limits[..], &["--efforts", kinds, "--reference", "low", "--out", "out"]].concat();
    let finished = space.succeed(&arguments(&fake, &options));
    let summary = summary(&space, "out");
    let expected = [
        ("status", "http 503"),
        ("error-event", "error event"),
        ("truncated", "truncated stream"),
        ("garbage", "invalid json"),
        ("cut", "transport"),
        ("hanging", "timeout"),
        ("silent", "timeout"),
    ];
    for (name, kind) in expected {
        let errors = effort(&summary, name)["errors"].as_object().unwrap();
        assert_eq!((errors.len(), errors.get(kind).and_then(Value::as_u64)), (1, Some(4)), "{name}: {errors:?}");
        assert!(finished.stdout.contains(&format!("{kind}: 4")), "{}", finished.stdout);
        let told = format!("warning: nothing was answered with effort `{name}`; the first ended with {kind}: ");
        assert!(finished.stderr.contains(&told), "{}", finished.stderr);
    }
    assert_eq!(effort(&summary, "low")["succeeded"], 4);
    let lines = space.read("out/requests.jsonl");
    assert!(lines.contains("the server is full") && lines.contains("out of memory"));
}

#[test]
fn the_real_server_with_a_slow_failing_and_hanging_engine_gives_a_whole_report() {
    let script = || Script::new("1 + 6 = 7. 3 + 4 = 7.", "\\boxed{7}").with_delay(Duration::from_millis(1));
    let refused = EngineError::Unavailable { message: "no room".to_owned(), retry_after: None };
    let failed = Fault::Failed { after: 3, error: EngineError::failed("out of memory") };
    let engine = Scripted::builder()
        .script("steady", script())
        .script("refused", script().with_fault(Fault::Refused(refused)))
        .script("failed", script().with_fault(failed))
        .script("hangs", script().with_fault(Fault::Hangs { after: 2 }))
        .script("disconnects", script().with_fault(Fault::Disconnects { after: 2 }));
    let efforts = [
        (Effort::Minimal, "refused"),
        (Effort::Low, "steady"),
        (Effort::Medium, "failed"),
        (Effort::High, "hangs"),
        (Effort::Xhigh, "disconnects"),
        (Effort::Max, "steady"),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let url = runtime.block_on(scripted::serve(engine.build().unwrap(), &efforts, &[(Effort::Max, 4)]));

    let space = workspace();
    let names = "minimal,low,medium,high,xhigh,max";
    let options = ["--efforts", names, "--concurrency", "6", "--timeout", "3s", "--problems", "4", "--warmup", "0"];
    let fixed = ["load-test", "--url", &url, "--prompts", "prompts.jsonl", "--grader", "strict", "--out", "out"];
    let finished = space.succeed(&[&fixed[..], &options].concat());
    let summary = summary(&space, "out");
    for (name, kind) in
        [("minimal", "http 503"), ("medium", "error event"), ("high", "timeout"), ("xhigh", "error event")]
    {
        let effort = effort(&summary, name);
        let errors = effort["errors"].as_object().unwrap();
        assert_eq!((errors.len(), errors.get(kind).and_then(Value::as_u64)), (1, Some(4)), "{name}: {errors:?}");
        assert_eq!((&effort["succeeded"], &effort["accuracy_with_failures"]["value"]), (&0.into(), &0.0.into()));
        assert!(finished.stdout.contains(&format!("{kind}: 4")), "{}", finished.stdout);
        let told = format!("warning: nothing was answered with effort `{name}`; the first ended with {kind}: ");
        assert!(finished.stderr.contains(&told), "{}", finished.stderr);
    }
    // The same tier, whose thoughts one of the efforts cuts at four tokens.
    let (free, cut) = (effort(&summary, "low"), effort(&summary, "max"));
    assert_eq!((&free["succeeded"], &free["forced_closings"]), (&4.into(), &0.into()));
    assert_eq!((&cut["succeeded"], &cut["forced_closings"]), (&4.into(), &4.into()));
    assert!(free["metrics"]["inter_token"]["count"].as_u64().unwrap() > 20, "{free}");
    let thoughts = |effort: &Value| effort["metrics"]["reasoning_tokens"]["max"].as_f64().unwrap();
    assert!(thoughts(cut) < thoughts(free), "{cut}");
    let lines = space.read("out/requests.jsonl");
    assert_eq!(lines.lines().count(), 24);
    assert!(lines.contains("no room") && lines.contains("out of memory"));
}

#[test]
fn a_run_that_is_killed_leaves_what_it_measured() {
    let (space, fake) = (workspace(), Fake::start());
    let options = ["--efforts", "low", "--duration", "1h", "--out", "out"];
    let mut child = space.command(&arguments(&fake, &options)).stdout(std::process::Stdio::null()).spawn().unwrap();
    let lines = || std::fs::read_to_string(space.path("out/requests.jsonl.partial")).unwrap_or_default();
    let began = std::time::Instant::now();
    while lines().lines().count() < 50 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is written while it runs");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines().lines() {
        let record: brevity::load::Record = serde_json::from_str(line).unwrap();
        assert!(record.succeeded() && record.tokens == Some(5), "{line}");
    }
    assert!(!space.path("out/requests.jsonl").exists());
}

#[test]
fn no_password_is_left_in_any_file() {
    let (space, fake) = (workspace(), Fake::start());
    let url = fake.url().replace("http://", "http://someone:s3cret@");
    let fixed = ["load-test", "--url", &url, "--prompts", "prompts.jsonl", "--efforts", "low", "--out", "out"];
    let finished = space.succeed(&[&fixed[..], &["--system", "say it's 7"]].concat());
    for name in ["summary.json", "config.toml", "report.html", "requests.jsonl", "summary.csv"] {
        let text = space.read(&format!("out/{name}"));
        assert!(!text.contains("s3cret") && !text.contains("someone"), "{name}");
    }
    assert!(!format!("{}{}", finished.stdout, finished.stderr).contains("s3cret"));
    let command = summary(&space, "out")["head"]["command"].as_str().unwrap().to_owned();
    let expected = format!("serve load-test --url {} --prompts", fake.url());
    assert!(command.starts_with(&expected) && command.ends_with(r"--system 'say it'\''s 7'"), "{command}");
}

#[test]
fn odd_but_right_servers_are_understood() {
    let (space, fake) = (workspace(), Fake::start());
    let options = ["--efforts", "plain,unusual", "--reference", "plain", "--out", "out", "--no-stream"];
    space.succeed(&arguments(&fake, &options));
    let first = summary(&space, "out");
    assert_eq!(effort(&first, "plain")["metrics"]["tokens"]["mean"], 5.0);
    assert!(effort(&first, "plain")["metrics"].get("time_to_first_token").is_none(), "there is no stream");
    assert_eq!(effort(&first, "plain")["accuracy"]["value"], 0.75);
    // Carriage returns, comments, no usage and the other name of thoughts.
    space.succeed(&arguments(&fake, &["--efforts", "unusual", "--out", "out"]));
    let second = summary(&space, "out");
    let unusual = effort(&second, "unusual");
    assert_eq!(unusual["token_sources"]["chunks"], 8);
    assert_eq!(
        (&unusual["metrics"]["tokens"]["mean"], &unusual["metrics"]["reasoning_tokens"]["mean"]),
        (&Value::from(4.0), &Value::from(3.0))
    );
}

#[test]
fn nobody_there_is_said_with_exit_status_1() {
    let space = workspace();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let gone = ["load-test", "--url", &url, "--prompts", "prompts.jsonl", "--efforts", "low", "--out", "out"];
    space.fail(&gone, 1, &["cannot ask", "does the address end in /v1, and is the server up?"]);
    let named = [&gone[..], &["--model", "m"]].concat();
    space.fail(&named, 1, &["not one of 8 requests was answered", "connect", "hint: "]);
    assert_eq!(summary(&space, "out")["efforts"][0]["errors"]["connect"], 8);
}

#[test]
fn open_loops_and_sweeps_run_to_their_end() {
    let (space, fake) = (workspace(), Fake::start());
    let open = ["--efforts", "low,high", "--rate", "200", "--requests", "40", "--out", "out"];
    space.succeed(&arguments(&fake, &open));
    assert_eq!(effort(&summary(&space, "out"), "low")["requests"], 20);
    let sweep = ["--efforts", "low,high", "--sweep", "concurrency:1,2", "--requests", "8", "--out", "sweep"];
    let finished = space.succeed(&arguments(&fake, &sweep));
    let summary = summary(&space, "sweep");
    assert_eq!(summary["saturation"].as_array().unwrap().len(), 2);
    assert_eq!(summary["comparisons"][0]["pairs"], 8);
    assert!(summary["stages"].as_array().unwrap().len() >= 4);
    assert!(finished.stdout.contains("At saturation"), "{}", finished.stdout);
    // Each stage behind a warm-up of its own: one request of each user.
    let stages = summary["stages"].as_array().unwrap();
    let users: u64 = stages.iter().map(|stage| stage["users"].as_u64().unwrap()).sum();
    assert_eq!(summary["warm_up"].as_u64(), Some(users));
    let limited = [&sweep[..6], &["--goodput", "e2e:60s", "--out", "limited"]].concat();
    let finished = space.succeed(&arguments(&fake, &limited));
    assert!(finished.stdout.contains("95 % within e2e:60s"), "{}", finished.stdout);
}

#[test]
fn comparisons_decide_the_exit_status() {
    let (space, fake) = (workspace(), Fake::start());
    // Different efforts under one name, so that the runs have something in common.
    for (folder, body) in [("short", r#"{"reasoning_effort": "low"}"#), ("long", r#"{"reasoning_effort": "high"}"#)] {
        let options = ["--efforts", "default", "--out", folder, "--extra-body", body];
        space.succeed(&arguments(&fake, &options));
    }
    let compare = ["load-test", "--compare", "short/summary.json", "long"];
    let finished = space.succeed(&compare);
    assert!(finished.stdout.contains("+180.0 %") && !finished.stdout.contains(" … "), "eight prompts are no spread");
    assert!(finished.stdout.contains("(all efforts)") && !finished.stderr.contains("warning"), "{}", finished.stderr);
    space.succeed(&[&compare[..], &["--fail-if", "tokens.mean:+200%", "--fail-if", "failed:+1%"]].concat());
    space.fail(&[&compare[..], &["--fail-if", "tokens.mean:+10%"]].concat(), 1, &["tokens.mean", "+180.0 %", "+10%"]);
    space.fail(&[&compare[..], &["--fail-if", "cost.mean:+10%"]].concat(), 1, &["has no cost.mean"]);
    space.fail(&[&compare[..], &["--fail-if", "p42:+10%"]].concat(), 2, &["p42"]);
    space.fail(&["load-test", "--compare", "short/summary.json", "none.json"], 1, &["none.json"]);
    std::fs::create_dir(space.path("empty")).unwrap();
    space.fail(&["load-test", "--compare", "short", "empty"], 1, &["empty/summary.json"]);
    space.succeed(&arguments(&fake, &["--efforts", "default,low", "--out", "mixed"]));
    let finished = space.succeed(&["load-test", "--compare", "short/summary.json", "mixed/summary.json"]);
    assert!(finished.stderr.contains("different efforts"), "{}", finished.stderr);
    space.write("old.json", &space.read("short/summary.json").replace("load-test/2", "load-test/9"));
    space.fail(&["load-test", "--compare", "old.json", "long/summary.json"], 1, &["old.json", "load-test/9"]);
}

#[test]
fn sweeps_are_compared_under_all_of_their_loads() {
    let (space, fake) = (workspace(), Fake::start());
    for (folder, effort) in [("good", "low"), ("full", "full")] {
        let body = format!(r#"{{"reasoning_effort": "{effort}"}}"#);
        let loads = ["--efforts", "default", "--sweep", "concurrency:1,16", "--requests", "64", "--warmup", "0"];
        space.succeed(&arguments(&fake, &[&loads[..], &["--out", folder, "--extra-body", &body]].concat()));
    }
    let compare = ["load-test", "--compare", "good", "full"];
    let finished = space.succeed(&compare);
    assert!(finished.stdout.contains("all loads") && finished.stdout.contains("16 users"), "{}", finished.stdout);
    let fail_if = [&compare[..], &["--fail-if", "failed:+1%"]].concat();
    space.fail(&fail_if, 1, &["default, all loads: failed changed by", "default, 16 users: failed changed by"]);
    space.succeed(&["load-test", "--compare", "full", "full", "--fail-if", "failed:+1%"]);
    space.succeed(&arguments(&fake, &["--efforts", "default", "--out", "single"]));
    let finished = space.succeed(&["load-test", "--compare", "good", "single"]);
    assert!(
        finished.stderr.contains("the first is a sweep and the second a run under one load"),
        "{}",
        finished.stderr
    );
    let mixed = ["load-test", "--compare", "single", "good", "--fail-if", "requests_per_second:-5%"];
    space.fail(&mixed, 1, &["--fail-if cannot be checked between different kinds of run", "compare two sweeps"]);
}

#[test]
fn a_prompt_that_the_server_does_not_count_has_no_cost() {
    let (space, fake) = (workspace(), Fake::start());
    let prices = ["--price-per-million-output", "2", "--price-per-million-input", "1"];
    let finished = space.succeed(&arguments(&fake, &[&prices[..], &["--efforts", "unusual", "--out", "out"]].concat()));
    assert!(finished.stderr.contains("warning: 8 of 8 answers have no cost"), "{}", finished.stderr);
    assert!(effort(&summary(&space, "out"), "unusual")["metrics"].get("cost").is_none());
    let finished = space.succeed(&arguments(&fake, &[&prices[..], &["--efforts", "low", "--out", "out"]].concat()));
    // Nine tokens at 1 and five at 2 a million, a thousand times.
    assert!(finished.stdout.contains("cost of 1,000") && finished.stdout.contains("0.0190"), "{}", finished.stdout);
    assert!(!finished.stderr.contains("no cost"), "{}", finished.stderr);
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let (space, fake) = (workspace(), Fake::start());
    for (options, text) in [
        (&["--sweep", "rate:2,1"][..], "--sweep"),
        (&["--efforts", "low,low"], "twice"),
        (&["--reference", "max"], "--reference"),
        (&["--extra-body", "[]"], "--extra-body"),
        (&["--extra-body", r#"{"reasoning_effort": "low"}"#], "--efforts default"),
        (&["--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY"),
        (&["--goodput", "ttft:fast"], "500ms"),
    ] {
        space.fail(&arguments(&fake, options), 2, &[text]);
    }
    space.fail(&["load-test"], 2, &["--url"]);
    space.fail(&["load-test", "--url", "localhost", "--model", "m"], 1, &["http://127.0.0.1"]);
    space.fail(&["load-test", "--url", fake.url(), "--prompts", "absent.jsonl"], 1, &["absent.jsonl"]);
}

#[cfg(unix)]
#[test]
fn an_interruption_ends_with_the_report_of_what_was_measured() {
    let (space, fake) = (workspace(), Fake::start());
    let options = [
        "--efforts",
        "low,hanging",
        "--reference",
        "low",
        "--warmup",
        "0",
        "--duration",
        "1h",
        "--concurrency",
        "4",
        "--out",
        "out",
    ];
    let child = space.command(&arguments(&fake, &options)).stdout(std::process::Stdio::piped()).spawn().unwrap();
    // Every second request hangs: after these, all four users wait for one of them.
    fake.wait_for(|requests| requests.iter().filter(|request| request.effort == "hanging").count() == 4);
    // SAFETY: a signal to a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let summary = summary(&space, "out");
    assert_eq!((&summary["interrupted"], &summary["abandoned"]), (&Value::from(true), &Value::from(4)));
    assert!(String::from_utf8(output.stdout).unwrap().contains("Ended before its time; 4 requests under way"));
}
