//! The one look of all pictures: canvas, colours, type sizes, panels, legend.
//!
//! Pictures are SVG by `plotters`, laid out with its built-in estimate of text widths, so no font has to be installed.
//! Colours are safe for the common colour-vision deficiencies, and no meaning hangs on colour alone: markers differ too.

use std::ops::Range;

use brevity_training::{Error, Result};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::element::PointCollection;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A part of the canvas, in device units.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A panel with its two axes.
pub(super) type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Upright>>;

/// A vertical axis, linear, with labels at round values or where it is told.
pub(super) struct Upright {
    range: RangedCoordf64,
    ticks: Option<Vec<f64>>,
}

impl Ranged for Upright {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.range.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.ticks.clone().unwrap_or_else(|| self.range.key_points(hint))
    }

    fn range(&self) -> Range<f64> {
        self.range.range()
    }
}

/// Device units per pixel. `plotters` draws on whole units; four of them a pixel keep curves smooth.
pub(super) const UNITS: i32 = 4;

/// Width of every picture in pixels, that of a README's column.
pub(super) const WIDTH: i32 = 800;

/// Text and the sum of all levels.
pub(super) const INK: RGBColor = RGBColor(0x1f, 0x24, 0x30);
/// Secondary text and axes.
pub(super) const MUTED: RGBColor = RGBColor(0x5d, 0x65, 0x75);
/// Grid lines.
const GRID: RGBColor = RGBColor(0xe6, 0xe8, 0xec);
/// Background; not transparent, so that pictures stay readable on dark pages.
pub(super) const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);

/// Okabe and Ito's palette without black and without the yellow that vanishes on white.
const CATEGORIES: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];

/// Stops of a ramp from dark to light that keeps its order without colour vision.
const RAMP: [RGBColor; 5] = [
    RGBColor(0x24, 0x1a, 0x8c),
    RGBColor(0x7a, 0x0e, 0xa6),
    RGBColor(0xc0, 0x38, 0x83),
    RGBColor(0xe7, 0x6f, 0x51),
    RGBColor(0xf2, 0xa1, 0x1f),
];

/// The colour of the `index`-th of several things without order.
pub(super) fn category(index: usize) -> RGBColor {
    CATEGORIES[index % CATEGORIES.len()]
}

/// The colour of the `index`-th of `count` things with an order.
pub(super) fn ramp(index: usize, count: usize) -> RGBColor {
    let place = if count < 2 { 0.0 } else { index as f64 / (count - 1) as f64 * (RAMP.len() - 1) as f64 };
    let stop = (place as usize).min(RAMP.len() - 2);
    let part = (place - stop as f64).clamp(0.0, 1.0);
    let (low, high) = (RAMP[stop], RAMP[stop + 1]);
    let mix = |low: u8, high: u8| (f64::from(low) + (f64::from(high) - f64::from(low)) * part).round() as u8;
    RGBColor(mix(low.0, high.0), mix(low.1, high.1), mix(low.2, high.2))
}

/// A text style of `pixels` height anchored at `position`.
pub(super) fn text(pixels: f64, colour: RGBColor, position: (HPos, VPos)) -> TextStyle<'static> {
    written(pixels, FontStyle::Normal, colour, position)
}

/// The bold form of [`text`].
pub(super) fn bold(pixels: f64, colour: RGBColor, position: (HPos, VPos)) -> TextStyle<'static> {
    written(pixels, FontStyle::Bold, colour, position)
}

fn written(pixels: f64, style: FontStyle, colour: RGBColor, (across, down): (HPos, VPos)) -> TextStyle<'static> {
    // The SVG writer divides sizes by 1.24.
    let font = ("sans-serif", pixels * f64::from(UNITS) * 1.24, style).into_font();
    TextStyle { font, color: colour.to_backend_color(), pos: Pos::new(across, down) }
}

/// About how wide `words` are at `pixels` height, in pixels, for usual sans-serif faces.
pub(super) fn text_width(words: &str, pixels: f64) -> i32 {
    let width = |letter: char| match letter {
        'i' | 'j' | 'l' | 'f' | 't' | 'r' | 'I' | ' ' | '.' | ',' | ':' | ';' | '|' | '!' | '(' | ')' | '-' => 0.36,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.92,
        'A'..='Z' => 0.70,
        _ => 0.62,
    };
    (words.chars().map(width).sum::<f64>() * pixels).ceil() as i32
}

/// `colour` dark enough for small text on the background.
pub(super) fn readable(colour: RGBColor) -> RGBColor {
    let mix = |part: u8, ink: u8| ((u16::from(part) * 2 + u16::from(ink)) / 3) as u8;
    RGBColor(mix(colour.0, INK.0), mix(colour.1, INK.1), mix(colour.2, INK.2))
}

/// `plotters` errors as ours; drawing into memory fails only on a fault of the layout.
pub(super) fn drawn<T, E: std::fmt::Display>(result: std::result::Result<T, E>) -> Result<T> {
    result.map_err(|error| Error::config(format!("cannot draw the picture: {error}")))
}

/// One entry of a legend.
pub(super) struct Key {
    /// What it says.
    pub label: String,
    /// The colour it explains.
    pub colour: RGBColor,
    /// The marker it explains; a line when absent.
    pub marker: Option<Marker>,
}

/// Shapes that tell points apart without colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    /// Hollow, for the base only.
    Ring,
    /// Filled.
    Disc,
    /// Filled.
    Triangle,
    /// Filled.
    Square,
    /// Filled.
    Diamond,
}

impl Marker {
    /// The marker of the `index`-th tier that is not the base.
    pub(super) fn nth(index: usize) -> Self {
        [Self::Disc, Self::Triangle, Self::Square, Self::Diamond][index % 4]
    }

    /// Draws it around `centre` (device units).
    pub(super) fn draw(self, area: &Area<'_>, centre: (i32, i32), colour: RGBColor) -> Result<()> {
        let radius = 5 * UNITS;
        let corner =
            |x: f64, y: f64| (centre.0 + (x * f64::from(radius)) as i32, centre.1 + (y * f64::from(radius)) as i32);
        let polygon = |corners: &[(f64, f64)]| {
            Polygon::new(corners.iter().map(|&(x, y)| corner(x, y)).collect::<Vec<_>>(), colour.filled())
        };
        drawn(match self {
            Self::Ring => {
                drawn(area.draw(&Circle::new(centre, radius, PAPER.filled())))?;
                area.draw(&Circle::new(centre, radius, colour.stroke_width(2 * UNITS as u32)))
            }
            Self::Disc => area.draw(&Circle::new(centre, radius, colour.filled())),
            Self::Triangle => area.draw(&polygon(&[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)])),
            Self::Square => area.draw(&polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)])),
            Self::Diamond => area.draw(&polygon(&[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)])),
        })
    }
}

/// Draws a picture: a canvas of [`WIDTH`] by `height` pixels with title, subtitle and legend, the rest of it handed to
/// `body`. The `title` is also the picture's accessible name. Legends that do not fit one row break; `height` grows with them.
pub(super) fn picture(
    title: &str,
    subtitle: &str,
    keys: &[Key],
    height: i32,
    body: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<String> {
    let rows = legend_rows(keys);
    let head = 70 + 22 * rows.len() as i32;
    let height = height + head;
    let (width_units, height_units) = (WIDTH * UNITS, height * UNITS);
    let mut inner = String::new();
    {
        let root = SVGBackend::with_string(&mut inner, (width_units as u32, height_units as u32)).into_drawing_area();
        drawn(root.fill(&PAPER))?;
        let (top, rest) = root.split_vertically(head * UNITS);
        let place = |x: i32, y: i32| (x * UNITS, y * UNITS);
        drawn(top.draw_text(title, &bold(18.0, INK, (HPos::Left, VPos::Top)), place(20, 16)))?;
        drawn(top.draw_text(subtitle, &text(12.5, MUTED, (HPos::Left, VPos::Top)), place(20, 41)))?;
        for (row, entries) in rows.iter().enumerate() {
            let y = 72 + 22 * row as i32;
            for &(x, key) in entries {
                match key.marker {
                    Some(marker) => marker.draw(&top, place(x + 8, y), key.colour)?,
                    None => {
                        let line = vec![place(x, y), place(x + 18, y)];
                        drawn(top.draw(&PathElement::new(line, key.colour.stroke_width(3 * UNITS as u32))))?;
                    }
                }
                drawn(top.draw_text(&key.label, &text(13.0, INK, (HPos::Left, VPos::Center)), place(x + 25, y)))?;
            }
        }
        body(&rest)?;
        drawn(root.present())?;
    }
    let name = escape(title);
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {width_units} {height_units}\" role=\"img\" aria-label=\"{name}\">\n\
         <title>{name}</title>\n{inner}</svg>\n"
    ))
}

/// The entries of each legend row with their left edges in pixels.
fn legend_rows(keys: &[Key]) -> Vec<Vec<(i32, &Key)>> {
    let mut rows: Vec<Vec<(i32, &Key)>> = Vec::new();
    let mut x = WIDTH;
    for key in keys {
        let width = 25 + text_width(&key.label, 13.0) + 18;
        if x + width > WIDTH - 20 {
            rows.push(Vec::new());
            x = 20;
        }
        if let Some(row) = rows.last_mut() {
            row.push((x, key));
        }
        x += width;
    }
    rows
}

pub(super) fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What a panel shows besides its data.
pub(super) struct Panel<'a> {
    /// Name and unit of the vertical axis; written above the panel, where it needs no turned head.
    pub y_title: &'a str,
    /// Name and unit of the horizontal axis; none for a panel that shares the axis of the one below.
    pub x_title: Option<&'a str>,
    /// Horizontal range.
    pub x: Range<f64>,
    /// Vertical range.
    pub y: Range<f64>,
    /// About how many labels either axis should have.
    pub labels: (usize, usize),
    /// Where the vertical axis is labelled; at round values when absent.
    pub y_ticks: Option<Vec<f64>>,
    /// How labels of the vertical axis are written.
    pub y_format: &'a dyn Fn(f64) -> String,
    /// How labels of the horizontal axis are written.
    pub x_format: &'a dyn Fn(f64) -> String,
}

/// Draws the frame of a panel into `area` and returns it, ready for series.
pub(super) fn panel<'a, 'b>(area: &'a Area<'b>, spec: &Panel<'_>) -> Result<Chart<'a, 'b>> {
    drawn(area.draw_text(spec.y_title, &bold(13.0, INK, (HPos::Left, VPos::Top)), (20 * UNITS, 4 * UNITS)))?;
    let mut builder = ChartBuilder::on(area);
    builder.margin_top(28 * UNITS).margin_right(24 * UNITS).margin_left(14 * UNITS);
    builder.x_label_area_size(if spec.x_title.is_some() { 48 } else { 24 } * UNITS).y_label_area_size(48 * UNITS);
    let y = Upright { range: spec.y.clone().into(), ticks: spec.y_ticks.clone() };
    let mut chart = drawn(builder.build_cartesian_2d(spec.x.clone(), y))?;
    let y_format = |value: &f64| (spec.y_format)(*value);
    let x_format = |value: &f64| (spec.x_format)(*value);
    let label = |position| text(12.0, MUTED, position);
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh()
        .bold_line_style(GRID.stroke_width(UNITS as u32))
        .light_line_style(TRANSPARENT)
        .axis_style(MUTED.mix(0.6).stroke_width(UNITS as u32))
        .set_all_tick_mark_size(4 * UNITS)
        .x_labels(spec.labels.0)
        .y_labels(spec.labels.1)
        .x_label_formatter(&x_format)
        .y_label_formatter(&y_format)
        .x_label_style(label((HPos::Center, VPos::Top)))
        .y_label_style(label((HPos::Right, VPos::Center)));
    drawn(mesh.draw())?;
    if let Some(title) = spec.x_title {
        let (across, _) = chart.plotting_area().get_pixel_range();
        let (base_x, base_y) = area.get_base_pixel();
        let middle = (across.start + across.end) / 2 - base_x;
        let bottom = area.get_pixel_range().1.end - base_y - 8 * UNITS;
        drawn(area.draw_text(title, &text(12.5, INK, (HPos::Center, VPos::Bottom)), (middle, bottom)))?;
    }
    Ok(chart)
}

/// Draws `element` into a panel.
pub(super) fn put<'e, E>(chart: &Chart<'_, '_>, element: &'e E) -> Result<()>
where
    &'e E: PointCollection<'e, (f64, f64)>,
    E: for<'c> plotters::element::Drawable<SVGBackend<'c>>,
{
    drawn(chart.plotting_area().draw(element))
}

/// The range of the finite `values` with `part` of its span as air on both sides; a unit around a single value.
pub(super) fn span(values: impl Iterator<Item = f64>, part: f64) -> Option<Range<f64>> {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return None;
    }
    let air = if high > low { (high - low) * part } else { 0.5_f64.max(high.abs() * 0.05) };
    Some(low - air..high + air)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ramp_meets_its_ends() {
        assert_eq!(ramp(0, 4), RAMP[0]);
        assert_eq!(ramp(3, 4), RAMP[4]);
        assert_eq!(ramp(1, 3), RAMP[2]);
        assert_eq!(ramp(0, 1), RAMP[0]);
    }

    #[test]
    fn spans_leave_air_and_skip_what_is_no_number() {
        assert_eq!(span([1.0, f64::NAN, 3.0].into_iter(), 0.1), Some(0.8..3.2));
        assert_eq!(span([2.0].into_iter(), 0.1), Some(1.5..2.5));
        assert_eq!(span([f64::NAN].into_iter(), 0.1), None);
    }

    #[test]
    fn long_legends_break() {
        let keys: Vec<Key> =
            (0..12).map(|i| Key { label: format!("alpha = 0.{i:02}"), colour: ramp(i, 12), marker: None }).collect();
        let rows = legend_rows(&keys);
        assert_eq!(rows.iter().map(Vec::len).sum::<usize>(), 12);
        assert!(rows.len() > 1 && rows.iter().all(|row| row[0].0 == 20));
    }

    #[test]
    fn titles_are_escaped() {
        let svg = picture("a < b & \"c\"", "", &[], 10, |_| Ok(())).unwrap();
        assert!(svg.contains("<title>a &lt; b &amp; &quot;c&quot;</title>"), "{svg}");
    }
}
