//! Learning curves, drawn from the metrics that a run left.

use std::path::Path;

use brevity::report::curve::{self, CurvePoint, FamilyRun, LevelPoint, LossPoint};
use brevity_training::methods::sft::SftMetrics;
use brevity_training::tasks::mini::Level;
use brevity_training::trainer::{StepMetrics, StepTimings};
use brevity_training::{Error, files};
use serde::de::DeserializeOwned;

use super::{Work, tier_name};
use crate::cli::Result;

/// The picture of a run in the run's folder, and of a supervised run beside its model.
pub const LEARNING_CURVE: &str = "learning-curve.svg";

/// Draws the curve of one run, into the run's folder and beside the tier.
///
/// # Errors
/// When metrics cannot be read or a picture not written.
pub fn draw_run(work: &Work<'_>, alpha: f64) -> Result<()> {
    let run = work.run(alpha);
    let title = format!("{}, α = {alpha}", work.recipe.name);
    let picture = curve::learning_curve(&title, &points(&metrics(&run)?))?;
    files::write(&run.join(LEARNING_CURVE), picture.as_bytes())?;
    files::write(&work.out.join("curves").join(format!("{}.svg", tier_name(alpha))), picture.as_bytes())?;
    Ok(())
}

/// Draws the loss of a supervised run, into the run's folder and into the model's. A run that was stripped of its metrics
/// keeps the pictures that it has.
///
/// # Errors
/// As [`draw_run`].
pub fn draw_supervised(work: &Work<'_>) -> Result<()> {
    let metrics: Vec<SftMetrics> = lines(&work.runs.join("metrics.jsonl"))?;
    if metrics.is_empty() {
        return Ok(());
    }
    let point = |of: &SftMetrics| LossPoint { update: of.step, loss: of.loss, learning_rate: of.learning_rate };
    let points: Vec<LossPoint> = metrics.iter().map(point).collect();
    let picture = curve::loss_curve(&work.recipe.name, &points)?;
    for folder in [&work.runs, &work.out] {
        files::write(&folder.join(LEARNING_CURVE), picture.as_bytes())?;
    }
    Ok(())
}

/// Draws one picture of all `alphas` of the family whose runs are still there. It replaces an earlier one only when none
/// is missing: a picture of half a family is no better than the old one.
///
/// # Errors
/// As [`draw_run`].
pub fn draw_family(work: &Work<'_>, alphas: &[f64]) -> Result<()> {
    let mut runs = Vec::new();
    for &alpha in alphas {
        let points = points(&metrics(&work.run(alpha))?);
        if !points.is_empty() {
            runs.push(FamilyRun { alpha, points });
        }
    }
    let place = work.out.join("curves").join("family.svg");
    if runs.is_empty() || (runs.len() < alphas.len() && place.exists()) {
        return Ok(());
    }
    files::write(&place, curve::family_curve(&work.recipe.name, &runs)?.as_bytes())?;
    Ok(())
}

/// Seconds that the steps of a run took, over all processes that worked on it.
///
/// # Errors
/// When the run's timings cannot be read.
pub fn wall_seconds(run: &Path) -> Result<f64> {
    Ok(lines::<StepTimings>(&run.join("timings.jsonl"))?.iter().map(|timings| timings.step_time).sum())
}

/// The metrics of a run; none where there is no run.
///
/// # Errors
/// When they cannot be read.
pub fn metrics(run: &Path) -> Result<Vec<StepMetrics>> {
    lines(&run.join("metrics.jsonl"))
}

fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = files::read_text(path)?;
    let parsed = text.lines().enumerate().map(|(index, line)| {
        serde_json::from_str(line).map_err(|error| Error::format(path, format!("line {}: {error}", index + 1)))
    });
    Ok(parsed.collect::<std::result::Result<_, _>>()?)
}

fn points(metrics: &[StepMetrics]) -> Vec<CurvePoint> {
    metrics
        .iter()
        .map(|step| CurvePoint {
            step: step.step,
            reward: step.reward,
            accuracy: step.accuracy,
            tokens: step.mean_length,
            levels: levels(step),
        })
        .collect()
}

/// The levels of a step: those of the mini suite from easy to hard, others by name.
fn levels(step: &StepMetrics) -> Vec<LevelPoint> {
    let mut levels: Vec<LevelPoint> = step
        .levels
        .iter()
        .filter_map(|(key, &accuracy)| {
            let level = key.strip_prefix("accuracy/")?;
            let tokens = *step.levels.get(&format!("completions/mean_length/{level}"))?;
            Some(LevelPoint { level: level.to_owned(), accuracy, tokens })
        })
        .collect();
    levels.sort_by_key(|point| (point.level.parse::<Level>().ok(), point.level.clone()));
    levels
}

#[cfg(test)]
mod tests {
    use brevity_training::trainer::LevelMetrics;

    use super::*;

    #[test]
    fn levels_go_from_easy_to_hard() {
        let mut step = StepMetrics::default();
        for (name, accuracy) in [("hard", 0.1), ("easy", 0.9), ("medium", 0.5)] {
            let metrics = LevelMetrics { accuracy, mean_length: accuracy * 10.0, mean_correct_length: Some(1.0) };
            step.set_level(name, &metrics);
        }
        let found = levels(&step);
        let names: Vec<&str> = found.iter().map(|point| point.level.as_str()).collect();
        assert_eq!(names, ["easy", "medium", "hard"]);
        assert_eq!((found[2].accuracy, found[2].tokens), (0.1, 1.0));
    }
}
