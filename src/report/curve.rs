//! Curves over training steps: one run in three panels, or a family with one line per alpha.
//!
//! Faint dots are steps as they were; lines are their centred moving average, cut short at the ends. The window is a
//! fifteenth of the steps, at least 3 from 10 steps on, and is printed under the title. Long runs show every n-th dot only,
//! which keeps the file small; lines always use all steps.

use brevity_training::{Error, Result};
use plotters::prelude::*;

use super::number;
use super::style::{self, Area, Chart, Key, Panel, UNITS, drawn, put};

/// Most dots of one line.
const DOTS: usize = 300;

/// What was measured on the rollouts of one training step.
#[derive(Debug, Clone, PartialEq)]
pub struct CurvePoint {
    /// The optimisation step.
    pub step: u64,
    /// Mean reward.
    pub reward: f64,
    /// Share of correct responses, in [0, 1].
    pub accuracy: f64,
    /// Mean completion tokens per response.
    pub tokens: f64,
    /// The same by level, if the data set has levels; levels may be missing from a step.
    pub levels: Vec<LevelPoint>,
}

/// One level of a [`CurvePoint`].
#[derive(Debug, Clone, PartialEq)]
pub struct LevelPoint {
    /// The level's name.
    pub level: String,
    /// Share of correct responses, in [0, 1].
    pub accuracy: f64,
    /// Mean completion tokens per response.
    pub tokens: f64,
}

/// One run of a [`family_curve`].
#[derive(Debug, Clone, PartialEq)]
pub struct FamilyRun {
    /// Weight of its length penalty.
    pub alpha: f64,
    /// Its steps.
    pub points: Vec<CurvePoint>,
}

/// The learning curve of one run as SVG: reward, accuracy and mean length over steps, the last two also by level.
///
/// Values that are no finite numbers are left out.
///
/// # Errors
/// [`Error::Config`] when no point has a finite value.
pub fn learning_curve(title: &str, points: &[CurvePoint]) -> Result<String> {
    let mut names: Vec<&str> = Vec::new();
    for level in points.iter().flat_map(|point| &point.levels) {
        if !names.contains(&level.level.as_str()) {
            names.push(&level.level);
        }
    }
    let mut keys = vec![Key { label: "all responses".to_owned(), colour: style::INK, marker: None }];
    keys.extend(names.iter().enumerate().map(|(index, &name)| Key {
        label: name.to_owned(),
        colour: style::category(index),
        marker: None,
    }));
    let overall = |value: fn(&CurvePoint) -> f64| series(points, style::INK, |point| Some(value(point)));
    let with_levels = |value: fn(&CurvePoint) -> f64, of: fn(&LevelPoint) -> f64| {
        let level = |(index, &name): (usize, &&str)| {
            series(points, style::category(index), |point| point.levels.iter().find(|l| l.level == name).map(of))
        };
        // The sum of all is drawn last, over the levels.
        names.iter().enumerate().map(level).chain([overall(value)]).collect()
    };
    let panels = [
        Stacked { title: "Mean reward", lines: vec![overall(|p| p.reward)], kind: Kind::Plain },
        Stacked {
            title: "Accuracy (% correct)",
            lines: with_levels(|p| p.accuracy, |l| l.accuracy),
            kind: Kind::Share,
        },
        Stacked {
            title: "Mean length (tokens per response)",
            lines: with_levels(|p| p.tokens, |l| l.tokens),
            kind: Kind::Tokens,
        },
    ];
    stacked(title, if names.is_empty() { &[] } else { &keys }, &panels)
}

/// The curves of a family as SVG: mean length and accuracy over steps, one line per alpha in ascending order.
///
/// # Errors
/// As [`learning_curve`].
pub fn family_curve(title: &str, runs: &[FamilyRun]) -> Result<String> {
    let mut order: Vec<&FamilyRun> = runs.iter().collect();
    order.sort_by(|a, b| a.alpha.total_cmp(&b.alpha));
    let count = order.len();
    let key = |(index, run): (usize, &&FamilyRun)| Key {
        label: format!("α = {}", run.alpha),
        colour: style::ramp(index, count),
        marker: None,
    };
    let keys: Vec<Key> = order.iter().enumerate().map(key).collect();
    let lines = |value: fn(&CurvePoint) -> f64| {
        let line =
            |(index, run): (usize, &&FamilyRun)| series(&run.points, style::ramp(index, count), |p| Some(value(p)));
        order.iter().enumerate().map(line).collect()
    };
    let panels = [
        Stacked { title: "Mean length (tokens per response)", lines: lines(|p| p.tokens), kind: Kind::Tokens },
        Stacked { title: "Accuracy (% correct)", lines: lines(|p| p.accuracy), kind: Kind::Share },
    ];
    stacked(title, &keys, &panels)
}

/// How the values of a panel are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Share,
    Tokens,
}

struct Line {
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

struct Stacked {
    title: &'static str,
    lines: Vec<Line>,
    kind: Kind,
}

fn series(points: &[CurvePoint], colour: RGBColor, value: impl Fn(&CurvePoint) -> Option<f64>) -> Line {
    let mut points: Vec<(f64, f64)> = points
        .iter()
        .filter_map(|point| Some((point.step as f64, value(point)?)))
        .filter(|(_, value)| value.is_finite())
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Line { colour, points }
}

/// Every how many steps a dot is drawn, so that a line has at most [`DOTS`].
fn stride(steps: usize) -> usize {
    steps.div_ceil(DOTS).max(1)
}

fn window(steps: usize) -> usize {
    match steps {
        0..10 => 1,
        _ => (steps / 15).clamp(3, 51) | 1,
    }
}

/// The centred moving average over `window` (odd) points, over those that exist near the ends.
fn smooth(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    let half = window / 2;
    let average = |index: usize| {
        let near = points.get(index.saturating_sub(half)..(index + half + 1).min(points.len())).unwrap_or_default();
        near.iter().map(|point| point.1).sum::<f64>() / near.len() as f64
    };
    points.iter().enumerate().map(|(index, point)| (point.0, average(index))).collect()
}

fn stacked(title: &str, keys: &[Key], panels: &[Stacked]) -> Result<String> {
    let all = || panels.iter().flat_map(|panel| &panel.lines);
    let longest = all().map(|line| line.points.len()).max().unwrap_or(0);
    let steps = all().flat_map(|line| &line.points).map(|point| point.0);
    let Some(x) = style::span(steps, 0.0) else {
        return Err(Error::config("no step has a finite value, so there is no curve to draw; train at least one step"));
    };
    let window = window(longest);
    let stride = stride(longest);
    let dots = if stride == 1 { "single steps".to_owned() } else { format!("one step in {stride}") };
    let subtitle = match window {
        1 => format!("Dots: {dots}"),
        _ => format!("Dots: {dots}. Lines: centred mean over {window} steps"),
    };
    let (plain, last) = (182, 204);
    let height = plain * (panels.len() as i32 - 1) + last + 6;
    style::picture(title, &subtitle, keys, height, |area| {
        let breaks: Vec<i32> = (1..panels.len() as i32).map(|index| index * plain * UNITS).collect();
        let areas = area.split_by_breakpoints([0; 0], breaks);
        for (index, (panel, area)) in panels.iter().zip(&areas).enumerate() {
            let x_title = (index + 1 == panels.len()).then_some("Training step");
            draw(area, panel, (x.clone(), x_title), (window, stride))?;
        }
        Ok(())
    })
}

fn draw(
    area: &Area<'_>,
    panel: &Stacked,
    (x, x_title): (std::ops::Range<f64>, Option<&str>),
    (window, stride): (usize, usize),
) -> Result<()> {
    let values = panel.lines.iter().flat_map(|line| &line.points).map(|point| point.1);
    let Some(mut y) = style::span(values, 0.08) else {
        return Ok(());
    };
    match panel.kind {
        Kind::Plain => {}
        Kind::Share => y = y.start.max(-0.02)..y.end.min(1.02),
        // Lengths are compared as ratios, so their axis starts at zero.
        Kind::Tokens => y = 0.0..y.end,
    }
    let wide = y.end - y.start;
    let format = move |value: f64| match panel.kind {
        Kind::Plain => format!("{value:.*}", if wide < 0.08 { 3 } else { 2 }),
        Kind::Share => format!("{:.*}", usize::from(wide < 0.05), value * 100.0),
        Kind::Tokens => number::grouped(value),
    };
    let spec = Panel { y_title: panel.title, x_title, x, y, labels: (9, 6), y_format: &format };
    let chart = style::panel(area, &spec)?;
    for line in &panel.lines {
        dots(&chart, line, stride)?;
    }
    for line in &panel.lines {
        let path = smooth(&line.points, window);
        put(&chart, &PathElement::new(path, line.colour.stroke_width(5 * UNITS as u32 / 2)))?;
    }
    drawn(area.present())
}

fn dots(chart: &Chart<'_, '_>, line: &Line, stride: usize) -> Result<()> {
    for &point in line.points.iter().step_by(stride) {
        put(chart, &Circle::new(point, 2 * UNITS, line.colour.mix(0.22).filled()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn run(steps: u64, fall: f64) -> Vec<CurvePoint> {
        // A fixed pseudo-random wobble, so that pictures look like runs.
        let wobble = |step: u64, salt: u64| ((step * 7919 + salt * 104_729) % 1009) as f64 / 1009.0 - 0.5;
        let level = |step: u64, salt: u64, start: f64, end: f64, accuracy: f64| {
            let done = 1.0 - (-(step as f64) / 30.0 * fall).exp();
            LevelPoint {
                level: ["easy", "medium", "hard"][salt as usize].to_owned(),
                accuracy: (accuracy + 0.04 * done + 0.08 * wobble(step, salt)).min(1.0),
                tokens: start + (end - start) * done + 20.0 * wobble(step, salt + 9),
            }
        };
        (0..steps)
            .map(|step| {
                let levels = vec![
                    level(step, 0, 190.0, 45.0, 0.94),
                    level(step, 1, 240.0, 110.0, 0.86),
                    level(step, 2, 330.0, 210.0, 0.68),
                ];
                let mean = |value: fn(&LevelPoint) -> f64| levels.iter().map(value).sum::<f64>() / 3.0;
                let (accuracy, tokens) = (mean(|l| l.accuracy), mean(|l| l.tokens));
                CurvePoint { step, reward: accuracy * 0.9 + 0.02 * wobble(step, 5), accuracy, tokens, levels }
            })
            .collect()
    }

    #[test]
    fn smoothing_is_the_mean_of_what_is_near() {
        let points = [(0.0, 1.0), (1.0, 2.0), (2.0, 6.0), (3.0, 0.0)];
        assert_eq!(smooth(&points, 3), [(0.0, 1.5), (1.0, 3.0), (2.0, 8.0 / 3.0), (3.0, 3.0)]);
        assert_eq!(smooth(&points, 1), points);
        assert_eq!((window(9), window(10), window(150), window(10_000)), (1, 3, 11, 51));
    }

    #[test]
    fn a_run_has_three_panels_and_the_same_bytes_twice() {
        let svg = learning_curve("Run", &run(120, 1.0)).unwrap();
        for words in
            ["Mean reward", "Accuracy (% correct)", "Mean length (tokens per response)", "Training step", "medium"]
        {
            assert!(svg.contains(words), "{words}");
        }
        // Dots: 120 steps, one reward, four accuracies and four lengths each. Lines: one each.
        assert_eq!(svg.matches("<circle").count(), 120 * 9);
        assert_eq!(svg, learning_curve("Run", &run(120, 1.0)).unwrap());
    }

    #[test]
    fn long_runs_thin_their_dots_and_say_so() {
        assert_eq!((stride(0), stride(300), stride(301), stride(900)), (1, 1, 2, 3));
        let svg = learning_curve("Long", &run(900, 1.0)).unwrap();
        assert_eq!(svg.matches("<circle").count(), 300 * 9);
        assert!(svg.contains("one step in 3"));
    }

    #[test]
    fn a_family_has_a_line_for_every_alpha() {
        let runs: Vec<FamilyRun> =
            [0.4, 0.05].map(|alpha| FamilyRun { alpha, points: run(60, 0.5 + alpha) }).into_iter().collect();
        let svg = family_curve("Family", &runs).unwrap();
        let (low, high) = (svg.find("α = 0.05").unwrap(), svg.find("α = 0.4").unwrap());
        assert!(low < high, "ascending");
        assert_eq!(svg.matches("<circle").count(), 2 * 2 * 60);
    }

    #[test]
    fn short_runs_and_holes_are_drawn() {
        let mut points = run(3, 1.0);
        points[1].reward = f64::NAN;
        points[2].levels.pop();
        let svg = learning_curve("Short", &points).unwrap();
        assert_eq!(svg.matches("<circle").count(), 2 + 3 * 4 * 2 - 2);
        assert!(!svg.contains("NaN"));
        learning_curve("One", &points[..1]).unwrap();
        let error = learning_curve("None", &[]).unwrap_err().to_string();
        assert!(error.contains("train at least one step"), "{error}");
    }
}
