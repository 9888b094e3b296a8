//! The server as its operators meet it: options from everywhere, ports, keys, signals.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::server::{Answer, CHAT, Running, family};
use crate::support::Workspace;

#[test]
fn a_port_in_use_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let arguments = ["--family", &family(), "--engine", "scripted", "--port", &port];
    Workspace::new().fail(&arguments, 1, &[&port, "127.0.0.1", "in use", "hint: ", "--port 0"]);
}

#[test]
fn mistakes_in_the_file_are_told_with_their_line() {
    let space = Workspace::new();
    space.write("brevity.toml", "# mine\nprot = 8080\n");
    space.fail(&[], 1, &["brevity.toml", "line 2", "`prot`", "did you mean `port`?"]);
    space.write("brevity.toml", "port = 70000\n");
    space.fail(&[], 1, &["brevity.toml", "line 1", "`port`", "65535"]);
    space.fail(&["--config", "other.toml"], 1, &["other.toml"]);
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let space = Workspace::new();
    space.write(
        "brevity.toml",
        "port = 1\nmax_queue = 2\nhost = \"::1\"\napi_key = [\"alice=secret-of-alice\"]\n[thinking_budget]\nlow = 256\n",
    );
    let mut command = space.command(&["--print-config", "--port", "3"]);
    command.env("BREVITY_PORT", "4").env("BREVITY_MAX_QUEUE", "5").env("BREVITY_THREADS", "2");
    let output = command.output().unwrap();
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    for (entry, origin) in [
        ("port = 3", "flag"),
        ("max_queue = 5", "environment"),
        ("threads = 2", "environment"),
        ("host = \"::1\"", "brevity.toml"),
        ("thinking_budget = [\"low=256\"]", "brevity.toml"),
        ("api_key = [\"(secret)\"]", "brevity.toml"),
        ("max_body = \"4MiB\"", "default"),
        ("# isq =", "not set"),
    ] {
        let line = |line: &str| line.split_once('#').is_some() && line.starts_with(entry) && line.ends_with(origin);
        assert!(printed.lines().any(line), "no `{entry}` from {origin} in:\n{printed}");
    }
    assert!(!printed.contains("secret-of-alice"));
}

#[test]
fn options_of_the_server_before_a_command_are_refused() {
    let space = Workspace::new();
    space.fail(&["--port", "1", "eval"], 2, &["--port", "eval"]);
    space.fail(&["--log", "what=is=this"], 2, &["what=is=this", "hint: "]);
    space.write("empty.txt", "# nobody yet\n");
    space.fail(&["--api-key-file", "empty.txt", "--family", &family()], 2, &["empty.txt", "NAME=KEY"]);
    space.fail(&["--api-key", "with space", "--family", &family()], 1, &["API key 1"]);
}

#[test]
fn the_server_shows_the_family_and_a_line_to_copy() {
    let server = Running::start(&Workspace::new(), &[]);
    for text in ["tier", "alpha-0.1", "medium (default)", "accuracy"] {
        assert!(server.banner.contains(text), "no `{text}` in:\n{}", server.banner);
    }
}

/// One tier's file is damaged.
#[test]
fn a_part_of_a_family_is_served_where_that_is_wanted() {
    let space = Workspace::with_family();
    let place = "family/alpha-0.1/adapter_model.safetensors";
    let mut weights = space.bytes(place);
    *weights.last_mut().unwrap() ^= 1;
    std::fs::write(space.path(place), weights).unwrap();
    let arguments = ["--family", "family", "--engine", "scripted"];
    space.fail(&arguments, 1, &["tier `alpha-0.1`", "are not those of", "--allow-partial"]);

    let server = Running::launch(space.command(&[&arguments[..], &["--allow-partial", "--port", "0"]].concat()));
    let row = server.banner.lines().find(|line| line.starts_with("alpha-0.1 ")).unwrap();
    assert!(row.contains("not loaded"), "{}", server.banner);
    let tiers = server.ask("GET", "/v1/tiers", &[], "").json();
    let state =
        |name: &str| tiers["tiers"].as_array().unwrap().iter().find(|tier| tier["name"] == name).unwrap().clone();
    assert_eq!((&state("alpha-0.1")["loaded"], &state("alpha-0.2")["loaded"]), (&false.into(), &true.into()));
    assert!(state("alpha-0.1")["problem"].as_str().unwrap().contains("are not those of"), "{tiers}");
    assert_eq!(server.ask("GET", "/ready", &[], "").status, 200);

    let effort = tiers["effort"].as_object().unwrap().iter().find(|(_, tier)| *tier == "alpha-0.1").unwrap().0;
    let ask = |fields: &str| {
        let body = format!(r#"{{"messages": [{{"role": "user", "content": "1 + 6"}}], "max_tokens": 8, {fields}}}"#);
        server.ask("POST", "/v1/chat/completions", &["content-type: application/json"], &body)
    };
    let model = tiers["tiers"][0]["id"].as_str().unwrap().split(':').next().unwrap();
    let answer = ask(&format!(r#""model": "{model}", "reasoning_effort": "{effort}""#));
    let report = answer.json()["brevity"].clone();
    assert_eq!((answer.status, &report["substituted"]), (200, &true.into()), "{}", answer.body);
    assert!(report["reason"].as_str().unwrap().contains("alpha-0.1") && report["tier"] != "alpha-0.1", "{report}");
    let named = ask(&format!(r#""model": "{model}:alpha-0.1""#));
    assert_eq!((named.status, &named.json()["error"]["code"]), (404, &"model_not_found".into()));
    server.signal();
    let (code, log) = server.wait();
    assert_eq!(code, Some(0));
    assert!(log.contains("alpha-0.1") && log.contains("a tier is not served"), "{log}");
}

#[test]
fn only_known_keys_are_let_in() {
    let space = Workspace::new();
    space.write("keys.txt", "# team\nbob=key-of-bob\n");
    let server = Running::start(&space, &["--api-key", "alice=key-of-alice", "--api-key-file", "keys.txt"]);
    for path in ["/v1/models", "/v1/chat/completions", "/nowhere"] {
        let refused = server.ask("GET", path, &["authorization: Bearer key-of-carol", "x-request-id: id-1"], "");
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.head.contains("www-authenticate: bearer") && refused.head.contains("x-request-id: id-1"));
        assert_eq!(refused.json()["error"]["code"], "invalid_api_key");
    }
    assert_eq!(server.ask("GET", "/health", &[], "").status, 200);
    assert_eq!(server.ask("GET", "/metrics", &[], "").status, 200);
    let let_in = server.ask("GET", "/v1/models", &["authorization: Bearer key-of-bob"], "");
    assert_eq!(let_in.status, 200);
    assert!(let_in.json()["data"].is_array());
    server.signal();
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("bob") && !log.contains("key-of"), "{log}");
}

#[test]
fn paths_and_methods_that_do_not_exist_have_the_envelope() {
    let server = Running::start(&Workspace::new(), &["--log-format", "json"]);
    let missing = server.ask("GET", "/nowhere", &["x-request-id: a b"], "");
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &"not_found".into()));
    assert!(missing.head.contains("x-request-id: req_"));
    let method = server.ask("DELETE", "/v1/models", &[], "");
    assert_eq!((method.status, &method.json()["error"]["code"]), (405, &"method_not_allowed".into()));
    let large =
        server.ask("POST", "/v1/chat/completions", &["content-type: application/json"], &"x".repeat((4 << 20) + 1));
    assert_eq!((large.status, &large.json()["error"]["code"]), (413, &"payload_too_large".into()));
    let metrics = server.ask("GET", "/metrics", &[], "").body;
    let count = "brevity_http_requests_total{path=\"other\",method=\"GET\",status=\"404\"} 1";
    assert!(metrics.contains(count), "{metrics}");
    server.signal();
    let (code, log) = server.wait();
    assert_eq!(code, Some(0));
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string());
    }
}

#[test]
fn the_log_tells_tier_and_tokens_and_no_prompt() {
    let server = Running::start(&Workspace::new(), &["--log-format", "json"]);
    let json = "content-type: application/json";
    let ask = |stream: bool| {
        let body = format!(
            r#"{{"model": "mini", "seed": 7, "reasoning_effort": "low", "stream": {stream},
                "messages": [{{"role": "user", "content": "What is 12 + 13?"}}]}}"#
        );
        server.ask("POST", "/v1/chat/completions", &[json], &body)
    };
    let (whole, stream) = (ask(false), ask(true));
    assert_eq!((whole.status, stream.status), (200, 200));
    let body = whole.json();
    let said =
        |event: &serde_json::Value| event["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
    assert_eq!(body["choices"][0]["message"]["content"], stream.stream_events().iter().map(said).collect::<String>());
    let usage = &body["usage"];
    server.signal();
    let (_, log) = server.wait();
    assert!(!log.contains("12 + 13"), "{log}");
    let lines = log.lines().filter(|line| line.contains("/v1/chat/completions"));
    let lines: Vec<serde_json::Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{log}");
    for fields in &lines {
        assert_eq!((&fields["tier"], &fields["outcome"]), (&"alpha-0.15".into(), &"delivered".into()), "{log}");
        assert_eq!(fields["completion_tokens"], usage["completion_tokens"], "{log}");
        assert_eq!(fields["reasoning_tokens"], usage["completion_tokens_details"]["reasoning_tokens"], "{log}");
    }
}

#[test]
fn the_first_signal_lets_requests_finish() {
    let mut server = Running::start(&Workspace::new(), &["--drain-timeout", "1h"]);
    let mut running = server.begin("/v1/chat/completions", 2);
    server.signal();
    server.wait_for("draining");
    let ready = server.ask("GET", "/ready", &[], "");
    assert_eq!((ready.status, &ready.json()["error"]["code"]), (503, &"service_unavailable".into()));
    running.write_all(b"{}").unwrap();
    let answer = Answer::read(CHAT, running);
    assert!(answer.json()["error"].is_object(), "{}", answer.body);
    let (code, log) = server.wait();
    assert_eq!(code, Some(0));
    assert!(log.contains("every request was answered"), "{log}");
}

#[test]
fn the_second_signal_ends_at_once() {
    let mut server = Running::start(&Workspace::new(), &["--drain-timeout", "1h"]);
    let mut running = server.begin("/v1/chat/completions", 2);
    server.signal();
    server.wait_for("draining");
    server.signal();
    let (code, log) = server.wait();
    assert_eq!(code, Some(0));
    assert!(log.contains("cut off"), "{log}");
    assert_eq!(running.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn what_does_not_finish_in_time_is_cut_off() {
    let server = Running::start(&Workspace::new(), &["--drain-timeout", "1ms"]);
    let _running = server.begin("/v1/chat/completions", 2);
    server.signal();
    let (code, log) = server.wait();
    assert_eq!(code, Some(0));
    assert!(log.contains("cut off"), "{log}");
}
