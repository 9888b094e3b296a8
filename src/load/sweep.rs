//! Which load comes next in a sweep, and when it has gone far enough.
//!
//! A sweep climbs for every effort on its own until the server is saturated: users stop bringing throughput, or requests
//! come faster than they are answered. Pure decisions from numbers; stages are driven elsewhere.

use serde::Serialize;

use super::arrival::Arrival;
use super::drive::Pace;
use super::throughput::Throughput;

/// Most stages of an automatic sweep.
const MOST_STAGES: usize = 14;
/// Steps of halving between the last rate that was kept up with and the first that was not.
const REFINEMENTS: usize = 2;

/// A kind of sweep.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sweep {
    /// These numbers of users.
    Concurrency(Vec<usize>),
    /// These rates.
    Rates(Vec<f64>, Arrival),
    /// Rates that are found: from half of what one user gets done, doubled until the server falls behind, then halved
    /// in between.
    AutoRate(Arrival),
}

/// The climb of one effort.
#[derive(Debug, Clone)]
pub struct Climb {
    sweep: Sweep,
    stages: usize,
    best: f64,
    /// The highest rate that was kept up with and the lowest that was not.
    kept: Option<f64>,
    lost: Option<f64>,
    refined: usize,
    ended: bool,
    last: Option<Pace>,
    saturated: bool,
}

impl Climb {
    /// A climb at its foot.
    pub fn new(sweep: &Sweep) -> Self {
        Self {
            sweep: sweep.clone(),
            stages: 0,
            best: 0.0,
            kept: None,
            lost: None,
            refined: 0,
            ended: false,
            last: None,
            saturated: false,
        }
    }

    /// The load of the next stage; `None` at the top.
    pub fn next_pace(&mut self) -> Option<Pace> {
        if self.ended {
            return None;
        }
        let pace = match &self.sweep {
            Sweep::Concurrency(users) => users.get(self.stages).copied().map(Pace::Concurrency),
            Sweep::Rates(rates, arrival) => {
                rates.get(self.stages).map(|&per_second| Pace::Rate { per_second, arrival: *arrival })
            }
            Sweep::AutoRate(_) if self.stages == 0 => Some(Pace::Concurrency(1)),
            Sweep::AutoRate(arrival) => self.next_rate().map(|per_second| Pace::Rate { per_second, arrival: *arrival }),
        };
        self.last = pace;
        pace
    }

    fn next_rate(&self) -> Option<f64> {
        if self.stages >= MOST_STAGES || self.best <= 0.0 {
            return None;
        }
        match (self.kept, self.lost) {
            (None, None) => Some(self.best / 2.0),
            (Some(kept), None) => Some(kept * 2.0),
            (Some(kept), Some(lost)) if self.refined < REFINEMENTS => Some((kept * lost).sqrt()),
            // Even the slowest rate was too fast; go down until one is not.
            (None, Some(lost)) if self.refined < REFINEMENTS => Some(lost / 2.0),
            _ => None,
        }
    }

    /// The stage that was asked for last got this done. True when it was beyond saturation.
    pub fn note(&mut self, throughput: &Throughput) -> bool {
        let done = throughput.requests_per_second;
        let beyond = match self.last {
            Some(Pace::Concurrency(_)) => self.stages > 0 && throughput.stopped_growing(self.best),
            Some(Pace::Rate { per_second, .. }) => {
                let beyond = throughput.fell_behind();
                if self.lost.is_some() {
                    self.refined += 1;
                }
                if beyond {
                    self.lost = Some(self.lost.map_or(per_second, |lost| lost.min(per_second)));
                } else {
                    self.kept = Some(self.kept.map_or(per_second, |kept| kept.max(per_second)));
                }
                beyond
            }
            None => false,
        };
        self.stages += 1;
        self.best = self.best.max(done);
        self.saturated |= beyond;
        self.ended |= beyond && !matches!(self.sweep, Sweep::AutoRate(_));
        beyond
    }

    /// The most that any stage got done, in requests a second.
    pub fn best(&self) -> f64 {
        self.best
    }

    /// Whether the climb went beyond saturation.
    pub fn saturated(&self) -> bool {
        self.saturated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Climbs against a server that can do `capacity` requests a second and takes half a second for each.
    fn climb(sweep: &Sweep, capacity: f64) -> (Vec<f64>, Climb) {
        let (mut climb, mut paces) = (Climb::new(sweep), Vec::new());
        while let Some(pace) = climb.next_pace() {
            let (level, done, kept_up) = match pace {
                Pace::Concurrency(users) => (users as f64, (users as f64 * 2.0).min(capacity), None),
                Pace::Rate { per_second, .. } => {
                    (per_second, per_second.min(capacity), Some((capacity / per_second).min(1.0)))
                }
            };
            paces.push(level);
            climb.note(&Throughput { requests_per_second: done, queue_growth: None, kept_up });
        }
        (paces, climb)
    }

    #[test]
    fn users_are_added_until_they_bring_nothing() {
        let (paces, top) = climb(&Sweep::Concurrency(vec![1, 2, 4, 8, 16, 32]), 10.0);
        assert_eq!(paces, [1.0, 2.0, 4.0, 8.0, 16.0]);
        assert!(top.saturated() && top.best() == 10.0);
        let (paces, top) = climb(&Sweep::Concurrency(vec![1, 2]), 10.0);
        assert_eq!((paces.len(), top.saturated()), (2, false));
    }

    #[test]
    fn listed_rates_end_with_the_first_that_is_too_fast() {
        let (paces, top) = climb(&Sweep::Rates(vec![1.0, 5.0, 20.0, 40.0], Arrival::Constant), 10.0);
        assert_eq!(paces, [1.0, 5.0, 20.0]);
        assert!(top.saturated());
    }

    #[test]
    fn rates_are_found() {
        // One user gets 2 a second: 1, 2, 4, 8 are kept up with, 16 is not; then 11.3 (10/11.3 is 88 %) and 9.5.
        let (paces, top) = climb(&Sweep::AutoRate(Arrival::Poisson), 10.0);
        let rounded: Vec<f64> = paces.iter().map(|pace| (pace * 10.0).round() / 10.0).collect();
        assert_eq!(rounded, [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 11.3, 9.5]);
        assert!(top.saturated() && top.best() == 10.0);
        // A server that answers nothing gives no rates.
        assert_eq!(climb(&Sweep::AutoRate(Arrival::Poisson), 0.0).0, [1.0]);
    }
}
