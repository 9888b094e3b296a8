//! Clients and machines at their worst, over real sockets: what is slow, huge, forged, gone, or too much.
//!
//! Nothing here waits for a fixed time: gates in the engine say when, and limits of the server are set so short that they
//! come. `tests/README.md` says which fault is tested where.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use brevity::api::admission::Admission;
use brevity::engine::Generation;
use brevity::engine::scripted::{Fault, Script, Scripted};
use brevity::family::{Base, Manifest, Tier, Upstream};
use serde_json::{Value, json};

use crate::server::{Answer, CHAT, Inner, Running, ask, chat, family, metric, until};
use crate::support::Workspace;

/// A server of the command line whose only tier is the engine of `inner`.
fn before(inner: &Inner, space: &Workspace, arguments: &[&str]) -> Running {
    let mut manifest = Manifest::new(space.path("family.toml"), "front", Base::default());
    let (url, model) = (format!("http://{}/v1", inner.address), "inner".to_owned());
    manifest.upsert_tier(Tier::new("only", 0.0).with_upstream(Upstream { url, model, ..Upstream::default() }));
    manifest.save().unwrap();
    Running::launch(space.command(&[&["--family", ".", "--port", "0"], arguments].concat()))
}

fn code(answer: &Answer) -> Value {
    answer.json()["error"]["code"].clone()
}

/// What comes until the connection ends, in whatever way.
fn rest(mut stream: &TcpStream) -> String {
    let (mut text, mut bytes) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        text.extend_from_slice(&bytes[..read]);
    }
    String::from_utf8(text).unwrap()
}

/// Resident memory of a process at its peak, in bytes.
#[cfg(target_os = "linux")]
fn peak(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
}

/// In chunks without an end, and with a length that promises more than is taken.
#[test]
fn bodies_above_the_limit_are_neither_kept_nor_read_to_the_end() {
    let server = Running::start(&Workspace::new(), &["--max-body", "64KiB"]);
    #[cfg(target_os = "linux")]
    let before = peak(server.id());
    for head in ["transfer-encoding: chunked", "content-length: 10000000000"] {
        let stream = TcpStream::connect(server.address).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let json = "content-type: application/json";
        write!(writer, "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{json}\r\n{head}\r\n\r\n").unwrap();
        let writing = std::thread::spawn(move || {
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            let mut written = 0;
            while writer.write_all(chunk.as_bytes()).is_ok() {
                written += chunk.len();
            }
            written
        });
        let answer = rest(&stream);
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("payload_too_large"), "{answer}");
        drop(stream);
        assert!(writing.join().unwrap() > 64 << 10);
    }
    #[cfg(target_os = "linux")]
    assert!(peak(server.id()) - before < 32 << 20, "the body was kept");
    assert_eq!(server.chat(json!({})).status, 200);
}

#[test]
fn who_sends_a_byte_now_and_then_is_given_up() {
    let limits = ["--header-timeout", "200ms", "--body-timeout", "200ms"];
    let server = Running::start(&Workspace::new(), &limits);
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n";
    let body = format!("{head}content-type: application/json\r\ncontent-length: 100000\r\n\r\n");
    // A header without an end, a body without an end, and a connection on which nothing comes.
    for (beginning, drip, is_body) in [(head, "x", false), (&body, " ", true), ("", "", false)] {
        let stream = TcpStream::connect(server.address).unwrap();
        let mut writer = stream.try_clone().unwrap();
        writer.write_all(beginning.as_bytes()).unwrap();
        let dripping = std::thread::spawn(move || {
            while !drip.is_empty() && writer.write_all(drip.as_bytes()).is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let answer = rest(&stream);
        let _ = stream.shutdown(Shutdown::Both);
        dripping.join().unwrap();
        assert_eq!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"timeout\""), is_body, "{answer}");
        assert!(is_body || !answer.contains("200 OK"), "{answer}");
    }
    assert_eq!(server.chat(json!({})).status, 200);
}

/// More than sockets hold is waiting for somebody who does not read.
#[test]
fn who_does_not_read_holds_up_nobody_and_is_given_up() {
    let server = Running::start(&Workspace::new(), &["--write-timeout", "500ms"]);
    let much = json!({"stream": true, "n": 16, "ignore_eos": true, "logprobs": true, "top_logprobs": 20});
    let stuck = chat(server.address, much);
    until("the long answer is computed", || server.metric("vllm:num_requests_running") == Some(16.0));
    for stream in [true, false] {
        let answer = server.chat(json!({"stream": stream}));
        assert_eq!(answer.status, 200);
        assert!(!stream || answer.events().last() == Some("[DONE]"), "{}", answer.body);
    }
    until("the reader is given up", || server.metric("vllm:num_requests_running") == Some(0.0));
    until("it is counted", || server.metric("brevity_client_disconnects_total") == Some(1.0));
    assert!(!rest(&stuck).ends_with("\r\n0\r\n\r\n"), "a cut answer must not look whole");
}

#[test]
fn line_breaks_in_names_break_no_line() {
    let server = Running::start(&Workspace::new(), &["--log", "debug"]);
    for id in ["a\nFORGED", "a\rFORGED: 1", "a\r\n FORGED", "\u{1b}[2J"] {
        let answer = ask(server.address, "GET", "/v1/models", &[&format!("x-request-id: {id}")], "");
        assert!(!answer.head.contains("forged") && !answer.body.contains("FORGED"), "{}", answer.head);
    }
    let name = "a\r\nFORGED: 1\n\u{1b}[2J";
    for fields in [json!({"model": name}), json!({"user": name}), json!({"reasoning_effort": name}), json!({name: 1})] {
        let answer = server.chat(fields);
        assert!(!answer.head.contains("\nforged"), "{}", answer.head);
    }
    ask(server.address, "GET", "/v1/models/a%0d%0aFORGED%1b", &[], "");
    server.signal();
    let (_, log) = server.wait();
    assert!(log.contains("/v1/models/a%0d%0aFORGED"), "{log}");
    assert!(log.lines().all(|line| !line.trim_start().starts_with("FORGED")) && !log.contains('\u{1b}'), "{log}");
}

#[test]
fn odd_requests_get_a_status_and_never_a_crash() {
    let server = Running::start(&Workspace::new(), &["--api-key", "a=key-of-a"]);
    let (key, json) = ("authorization: Bearer key-of-a", "content-type: application/json");
    let sent = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        // The server may hang up in the middle of it.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        rest(&stream)
    };
    let endless = format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}", "x".repeat(1 << 20));
    let answer = sent(endless.as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let long = format!("authorization: Bearer {}", "x".repeat(100_000));
    assert_eq!(server.ask("GET", "/v1/models", &[&long], "").status, 401);
    for garbage in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\0\xa5",
    ] {
        let answer = sent(garbage);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let messages = r#""messages": [{"role": "user", "content": "x"}]"#;
    for field in [
        r#""temperature": 1e309"#,
        r#""temperature": NaN"#,
        r#""top_p": -1e309"#,
        r#""seed": 1e309"#,
        r#""n": 99999999999999999999"#,
    ] {
        let body = format!(r#"{{"model": "mini", {messages}, {field}}}"#);
        let answer = ask(server.address, "POST", "/v1/chat/completions", &[key, json], &body);
        assert_eq!((answer.status, &answer.json()["error"]["type"]), (400, &"invalid_request_error".into()), "{field}");
    }
    assert_eq!(server.ask("GET", "/v1/models", &[key], "").status, 200);
}

#[test]
fn what_the_queue_does_not_hold_is_refused_at_once() {
    let server = Inner::behind(Admission::new(2, 3), Scripted::builder().tier("only").gated());
    let taken: Vec<TcpStream> =
        (0..5).map(|place| chat(server.address, json!({"model": "inner", "stream": place % 2 == 0}))).collect();
    until("the house is full", || server.engine.running() == 2 && server.admission.waiting() == 3);
    // Nothing is let through the gate, so whoever is answered did not wait.
    for _ in 0..20 {
        let answer = Answer::read(CHAT, chat(server.address, json!({"model": "inner"})));
        assert_eq!((answer.status, code(&answer)), (429, "queue_full".into()));
        assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    }
    let refused = metric(server.address, "brevity_admission_rejections_total{reason=\"queue_full\"}");
    assert_eq!(refused, Some(20.0));
    server.engine.release(5);
    for (place, stream) in taken.into_iter().enumerate() {
        let answer = Answer::read(CHAT, stream);
        assert_eq!(answer.status, 200);
        assert!(place % 2 != 0 || answer.events().last() == Some("[DONE]"), "{}", answer.body);
    }
    until("all places are free", || server.engine.running() == 0 && server.admission.running() == 0);
}

/// In the queue, and before the first token; streaming and not.
#[test]
fn who_leaves_early_gives_the_place_back() {
    let server = Inner::behind(Admission::new(1, 2), Scripted::builder().tier("only").gated());
    for stream in [false, true] {
        let begun = chat(server.address, json!({"model": "inner", "stream": stream}));
        until("the first is computed", || server.engine.running() == 1);
        let queued = chat(server.address, json!({"model": "inner", "stream": stream}));
        until("the second waits", || server.admission.waiting() == 1);
        drop(queued);
        until("the second is forgotten", || server.admission.waiting() == 0);
        assert_eq!(server.engine.running(), 1);
        drop(begun);
        until("the first is forgotten", || server.engine.running() == 0 && server.admission.running() == 0);
    }
    server.engine.release(1);
    assert_eq!(Answer::read(CHAT, chat(server.address, json!({"model": "inner"}))).status, 200);
}

#[test]
fn a_signal_under_load_lets_everybody_finish() {
    let inner = Inner::start(Scripted::builder().tier("only").gated());
    let space = Workspace::new();
    let mut front = before(&inner, &space, &["--drain-timeout", "1h"]);
    let address = front.address;
    let streams: Vec<TcpStream> =
        (0..12).map(|place| chat(address, json!({"model": "front", "stream": place % 3 != 0}))).collect();
    until("all are computed", || inner.engine.running() == 12);
    front.signal();
    front.wait_for("draining");
    assert_eq!(front.ask("GET", "/ready", &[], "").status, 503);
    let late = Answer::read(CHAT, chat(address, json!({"model": "front"})));
    assert_eq!((late.status, code(&late)), (503, "service_unavailable".into()));
    assert!(late.head.contains("retry-after: "));
    inner.engine.release(12);
    for (place, stream) in streams.into_iter().enumerate() {
        let answer = Answer::read(CHAT, stream);
        assert_eq!(answer.status, 200);
        assert!(place % 3 == 0 || answer.events().last() == Some("[DONE]"), "{}", answer.body);
    }
    let (code, log) = front.wait();
    assert!(code == Some(0) && log.contains("every request was answered"), "{log}");
}

#[test]
fn silent_streams_carry_comments() {
    let inner = Inner::start(Scripted::builder().tier("only").gated());
    let space = Workspace::new();
    let front = before(&inner, &space, &["--heartbeat", "20ms"]);
    let stream = chat(front.address, json!({"model": "front", "stream": true}));
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert_eq!(lines.by_ref().filter(|line| line == ": keep-alive").take(3).count(), 3);
    inner.engine.release(1);
    assert!(lines.any(|line| line == "data: [DONE]"));
}

#[test]
fn a_panic_fails_its_own_request_only() {
    let script = |generation: &Generation| match generation.sampling.seed {
        13 => panic!("meant to happen in this test"),
        14 => Script::new("", "half").with_fault(Fault::Disconnects { after: 1 }),
        _ => Script::new("thoughts", "whole"),
    };
    let server = Inner::start(Scripted::builder().script_with("only", script).gated());
    let other = chat(server.address, json!({"model": "inner", "seed": 1}));
    until("the other one is computed", || server.engine.running() == 1);
    for stream in [false, true] {
        let answer = Answer::read(CHAT, chat(server.address, json!({"model": "inner", "seed": 13, "stream": stream})));
        assert_eq!((answer.status, code(&answer)), (500, "internal_error".into()));
        assert!(!answer.body.contains("meant to happen"));
    }
    server.engine.release(3);
    assert!(Answer::read(CHAT, other).body.contains("whole"));
    let broken = Answer::read(CHAT, chat(server.address, json!({"model": "inner", "seed": 14, "stream": true})));
    let events: Vec<&str> = broken.events().collect();
    assert!(events.last().unwrap().contains("\"error\"") && !events.contains(&"[DONE]"), "{}", broken.body);
    assert_eq!(Answer::read(CHAT, chat(server.address, json!({"model": "inner", "seed": 14}))).status, 500);
    until("all places are free", || server.engine.running() == 0 && server.admission.running() == 0);
}

#[test]
fn a_torn_tier_is_named_or_left_out() {
    let space = Workspace::new();
    copy(Path::new(&family()), &space.path("mini"));
    let weights = space.path("mini/alpha-0.2/adapter_model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let arguments = ["--family", "mini", "--engine", "scripted", "--port", "0"];
    space.fail(&arguments, 1, &["`alpha-0.2`", "adapter_model.safetensors", "hint: ", "--allow-partial"]);
    let server = Running::launch(space.command(&[&arguments[..], &["--allow-partial"]].concat()));
    let row = |line: &str| line.starts_with("alpha-0.2") && line.contains("not loaded");
    assert!(server.banner.lines().any(row), "{}", server.banner);
    let answer = server.chat(json!({"reasoning_effort": "minimal"}));
    let report = &answer.json()["brevity"];
    assert_eq!((answer.status, &report["substituted"]), (200, &true.into()), "{report}");
    assert!(report["reason"].as_str().unwrap().contains("adapter_model.safetensors"), "{report}");
    assert_eq!(server.chat(json!({"model": "mini:alpha-0.2"})).status, 404);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &place),
            false => drop(std::fs::copy(entry.path(), place).unwrap()),
        }
    }
}

/// More connections than the system lets the server have.
#[cfg(target_os = "linux")]
#[test]
fn without_file_descriptors_it_waits_and_goes_on() {
    let space = Workspace::new();
    let serve = space.command(&["--family", &family(), "--engine", "scripted", "--port", "0"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 48 && exec \"$0\" \"$@\""]).arg(serve.get_program()).args(serve.get_args());
    let mut server = Running::launch(command);
    let open: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    server.wait_for("cannot accept a connection");
    drop(open);
    assert_eq!(server.chat(json!({})).status, 200);
}
