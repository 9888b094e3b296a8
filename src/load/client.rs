//! Sends a request to an OpenAI-compatible server and watches the answer come.
//!
//! [`Target`] is what the generator drives; [`Client`] is the one that speaks HTTP. The body is made before the clock of
//! a request runs. Any server is good enough: one that hangs, lies or breaks gives an [`Exchange`] with a failure.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use brevity_training::{Error, Result};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::chunk::error_message;
use super::exchange::{ErrorKind, Exchange};
use super::plan::Planned;
use super::prompt::Prompt;
use super::sse::EventReader;

/// How long the end of a body may take to follow `[DONE]` before the connection is given up.
const AFTER_DONE: Duration = Duration::from_secs(1);
/// Longest attempt to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// Most bytes of an error's body that are read.
const ERROR_BODY: usize = 16 << 10;
/// Most bytes of an answer that was not streamed, and of a list of models.
const WHOLE_BODY: usize = 16 << 20;

/// Something that answers requests.
pub trait Target: Send + Sync + 'static {
    /// A request that is ready to be sent.
    type Body: Send;

    /// Makes the request; this time is nobody's latency.
    fn prepare(&self, planned: &Planned) -> Self::Body;

    /// Sends it and notes in `exchange` what comes back and when. It may be dropped at any time.
    fn call(&self, body: Self::Body, exchange: &mut Exchange) -> impl Future<Output = ()> + Send;
}

/// What every request carries besides prompt, effort and seed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// Softmax temperature; the server's default when absent.
    pub temperature: Option<f64>,
    /// `max_completion_tokens`; the server's default when absent.
    pub max_tokens: Option<u64>,
    /// Whether answers are streamed.
    pub stream: bool,
    /// Members put into the body last; `null` takes a member away.
    pub extra: Map<String, Value>,
}

/// Speaks HTTP with one server.
pub struct Client {
    http: reqwest::Client,
    url: String,
    model: String,
    prompts: Arc<[Prompt]>,
    efforts: Vec<Option<String>>,
    options: Options,
}

/// Where a server is and how it is entered.
#[derive(Debug, Clone)]
pub struct Server {
    http: reqwest::Client,
    /// As it was given: what stands before an `@` is sent as basic authentication.
    base: String,
    shown: String,
}

impl Server {
    /// The server whose API begins at `url`, such as `http://127.0.0.1:8080/v1`; `key` is sent as a bearer token.
    ///
    /// # Errors
    /// [`Error::Config`] when the address is no HTTP address, or the key cannot be part of a header.
    pub fn new(url: &str, key: Option<&str>) -> Result<Self> {
        let base = url.trim_end_matches('/').trim_end_matches("/chat/completions").to_owned();
        let parsed =
            reqwest::Url::parse(&base).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(parsed) = parsed else {
            let url = without_credentials(url);
            let message = format!("`{url}` is no address of a server; write it like http://127.0.0.1:8080/v1");
            return Err(Error::config(message));
        };
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| Error::config("the API key holds characters that no header may have"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // As for upstream tiers: redirects would carry prompts elsewhere, and a proxy before one's own machine would be
        // measured.
        let builder = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none());
        let is_own = ["127.0.0.1", "localhost", "[::1]"].contains(&parsed.host_str().unwrap_or_default());
        let builder = if is_own { builder.no_proxy() } else { builder };
        let http = builder.build().map_err(|error| Error::config(format!("cannot make an HTTP client: {error}")))?;
        let shown = without_credentials(&base);
        Ok(Self { http, base, shown })
    }

    /// The address without its last slash and without user name and password, which no report may hold.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The id of the first model that the server lists.
    ///
    /// # Errors
    /// [`Error::Config`] when it cannot be reached, refuses, or lists none.
    pub async fn first_model(&self) -> Result<String> {
        let failed = |what: String| {
            Error::config(format!(
                "cannot ask `{}/models` for a model: {what}; does the address end in /v1, and is the server up?",
                self.shown
            ))
        };
        let request = self.http.get(format!("{}/models", self.base)).timeout(CONNECT);
        let mut response = request.send().await.map_err(|error| failed(described(&error)))?;
        if !response.status().is_success() {
            return Err(failed(format!("the server answered {}", response.status())));
        }
        let body = whole(&mut response).await.map_err(|(_, message)| failed(message))?;
        let listed: Value = serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
        let id = listed.pointer("/data/0/id").and_then(Value::as_str).map(str::to_owned);
        id.ok_or_else(|| failed("it lists none".to_owned()))
    }
}

impl Client {
    /// A client for `server` that sends these prompts to `model`. `efforts` holds the value of `reasoning_effort` of each
    /// effort, `None` where the field is to be left away.
    pub fn new(
        server: &Server,
        model: &str,
        prompts: Arc<[Prompt]>,
        efforts: Vec<Option<String>>,
        options: Options,
    ) -> Self {
        let url = format!("{}/chat/completions", server.base);
        Self { http: server.http.clone(), url, model: model.to_owned(), prompts, efforts, options }
    }

    /// The body of a request.
    fn body(&self, planned: &Planned) -> Value {
        let messages = self.prompts.get(planned.prompt).map_or(Value::Null, |prompt| prompt.messages.clone());
        let mut body = Map::new();
        body.insert("model".to_owned(), json!(self.model));
        body.insert("messages".to_owned(), messages);
        if let Some(Some(effort)) = self.efforts.get(planned.effort) {
            body.insert("reasoning_effort".to_owned(), json!(effort));
        }
        body.insert("seed".to_owned(), json!(planned.seed));
        if let Some(temperature) = self.options.temperature {
            body.insert("temperature".to_owned(), json!(temperature));
        }
        if let Some(tokens) = self.options.max_tokens {
            body.insert("max_completion_tokens".to_owned(), json!(tokens));
        }
        body.insert("stream".to_owned(), json!(self.options.stream));
        if self.options.stream {
            body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        }
        for (name, value) in &self.options.extra {
            match value {
                Value::Null => body.remove(name),
                value => body.insert(name.clone(), value.clone()),
            };
        }
        Value::Object(body)
    }

    async fn exchange(&self, body: Vec<u8>, exchange: &mut Exchange) -> std::result::Result<(), (ErrorKind, String)> {
        let request = self.http.post(&self.url).header(CONTENT_TYPE, "application/json").body(body);
        let mut response = request.send().await.map_err(|error| (kind(&error), described(&error)))?;
        exchange.first_byte = Some(Instant::now());
        let status = response.status();
        exchange.status = Some(status.as_u16());
        if !status.is_success() {
            let message = refusal(&mut response).await;
            return Err((ErrorKind::Status(status.as_u16()), message));
        }
        if is_json(response.headers()) {
            let body = whole(&mut response).await?;
            exchange.ended = Instant::now();
            exchange.whole(&body, exchange.ended);
            return Ok(());
        }
        let mut reader = EventReader::default();
        while let Some(bytes) = response.chunk().await.map_err(broken)? {
            let now = Instant::now();
            let fed = reader.feed(&bytes, |data| exchange.event(data, now));
            fed.map_err(|error| (ErrorKind::InvalidJson, error.to_string()))?;
            exchange.ended = now;
            if exchange.failure.is_some() {
                return Ok(());
            }
            if exchange.done {
                // Only a body that was read to its end leaves its connection to the next request.
                let rest = async { while let Ok(Some(_)) = response.chunk().await {} };
                let _ = tokio::time::timeout(AFTER_DONE, rest).await;
                return Ok(());
            }
        }
        let now = Instant::now();
        reader.finish(|data| exchange.event(data, now));
        exchange.ended = now;
        Ok(())
    }
}

impl Target for Client {
    type Body = Vec<u8>;

    fn prepare(&self, planned: &Planned) -> Vec<u8> {
        self.body(planned).to_string().into_bytes()
    }

    async fn call(&self, body: Vec<u8>, exchange: &mut Exchange) {
        match self.exchange(body, exchange).await {
            Err((kind, message)) => {
                exchange.ended = Instant::now();
                exchange.fail(kind, message);
            }
            // Some servers close the stream after the last chunk, without a word.
            Ok(()) if exchange.failure.is_none() && !exchange.done && exchange.finish_reason.is_none() => {
                exchange.fail(ErrorKind::Truncated, "the stream ended without [DONE] and without a `finish_reason`");
            }
            Ok(())
                if exchange.first_token.is_none() && exchange.usage.is_none() && exchange.finish_reason.is_none() =>
            {
                exchange.fail(ErrorKind::InvalidJson, "the answer holds no completion");
            }
            Ok(()) => {}
        }
        exchange.ended = exchange.ended.max(exchange.sent);
    }
}

/// A body to its end, unless it is longer than [`WHOLE_BODY`].
async fn whole(response: &mut reqwest::Response) -> std::result::Result<Vec<u8>, (ErrorKind, String)> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(broken)? {
        if body.len() + bytes.len() > WHOLE_BODY {
            return Err((ErrorKind::InvalidJson, format!("the answer is longer than {} MiB", WHOLE_BODY >> 20)));
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

fn broken(error: reqwest::Error) -> (ErrorKind, String) {
    (ErrorKind::Transport, described(&error))
}

/// What the body of a refusal says.
async fn refusal(response: &mut reqwest::Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        body.extend_from_slice(&bytes);
        if body.len() > ERROR_BODY {
            break;
        }
    }
    match serde_json::from_slice::<Value>(&body) {
        Ok(value) => error_message(value.get("error").unwrap_or(&value)),
        Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
    }
}

/// `text` without user name and password of an address in it: `http://me:secret@host/v1` becomes `http://host/v1`.
pub fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.starts_with("application/json")
}

fn kind(error: &reqwest::Error) -> ErrorKind {
    if error.is_connect() {
        ErrorKind::Connect
    } else if error.is_timeout() {
        ErrorKind::Timeout
    } else {
        ErrorKind::Transport
    }
}

/// An error with its innermost cause, which is the one that says something.
fn described(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let (outer, inner) = (error.to_string(), innermost.to_string());
    if error.source().is_none() || outer.contains(&inner) { outer } else { format!("{outer}: {inner}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(options: Options) -> Client {
        let server = Server::new("http://localhost:1/v1/", None).unwrap();
        let prompt = |id: &str| Prompt {
            id: id.to_owned(),
            messages: json!([{ "role": "user", "content": id }]),
            answer: None,
            level: None,
        };
        let prompts: Arc<[Prompt]> = vec![prompt("a"), prompt("b")].into();
        Client::new(&server, "m", prompts, vec![Some("low".to_owned()), None], options)
    }

    #[test]
    fn bodies_hold_what_was_planned() {
        let client = client(Options { stream: true, temperature: Some(0.5), ..Options::default() });
        assert_eq!(client.url, "http://localhost:1/v1/chat/completions");
        let body = client.body(&Planned { prompt: 1, effort: 0, repetition: 0, seed: 7 });
        let expected = json!({
            "model": "m", "messages": [{ "role": "user", "content": "b" }], "reasoning_effort": "low", "seed": 7,
            "temperature": 0.5, "stream": true, "stream_options": { "include_usage": true }
        });
        assert_eq!(body, expected);
        let body = client.body(&Planned { prompt: 0, effort: 1, repetition: 0, seed: 7 });
        assert!(body.get("reasoning_effort").is_none());
    }

    #[test]
    fn extra_members_come_last_and_null_takes_away() {
        let Value::Object(extra) = json!({ "seed": null, "top_k": 5, "model": "other" }) else { panic!() };
        let client = client(Options { max_tokens: Some(9), extra, ..Options::default() });
        let body = client.body(&Planned { prompt: 0, effort: 1, repetition: 0, seed: 7 });
        let messages = json!([{ "role": "user", "content": "a" }]);
        let expected = json!({
            "model": "other", "messages": messages, "max_completion_tokens": 9, "stream": false, "top_k": 5
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        for wrong in ["localhost:8080", "ftp://a/v1", ""] {
            assert!(Server::new(wrong, None).unwrap_err().to_string().contains("http://127.0.0.1"), "{wrong}");
        }
        assert_eq!(Server::new("http://h/v1/chat/completions", Some("k")).unwrap().shown(), "http://h/v1");
        assert!(Server::new("http://h/v1", Some("a\nb")).is_err());
    }

    #[test]
    fn credentials_are_not_shown() {
        let server = Server::new("https://me:sec%2Fret@h:8443/v1/", None).unwrap();
        assert_eq!((server.shown(), server.base.as_str()), ("https://h:8443/v1", "https://me:sec%2Fret@h:8443/v1"));
        for (text, shown) in [
            ("--url=http://a:b@h", "--url=http://h"),
            ("http://h/v1?mail=me@b.c", "http://h/v1?mail=me@b.c"),
            ("http://t@k@h/v1", "http://h/v1"),
            ("me@example.com", "me@example.com"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
        assert!(!Server::new("ftp://me:secret@h", None).unwrap_err().to_string().contains("secret"));
    }

    #[tokio::test]
    async fn a_whole_answer_without_end_is_cut_off() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n").await;
            while socket.write_all(&[b' '; 1 << 16]).await.is_ok() {}
        });
        let client =
            Client::new(&Server::new(&url, None).unwrap(), "m", Vec::new().into(), vec![None], Options::default());
        let mut exchange = Exchange::begin(Instant::now());
        client.call(b"{}".to_vec(), &mut exchange).await;
        let failure = exchange.failure.unwrap();
        assert_eq!(
            (failure.kind, failure.message.as_str()),
            (ErrorKind::InvalidJson, "the answer is longer than 16 MiB")
        );
    }
}
