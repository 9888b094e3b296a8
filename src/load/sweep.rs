//! Which load comes next in a sweep, and when it has gone far enough.
//!
//! A sweep climbs for every effort on its own until the server is saturated: users stop bringing throughput, or requests
//! come faster than they are answered. A stage that is too short to tell is no reason to stop: far enough up it can be told.
//! Pure decisions from numbers; stages are driven elsewhere.

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
    /// The users of the stage that got the most done.
    best_users: usize,
    /// The highest rate that was not too much as far as could be told, and the lowest that was.
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
            best_users: 1,
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
            Some(Pace::Concurrency(users)) => {
                let times = users as f64 / self.best_users.max(1) as f64;
                let beyond = self.stages > 0 && throughput.stopped_growing(self.best, times);
                if done > self.best {
                    self.best_users = users;
                }
                beyond
            }
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
    use super::super::arrival::Arrivals;
    use super::super::drive::{Driven, Timing};
    use super::super::throughput::Verdict;
    use super::*;

    /// Climbs against a server that can do `capacity` requests a second and takes half a second for each.
    fn climb(sweep: &Sweep, capacity: f64) -> (Vec<f64>, Climb) {
        let (mut climb, mut paces) = (Climb::new(sweep), Vec::new());
        while let Some(pace) = climb.next_pace() {
            let (level, requests_per_second, verdict) = match pace {
                Pace::Concurrency(users) => (users as f64, (users as f64 * 2.0).min(capacity), None),
                Pace::Rate { per_second, .. } => {
                    let verdict = if per_second * 0.9 > capacity { Verdict::FellBehind } else { Verdict::KeptUp };
                    (per_second, per_second.min(capacity), Some(verdict))
                }
            };
            paces.push(level);
            climb.note(&Throughput { requests_per_second, verdict, ..Throughput::default() });
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
    fn small_steps_do_not_end_a_climb() {
        let (paces, top) = climb(&Sweep::Concurrency((20..=30).collect()), 1000.0);
        assert_eq!((paces.len(), top.saturated()), (11, false));
        // From 25 users on one more brings nothing.
        let (paces, top) = climb(&Sweep::Concurrency((20..=30).collect()), 50.0);
        assert_eq!((paces.last().copied(), top.saturated()), (Some(26.0), true));
    }

    /// Climbs against a server with so many seats, each of which takes four seconds, in stages of ten seconds: answers take
    /// nearly half of a stage.
    fn climb_short(seats: usize, takes: f64) -> Climb {
        let mut climb = Climb::new(&Sweep::AutoRate(Arrival::Poisson));
        let (mut known, mut seed) = (None, 0);
        while let Some(pace) = climb.next_pace() {
            let Pace::Rate { per_second, arrival } = pace else {
                climb.note(&Throughput { requests_per_second: 1.0 / takes, ..Throughput::default() });
                known = Some(takes);
                continue;
            };
            seed += 1;
            // A warm-up of as long as an answer takes, as of a run that knows it.
            let warm_up = (per_second * takes).ceil() as usize;
            let due: Vec<f64> =
                Arrivals::new(arrival, per_second, seed).map(|due| due.as_secs_f64()).take(1 << 16).collect();
            let began = due[warm_up];
            // Seats become free in the order in which they were taken, for all take the same time.
            let mut ends: Vec<f64> = Vec::new();
            let mut timings = Vec::new();
            for (index, due) in due.iter().map(|due| due - began).take_while(|&due| due < 10.0).enumerate() {
                let free = index.checked_sub(seats).map_or(f64::NEG_INFINITY, |before| ends[before]);
                let ended = free.max(due) + takes;
                ends.push(ended);
                timings.push(Timing {
                    is_measured: index >= warm_up,
                    intended: due,
                    sent: due,
                    ended,
                    succeeded: true,
                });
            }
            timings.retain(|timing| timing.is_measured || timing.ended > 0.0);
            let sending = timings.iter().map(|timing| timing.intended).fold(0.0, f64::max);
            let began = tokio::time::Instant::now();
            let driven = Driven { began, sending, timings, abandoned: 0, warm_up, cpu_seconds: None };
            climb.note(&Throughput::of(&driven, pace, known));
        }
        climb
    }

    #[test]
    fn a_server_without_limits_is_never_saturated_however_long_it_takes() {
        for takes in [4.0, 8.0] {
            let top = climb_short(usize::MAX, takes);
            assert!(!top.saturated() && top.best() > 200.0, "{takes}: {}", top.best());
        }
        // Forty seats of four seconds: ten a second.
        let top = climb_short(40, 4.0);
        assert!(top.saturated() && (top.best() - 10.0).abs() < 2.0, "{}", top.best());
    }

    #[test]
    fn what_cannot_be_told_is_no_end_and_no_saturation() {
        let mut unclear = Climb::new(&Sweep::AutoRate(Arrival::Poisson));
        let mut highest = 0.0;
        while let Some(pace) = unclear.next_pace() {
            let (requests_per_second, verdict) = match pace {
                Pace::Concurrency(_) => (0.1, None),
                Pace::Rate { per_second, .. } => (per_second, Some(Verdict::TooShort)),
            };
            highest = requests_per_second;
            assert!(!unclear.note(&Throughput { requests_per_second, verdict, ..Throughput::default() }));
        }
        assert!(!unclear.saturated() && unclear.best() == highest && highest > 100.0, "{highest}");
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
