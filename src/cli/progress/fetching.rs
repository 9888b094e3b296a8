//! Files on their way from the hub.

use brevity::family::{Downloads, HubId};
use indicatif::{ProgressBar, ProgressStyle};

use super::{bar, say};

/// A bar for the file that is being fetched; a line for each in a pipe.
#[derive(Default)]
pub struct Fetching {
    bar: Option<ProgressBar>,
}

impl Downloads for Fetching {
    fn begin(&mut self, repository: &HubId, name: &str, bytes: u64) {
        self.bar = bar(name, bytes);
        match &self.bar {
            Some(bar) => {
                let style = ProgressStyle::with_template("{prefix} {bar:20} {bytes}/{total_bytes}  {bytes_per_sec}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            }
            None => say(&format!("fetching {name} of {repository} ({bytes} bytes)")),
        }
    }

    fn received(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
