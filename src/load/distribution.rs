//! The figures of many values: mean, percentiles, largest. Exact, from the samples themselves.

use serde::{Deserialize, Serialize};

use super::metric::Statistic;

/// How values are spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many there are.
    pub count: usize,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Distribution {
    /// The distribution of `values`; `None` without values.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        let count = values.len();
        let mut figure = |statistic: Statistic| statistic.of(&mut values);
        Some(Self {
            count,
            mean: figure(Statistic::Mean)?,
            p50: figure(Statistic::P50)?,
            p90: figure(Statistic::P90)?,
            p95: figure(Statistic::P95)?,
            p99: figure(Statistic::P99)?,
            max: figure(Statistic::Max)?,
        })
    }

    /// One of its figures.
    pub fn get(&self, statistic: Statistic) -> f64 {
        match statistic {
            Statistic::Mean => self.mean,
            Statistic::P50 => self.p50,
            Statistic::P90 => self.p90,
            Statistic::P95 => self.p95,
            Statistic::P99 => self.p99,
            Statistic::Max => self.max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_in_its_place() {
        let distribution = Distribution::of((0..=100).map(f64::from).collect()).unwrap();
        let figures = Statistic::ALL.map(|statistic| distribution.get(statistic));
        assert_eq!((distribution.count, figures), (101, [50.0, 50.0, 90.0, 95.0, 99.0, 100.0]));
        assert_eq!(Distribution::of(Vec::new()), None);
    }
}
