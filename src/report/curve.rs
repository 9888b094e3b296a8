//! Curves over training steps: one run in three panels, a family with one line per alpha, or the loss of a supervised run.
//!
//! Where rollouts were measured, faint dots are steps as they were; lines are their centred moving average, cut short at the ends. The window is a
//! fifteenth of the steps, at least 3 from 10 steps on, and is printed under the title. Long runs show every n-th dot only,
//! which keeps the file small; lines always use all steps.

use std::ops::Range;

use brevity_training::{Error, Result};
use plotters::prelude::*;

use super::number;
use super::style::{self, Area, Chart, Key, Panel, UNITS, drawn, put};

/// Most dots of one line.
const DOTS: usize = 300;

/// From this ratio of highest to lowest on, a loss has a logarithmic axis.
const WIDE: f64 = 4.0;

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

/// What supervised learning reported after some updates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossPoint {
    /// Updates done.
    pub update: u64,
    /// Mean loss since the report before, in nats per target token.
    pub loss: f64,
    /// Learning rate of the last update.
    pub learning_rate: f64,
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
        Stacked::new("Mean reward", Kind::Plain, vec![overall(|p| p.reward)]),
        Stacked::new("Accuracy (% correct)", Kind::Share, with_levels(|p| p.accuracy, |l| l.accuracy)),
        Stacked::new("Mean length (tokens per response)", Kind::Tokens, with_levels(|p| p.tokens, |l| l.tokens)),
    ];
    rollouts(title, if names.is_empty() { &[] } else { &keys }, &panels)
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
        Stacked::new("Mean length (tokens per response)", Kind::Tokens, lines(|p| p.tokens)),
        Stacked::new("Accuracy (% correct)", Kind::Share, lines(|p| p.accuracy)),
    ];
    rollouts(title, &keys, &panels)
}

/// The learning curve of a supervised run as SVG: loss and learning rate over updates.
///
/// The loss has a logarithmic axis where it spans a factor of four or more, because what is learnt last changes it least.
/// Its points are means already and are joined as they are. Values that are no finite numbers are left out.
///
/// # Errors
/// [`Error::Config`] when no point has a finite value.
pub fn loss_curve(title: &str, points: &[LossPoint]) -> Result<String> {
    let losses = line(style::category(0), points.iter().map(|point| (point.update, point.loss)));
    let rates = line(style::INK, points.iter().map(|point| (point.update, point.learning_rate)));
    let values = || losses.points.iter().map(|point| point.1);
    let (lowest, highest) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let panel = if lowest > 0.0 && highest >= WIDE * lowest {
        Stacked::new("Loss (nats per target token, logarithmic)", Kind::Logarithmic, vec![losses])
    } else {
        Stacked::new("Loss (nats per target token)", Kind::Plain, vec![losses])
    };
    let panels = [Stacked { height: 260, ..panel }, Stacked::new("Learning rate", Kind::Rate, vec![rates])];
    let look = Look {
        subtitle: "Every point is a report; its loss is the mean since the report before".to_owned(),
        x_title: "Update",
        window: 1,
        stride: stride(points.len()),
    };
    stacked(title, &[], &panels, &look)
}

/// How the values of a panel are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Share,
    Tokens,
    /// Positive values on an axis of their logarithms.
    Logarithmic,
    Rate,
}

impl Kind {
    /// Where a value lies on the vertical axis.
    fn place(self, value: f64) -> f64 {
        if self == Self::Logarithmic { value.log10() } else { value }
    }
}

struct Line {
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

struct Stacked {
    title: &'static str,
    lines: Vec<Line>,
    kind: Kind,
    /// In pixels, without the title of the horizontal axis.
    height: i32,
}

impl Stacked {
    fn new(title: &'static str, kind: Kind, lines: Vec<Line>) -> Self {
        Self { title, lines, kind, height: 182 }
    }
}

/// What the panels of a picture have in common.
struct Look {
    subtitle: String,
    x_title: &'static str,
    /// Points (odd) that a line is averaged over.
    window: usize,
    /// Every how many points a dot is drawn.
    stride: usize,
}

fn series(points: &[CurvePoint], colour: RGBColor, value: impl Fn(&CurvePoint) -> Option<f64>) -> Line {
    line(colour, points.iter().filter_map(|point| Some((point.step, value(point)?))))
}

/// The finite ones of `values`, by step.
fn line(colour: RGBColor, values: impl Iterator<Item = (u64, f64)>) -> Line {
    let finite = values.filter(|(_, value)| value.is_finite());
    let mut points: Vec<(f64, f64)> = finite.map(|(step, value)| (step as f64, value)).collect();
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

/// A picture of what was measured on rollouts, which scatter: lines are averaged.
fn rollouts(title: &str, keys: &[Key], panels: &[Stacked]) -> Result<String> {
    let longest = panels.iter().flat_map(|panel| &panel.lines).map(|line| line.points.len()).max().unwrap_or(0);
    let (window, stride) = (window(longest), stride(longest));
    let dots = if stride == 1 { "single steps".to_owned() } else { format!("one step in {stride}") };
    let subtitle = match window {
        1 => format!("Dots: {dots}"),
        _ => format!("Dots: {dots}. Lines: centred mean over {window} steps"),
    };
    stacked(title, keys, panels, &Look { subtitle, x_title: "Training step", window, stride })
}

fn stacked(title: &str, keys: &[Key], panels: &[Stacked], look: &Look) -> Result<String> {
    let steps = panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points).map(|point| point.0);
    let Some(x) = style::span(steps, 0.0) else {
        return Err(Error::config("no step has a finite value, so there is no curve to draw; train at least one step"));
    };
    let height: i32 = panels.iter().map(|panel| panel.height).sum();
    style::picture(title, &look.subtitle, keys, height + 28, |area| {
        let breaks = panels.iter().scan(0, |bottom, panel| {
            *bottom += panel.height * UNITS;
            Some(*bottom)
        });
        let breaks: Vec<i32> = breaks.take(panels.len() - 1).collect();
        let areas = area.split_by_breakpoints([0; 0], breaks);
        for (index, (panel, area)) in panels.iter().zip(&areas).enumerate() {
            let x_title = (index + 1 == panels.len()).then_some(look.x_title);
            draw(area, panel, (x.clone(), x_title), look)?;
        }
        Ok(())
    })
}

fn draw(area: &Area<'_>, panel: &Stacked, (x, x_title): (Range<f64>, Option<&str>), look: &Look) -> Result<()> {
    let kind = panel.kind;
    let values = panel.lines.iter().flat_map(|line| &line.points).map(|point| kind.place(point.1));
    let highest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    let Some(mut y) = style::span(values, 0.08) else {
        return Ok(());
    };
    match kind {
        Kind::Plain | Kind::Logarithmic => {}
        Kind::Share => y = y.start.max(-0.02)..y.end.min(1.02),
        // Lengths and rates are compared as ratios, so their axes start at zero.
        Kind::Tokens => y = 0.0..y.end,
        Kind::Rate => y = 0.0..if highest > 0.0 { highest * 1.08 } else { 1.0 },
    }
    let wide = y.end - y.start;
    let format = move |value: f64| match kind {
        Kind::Plain => format!("{value:.*}", if wide < 0.08 { 3 } else { 2 }),
        Kind::Share => format!("{:.*}", usize::from(wide < 0.05), value * 100.0),
        Kind::Tokens => number::grouped(value),
        Kind::Logarithmic => number::round(10_f64.powf(value)),
        Kind::Rate => number::scientific(value),
    };
    let y_ticks = (kind == Kind::Logarithmic).then(|| decades(&y));
    let spec = Panel {
        y_title: panel.title,
        x_title,
        x,
        y,
        labels: (9, 6),
        y_ticks,
        y_format: &format,
        x_format: &number::grouped,
    };
    let chart = style::panel(area, &spec)?;
    for line in &panel.lines {
        dots(&chart, kind, line, look.stride)?;
    }
    for line in &panel.lines {
        let path = smooth(&line.points, look.window).into_iter().map(|(step, value)| (step, kind.place(value)));
        put(&chart, &PathElement::new(path.collect::<Vec<_>>(), line.colour.stroke_width(5 * UNITS as u32 / 2)))?;
    }
    drawn(area.present())
}

/// The logarithms of 1, 2 and 5 in every decade that lie in `range`, or of 1 alone where those would crowd.
fn decades(range: &Range<f64>) -> Vec<f64> {
    let ticks = |of: &'static [f64]| {
        let powers = range.start.floor() as i32..=range.end.ceil() as i32;
        powers.flat_map(move |power| of.iter().map(move |digit| digit.log10() + f64::from(power)))
    };
    let within = |of| ticks(of).filter(|tick| range.contains(tick)).collect::<Vec<_>>();
    let fine = within(&[1.0, 2.0, 5.0]);
    if fine.len() > 9 { within(&[1.0]) } else { fine }
}

fn dots(chart: &Chart<'_, '_>, kind: Kind, line: &Line, stride: usize) -> Result<()> {
    for &(step, value) in line.points.iter().step_by(stride) {
        put(chart, &Circle::new((step, kind.place(value)), 2 * UNITS, line.colour.mix(0.22).filled()))?;
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

    fn updates(losses: &[f64]) -> Vec<LossPoint> {
        let point = |(index, &loss): (usize, &f64)| LossPoint {
            update: 50 * (index as u64 + 1),
            loss,
            learning_rate: 2.5e-3 / (index + 1) as f64,
        };
        losses.iter().enumerate().map(point).collect()
    }

    #[test]
    fn a_loss_that_falls_far_has_a_logarithmic_axis() {
        let far = loss_curve("Loss", &updates(&[4.0, 2.0, f64::NAN, 0.4, 0.08])).unwrap();
        // Four losses, five rates; an axis from 0.058 to 5.5, a rate of at most 0.0025.
        assert_eq!(far.matches("<circle").count(), 4 + 5);
        let labels = |svg: &str| -> Vec<String> {
            svg.lines().filter(|line| !line.contains('<')).map(|line| line.trim().to_owned()).collect()
        };
        let found = labels(&far);
        for label in ["Loss (nats per target token, logarithmic)", "0.1", "0.2", "0.5", "1", "2", "5", "2e−3", "Update"]
        {
            assert!(found.iter().any(|found| found == label), "{label}: {found:?}");
        }
        let near = labels(&loss_curve("Loss", &updates(&[0.5, 0.4, 0.3])).unwrap());
        assert!(near.iter().any(|label| label == "Loss (nats per target token)"), "{near:?}");
        // A logarithm of zero has no place.
        loss_curve("Zero", &updates(&[1.0, 0.0])).unwrap();
        loss_curve("One", &updates(&[1.0])).unwrap();
        assert!(loss_curve("None", &[]).is_err());
    }

    #[test]
    fn decades_are_labelled_at_round_values() {
        let values = |low: f64, high: f64| -> Vec<String> {
            decades(&(low.log10()..high.log10())).into_iter().map(|tick| number::round(10_f64.powf(tick))).collect()
        };
        assert_eq!(values(0.04, 3.0), ["0.05", "0.1", "0.2", "0.5", "1", "2"]);
        assert_eq!(values(0.0005, 12.0), ["0.001", "0.01", "0.1", "1", "10"]);
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
