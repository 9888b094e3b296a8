//! Pictures of a load test: how values are spread (cumulative share, histogram), and a figure over rising load.
//!
//! One line a series, in the order in which they come, which is taken for an order: colours run along a ramp.

use brevity_training::{Error, Result};
use plotters::prelude::*;

use super::number;
use super::style::{self, Key, Marker, Panel, UNITS, put};

/// Most points of one line; between them nothing can be seen.
const POINTS: usize = 400;
/// Bars of a histogram, at most.
const BINS: usize = 40;
/// Height of a panel in pixels.
const HEIGHT: i32 = 330;

/// Values under a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// What they are called in the picture.
    pub name: String,
    /// The values; those that are no finite numbers are left out.
    pub values: Vec<f64>,
    /// How many more there would be had they a value: a cumulative share is one of all, and never gets beyond the values.
    pub missing: usize,
}

/// A figure over load.
#[derive(Debug, Clone, PartialEq)]
pub struct Climb {
    /// What it is called in the picture.
    pub name: String,
    /// Load and figure.
    pub points: Vec<(f64, f64)>,
}

/// Title and axes of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Titles<'a> {
    /// Above it.
    pub title: &'a str,
    /// Under the title.
    pub subtitle: &'a str,
    /// Name and unit of the horizontal axis.
    pub x: &'a str,
    /// Name and unit of the vertical axis.
    pub y: &'a str,
}

/// The share of values up to a value, of all and those that are missing, as SVG: one line a series.
///
/// # Errors
/// [`Error::Config`] when there are no values.
pub fn cumulative(titles: Titles<'_>, series: &[Values]) -> Result<String> {
    let lines: Vec<Climb> = series.iter().map(cumulated).collect();
    let share = |value: f64| format!("{:.0} %", value * 100.0);
    draw(titles, &lines, Axes { y_top: Some(1.0), y_format: &share, markers: false })
}

/// The steps of a cumulative share.
fn cumulated(values: &Values) -> Climb {
    let mut sorted: Vec<f64> = values.values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (count, step) = (sorted.len(), sorted.len().div_ceil(POINTS).max(1));
    let all = (count + values.missing) as f64;
    let mut points: Vec<(f64, f64)> = sorted.first().map(|&first| (first, 0.0)).into_iter().collect();
    for (index, &value) in sorted.iter().enumerate() {
        if index.is_multiple_of(step) || index + 1 == count {
            // Up at the value, flat until the next.
            points.extend(points.last().map(|&(_, share)| (value, share)));
            points.push((value, (index + 1) as f64 / all));
        }
    }
    Climb { name: values.name.clone(), points }
}

/// The share of values in bins of equal width, as SVG: one stepped line a series.
///
/// # Errors
/// [`Error::Config`] when there are no values.
pub fn histogram(titles: Titles<'_>, series: &[Values]) -> Result<String> {
    let all = || series.iter().flat_map(|values| &values.values).copied().filter(|value| value.is_finite());
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let width = bin_width(high - low);
    let start = (low / width).floor() * width;
    let line = |values: &Values| {
        let finite: Vec<f64> = values.values.iter().copied().filter(|value| value.is_finite()).collect();
        if finite.is_empty() {
            return Climb { name: values.name.clone(), points: Vec::new() };
        }
        let bins = ((high - start) / width).floor() as usize + 1;
        let mut counts = vec![0usize; bins];
        for value in &finite {
            if let Some(count) = counts.get_mut(((value - start) / width) as usize) {
                *count += 1;
            }
        }
        let share = |count: usize| count as f64 / finite.len() as f64;
        let edge = |bin: usize| start + bin as f64 * width;
        let mut points = vec![(edge(0), 0.0)];
        for (bin, &count) in counts.iter().enumerate() {
            points.extend([(edge(bin), share(count)), (edge(bin + 1), share(count))]);
        }
        points.push((edge(bins), 0.0));
        Climb { name: values.name.clone(), points }
    };
    let lines: Vec<Climb> = series.iter().map(line).collect();
    let share = |value: f64| format!("{:.0} %", value * 100.0);
    draw(titles, &lines, Axes { y_top: None, y_format: &share, markers: false })
}

/// A figure over rising load, as SVG: one line with markers a series.
///
/// # Errors
/// [`Error::Config`] when there are no points.
pub fn climb(titles: Titles<'_>, series: &[Climb]) -> Result<String> {
    let finite = |climb: &Climb| {
        let is_finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
        let mut points: Vec<(f64, f64)> = climb.points.iter().filter(is_finite).copied().collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Climb { name: climb.name.clone(), points }
    };
    let lines: Vec<Climb> = series.iter().map(finite).collect();
    draw(titles, &lines, Axes { y_top: None, y_format: &label, markers: true })
}

/// A round width (1, 2 or 5 times a power of ten, at least 1) that cuts `span` into at most [`BINS`] bins.
fn bin_width(span: f64) -> f64 {
    let least = (span / BINS as f64).max(1.0);
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|&width| width >= least).unwrap_or(least)
}

/// A label with as many digits as a small number needs.
fn label(value: f64) -> String {
    let text = format!("{value:.3}");
    match value.abs() >= 10.0 {
        true => number::grouped(value),
        false => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

struct Axes<'a> {
    y_top: Option<f64>,
    y_format: &'a dyn Fn(f64) -> String,
    markers: bool,
}

fn draw(titles: Titles<'_>, lines: &[Climb], axes: Axes<'_>) -> Result<String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let right = points().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
    let top = points().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    if !right.is_finite() || !top.is_finite() {
        let message = format!("nothing was measured, so there is no picture of \"{}\" to draw", titles.title);
        return Err(Error::config(message));
    }
    // Both axes begin at zero: ratios are what is looked for.
    let right = if right > 0.0 { right * 1.03 } else { 1.0 };
    let top = axes.y_top.unwrap_or(if top > 0.0 { top * 1.08 } else { 1.0 });
    let colour = |index: usize| style::ramp(index, lines.len());
    let key = |(index, line): (usize, &Climb)| Key {
        label: line.name.clone(),
        colour: colour(index),
        marker: axes.markers.then(|| Marker::nth(index)),
    };
    let keys: Vec<Key> = lines.iter().enumerate().map(key).collect();
    style::picture(titles.title, titles.subtitle, &keys, HEIGHT, |area| {
        let spec = Panel {
            y_title: titles.y,
            x_title: Some(titles.x),
            x: 0.0..right,
            y: 0.0..top,
            labels: (9, 8),
            y_ticks: None,
            y_format: axes.y_format,
            x_format: &label,
        };
        let chart = style::panel(area, &spec)?;
        for (index, line) in lines.iter().enumerate() {
            put(&chart, &PathElement::new(line.points.clone(), colour(index).stroke_width(9 * UNITS as u32 / 4)))?;
        }
        if axes.markers {
            let plot = chart.plotting_area().strip_coord_spec();
            let (base_x, base_y) = plot.get_base_pixel();
            for (index, line) in lines.iter().enumerate() {
                for point in &line.points {
                    let (x, y) = chart.plotting_area().map_coordinate(point);
                    Marker::nth(index).draw(&plot, (x - base_x, y - base_y), colour(index))?;
                }
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TITLES: Titles<'_> = Titles { title: "Spread", subtitle: "of <values>", x: "Time (ms)", y: "Share" };

    fn values(name: &str, values: impl IntoIterator<Item = f64>) -> Values {
        Values { name: name.to_owned(), values: values.into_iter().collect(), missing: 0 }
    }

    #[test]
    fn every_series_is_drawn_and_named() {
        let series = [values("low", (0..1000).map(f64::from)), values("high", [f64::NAN, 20.0])];
        for svg in [cumulative(TITLES, &series).unwrap(), histogram(TITLES, &series).unwrap()] {
            for words in ["Spread", "Time (ms)", "low", "high", "0 %"] {
                assert!(svg.contains(words), "{words}");
            }
            assert!(!svg.contains("NaN") && svg.len() < 60_000, "{}", svg.len());
        }
        let series = [Climb { name: "low".to_owned(), points: vec![(2.0, 0.5), (0.5, 0.1), (1.0, f64::NAN)] }];
        let svg = climb(TITLES, &series).unwrap();
        assert!(svg.contains("low") && !svg.contains("NaN"));
        assert_eq!(svg, climb(TITLES, &series).unwrap());
    }

    #[test]
    fn what_is_missing_keeps_a_share_from_being_whole() {
        let some = Values { missing: 6, ..values("low", [3.0, 1.0]) };
        assert_eq!(cumulated(&some).points, [(1.0, 0.0), (1.0, 0.0), (1.0, 0.125), (3.0, 0.125), (3.0, 0.25)]);
        assert_eq!(cumulated(&values("low", [3.0, 1.0])).points.last(), Some(&(3.0, 1.0)));
    }

    #[test]
    fn nothing_is_an_error_that_says_so() {
        assert!(cumulative(TITLES, &[]).unwrap_err().to_string().contains("Spread"));
        assert!(histogram(TITLES, &[values("low", [])]).is_err());
        assert!(climb(TITLES, &[Climb { name: "low".to_owned(), points: Vec::new() }]).is_err());
        cumulative(TITLES, &[values("low", [3.0]), values("high", [])]).unwrap();
        histogram(TITLES, &[values("low", [3.0])]).unwrap();
    }

    #[test]
    fn bins_are_round_and_not_too_many() {
        let widths = [0.0, 39.0, 41.0, 100.0, 900.0, 5000.0].map(bin_width);
        assert_eq!(widths, [1.0, 1.0, 2.0, 5.0, 50.0, 200.0]);
    }

    #[test]
    fn labels_have_no_idle_digits() {
        assert_eq!([0.0, 0.5, 2.0, 0.125, 1500.0].map(label), ["0", "0.5", "2", "0.125", "1,500"]);
    }
}
