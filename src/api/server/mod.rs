//! From a port to connections, and from a signal to a clean end.
//!
//! An accept loop of our own on hyper, because time limits for headers and for readers that do not read exist only there.
//! Knows nothing of routes: a router comes in, and whoever must know that the server drains is called back.

mod signals;
mod stall;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

pub use signals::{exit_at_once, phases};
use stall::Impatient;

/// Between two tries to accept while the system has nothing to give, such as file descriptors.
const BETWEEN_TRIES: Duration = Duration::from_millis(200);

/// How connections are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerOptions {
    /// Time for all headers of a request, and for a connection that does nothing.
    pub header_timeout: Duration,
    /// Time in which a client must take at least one byte of its answer.
    pub write_timeout: Duration,
    /// Connections at a time; more wait in the system's queue.
    pub max_connections: usize,
    /// Time for running requests once the server drains.
    pub drain_timeout: Duration,
}

impl Default for ServerOptions {
    /// 30 s for headers, writes and draining; 1024 connections.
    fn default() -> Self {
        let patience = Duration::from_secs(30);
        Self { header_timeout: patience, write_timeout: patience, max_connections: 1024, drain_timeout: patience }
    }
}

/// Where in its life a server is told to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Answering.
    Serving,
    /// Finishing what runs, refusing what comes.
    Draining,
    /// Ending at once.
    Stopping,
}

/// Why a port cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error("port {port} of {host} is in use by another program")]
    InUse {
        /// The host that was asked for.
        host: String,
        /// The port that was asked for.
        port: u16,
    },
    /// The system does not let us.
    #[error("port {port} of {host} is not open to this user; ports below 1024 need privileges")]
    Forbidden {
        /// The host that was asked for.
        host: String,
        /// The port that was asked for.
        port: u16,
    },
    /// Anything else.
    #[error("cannot listen on port {port} of `{host}`")]
    Other {
        /// The host that was asked for.
        host: String,
        /// The port that was asked for.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
}

/// A port that is listened to.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the port; 0 takes any that is free.
    ///
    /// # Errors
    /// [`BindError`] says who has it or what is wrong with it.
    pub async fn bind(host: &str, port: u16) -> Result<Self, BindError> {
        let bound = async {
            let listener = TcpListener::bind((host, port)).await?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        let host = host.to_owned();
        bound.await.map_err(|source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { host, port },
            io::ErrorKind::PermissionDenied => BindError::Forbidden { host, port },
            _ => BindError::Other { host, port, source },
        })
    }

    /// The address that was given, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers with `router` until `phase` says to drain, calls `on_drain`, and goes on until all connections that were
    /// open then have their answers, the drain timeout is over, or `phase` says to stop. Returns how many connections were
    /// cut off.
    ///
    /// While it drains, new connections are still accepted, so that those who come are refused by the router instead of by
    /// the system, and readiness probes are answered.
    pub async fn serve(
        self,
        router: Router,
        options: ServerOptions,
        mut phase: watch::Receiver<Phase>,
        on_drain: impl FnOnce(),
    ) -> usize {
        let slots = Arc::new(Semaphore::new(options.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
        let host = Host { listener: self.listener, slots, router, options, phase: phase.clone() };
        let mut open = JoinSet::new();
        host.accept_until(reached(&mut phase, Phase::Draining), &mut open).await;
        on_drain();
        tracing::info!(connections = open.len(), "draining");
        let mut late = JoinSet::new();
        let over = async {
            tokio::select! {
                () = reached(&mut phase, Phase::Stopping) => {}
                () = tokio::time::sleep(options.drain_timeout) => {}
            }
        };
        let finished = async {
            host.accept_until(async { while open.join_next().await.is_some() {} }, &mut late).await;
            drop(host);
            while late.join_next().await.is_some() {}
        };
        tokio::select! {
            () = finished => {}
            () = over => {}
        }
        let cut = open.len() + late.len();
        open.shutdown().await;
        late.shutdown().await;
        cut
    }
}

/// Returns when the phase is at least `wanted`, or when nobody can tell any more.
async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    let _ = phase.wait_for(|phase| *phase >= wanted).await;
}

/// Everything a new connection needs.
struct Host {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    router: Router,
    options: ServerOptions,
    phase: watch::Receiver<Phase>,
}

impl Host {
    /// Accepts connections into `connections` until `end` is over.
    async fn accept_until(&self, end: impl Future<Output = ()>, connections: &mut JoinSet<()>) {
        let mut end = pin!(end);
        loop {
            tokio::select! {
                biased;
                () = &mut end => return,
                // Keeps the set from growing: results of connections are nothing.
                Some(_) = connections.join_next() => {}
                (stream, slot) = self.accept() => {
                    connections.spawn(self.connection(stream, slot));
                }
            }
        }
    }

    async fn accept(&self) -> (TcpStream, OwnedSemaphorePermit) {
        loop {
            // Never closed, so the first arm is the only one; without a slot nothing is accepted.
            let Ok(slot) = self.slots.clone().acquire_owned().await else {
                return std::future::pending().await;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => return (stream, slot),
                // The client was gone before we came; the next one is waiting.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection; raise the limit of open files if it is reached");
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
            }
        }
    }

    fn connection(&self, stream: TcpStream, slot: OwnedSemaphorePermit) -> impl Future<Output = ()> + use<> {
        let service = TowerToHyperService::new(self.router.clone());
        let mut phase = self.phase.clone();
        let draining = *phase.borrow() >= Phase::Draining;
        let options = self.options;
        async move {
            let _slot = slot;
            // Tokens are small packets that must not wait for each other.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            let io = TokioIo::new(Impatient::new(stream, options.write_timeout));
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(options.header_timeout).keep_alive(!draining);
            let mut connection = pin!(builder.serve_connection(io, service));
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = reached(&mut phase, Phase::Draining), if !draining => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended badly");
            }
        }
    }
}

#[cfg(test)]
mod tests;
