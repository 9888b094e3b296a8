//! Stopping on request: the first SIGINT or SIGTERM asks the work to end in good order, the second ends it at once.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Failure, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Begins to listen for signals.
///
/// # Errors
/// When the system refuses a handler.
pub fn listen() -> Result<()> {
    let heard = || {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        let _ = writeln!(std::io::stderr(), "\nstopping in good order; once more to stop at once");
    };
    ctrlc::set_handler(heard).map_err(|error| Failure::from(error).hint("signals are needed to stop without loss"))
}

/// Whether somebody asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
