//! A server that plays the Hugging Face hub on this machine: the two routes that fetching needs, on a socket of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A hub with one repository, which it shows as a model and as a data set.
pub struct HubServer {
    address: String,
    state: Arc<Mutex<State>>,
}

struct State {
    repository: String,
    commit: String,
    files: BTreeMap<String, Vec<u8>>,
    token: Option<String>,
    requests: Vec<String>,
}

impl HubServer {
    /// Serves the files below `folder` as `repository`; with a `token`, to those who send it.
    pub fn start(repository: &str, folder: &Path, token: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut files = BTreeMap::new();
        collect(folder, "", &mut files);
        let state = Arc::new(Mutex::new(State {
            repository: repository.to_owned(),
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            files,
            token: token.map(str::to_owned),
            requests: Vec::new(),
        }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Self { address, state }
    }

    /// For `HF_ENDPOINT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The commit that every revision is.
    pub fn commit(&self) -> String {
        self.state.lock().unwrap().commit.clone()
    }

    /// A new commit with one file changed.
    pub fn push(&self, name: &str, content: &[u8]) {
        let mut state = self.state.lock().unwrap();
        state.files.insert(name.to_owned(), content.to_owned());
        state.commit = state.commit.chars().rev().collect();
    }

    /// Paths that were asked for since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_string_lossy());
        if path.is_dir() {
            collect(&path, &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

/// Answers one request and closes the connection.
fn answer(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    let mut headers = BTreeMap::new();
    if reader.read_line(&mut first).is_err() {
        return;
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let path = first.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let mut state = state.lock().unwrap();
    state.requests.push(path.clone());
    let (status, extra, body) = respond(&state, &path, &headers);
    drop(state);
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{extra}\r\n", body.len());
    let mut stream = stream;
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = reader.read_to_end(&mut Vec::new());
}

fn respond(state: &State, path: &str, headers: &BTreeMap<String, String>) -> (&'static str, String, Vec<u8>) {
    if state.token.as_ref().is_some_and(|token| headers.get("authorization") != Some(&format!("Bearer {token}"))) {
        return ("401 Unauthorized", String::new(), b"{\"error\": \"gated\"}".to_vec());
    }
    let missing = ("404 Not Found", String::new(), b"{\"error\": \"not found\"}".to_vec());
    let known = |revision: &str| revision == "main" || revision == "v1" || revision == state.commit;
    let information = ["models", "datasets"].map(|kind| format!("/api/{kind}/{}/revision/", state.repository));
    if let Some(revision) = information.iter().find_map(|start| path.strip_prefix(start)) {
        if !known(revision) {
            return missing;
        }
        let siblings: Vec<_> = state.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body = serde_json::json!({ "sha": state.commit, "siblings": siblings }).to_string();
        return ("200 OK", "Content-Type: application/json\r\n".to_owned(), body.into_bytes());
    }
    let file = ["", "/datasets"].map(|kind| format!("{kind}/{}/resolve/", state.repository));
    let file = file.iter().find_map(|start| path.strip_prefix(start)).and_then(|rest| rest.split_once('/'));
    let Some((revision, name)) = file else { return missing };
    let Some(content) = state.files.get(name).filter(|_| known(revision)) else { return missing };
    // The client always asks for a range: one byte for the size, then from where it is to the end.
    let range = headers.get("range").and_then(|range| range.strip_prefix("bytes=")).unwrap_or("0-");
    let (start, end) = range.split_once('-').unwrap_or(("0", ""));
    let start: usize = start.parse().unwrap_or(0);
    let end = end.parse().map_or(content.len(), |end: usize| (end + 1).min(content.len()));
    let extra = format!(
        "ETag: \"{:016x}\"\r\nX-Repo-Commit: {}\r\nContent-Range: bytes {start}-{}/{}\r\n",
        checksum(content),
        state.commit,
        end.saturating_sub(1),
        content.len()
    );
    ("206 Partial Content", extra, content[start.min(end)..end].to_vec())
}

/// FNV-1a, enough to tell contents apart.
fn checksum(content: &[u8]) -> u64 {
    content.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
