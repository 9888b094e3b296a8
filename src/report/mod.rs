//! Rendering: terminal and Markdown tables, SVG pictures. Measuring rooms hand in plain numbers and get text back.
//!
//! Pure functions of their arguments: no files, no clock, no randomness, no system fonts, so that the same numbers give the
//! same bytes on every machine. What the numbers mean and where they come from is not known here, and nothing of the other
//! rooms is imported.

pub mod curve;
pub mod frontier;
pub mod number;
pub mod page;
pub mod spread;
mod style;
mod table;

pub use table::{Align, Table};
