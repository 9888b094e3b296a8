use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::*;
use crate::api::admission::Admission;
use crate::api::layers::Layers;
use crate::api::metrics::Metrics;

/// A server, and the strings it hangs on.
struct Puppet {
    address: SocketAddr,
    tell: watch::Sender<Phase>,
    admission: Admission,
    metrics: Metrics,
    /// Lets `/gated` answer.
    gate: Arc<Notify>,
    /// Says when a request has arrived at `/gated`.
    arrived: mpsc::UnboundedReceiver<()>,
    /// Says when a request to `/gated` is over, answered or not.
    over: mpsc::UnboundedReceiver<()>,
    served: JoinHandle<usize>,
}

/// Tells when it is dropped.
struct Tell(mpsc::UnboundedSender<()>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

async fn puppet(options: ServerOptions) -> Puppet {
    let server = Server::bind("127.0.0.1", 0).await.unwrap();
    let address = server.address();
    let (tell, phase) = watch::channel(Phase::Serving);
    let admission = Admission::new(4, 4);
    let metrics = Metrics::new();
    let gate = Arc::new(Notify::new());
    let (arrive, arrived) = mpsc::unbounded_channel();
    let (end, over) = mpsc::unbounded_channel();
    let (door, opened) = (admission.clone(), gate.clone());
    let gated = move || {
        let (door, opened, arrive, told) = (door.clone(), opened.clone(), arrive.clone(), Tell(end.clone()));
        async move {
            let _told = told;
            let _permit = door.enter(1, None).await?;
            arrive.send(()).unwrap();
            opened.notified().await;
            Ok::<_, crate::api::ApiError>("answer")
        }
    };
    let endless = || async {
        Body::from_stream(futures::stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from(vec![0; 65_536]))))
    };
    let router = Router::new()
        .route("/gated", get(gated))
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/endless", get(endless));
    let router = Layers { metrics: metrics.clone(), ..Layers::default() }.around(router);
    let drain = admission.clone();
    let served = tokio::spawn(server.serve(router, options, phase, move || drain.drain()));
    Puppet { address, tell, admission, metrics, gate, arrived, over, served }
}

async fn send(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

const GATED: &str = "GET /gated HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn draining_finishes_what_runs_and_refuses_what_comes() {
    let mut puppet = puppet(ServerOptions::default()).await;
    // First in the queue of the port, so it is accepted by the time that the request after it arrives.
    let idle = TcpStream::connect(puppet.address).await.unwrap();
    let running = send(puppet.address, GATED).await;
    puppet.arrived.recv().await.unwrap();
    puppet.tell.send_replace(Phase::Draining);
    assert_eq!(answer(idle).await, "", "an idle connection is closed");
    let refused = answer(send(puppet.address, GATED).await).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("connection: close"), "{refused}");
    puppet.gate.notify_one();
    let finished = answer(running).await;
    assert!(finished.starts_with("HTTP/1.1 200 ") && finished.ends_with("answer"), "{finished}");
    assert_eq!(puppet.served.await.unwrap(), 0);
    assert!(TcpStream::connect(puppet.address).await.is_err());
}

#[tokio::test]
async fn what_takes_too_long_is_cut_off() {
    let mut puppet = puppet(ServerOptions { drain_timeout: Duration::ZERO, ..ServerOptions::default() }).await;
    let running = send(puppet.address, GATED).await;
    puppet.arrived.recv().await.unwrap();
    puppet.tell.send_replace(Phase::Draining);
    assert_eq!(puppet.served.await.unwrap(), 1);
    assert_eq!(answer(running).await, "");
    puppet.over.recv().await.unwrap();
    assert_eq!(puppet.admission.running(), 0);
}

#[tokio::test]
async fn the_second_signal_ends_at_once() {
    let mut puppet =
        puppet(ServerOptions { drain_timeout: Duration::from_secs(3600), ..ServerOptions::default() }).await;
    let _running = send(puppet.address, GATED).await;
    puppet.arrived.recv().await.unwrap();
    puppet.tell.send_replace(Phase::Draining);
    puppet.tell.send_replace(Phase::Stopping);
    assert_eq!(puppet.served.await.unwrap(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let mut puppet = puppet(ServerOptions::default()).await;
    let running = send(puppet.address, GATED).await;
    puppet.arrived.recv().await.unwrap();
    assert_eq!(puppet.admission.running(), 1);
    drop(running);
    puppet.over.recv().await.unwrap();
    assert_eq!(puppet.admission.running(), 0);
    assert!(puppet.metrics.render(0, 0).contains("brevity_client_disconnects_total 1"));
}

#[tokio::test]
async fn slow_headers_are_given_up() {
    let options = ServerOptions { header_timeout: Duration::from_millis(20), ..ServerOptions::default() };
    let puppet = puppet(options).await;
    let text = answer(send(puppet.address, "GET /gated HTTP/1.1\r\nhost: x\r\n").await).await;
    assert!(!text.contains("200"), "{text}");
}

#[tokio::test]
async fn clients_that_do_not_read_are_given_up() {
    let options = ServerOptions { write_timeout: Duration::from_millis(20), ..ServerOptions::default() };
    let puppet = puppet(options).await;
    let _stream = send(puppet.address, "GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await;
    puppet.tell.send_replace(Phase::Draining);
    // Without the time limit this would be cut at the drain timeout, and counted.
    assert_eq!(puppet.served.await.unwrap(), 0);
}

#[tokio::test]
async fn a_body_above_the_limit_gets_its_answer_over_a_real_socket() {
    let puppet = puppet(ServerOptions::default()).await;
    let size = 5 << 20;
    let mut stream =
        send(puppet.address, &format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n")).await;
    stream.write_all(&vec![b'x'; size]).await.unwrap();
    let text = answer(stream).await;
    assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("payload_too_large"), "{text}");
}

#[tokio::test]
async fn a_port_in_use_is_told() {
    let first = Server::bind("127.0.0.1", 0).await.unwrap();
    let error = Server::bind("127.0.0.1", first.address().port()).await.unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
    // An address for documentation, which no machine has.
    assert!(matches!(Server::bind("192.0.2.1", 0).await.unwrap_err(), BindError::Other { .. }));
}
