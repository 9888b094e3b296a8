//! Tiers that other servers compute, through the real binary: one server in front of another.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use brevity::engine::scripted::{Fault, Script, Scripted};
use brevity::family::{Base, Manifest, Tier, Upstream};
use serde_json::{Value, json};

use crate::server::{Answer, Inner, Running, chat, family, until};
use crate::support::Workspace;

/// `model` of the server at `address`.
fn at(address: SocketAddr, model: &str) -> Upstream {
    let budget_field = Some("max_reasoning_tokens".to_owned());
    Upstream { url: format!("http://{address}/v1"), model: model.to_owned(), budget_field, ..Upstream::default() }
}

/// Writes the family `front`, whose tiers are elsewhere: the first the tersest, the last the base-like one of alpha 0.
fn write(space: &Workspace, tiers: &[(&str, Upstream)]) {
    std::fs::create_dir_all(space.path("front")).unwrap();
    let mut manifest = Manifest::new(space.path("front/family.toml"), "front", Base::default());
    for (place, (name, upstream)) in tiers.iter().rev().enumerate() {
        manifest.upsert_tier(Tier::new(name, 0.2 * place as f64).with_upstream(upstream.clone()));
    }
    manifest.save().unwrap();
}

/// A server of the family `front`.
fn front(space: &Workspace, arguments: &[&str]) -> Running {
    Running::launch(space.command(&[&["--family", "front", "--port", "0"], arguments].concat()))
}

/// Thoughts and answer of a whole stream, and its usage.
fn assembled(answer: &Answer) -> (String, String, Value) {
    let (mut thoughts, mut said, mut usage, mut done) = (String::new(), String::new(), Value::Null, false);
    for event in answer.events() {
        assert!(!done, "something comes after the end: {event}");
        if event == "[DONE]" {
            done = true;
            continue;
        }
        let event: Value = serde_json::from_str(event).unwrap();
        let delta = &event["choices"][0]["delta"];
        thoughts.push_str(delta["reasoning_content"].as_str().unwrap_or_default());
        said.push_str(delta["content"].as_str().unwrap_or_default());
        usage = event["usage"].clone();
    }
    assert!(done, "{}", answer.body);
    (thoughts, said, usage)
}

#[test]
fn efforts_lead_to_models_of_another_server() {
    let space = Workspace::new();
    let remote = Running::start(&space, &[]);
    write(&space, &[("short", at(remote.address, "mini:alpha-0.4")), ("long", at(remote.address, "mini:base"))]);
    let front = front(&space, &[]);
    let place = format!("mini:alpha-0.4 at http://{}/v1", remote.address);
    assert!(front.banner.contains("computed by") && front.banner.contains(&place), "{}", front.banner);
    assert_eq!(front.ask("GET", "/ready", &[], "").status, 200);
    assert_eq!(front.ask("GET", "/v1/tiers", &[], "").json()["engine"], "upstream");
    for (effort, tier, model) in [("low", "short", "alpha-0.4"), ("max", "long", "base")] {
        let direct = remote.chat(json!({"model": format!("mini:{model}"), "seed": 7})).json();
        let (message, usage) = (&direct["choices"][0]["message"], &direct["usage"]);
        let fields = json!({"model": "front", "seed": 7, "reasoning_effort": effort});
        let answer = front.chat(fields.clone());
        let body = answer.json();
        assert_eq!((answer.status, &body["brevity"]["tier"]), (200, &tier.into()), "{}", answer.body);
        assert_eq!(body["system_fingerprint"], format!("scripted-{model}"), "another model answered");
        for field in ["content", "reasoning_content"] {
            assert!(!message[field].as_str().unwrap().is_empty());
            assert_eq!(body["choices"][0]["message"][field], message[field]);
        }
        assert_eq!(&body["usage"], usage);
        let mut streamed = fields;
        streamed["stream"] = true.into();
        streamed["stream_options"] = json!({"include_usage": true});
        let (thoughts, said, counted) = assembled(&front.chat(streamed));
        assert_eq!((&message["reasoning_content"], &message["content"]), (&thoughts.into(), &said.into()));
        assert_eq!(&counted, usage);
    }
    let closed = front.chat(json!({"model": "front", "reasoning_effort": "none"})).json();
    assert!(closed["choices"][0]["message"].get("reasoning_content").is_none(), "{closed}");
    assert_eq!(closed["usage"]["completion_tokens_details"]["reasoning_tokens"], 0);
}

#[test]
fn what_the_other_server_refuses_is_told() {
    let space = Workspace::new();
    let remote = Running::start(&space, &["--api-key", "front=key-of-front"]);
    let with_key = |model: &str| Upstream { api_key_env: Some("FRONT_KEY".to_owned()), ..at(remote.address, model) };
    let tiers = [
        ("lost", with_key("mini:alpha-9")),
        ("short", with_key("mini:alpha-0.4")),
        ("locked", at(remote.address, "mini")),
    ];
    write(&space, &tiers);
    space.fail(&["--family", "front", "--port", "0"], 1, &["tier `lost`", "FRONT_KEY is not set", "--allow-partial"]);
    let mut command = space.command(&["--family", "front", "--port", "0"]);
    command.env("FRONT_KEY", "key-of-front");
    let front = Running::launch(command);
    let ask = |fields: Value| {
        let answer = front.chat(fields);
        let error = answer.json()["error"].clone();
        (answer.status, error["code"].clone(), error["message"].as_str().unwrap_or_default().to_owned(), answer)
    };
    assert_eq!(front.chat(json!({"model": "front:short"})).status, 200);
    for stream in [false, true] {
        let (status, code, message, _) = ask(json!({"model": "front:lost", "stream": stream}));
        assert_eq!((status, code), (404, "model_not_found".into()), "{message}");
        // Which server that is, and what it calls the model, is nobody's business.
        assert!(message.contains("`lost`") && !message.contains("mini:alpha-9"), "{message}");
        let (status, code, message, _) = ask(json!({"model": "front:locked", "stream": stream}));
        assert_eq!((status, code), (502, "upstream_error".into()), "{message}");
        assert!(message.contains("api_key_env"), "{message}");
        let long = json!([{"role": "user", "content": "12 + 13 ".repeat(2000)}]);
        let (status, code, message, _) = ask(json!({"model": "front:short", "messages": long, "stream": stream}));
        assert_eq!((status, code), (400, "context_length_exceeded".into()), "{message}");
        let (status, _, message, answer) =
            ask(json!({"model": "front:short", "logit_bias": {"99999": 1}, "stream": stream}));
        assert_eq!((status, &answer.json()["error"]["param"]), (400, &"logit_bias".into()), "{message}");
    }
    drop(remote);
    until("the other server is missed", || front.ask("GET", "/ready", &[], "").status == 503);
    let (status, code, message, answer) = ask(json!({"model": "front:short"}));
    assert_eq!((status, code), (503, "service_unavailable".into()), "{message}");
    assert!(message.contains("`short` cannot be reached") && answer.head.contains("retry-after: "), "{message}");
    let ready = front.ask("GET", "/ready", &[], "");
    assert!(ready.status == 503 && ready.body.contains("cannot be reached"), "{}", ready.body);
    assert_eq!(front.ask("GET", "/health", &[], "").status, 200);
    front.signal();
    let (code, log) = front.wait();
    assert!(code == Some(0) && !log.contains("key-of-front"), "{log}");
}

#[test]
fn tiers_of_other_servers_are_verified_by_asking_them() {
    let space = Workspace::new();
    let remote = Running::start(&space, &[]);
    write(&space, &[("short", at(remote.address, "mini:alpha-0.4")), ("long", at(remote.address, "mini:base"))]);
    let tiers = |command: &[&'static str]| [&["tiers", "--family", "front"], command].concat();
    let place = format!("http://{}/v1", remote.address);
    let listed = space.succeed(&tiers(&["list"])).stdout;
    assert!(listed.contains("upstream") && listed.contains(&format!("mini:base at {place}")), "{listed}");
    let shown = space.succeed(&tiers(&["show", "short"])).stdout;
    let has = |key: &str, value: &str| shown.lines().any(|line| line.split_whitespace().eq([key, value]));
    assert!(has("kind", "upstream") && has("server", &place) && has("model", "mini:alpha-0.4"), "{shown}");
    assert!(!shown.contains("sha256"), "{shown}");
    let verified = space.succeed(&tiers(&["verify"])).stdout;
    assert_eq!(verified.matches("ok: ").count(), 2, "{verified}");
    drop(remote);
    let verified = space.serve(&tiers(&["verify"]));
    assert_eq!(
        (verified.code, verified.stdout.matches("cannot be reached").count()),
        (Some(1), 2),
        "{}",
        verified.stdout
    );
}

#[test]
fn a_family_may_be_half_here() {
    let space = Workspace::new();
    let remote = Running::start(&space, &[]);
    std::fs::create_dir(space.path("front")).unwrap();
    let mut manifest = Manifest::load(&Path::new(&family()).join("family.toml")).unwrap();
    let base = manifest.resolve(manifest.base.path.as_deref().unwrap());
    for name in ["alpha-0.05", "alpha-0.1", "alpha-0.15", "alpha-0.2"] {
        manifest.remove_tier(name).unwrap();
    }
    manifest.base.path = Some(base);
    manifest.upsert_tier(Tier::new("alpha-0.4", 0.4).with_upstream(at(remote.address, "mini:alpha-0.1")));
    space.write("front/family.toml", &manifest.to_toml().unwrap());
    let front = front(&space, &["--engine", "scripted"]);
    assert_eq!(front.ask("GET", "/v1/tiers", &[], "").json()["engine"], "mixed");
    for (effort, fingerprint) in [("none", "scripted-alpha-0.1"), ("max", "scripted-base")] {
        let answer = front.chat(json!({"reasoning_effort": effort}));
        assert_eq!(answer.json()["system_fingerprint"], fingerprint, "{}", answer.body);
    }
    space.fail(&["--family", "front", "--engine", "upstream"], 2, &["`base`", "hint: ", "[tier.upstream]"]);
}

/// Streaming and not.
#[test]
fn who_leaves_is_let_go_of_in_both_servers() {
    let space = Workspace::new();
    let endless = Script::new("one two three four five six", "seven").with_fault(Fault::Hangs { after: 3 });
    let remote = Inner::start(Scripted::builder().script("long", endless));
    write(&space, &[("long", at(remote.address, "inner:long"))]);
    let front = front(&space, &[]);
    for stream in [true, false] {
        let client = chat(front.address, json!({"model": "front", "stream": stream}));
        if stream {
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap().contains("\"reasoning_content\":")));
        }
        until("the request is computed", || remote.engine.running() == 1);
        assert_eq!(front.metric("vllm:num_requests_running"), Some(1.0));
        drop(client);
        until("the other server lets go", || remote.engine.running() == 0 && remote.admission.running() == 0);
        until("the server in front lets go", || front.metric("vllm:num_requests_running") == Some(0.0));
    }
    assert_eq!(front.metric("brevity_client_disconnects_total"), Some(2.0));
}

/// Reads one whole request.
fn request(socket: &TcpStream) {
    let (mut reader, mut length) = (BufReader::new(socket), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            return reader.read_exact(&mut vec![0; length]).unwrap();
        }
    }
}

/// The connection breaks in the middle of an answer.
#[test]
fn a_server_that_dies_in_the_middle_ends_the_stream_with_an_error() {
    let space = Workspace::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    write(&space, &[("long", at(listener.local_addr().unwrap(), "m"))]);
    let front = front(&space, &[]);
    for stream in [true, false] {
        let dying = listener.try_clone().unwrap();
        let dying = std::thread::spawn(move || {
            let (mut socket, _) = dying.accept().unwrap();
            request(&socket);
            let chunk = json!({"choices": [{"index": 0, "delta": {"content": "half"}}]});
            let event = format!("data: {chunk}\n\n");
            write!(socket, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                .unwrap();
            write!(socket, "{:x}\r\n{event}\r\n", event.len()).unwrap();
        });
        let answer = front.chat(json!({"model": "front", "stream": stream}));
        dying.join().unwrap();
        if stream {
            let events: Vec<&str> = answer.events().collect();
            let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
            assert_eq!((answer.status, &last["error"]["code"]), (200, &"upstream_error".into()), "{}", answer.body);
            assert!(events.iter().any(|event| event.contains("half")) && !events.contains(&"[DONE]"));
        } else {
            assert_eq!((answer.status, &answer.json()["error"]["code"]), (502, &"upstream_error".into()));
        }
    }
}

#[test]
fn the_example_is_a_family() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/upstream").display().to_string();
    let listed = Workspace::new().succeed(&["tiers", "list", "--family", &example]).stdout;
    assert_eq!(listed.matches("upstream").count(), 4, "{listed}");
}
