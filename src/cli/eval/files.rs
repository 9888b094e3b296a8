//! What an evaluation leaves behind: every response, the numbers, the picture.

use std::io;
use std::path::Path;

use brevity::eval::{Comparison, Graded, LevelSummary, Settings, Suite, Summary};
use brevity::report::frontier::{self, Estimate, FrontierPoint};
use brevity_training::files;
use brevity_training::tasks::grader::GraderMode;
use serde::Serialize;

use super::Measured;
use crate::cli::{Result, place};

/// What an evaluation is called.
pub struct Head<'a> {
    /// Name of the family or model.
    pub name: &'a str,
    /// The problems.
    pub suite: &'a Suite,
    /// The day, `2025-03-31`.
    pub date: &'a str,
}

/// `eval.json`.
#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    suite: String,
    date: &'a str,
    temperature: f64,
    top_p: f64,
    top_k: Option<usize>,
    min_p: f64,
    max_new_tokens: usize,
    samples: usize,
    seed: u64,
    grader: GraderMode,
    after_thoughts: bool,
    tiers: Vec<TierReport<'a>>,
}

#[derive(Serialize)]
struct TierReport<'a> {
    name: &'a str,
    alpha: Option<f64>,
    weights_sha256: &'a str,
    summary: &'a Summary,
    versus_base: &'a [Comparison],
}

/// Writes `responses-TIER.jsonl`, a line a response.
///
/// # Errors
/// When it cannot be written.
pub fn responses(out: &Path, tier: &str, graded: &[Graded]) -> Result<()> {
    let path = out.join(format!("responses-{}.jsonl", place::file_name(tier)));
    files::write_with(&path, |file| {
        graded.iter().try_for_each(|line| {
            serde_json::to_writer(&mut *file, line).map_err(io::Error::from)?;
            file.write_all(b"\n")
        })
    })?;
    Ok(())
}

/// Writes `eval.json`.
///
/// # Errors
/// When it cannot be written.
pub fn report(out: &Path, head: &Head<'_>, settings: &Settings, measured: &[Measured<'_>]) -> Result<()> {
    let tiers = measured.iter().map(|tier| TierReport {
        name: &tier.subject.name,
        alpha: tier.subject.alpha,
        weights_sha256: &tier.subject.sha256,
        summary: &tier.summary,
        versus_base: &tier.comparison,
    });
    let report = Report {
        name: head.name,
        suite: head.suite.to_string(),
        date: head.date,
        temperature: settings.sampling.temperature,
        top_p: settings.sampling.top_p,
        top_k: settings.sampling.top_k,
        min_p: settings.sampling.min_p,
        max_new_tokens: settings.sampling.max_new_tokens,
        samples: settings.samples,
        seed: settings.seed,
        grader: settings.grader,
        after_thoughts: settings.after_thoughts,
        tiers: tiers.collect(),
    };
    Ok(files::write_json(&out.join("eval.json"), &report)?)
}

/// Draws `frontier.svg`.
///
/// # Errors
/// When it cannot be drawn or written.
pub fn frontier(out: &Path, title: &str, measured: &[Measured<'_>]) -> Result<()> {
    let of_tier = |tier: &Measured<'_>| {
        // Several tiers of one alpha are told apart by their names.
        let is_alone = measured.iter().filter(|other| other.subject.alpha == tier.subject.alpha).count() == 1;
        let name = match tier.subject.alpha {
            Some(alpha) if !tier.subject.is_base && is_alone => format!("α = {alpha}"),
            _ => tier.subject.name.clone(),
        };
        let points = tier.summary.levels.iter().map(|level| point(&name, tier.subject.is_base, level));
        points.collect::<Vec<_>>()
    };
    let points: Vec<FrontierPoint> = measured.iter().flat_map(of_tier).collect();
    let picture = frontier::frontier(title, &points)?;
    Ok(files::write(&out.join("frontier.svg"), picture.as_bytes())?)
}

fn point(tier: &str, is_base: bool, level: &LevelSummary) -> FrontierPoint {
    let tokens = level.tokens.mean;
    let (low, high) = level.tokens.mean_interval.map_or((tokens, tokens), |interval| (interval.low, interval.high));
    let accuracy = level.accuracy_interval;
    FrontierPoint {
        tier: tier.to_owned(),
        is_base,
        level: level.level.clone(),
        tokens: Estimate { value: tokens, low, high },
        accuracy: Estimate { value: level.accuracy, low: accuracy.low, high: accuracy.high },
    }
}
