//! SIGTERM and SIGINT as phases of the server's life: the first asks for a clean end, the second for an immediate one.

use std::io;

use tokio::sync::watch;
use tokio::task::JoinHandle;

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

/// Ends the process at the first signal, until the task is aborted: for the time before anybody is served. The system itself
/// would not, where this is the first process of a container.
///
/// # Errors
/// When the system refuses a handler.
pub fn exit_at_once() -> io::Result<JoinHandle<()>> {
    let mut stops = Stops::new()?;
    Ok(tokio::spawn(async move {
        let code = stops.next().await;
        std::process::exit(code);
    }))
}

/// Exit code of a process that SIGINT ended: 128 and its number.
const INTERRUPTED: i32 = 130;

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

    /// Waits for a signal; gives the exit code of a process that it ends.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPTED,
            // 128 and the number of SIGTERM.
            _ = self.terminate.recv() => 143,
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

    async fn next(&mut self) -> i32 {
        let _ = tokio::signal::ctrl_c().await;
        INTERRUPTED
    }
}
