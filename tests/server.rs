//! Servers that run, as processes or inside the test, and their answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use brevity::api;
use brevity::api::admission::Admission;
use brevity::api::directory::Directory;
use brevity::api::layers::Layers;
use brevity::api::metrics::Metrics;
use brevity::api::server::{Phase, Server, ServerOptions};
use brevity::api::state::{AppState, Options};
use brevity::engine::scripted::{Builder, Scripted};
use brevity::family::{Base, Manifest, Tier};
use brevity::routing::Catalogue;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::specification;
use crate::support::Workspace;

/// Where chat completions are asked for.
pub const CHAT: &str = "/v1/chat/completions";

/// The bundled family, from any folder.
pub fn family() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini").display().to_string()
}

/// The answer of the server at `address` to one request on a connection of its own.
pub fn ask(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    Answer::read(path, send(address, method, path, headers, body))
}

/// Sends one request on a connection of its own; the answer is still to come.
pub fn send(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &str) -> TcpStream {
    let head: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n{body}"
    )
    .unwrap();
    stream
}

/// Sends a chat request with these fields, `model` and one message added; the answer is still to come.
pub fn chat(address: SocketAddr, fields: Value) -> TcpStream {
    let mut body = json!({"model": "mini", "messages": [{"role": "user", "content": "What is 12 + 13?"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    send(address, "POST", CHAT, &["content-type: application/json"], &body.to_string())
}

/// The number behind a metric's name and labels.
pub fn metric(address: SocketAddr, name: &str) -> Option<f64> {
    let text = ask(address, "GET", "/metrics", &[], "").body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    value.map(|value| value.parse().unwrap())
}

/// A server that runs.
pub struct Running {
    process: Child,
    output: BufReader<ChildStdout>,
    errors: BufReader<ChildStderr>,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it showed before it listened.
    pub banner: String,
}

impl Running {
    /// Starts a server of the bundled family with the engine for tests, on a free port, and waits until it listens.
    pub fn start(space: &Workspace, arguments: &[&str]) -> Self {
        let family = family();
        let fixed = ["--family", &family, "--engine", "scripted", "--port", "0"];
        Self::launch(space.command(&[&fixed[..], arguments].concat()))
    }

    /// Starts the server and waits until it listens.
    pub fn launch(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut errors = BufReader::new(process.stderr.take().unwrap());
        let mut banner = String::new();
        let address = loop {
            let mut line = String::new();
            if output.read_line(&mut line).unwrap() == 0 {
                let mut text = String::new();
                errors.read_to_string(&mut text).unwrap();
                panic!("the server did not start:\n{text}");
            }
            if let Some(rest) = line.strip_prefix("listening on http://") {
                break rest.split(',').next().unwrap().parse().unwrap();
            }
            banner.push_str(&line);
        };
        Self { process, output, errors, address, banner }
    }

    /// As [`ask`].
    pub fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        ask(self.address, method, path, headers, body)
    }

    /// The answer to [`chat`].
    pub fn chat(&self, fields: Value) -> Answer {
        Answer::read(CHAT, chat(self.address, fields))
    }

    /// The number behind a metric's name and labels.
    pub fn metric(&self, name: &str) -> Option<f64> {
        metric(self.address, name)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends SIGTERM.
    pub fn signal(&self) {
        let process = libc::pid_t::try_from(self.process.id()).unwrap();
        // SAFETY: the process is a child of ours that was not waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(process, libc::SIGTERM) }, 0);
    }

    /// Waits until it logs a line with this text.
    pub fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(self.errors.read_line(&mut line).unwrap(), 0, "it ended without saying `{text}`");
        }
    }

    /// A request whose body is still to come, and of which the server has read everything else.
    pub fn begin(&self, path: &str, length: usize) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let json = "content-type: application/json\r\n";
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n{json}\r\n"
        )
        .unwrap();
        let mut leave = [0; 25];
        stream.read_exact(&mut leave).unwrap();
        assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream
    }

    /// Waits for its end; exit code and standard error.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let (mut log, mut rest) = (String::new(), String::new());
        self.errors.read_to_string(&mut log).unwrap();
        self.output.read_to_string(&mut rest).unwrap();
        (self.process.wait().unwrap().code(), log)
    }
}

/// Waits until something holds, and fails when it does not come true at all.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never came true that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server inside the test, which holds its engine.
pub struct Inner {
    /// Its engine.
    pub engine: Arc<Scripted>,
    /// Its door.
    pub admission: Admission,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its life ends with this.
    _phase: watch::Sender<Phase>,
    _runtime: tokio::runtime::Runtime,
}

impl Inner {
    /// Serves the tiers of `engine` as a family called `inner`, 64 requests at a time.
    pub fn start(engine: Builder) -> Self {
        Self::behind(Admission::new(64, 64), engine)
    }

    /// The same behind this door.
    pub fn behind(admission: Admission, engine: Builder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let engine = Arc::new(engine.build().unwrap());
        let mut manifest = Manifest::new("family.toml", "inner", Base::default());
        for (place, name) in engine.tiers().iter().enumerate() {
            manifest.upsert_tier(Tier::new(name, 0.1 * place as f64).with_adapter(name, "0"));
        }
        let metrics = Metrics::new();
        let directory = Directory::new(Catalogue::from_manifest(&manifest, |_| None), &manifest);
        let state = AppState::new(engine.clone(), directory, admission.clone(), metrics.clone(), Options::default());
        let router = Layers { metrics, ..Layers::default() }.around(api::router(Arc::new(state)));
        let server = runtime.block_on(Server::bind("127.0.0.1", 0)).unwrap();
        let address = server.address();
        let (tell, phase) = watch::channel(Phase::Serving);
        runtime.spawn(server.serve(router, ServerOptions::default(), phase, || {}));
        Self { engine, admission, address, _phase: tell, _runtime: runtime }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Has no effect on one that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An HTTP answer.
pub struct Answer {
    /// What was asked for.
    path: String,
    /// Status code.
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    /// Everything after them.
    pub body: String,
}

impl Answer {
    /// Reads the answer of `path` to the end of the connection.
    pub fn read(path: &str, mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { path: path.to_owned(), status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// The events of a stream.
    pub fn events(&self) -> impl Iterator<Item = &str> {
        // Chunks hold whole events, so the lines of the encoding stand between them.
        self.body.lines().filter_map(|line| line.strip_prefix("data: "))
    }

    /// The events of a stream that was closed well, each what OpenAI's specification says.
    pub fn stream_events(&self) -> Vec<Value> {
        let data: Vec<&str> = self.events().collect();
        let (done, events) = data.split_last().unwrap();
        assert_eq!(*done, "[DONE]");
        let read = |event: &&str| {
            let event = serde_json::from_str(event).unwrap();
            specification::check_event(&self.path, &event);
            event
        };
        events.iter().map(read).collect()
    }

    /// The body, which must be what OpenAI's specification says.
    pub fn json(&self) -> Value {
        let body = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body));
        specification::check_body(&self.path, self.status, &body);
        body
    }
}
