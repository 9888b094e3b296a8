//! Server-sent events as a response body: bounded, with heartbeats, cancelled when nobody reads.
//!
//! A producer task fills a short channel that the body drains. When the client goes away the body is dropped and
//! [`Outlet::wait`] ends at once; when it stops reading, the full channel is given up after the stall timeout. A stream that
//! was not [`Outlet::finish`]ed ends with an error, so that HTTP clients see a broken body and not a short one.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures::FutureExt;
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::Instrument;

use tokio::time::Instant;

use super::ApiError;

/// Frames between producer and body.
const FRAMES: usize = 16;
/// A frame is sent when it has grown to this many bytes, even if more events are ready.
pub const FRAME_BYTES: usize = 16 << 10;
/// The end of a stream of the OpenAI API.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The client is gone, or does not read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Times of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Time without any byte for the client after which a comment is sent.
    pub heartbeat: Duration,
    /// Time for which the channel may stay full.
    pub stall_timeout: Duration,
}

enum Frame {
    Data(Bytes),
    End,
}

/// The producer's end of a stream.
#[derive(Debug)]
pub struct Outlet {
    frames: mpsc::Sender<Frame>,
    pace: Pace,
    /// When the client was last given something.
    sent: Instant,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Data(bytes) => formatter.debug_tuple("Data").field(&bytes.len()).finish(),
            Self::End => formatter.write_str("End"),
        }
    }
}

impl Outlet {
    fn new(frames: mpsc::Sender<Frame>, pace: Pace) -> Self {
        Self { frames, pace, sent: Instant::now() }
    }

    /// Sends a frame of whole events.
    ///
    /// # Errors
    /// [`Gone`] when the client is.
    pub async fn send(&mut self, frame: impl Into<Bytes>) -> Result<(), Gone> {
        self.push(Frame::Data(frame.into())).await
    }

    async fn push(&mut self, frame: Frame) -> Result<(), Gone> {
        // The common case costs no timer.
        match self.frames.try_send(frame) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Gone),
            Err(mpsc::error::TrySendError::Full(frame)) => {
                self.frames.send_timeout(frame, self.pace.stall_timeout).await.map_err(|_| Gone)?;
            }
        }
        self.sent = Instant::now();
        Ok(())
    }

    /// Waits for `work`, sending a comment whenever the client was given nothing for the time of a heartbeat. That time
    /// goes on from one wait to the next: work that is done and sends nothing does not start it anew.
    ///
    /// # Errors
    /// [`Gone`] when the client is gone before; `work` is dropped then.
    pub async fn wait<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Gone> {
        let mut work = pin!(work);
        // Work that never has to wait must not keep the comment back.
        if self.quiet().is_zero() {
            self.beat()?;
        }
        loop {
            let quiet = self.quiet();
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = self.frames.closed() => return Err(Gone),
                () = tokio::time::sleep(quiet) => self.beat()?,
            }
        }
    }

    /// For how long nothing need be sent yet.
    fn quiet(&self) -> Duration {
        self.pace.heartbeat.saturating_sub(self.sent.elapsed())
    }

    fn beat(&mut self) -> Result<(), Gone> {
        // A full channel has something for the client already.
        if let Err(mpsc::error::TrySendError::Closed(_)) = self.frames.try_send(Frame::Data(KEEP_ALIVE)) {
            return Err(Gone);
        }
        self.sent = Instant::now();
        Ok(())
    }

    /// Ends the stream well.
    ///
    /// # Errors
    /// [`Gone`] when nobody read to the end.
    pub async fn finish(mut self) -> Result<(), Gone> {
        self.push(Frame::End).await
    }
}

/// A response whose body is what `produce` sends. Should it panic, the client gets an error event.
pub fn response<F>(pace: Pace, produce: impl FnOnce(Outlet) -> F) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (frames, receiver) = mpsc::channel(FRAMES);
    let last = frames.clone();
    let produced = produce(Outlet::new(frames, pace));
    let work = async move {
        // The producer is dropped with whatever it held by the time the error is sent.
        let panicked = AssertUnwindSafe(produced).catch_unwind().await.is_err();
        if panicked {
            tracing::error!("a stream panicked; this is a bug of the server, please report it");
            let mut outlet = Outlet::new(last, pace);
            let fault = ApiError::internal("the server failed on this request; try again");
            if outlet.send(error_event(&fault)).await.is_ok() {
                // Whether somebody still reads changes nothing any more.
                let _gone = outlet.finish().await;
            }
        }
    };
    // In the span of the request, so that its lines in the log have its id.
    tokio::spawn(work.in_current_span());
    let body = futures::stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Frame::Data(bytes)) => Some((Ok(bytes), Some(receiver))),
            Some(Frame::End) => None,
            None => Some((Err(std::io::Error::other("the stream was cut off")), None)),
        }
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Asks nginx not to collect the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Appends `value` as one event without a name.
pub fn write_event(frame: &mut Vec<u8>, value: &impl Serialize) {
    let start = frame.len();
    frame.extend_from_slice(b"data: ");
    match serde_json::to_writer(&mut *frame, value) {
        Ok(()) => frame.extend_from_slice(b"\n\n"),
        // Our own types always serialise; a half-written event must not leave the server all the same.
        Err(_) => frame.truncate(start),
    }
}

/// Appends `value` as one event with a name.
pub fn write_named_event(frame: &mut Vec<u8>, name: &str, value: &impl Serialize) {
    let start = frame.len();
    frame.extend_from_slice(format!("event: {name}\n").as_bytes());
    let named = frame.len();
    write_event(frame, value);
    if frame.len() == named {
        frame.truncate(start);
    }
}

/// The event of an error that comes after the status code is sent.
pub fn error_event(error: &ApiError) -> Vec<u8> {
    let mut frame = Vec::new();
    write_event(&mut frame, &error.envelope());
    frame
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    const PATIENT: Pace = Pace { heartbeat: Duration::from_secs(600), stall_timeout: Duration::from_secs(600) };

    async fn text(response: Response) -> Result<String, axum::Error> {
        let mut text = String::new();
        let mut body = response.into_body().into_data_stream();
        while let Some(frame) = body.next().await {
            text.push_str(std::str::from_utf8(&frame?).unwrap());
        }
        Ok(text)
    }

    #[tokio::test]
    async fn quiet_streams_carry_comments() {
        let (read_enough, work) = tokio::sync::oneshot::channel::<()>();
        let pace = Pace { heartbeat: Duration::from_millis(1), ..PATIENT };
        let response = response(pace, |mut outlet| async move {
            outlet.wait(work).await.unwrap().unwrap();
            outlet.finish().await.unwrap();
        });
        let mut body = response.into_body().into_data_stream();
        for _ in 0..3 {
            assert_eq!(body.next().await.unwrap().unwrap(), KEEP_ALIVE);
        }
        read_enough.send(()).unwrap();
        while let Some(frame) = body.next().await {
            assert_eq!(frame.unwrap(), KEEP_ALIVE);
        }
    }

    /// The work is done again and again before a heartbeat is over, and nothing is sent.
    #[tokio::test(start_paused = true)]
    async fn work_without_output_does_not_silence_the_comments() {
        let pace = Pace { heartbeat: Duration::from_secs(15), ..PATIENT };
        let response = response(pace, |mut outlet| async move {
            for _ in 0..31 {
                outlet.wait(tokio::time::sleep(Duration::from_secs(1))).await.unwrap();
            }
            outlet.send(DONE).await.unwrap();
            // What was just sent starts the time anew.
            outlet.wait(tokio::time::sleep(Duration::from_secs(14))).await.unwrap();
            outlet.finish().await.unwrap();
        });
        let comment = ": keep-alive\n\n";
        assert_eq!(text(response).await.unwrap(), format!("{comment}{comment}data: [DONE]\n\n"));
    }

    #[tokio::test]
    async fn who_does_not_read_is_given_up_and_nothing_piles_up() {
        let (told, gone) = tokio::sync::oneshot::channel();
        let pace = Pace { stall_timeout: Duration::from_millis(1), ..PATIENT };
        let response = response(pace, |mut outlet| async move {
            let mut sent = 0;
            while outlet.send(DONE).await.is_ok() {
                sent += 1;
            }
            told.send(sent).unwrap();
        });
        assert_eq!(gone.await.unwrap(), FRAMES);
        assert!(text(response).await.is_err(), "a cut stream looks whole");
    }

    #[tokio::test]
    async fn a_dropped_body_ends_the_wait() {
        let (told, gone) = tokio::sync::oneshot::channel();
        let response = response(PATIENT, |mut outlet| async move {
            told.send(outlet.wait(std::future::pending::<()>()).await).unwrap();
        });
        drop(response);
        assert_eq!(gone.await.unwrap(), Err(Gone));
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_event() {
        let response = response(PATIENT, |_outlet| async move { panic!("a bug") });
        let text = text(response).await.unwrap();
        assert!(text.starts_with("data: {\"error\":{\"message\":\"the server failed"), "{text}");
        assert!(!text.contains("DONE"));
    }
}
