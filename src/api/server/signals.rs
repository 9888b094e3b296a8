//! SIGTERM and SIGINT as phases of the server's life: the first asks for a clean end, the second for an immediate one.

use std::io;

use tokio::sync::watch;

use super::Phase;

/// Begins to listen for signals and tells the phase they ask for. From now on they no longer end the process.
///
/// # Errors
/// When the system refuses a handler.
pub fn phases() -> io::Result<watch::Receiver<Phase>> {
    let (tell, phase) = watch::channel(Phase::Serving);
    let mut stops = Stops::new()?;
    tokio::spawn(async move {
        for phase in [Phase::Draining, Phase::Stopping] {
            stops.next().await;
            tell.send_replace(phase);
        }
        // A receiver that sees its sender go takes the last value; the third signal changes nothing.
    });
    Ok(phase)
}

#[cfg(unix)]
struct Stops {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Stops {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Stops;

#[cfg(not(unix))]
impl Stops {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
