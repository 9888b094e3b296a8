//! The engine against a server in this process that plays the other one, byte by byte.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};
use futures::TryStreamExt;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;
use crate::engine::{Channel, FinishReason, Piece};
use crate::family::Upstream;

/// A request that the server has received, and the means to answer it.
struct Asked {
    path: String,
    headers: HeaderMap,
    body: Value,
    answer: oneshot::Sender<Response<Body>>,
}

/// The other server: hands every request to the test.
struct Fake {
    url: String,
    asked: mpsc::UnboundedReceiver<Asked>,
}

impl Fake {
    async fn start() -> Self {
        let (sender, asked) = mpsc::unbounded_channel::<Asked>();
        let handler = |State(sender): State<mpsc::UnboundedSender<Asked>>,
                       uri: Uri,
                       headers: HeaderMap,
                       body: Bytes| async move {
            let (answer, response) = oneshot::channel();
            let body = serde_json::from_slice(&body).unwrap();
            sender.send(Asked { path: uri.path().to_owned(), headers, body, answer }).ok();
            response.await.unwrap_or_else(|_| Response::new(Body::empty()))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let router = Router::new().fallback(handler).with_state(sender);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked }
    }

    fn engine(&self, patience: Patience) -> UpstreamEngine {
        let settings = Upstream {
            url: self.url.clone(),
            model: "org/short".to_owned(),
            api_key_env: Some("SHORT_KEY".to_owned()),
            ..Upstream::default()
        };
        let key = Some(SecretString::from("sk-secret"));
        UpstreamEngine::new([RemoteTier { name: "short".to_owned(), settings, key }], patience).unwrap()
    }

    async fn next(&mut self) -> Asked {
        self.asked.recv().await.unwrap()
    }
}

/// An open event stream; dropping it ends the body early.
struct Open {
    bytes: mpsc::UnboundedSender<Result<Bytes, std::io::Error>>,
    closed: oneshot::Receiver<()>,
}

/// Tells when the server's side of the body is dropped.
struct Watched(UnboundedReceiverStream<Result<Bytes, std::io::Error>>, Option<oneshot::Sender<()>>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.1.take().and_then(|sender| sender.send(()).ok());
    }
}

impl futures::Stream for Watched {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl Asked {
    fn refuse(self, status: u16, headers: &[(&str, &str)], body: &str) {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        self.answer.send(response.body(Body::from(body.to_owned())).unwrap()).ok();
    }

    fn stream(self) -> Open {
        let (bytes, receiver) = mpsc::unbounded_channel();
        let (sender, closed) = oneshot::channel();
        let body = Body::from_stream(Watched(UnboundedReceiverStream::new(receiver), Some(sender)));
        let response = Response::builder().header("content-type", "text/event-stream; charset=utf-8").body(body);
        self.answer.send(response.unwrap()).ok();
        Open { bytes, closed }
    }
}

impl Open {
    fn raw(&self, bytes: &[u8]) {
        self.bytes.send(Ok(Bytes::copy_from_slice(bytes))).ok();
    }

    fn send(&self, data: &Value) {
        self.raw(format!("data: {data}\n\n").as_bytes());
    }

    fn text(&self, text: &str) {
        self.send(&json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}));
    }

    fn ended(&self) {
        self.send(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
    }
}

fn hello() -> Generation {
    let message = Message { role: "user".to_owned(), content: "hello".to_owned(), ..Message::default() };
    Generation {
        tier: "short".to_owned(),
        prompt: Prompt::Chat(Conversation { messages: vec![message], tools: None }),
        sampling: Sampling::default(),
        thinking: Thinking::Free,
        max_tokens: Some(64),
        stop: Vec::new(),
        logprobs: None,
        constraint: Constraint::Free,
        shared: Shared::default(),
    }
}

/// Starts a generation and gives the server its request at the same time.
async fn ask(fake: &mut Fake, engine: &UpstreamEngine, answer: impl FnOnce(Asked)) -> Result<Events, EngineError> {
    let (events, ()) = tokio::join!(engine.generate(hello()), async { answer(fake.next().await) });
    events
}

/// A stream and the server's end of it.
async fn open(fake: &mut Fake, engine: &UpstreamEngine) -> (Events, Open) {
    let mut open = None;
    let events = ask(fake, engine, |asked| open = Some(asked.stream())).await.unwrap();
    (events, open.unwrap())
}

fn said(events: &[Event]) -> (String, String) {
    let of = |wanted: Channel| {
        let pieces = events.iter().filter_map(|event| match event {
            Event::Token(Piece { channel, text, .. }) if *channel == wanted => Some(text.as_str()),
            _ => None,
        });
        pieces.collect::<String>()
    };
    (of(Channel::Thinking), of(Channel::Answer))
}

#[tokio::test]
async fn a_whole_answer_streams() {
    let mut fake = Fake::start().await;
    let engine = fake.engine(Patience::default());
    let mut asked = None;
    let mut stream = None;
    let events = ask(&mut fake, &engine, |request| {
        asked = Some((request.path.clone(), request.headers.clone(), request.body.clone()));
        stream = Some(request.stream());
    })
    .await
    .unwrap();
    let (path, headers, body) = asked.unwrap();
    assert_eq!(
        (path.as_str(), headers["authorization"].to_str().unwrap()),
        ("/v1/chat/completions", "Bearer sk-secret")
    );
    assert_eq!(
        (&body["model"], &body["stream"], &body["max_completion_tokens"]),
        (&json!("org/short"), &json!(true), &json!(64))
    );
    let open = stream.unwrap();
    open.raw(b": keep-alive\n\n");
    open.send(
        &json!({"choices": [{"index": 0, "delta": {"role": "assistant", "reasoning": "hm"}, "finish_reason": null}]}),
    );
    open.text("yes");
    open.ended();
    open.send(&json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3}}));
    open.raw(b"data: [DONE]\n\n");
    let events: Vec<Event> = events.try_collect().await.unwrap();
    assert_eq!(said(&events), ("hm".to_owned(), "yes".to_owned()));
    let Some(Event::Finished(finish)) = events.last() else { panic!("{events:?}") };
    assert_eq!((finish.reason, finish.usage.prompt_tokens, finish.usage.completion_tokens), (FinishReason::Stop, 3, 3));
}

#[tokio::test]
async fn characters_split_over_packets_stay_whole() {
    let mut fake = Fake::start().await;
    let engine = fake.engine(Patience::default());
    let (mut events, open) = open(&mut fake, &engine).await;
    // Each byte is its own chunk of the body; the first event proves that they arrive one by one.
    open.text("a");
    assert!(matches!(events.next().await, Some(Ok(Event::Started { .. }))));
    let data = json!({"choices": [{"index": 0, "delta": {"content": "é😀"}, "finish_reason": "stop"}]});
    for byte in format!("data: {data}\r\n\r\ndata: [DONE]\r\n\r\n").as_bytes() {
        open.raw(&[*byte]);
    }
    let events: Vec<Event> = events.try_collect().await.unwrap();
    assert_eq!(said(&events).1, "aé😀");
}

#[tokio::test]
async fn dropping_the_events_closes_the_connection() {
    let mut fake = Fake::start().await;
    let engine = fake.engine(Patience::default());
    let (mut events, open) = open(&mut fake, &engine).await;
    open.text("a");
    assert!(matches!(events.next().await, Some(Ok(Event::Started { .. }))));
    drop(events);
    open.closed.await.unwrap();
    assert!(open.bytes.is_closed());
}

#[tokio::test]
async fn dropping_the_request_closes_the_connection() {
    let mut fake = Fake::start().await;
    let engine = fake.engine(Patience::default());
    let mut generation = engine.generate(hello());
    let mut asked = tokio::select! {
        _ = &mut generation => panic!("nothing was answered"),
        asked = fake.next() => asked,
    };
    drop(generation);
    asked.answer.closed().await;
}

#[tokio::test]
async fn a_stop_string_found_here_ends_the_work_there() {
    let mut fake = Fake::start().await;
    let engine = fake.engine(Patience::default());
    let generation = Generation { stop: vec!["END".to_owned()], ..hello() };
    let (events, open) = tokio::join!(engine.generate(generation), async { fake.next().await.stream() });
    open.text("yes EN");
    open.text("D and on");
    let events: Vec<Event> = events.unwrap().try_collect().await.unwrap();
    assert_eq!(said(&events).1, "yes ");
    open.closed.await.unwrap();
}

#[tokio::test]
async fn refusals_keep_whose_fault_they_are() {
    let mut fake = Fake::start().await;
    let engine = fake.engine(Patience::default());
    let body = r#"{"error": {"message": "sk-secret is hot", "param": "temperature"}}"#;
    let error = ask(&mut fake, &engine, |asked| asked.refuse(400, &[], body)).await.err().unwrap();
    let EngineError::Invalid { message, param: Some("temperature") } = error else { panic!("{error:?}") };
    assert_eq!(message, "the server of tier `short` refused the request: [key] is hot");
    for status in [429, 503] {
        let error =
            ask(&mut fake, &engine, |asked| asked.refuse(status, &[("retry-after", "3")], "")).await.err().unwrap();
        let (EngineError::Busy { retry_after, .. } | EngineError::Unavailable { retry_after, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!(retry_after, Some(Duration::from_secs(3)));
    }
    let error = ask(&mut fake, &engine, |asked| asked.refuse(404, &[], "")).await.err().unwrap();
    assert!(matches!(error, EngineError::UnknownModel { .. }));
    let elsewhere = [("location", "http://127.0.0.1:1/")];
    let error = ask(&mut fake, &engine, |asked| asked.refuse(307, &elsewhere, "")).await.err().unwrap();
    assert!(matches!(error, EngineError::Failed { upstream: true, .. }), "redirects are not followed: {error:?}");
    let error = ask(&mut fake, &engine, |asked| asked.refuse(200, &[("content-type", "application/json")], "{}")).await;
    assert!(error.err().unwrap().to_string().contains("answers without streaming"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let fake = Fake { url, asked: mpsc::unbounded_channel().1 };
    let engine = fake.engine(Patience::default());
    let error = engine.generate(hello()).await.err().unwrap();
    assert!(matches!(error, EngineError::Unavailable { .. }), "{error:?}");
    assert!(engine.probe("short").await.is_err());
    assert!(matches!(
        engine.generate(Generation { tier: "x".into(), ..hello() }).await.err(),
        Some(EngineError::UnknownTier(_))
    ));
}

#[tokio::test]
async fn streams_that_break_end_with_an_error() {
    let mut fake = Fake::start().await;
    let engine = fake.engine(Patience::default());
    let last = |events: Events| async move { events.collect::<Vec<_>>().await.pop().unwrap() };

    let (events, stream) = open(&mut fake, &engine).await;
    stream.text("half");
    drop(stream);
    let error = last(events).await.unwrap_err().to_string();
    assert!(error.contains("in the middle of an answer"), "{error}");

    let (events, stream) = open(&mut fake, &engine).await;
    stream.text("half");
    stream.send(&json!({"error": {"message": "out of memory, sk-secret", "type": "server_error"}}));
    let error = last(events).await.unwrap_err().to_string();
    assert_eq!(error, "the server of tier `short` failed in the middle of an answer: out of memory, [key]");
    stream.closed.await.unwrap();

    let (events, stream) = open(&mut fake, &engine).await;
    stream.raw(b"data: {\"choices\": oops\n\n");
    assert!(last(events).await.unwrap_err().to_string().contains("no chat completion chunk"));

    let (events, stream) = open(&mut fake, &engine).await;
    stream.text("half");
    stream.bytes.send(Err(std::io::Error::other("pulled the plug"))).ok();
    let error = last(events).await.unwrap_err().to_string();
    assert_eq!(error, "the server of tier `short` was lost in the middle of an answer");

    // The answer was complete; only the mark that says so is missing.
    let (events, stream) = open(&mut fake, &engine).await;
    stream.text("whole");
    stream.ended();
    drop(stream);
    assert!(matches!(last(events).await, Ok(Event::Finished(_))));
}

#[tokio::test]
async fn silence_has_an_end() {
    let mut fake = Fake::start().await;
    let engine = fake.engine(Patience { idle: Duration::from_millis(500), ..Patience::default() });
    // The server never says a word: neither before the head of its response nor in the stream.
    let (result, _asked) = tokio::join!(engine.generate(hello()), fake.next());
    assert!(matches!(result.err(), Some(EngineError::Unavailable { .. })));
    let (events, stream) = open(&mut fake, &engine).await;
    let error = events.collect::<Vec<_>>().await.pop().unwrap().unwrap_err().to_string();
    assert_eq!(error, "the server of tier `short` fell silent in the middle of an answer");
    drop(stream);
}

#[tokio::test]
async fn a_probe_generates_one_token() {
    let mut fake = Fake::start().await;
    let engine = fake.engine(Patience::default());
    let (result, body) = tokio::join!(engine.probe("short"), async {
        let asked = fake.next().await;
        let body = asked.body.clone();
        let open = asked.stream();
        open.text("1");
        open.closed.await.unwrap();
        body
    });
    result.unwrap();
    assert_eq!(body["max_completion_tokens"], json!(1));
    let (result, ()) = tokio::join!(engine.probe("short"), async { fake.next().await.refuse(500, &[], "") });
    assert!(matches!(result, Err(EngineError::Failed { upstream: true, .. })));
}
