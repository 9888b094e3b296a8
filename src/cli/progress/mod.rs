//! What is shown while something runs: a bar on a terminal, plain lines in a pipe. Nothing is decided or written here.

mod counting;
mod fetching;
mod loading;
mod sampling;
mod training;

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

pub use counting::Counting;
pub use fetching::Fetching;
pub use loading::Loading;
pub use sampling::Sampling;
pub use training::{Reinforced, Supervised};

/// All bars of the process, one below the other.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Writes a line to standard error, above the bars; where that is closed there is nobody left to tell.
pub fn say(line: &str) {
    let _ = BARS.suspend(|| writeln!(std::io::stderr(), "{line}"));
}

/// Whether a result could not be written.
static LOST: AtomicBool = AtomicBool::new(false);

/// Writes a result to standard output. A reader that went away (`| head`) is no error; of another, such as a full disk,
/// [`is_output_lost`] tells at the end.
pub fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    if written.is_err_and(|error| error.kind() != ErrorKind::BrokenPipe) {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// Whether a result of this process could not be written to standard output.
pub fn is_output_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// A bar of `total` units on a terminal; `None` in a pipe.
fn bar(prefix: &str, total: u64) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = BARS.add(ProgressBar::new(total)).with_prefix(prefix.to_owned());
    let style = ProgressStyle::with_template("{prefix} {bar:20} {pos}/{len}  {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    Some(bar)
}

/// A duration as people say it: `45 s`, `12 min`, `3 h 05 min`.
fn duration(seconds: f64) -> String {
    match seconds.max(0.0).round() as u64 {
        seconds @ 0..90 => format!("{seconds} s"),
        seconds @ 90..5400 => format!("{} min", (seconds + 30) / 60),
        seconds => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_have_the_unit_that_fits() {
        assert_eq!(duration(-1.0), "0 s");
        assert_eq!(duration(89.4), "89 s");
        assert_eq!(duration(90.0), "2 min");
        assert_eq!(duration(3600.0), "60 min");
        assert_eq!(duration(11_100.0), "3 h 05 min");
    }
}
