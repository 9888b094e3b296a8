//! `serve load-test --compare`: two runs against each other.

use std::borrow::Cow;
use std::path::Path;

use brevity::load::difference::Run;
use brevity::load::summary::SCHEMA;
use brevity::load::{Difference, Record, Summary, Threshold};
use brevity_training::{Error, files};

use crate::cli::{Failure, Result, progress};

/// What a run's folder calls its summary.
const SUMMARY: &str = "summary.json";

/// Compares the run behind `second` with that behind `first`.
///
/// # Errors
/// When a run cannot be read, a threshold is about nothing or cannot be checked, or one is exceeded.
pub fn run(first: &Path, second: &Path, thresholds: &[Threshold]) -> Result<()> {
    let (before, after) = (read(first)?, read(second)?);
    let difference = Difference::of(&before, &after, thresholds);
    let head = |run: &Run| {
        format!(
            "{} at {}, {}, {}",
            run.summary.head.model, run.summary.head.url, run.summary.head.load, run.summary.head.date
        )
    };
    progress::print(&format!(
        "first   {}\nsecond  {}\n\n{}",
        head(&before),
        head(&after),
        difference.table().to_terminal()
    ));
    if before.summary.head.prompts != after.summary.head.prompts || before.summary.head.load != after.summary.head.load
    {
        progress::say("warning: the runs had different prompts or loads; differences may be due to that");
    }
    let is_same_kind = Difference::is_same_kind(&before, &after);
    let kind = |run: &Run| if run.summary.stages.is_empty() { "a run under one load" } else { "a sweep" };
    let kinds = format!("the first is {} and the second {}", kind(&before), kind(&after));
    if !is_same_kind {
        progress::say(&format!("warning: {kinds}; requests/s and tokens/s of one are not those of the other"));
    }
    let alone = Difference::unmatched(&before, &after);
    if is_same_kind && alone > 0 {
        let message =
            "only the first sweep had: they count in what failed and what was done at most, and are not compared";
        let loads = if alone == 1 { "1 load".to_owned() } else { format!("{alone} loads") };
        progress::say(&format!("warning: {loads} {message}"));
    }
    if !Difference::has_same_efforts(&before, &after) {
        progress::say("warning: the runs had different efforts; requests/s and tokens/s of a run depend on their mix");
    }
    if !is_same_kind && !thresholds.is_empty() {
        let message = format!("--fail-if cannot be checked between different kinds of run: {kinds}");
        return Err(Failure::from(Error::config(message)).hint("compare two sweeps, or two runs under the same load"));
    }
    if let Some(threshold) = thresholds.iter().find(|threshold| !difference.covers(threshold)) {
        let message = format!("the first run has no {}, which `{threshold}` is about", threshold.quantity);
        return Err(Error::config(message).into());
    }
    let exceeded = difference.exceeded(thresholds);
    if exceeded.is_empty() {
        return Ok(());
    }
    Err(Failure::from(Error::config(exceeded.join("; "))))
}

/// A summary, that of a folder or the file itself, with the requests beside it if they are there.
fn read(path: &Path) -> Result<Run> {
    let path: Cow<'_, Path> = if path.is_dir() { path.join(SUMMARY).into() } else { path.into() };
    let path = path.as_ref();
    let summary: Summary = files::read_json(path)?;
    if summary.schema != SCHEMA {
        let message = format!("is of the format `{}`; this program reads `{SCHEMA}`", summary.schema);
        return Err(Error::format(path, message).into());
    }
    let beside = path.with_file_name("requests.jsonl");
    let records = if beside.is_file() { Some(records(&beside)?) } else { None };
    Ok(Run { summary, records })
}

fn records(path: &Path) -> Result<Vec<Record>> {
    let text = files::read_text(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let record = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| Error::format(path, format!("line {}: {error}", index + 1)))
    };
    Ok(lines.map(record).collect::<brevity_training::Result<_>>()?)
}
