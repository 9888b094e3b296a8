//! How busy the machine's cores are, and whether the engine's threads would have more room on another one.

use std::collections::BTreeMap;

use super::affinity;

/// Share of a core that the engine must use before its place matters.
const WORTH_MOVING: f64 = 0.1;
/// Share of the engine's core that others must use before it moves.
const CROWDED: f64 = 0.25;
/// By how much less the other core must be used.
const MARGIN: f64 = 0.25;

/// Counters since the machine or the threads started.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Occupancy {
    /// Of every core, ticks that it was busy, and all of its ticks.
    cores: BTreeMap<usize, (u64, u64)>,
    /// Of every thread that is bound to the engine's core, nanoseconds that it ran.
    threads: BTreeMap<i32, u64>,
}

impl Occupancy {
    /// The counters of now, with those of the threads on core `here`; empty where the system does not tell them.
    pub fn read(here: usize) -> Self {
        let ran = |thread| {
            let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
            Some((thread, ran(&text)?))
        };
        Self {
            cores: cores(&std::fs::read_to_string("/proc/stat").unwrap_or_default()),
            threads: affinity::bound_to(here).into_iter().filter_map(ran).collect(),
        }
    }

    /// Of the core since `before`: ticks that it was busy, and all of its ticks, at least one.
    fn since(&self, before: &Self, core: usize) -> Option<(u64, u64)> {
        let ((busy_then, all_then), (busy, all)) = (before.cores.get(&core)?, self.cores.get(&core)?);
        let all = all.checked_sub(*all_then).filter(|all| *all > 0)?;
        Some((busy.checked_sub(*busy_then)?, all))
    }

    /// Share of the time since `before` that the core was busy.
    fn busy(&self, before: &Self, core: usize) -> Option<f64> {
        let (busy, all) = self.since(before, core)?;
        Some(busy as f64 / all as f64)
    }

    /// Share of a core that the threads used since `before`; those that were not there then do not count.
    fn own(&self, before: &Self, core: usize) -> Option<f64> {
        let (_, all) = self.since(before, core)?;
        let of_thread = |(thread, ran): (&i32, &u64)| ran.checked_sub(*before.threads.get(thread)?);
        let ran: u64 = self.threads.iter().filter_map(of_thread).sum();
        Some(ran as f64 / 1e9 * ticks_a_second() / all as f64)
    }
}

/// The core to move to, when others crowd the engine's threads on `here` and it has clearly more room.
pub fn better(before: &Occupancy, now: &Occupancy, here: usize, allowed: &[usize]) -> Option<usize> {
    let own = now.own(before, here).filter(|own| *own >= WORTH_MOVING)?;
    let others = (now.busy(before, here)? - own).max(0.0);
    let elsewhere = allowed.iter().filter(|core| **core != here);
    let (core, busy) = elsewhere
        .filter_map(|core| Some((*core, now.busy(before, *core)?)))
        .min_by(|(_, one), (_, other)| one.total_cmp(other))?;
    (others >= CROWDED && busy + MARGIN <= others).then_some(core)
}

/// The lines `cpu0 user nice system idle iowait …` of `/proc/stat`: busy and all ticks of each core (`proc_stat(5)`).
fn cores(text: &str) -> BTreeMap<usize, (u64, u64)> {
    let core = |line: &str| {
        let (name, ticks) = line.strip_prefix("cpu")?.split_once(' ')?;
        let ticks: Vec<u64> = ticks.split_ascii_whitespace().map_while(|ticks| ticks.parse().ok()).collect();
        // Time of guests, from the ninth on, is part of the user's.
        let all: u64 = ticks.get(..8)?.iter().sum();
        Some((name.parse().ok()?, (all.checked_sub(ticks[3])?.checked_sub(ticks[4])?, all)))
    };
    text.lines().filter_map(core).collect()
}

/// The first number of a thread's `schedstat`: nanoseconds that it ran.
fn ran(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Ticks of `/proc/stat` in a second.
#[cfg(unix)]
fn ticks_a_second() -> f64 {
    // SAFETY: asks for a number.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

/// Never used on this system.
#[cfg(not(unix))]
fn ticks_a_second() -> f64 {
    100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second in which the cores were busy for these shares, and the engine's thread ran for a share of it.
    fn second(busy: &[f64], own: f64) -> (Occupancy, Occupancy) {
        let ticks = ticks_a_second();
        let before = Occupancy {
            cores: (0..busy.len()).map(|core| (core, (500, 1_000))).collect(),
            threads: BTreeMap::from([(7, 1_000)]),
        };
        let after = Occupancy {
            cores: (0..)
                .zip(busy)
                .map(|(core, busy)| (core, (500 + (busy * ticks) as u64, 1_000 + ticks as u64)))
                .collect(),
            threads: BTreeMap::from([(7, 1_000 + (own * 1e9) as u64), (8, 4_000_000_000)]),
        };
        (before, after)
    }

    fn better_in(busy: &[f64], own: f64, here: usize, allowed: &[usize]) -> Option<usize> {
        let (before, after) = second(busy, own);
        better(&before, &after, here, allowed)
    }

    #[test]
    fn the_engine_moves_where_others_crowd_it_and_there_is_more_room() {
        // Half of the core is somebody else's; core 2 is nearly idle.
        assert_eq!(better_in(&[1.0, 0.3, 0.1], 0.5, 0, &[0, 1, 2]), Some(2));
        assert_eq!(better_in(&[1.0, 0.2, 0.1], 0.5, 0, &[0, 1]), Some(1), "only where it may run");
    }

    #[test]
    fn the_engine_stays_where_it_is_alone_or_no_core_is_better() {
        assert_eq!(better_in(&[1.0, 0.0], 0.98, 0, &[0, 1]), None, "it is alone");
        assert_eq!(better_in(&[1.0, 0.9], 0.5, 0, &[0, 1]), None, "all are busy");
        assert_eq!(better_in(&[1.0, 0.0], 0.02, 0, &[0, 1]), None, "it does nothing");
        assert_eq!(better_in(&[1.0, 0.0], 0.5, 0, &[0]), None, "it may run nowhere else");
        let (before, after) = second(&[1.0, 0.0], 0.5);
        assert_eq!(better(&Occupancy::default(), &after, 0, &[0, 1]), None, "nothing to compare with");
        assert_eq!(better(&before, &Occupancy::default(), 0, &[0, 1]), None, "the system tells nothing");
    }

    #[test]
    fn counters_are_read_as_the_kernel_writes_them() {
        let text = "cpu  30 2 8 150 10 0 0 0 0 0\ncpu0 10 1 4 80 5 0 1 2 3 0\ncpu11 20 1 4 70 5 0 0 0 0 0\nintr 5\ncpufreq 1\n";
        assert_eq!(cores(text), BTreeMap::from([(0, (18, 103)), (11, (25, 100))]));
        assert_eq!(cores("cpu0 1 2 3\n"), BTreeMap::new(), "too few numbers");
        assert_eq!(ran("123456 789 10\n"), Some(123_456));
        assert_eq!(ran(""), None);
    }
}
