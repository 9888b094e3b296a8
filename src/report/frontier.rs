//! The accuracy–tokens frontier: where each tier stands on each level, with its uncertainty.
//!
//! One panel a level, one marker a tier. Up and to the left is better: as accurate, with fewer tokens. The base is a ring, and
//! a dashed line carries its accuracy across the panel, because the question is what a tier gives up against it.

use brevity_training::{Error, Result};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::number;
use super::style::{self, Area, Chart, Key, Marker, Panel, UNITS, WIDTH, drawn, put};

/// A value with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// One tier on one level.
#[derive(Debug, Clone, PartialEq)]
pub struct FrontierPoint {
    /// What the tier is called in the picture, such as `α = 0.1`; tiers keep the order in which they first appear.
    pub tier: String,
    /// Whether it is the base.
    pub is_base: bool,
    /// The level, one panel each in the order of first appearance; an empty string where there are none.
    pub level: String,
    /// Mean completion tokens per response.
    pub tokens: Estimate,
    /// Share of correct responses, in [0, 1].
    pub accuracy: Estimate,
}

/// What the horizontal axis shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost<'a> {
    /// Name and unit of the axis.
    pub axis: &'a str,
    /// What the ring is called in the explanation.
    pub base: &'a str,
}

/// The frontier of accuracy and tokens as SVG. Points whose value is no finite number are left out; ends of intervals that are not are not drawn.
///
/// # Errors
/// [`Error::Config`] when there is nothing to draw.
pub fn frontier(title: &str, points: &[FrontierPoint]) -> Result<String> {
    frontier_over(title, Cost { axis: "Mean tokens per response", base: "the base" }, points)
}

/// The frontier of accuracy and any other cost, which the points hold as their `tokens`.
///
/// # Errors
/// As [`frontier`].
pub fn frontier_over(title: &str, cost: Cost<'_>, points: &[FrontierPoint]) -> Result<String> {
    let points: Vec<FrontierPoint> = points
        .iter()
        .filter(|point| point.tokens.value.is_finite() && point.accuracy.value.is_finite())
        .map(|point| FrontierPoint { tokens: finite(point.tokens), accuracy: finite(point.accuracy), ..point.clone() })
        .collect();
    if points.is_empty() {
        return Err(Error::config("no tier has been measured, so there is no frontier to draw; evaluate a tier first"));
    }
    let tiers = unique(points.iter().map(|point| (point.tier.as_str(), point.is_base)));
    let levels = unique(points.iter().map(|point| point.level.as_str()));
    let looks = looks(&tiers);
    let keys: Vec<Key> = looks
        .iter()
        .map(|look| Key { label: look.tier.to_owned(), colour: look.colour, marker: Some(look.marker) })
        .collect();
    let columns = levels.len().min(3);
    let rows = levels.len().div_ceil(columns);
    let row_height = if columns == 1 { 400 } else { 330 };
    let subtitle = format!("Up and to the left is better. Bars: 95 % intervals. Dashed: accuracy of {}", cost.base);
    style::picture(title, &subtitle, &keys, row_height * rows as i32 + 4, |area| {
        for (index, level) in levels.iter().enumerate() {
            let (column, row) = ((index % columns) as i32, (index / columns) as i32);
            let width = WIDTH / columns as i32;
            let left = column * width * UNITS;
            let cell = area.clone().shrink((left, row * row_height * UNITS), (width * UNITS, row_height * UNITS));
            let here: Vec<&FrontierPoint> = points.iter().filter(|point| point.level == *level).collect();
            draw(&cell, (level, cost.axis), &here, &looks, if columns == 1 { 9 } else { 5 })?;
        }
        Ok(())
    })
}

struct Look<'a> {
    tier: &'a str,
    colour: RGBColor,
    marker: Marker,
}

fn looks<'a>(tiers: &[(&'a str, bool)]) -> Vec<Look<'a>> {
    let trained = tiers.iter().filter(|(_, is_base)| !is_base).count();
    let mut index = 0;
    let look = |&(tier, is_base): &(&'a str, bool)| {
        if is_base {
            return Look { tier, colour: style::INK, marker: Marker::Ring };
        }
        index += 1;
        Look { tier, colour: style::ramp(index - 1, trained), marker: Marker::nth(index - 1) }
    };
    tiers.iter().map(look).collect()
}

fn draw(
    area: &Area<'_>,
    (level, x_title): (&str, &str),
    points: &[&FrontierPoint],
    looks: &[Look<'_>],
    x_labels: usize,
) -> Result<()> {
    let ends =
        |of: fn(&FrontierPoint) -> Estimate| points.iter().map(move |p| of(p)).flat_map(|e| [e.low, e.value, e.high]);
    let (Some(x), Some(y)) = (style::span(ends(|p| p.tokens), 0.06), style::span(ends(|p| p.accuracy), 0.10)) else {
        return Ok(());
    };
    let (x, y) = (0.0..x.end, y.start.max(-0.01)..y.end.min(1.01));
    let fine = y.end - y.start < 0.05;
    let format = move |value: f64| format!("{:.*}", usize::from(fine), value * 100.0);
    let y_title =
        if level.is_empty() { "Accuracy (% correct)".to_owned() } else { format!("{level}: accuracy (% correct)") };
    let spec = Panel {
        y_title: &y_title,
        x_title: Some(x_title),
        x: x.clone(),
        y,
        labels: (x_labels, 8),
        y_ticks: None,
        y_format: &format,
        x_format: &number::grouped,
    };
    let chart = style::panel(area, &spec)?;
    if let Some(base) = points.iter().find(|point| point.is_base) {
        let line = [(x.start, base.accuracy.value), (x.end, base.accuracy.value)];
        let stroke = style::MUTED.mix(0.7).stroke_width(UNITS as u32);
        put(&chart, &DashedPathElement::new(line, 5 * UNITS, 4 * UNITS, stroke))?;
    }
    let shown: Vec<(&FrontierPoint, &Look<'_>)> =
        looks.iter().filter_map(|look| Some((*points.iter().find(|point| point.tier == look.tier)?, look))).collect();
    for (point, look) in &shown {
        bars(&chart, point, look.colour)?;
    }
    let plot = chart.plotting_area().strip_coord_spec();
    let (base_x, base_y) = plot.get_base_pixel();
    let centre = |point: &FrontierPoint| {
        let (x, y) = chart.plotting_area().map_coordinate(&(point.tokens.value, point.accuracy.value));
        (x - base_x, y - base_y)
    };
    for (point, look) in &shown {
        look.marker.draw(&plot, centre(point), look.colour)?;
    }
    let markers: Vec<Frame> = shown.iter().map(|(point, _)| Frame::around(centre(point), 8 * UNITS)).collect();
    let upright = |point: &FrontierPoint| {
        let end = |accuracy: f64| chart.plotting_area().map_coordinate(&(point.tokens.value, accuracy)).1 - base_y;
        let (x, _) = centre(point);
        let half = 2 * UNITS;
        Frame { left: x - half, top: end(point.accuracy.high), right: x + half, bottom: end(point.accuracy.low) }
    };
    let bars: Vec<Frame> = shown.iter().map(|(point, _)| upright(point)).collect();
    label(&plot, &shown, &markers, &bars)
}

fn bars(chart: &Chart<'_, '_>, point: &FrontierPoint, colour: RGBColor) -> Result<()> {
    let Estimate { value: x, low: left, high: right } = point.tokens;
    let Estimate { value: y, low: bottom, high: top } = point.accuracy;
    let stroke = colour.mix(0.75).stroke_width(3 * UNITS as u32 / 2);
    for line in [vec![(left, y), (right, y)], vec![(x, bottom), (x, top)]] {
        put(chart, &PathElement::new(line, stroke))?;
    }
    Ok(())
}

/// A rectangle in device units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    left: i32,
    top: i32,
    right: i32,
    bottom: i32,
}

impl Frame {
    fn around((x, y): (i32, i32), half: i32) -> Self {
        Self { left: x - half, top: y - half, right: x + half, bottom: y + half }
    }

    fn overlap(&self, other: &Self) -> i64 {
        let wide = self.right.min(other.right) - self.left.max(other.left);
        let high = self.bottom.min(other.bottom) - self.top.max(other.top);
        i64::from(wide.max(0)) * i64::from(high.max(0))
    }
}

/// Writes each tier's name where it hides least: of the places around its marker the first with the smallest overlap with
/// markers, bars, earlier names and the panel's edge. A veil behind the name keeps it readable on grid lines.
fn label(plot: &Area<'_>, shown: &[(&FrontierPoint, &Look<'_>)], markers: &[Frame], bars: &[Frame]) -> Result<()> {
    const SIZE: f64 = 11.5;
    let (width, height) = plot.dim_in_pixel();
    let mut taken: Vec<Frame> = markers.iter().chain(bars).copied().collect();
    for (((_, look), marker), bar) in shown.iter().zip(markers).zip(bars) {
        let (w, h) = (style::text_width(look.tier, SIZE) * UNITS, 13 * UNITS);
        let (x, y) = ((marker.left + marker.right) / 2, (marker.top + marker.bottom) / 2);
        let gap = 3 * UNITS;
        let (above, below) = (marker.top - gap / 2 - h, marker.bottom + gap / 2);
        let places = [
            (marker.right, above),
            (marker.right, below),
            (marker.left - w, above),
            (marker.left - w, below),
            (marker.right + gap, y - h / 2),
            (marker.left - gap - w, y - h / 2),
            (x - w / 2, bar.top - h),
            (x - w / 2, bar.bottom),
        ];
        let cost = |&(left, top): &(i32, i32)| {
            let frame = Frame { left, top, right: left + w, bottom: top + h };
            let inside = frame.overlap(&Frame { left: 0, top: 0, right: width as i32, bottom: height as i32 });
            let outside = i64::from(w) * i64::from(h) - inside;
            taken.iter().map(|other| frame.overlap(other)).sum::<i64>() + 2 * outside
        };
        if let Some(&(left, top)) = places.iter().min_by_key(|place| cost(place)) {
            let veil = Rectangle::new([(left - UNITS, top), (left + w, top + h)], style::PAPER.mix(0.75).filled());
            drawn(plot.draw(&veil))?;
            let words = style::text(SIZE, style::readable(look.colour), (HPos::Left, VPos::Center));
            drawn(plot.draw_text(look.tier, &words, (left, top + h / 2)))?;
            taken.push(Frame { left, top, right: left + w, bottom: top + h });
        }
    }
    Ok(())
}

/// `estimate` with ends that are no numbers drawn in to the value.
fn finite(estimate: Estimate) -> Estimate {
    let or_value = |end: f64| if end.is_finite() { end } else { estimate.value };
    Estimate { value: estimate.value, low: or_value(estimate.low), high: or_value(estimate.high) }
}

/// The different items in the order of their first appearance.
fn unique<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut list = Vec::new();
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(value: f64, half: f64) -> Estimate {
        Estimate { value, low: value - half, high: value + half }
    }

    fn family(levels: &[&str]) -> Vec<FrontierPoint> {
        let tiers = [
            ("base", 1.0, 0.0),
            ("α = 0.05", 0.62, 0.01),
            ("α = 0.1", 0.45, 0.005),
            ("α = 0.2", 0.33, -0.012),
            ("α = 0.4", 0.22, -0.05),
        ];
        let mut points = Vec::new();
        for (index, level) in levels.iter().enumerate() {
            for (tier, part, change) in tiers {
                let start = 190.0 + 70.0 * index as f64;
                points.push(FrontierPoint {
                    tier: tier.to_owned(),
                    is_base: tier == "base",
                    level: (*level).to_owned(),
                    tokens: estimate(start * (part + 0.12 * index as f64 * (1.0 - part)), 6.0),
                    accuracy: estimate(0.95 - 0.12 * index as f64 + change, 0.016 + 0.004 * index as f64),
                });
            }
        }
        points
    }

    #[test]
    fn every_tier_is_marked_and_named_on_every_level() {
        let svg = frontier("Frontier", &family(&["easy", "medium", "hard"])).unwrap();
        for level in ["easy", "medium", "hard"] {
            assert!(svg.contains(&format!("{level}: accuracy (% correct)")), "{level}");
        }
        for tier in ["base", "α = 0.05", "α = 0.1", "α = 0.2", "α = 0.4"] {
            // Once in the legend and once a panel.
            assert_eq!(svg.matches(&format!("\n{tier}\n")).count(), 4, "{tier}");
        }
        assert_eq!(svg, frontier("Frontier", &family(&["easy", "medium", "hard"])).unwrap());
    }

    #[test]
    fn one_level_five_levels_and_holes_are_drawn() {
        frontier("One", &family(&[""])).unwrap();
        frontier("Five", &family(&["1", "2", "3", "4", "5"])).unwrap();
        let mut points = family(&["easy"]);
        points[0].tokens.low = f64::NAN;
        points[1].accuracy.value = f64::NAN;
        let svg = frontier("Holes", &points).unwrap();
        assert!(!svg.contains("NaN") && !svg.contains("α = 0.05"));
        let error = frontier("None", &[]).unwrap_err().to_string();
        assert!(error.contains("evaluate a tier first"), "{error}");
    }

    #[test]
    fn frames_overlap_by_area() {
        let frame = Frame::around((10, 10), 5);
        assert_eq!(frame.overlap(&Frame::around((14, 12), 5)), 6 * 8);
        assert_eq!(frame.overlap(&Frame::around((30, 10), 5)), 0);
    }
}
