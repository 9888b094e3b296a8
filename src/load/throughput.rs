//! How much a stage got done a second, and whether it was more than the server can do.
//!
//! Requests of the warm-up that were still under way when the measurement began are part of what the server did in it, so
//! they count here, and only here.

use super::drive::{Driven, Pace, Timing};

/// Of the requests that are due in the second half of a stage, the share that must be answered meanwhile.
const KEPT_UP: f64 = 0.9;
/// Fewer requests than this behind are noise.
const BEHIND: f64 = 5.0;
/// More users must bring at least this part more, or the server has no more to give.
const GROWTH: f64 = 1.05;

/// What a stage got done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throughput {
    /// Answered requests a second: in a closed loop while requests were sent, in an open loop until the last was answered.
    pub requests_per_second: f64,
    /// By how many requests a second the queue grew in the second half of the sending; open loops only.
    pub queue_growth: Option<f64>,
    /// Requests answered in the second half of the sending, over those that were due in it; open loops only.
    pub kept_up: Option<f64>,
}

impl Throughput {
    /// Measures a stage.
    pub fn of(driven: &Driven, pace: Pace) -> Self {
        let Pace::Rate { .. } = pace else {
            let requests_per_second = rate(&driven.timings, driven.sending, driven.ended());
            return Self { requests_per_second, queue_growth: None, kept_up: None };
        };
        // Of requests that queue in the server nobody knows what part is done, so only whole ones count; a server with a
        // queue is busy until the last.
        let last = driven.ended();
        let within = |timing: &&Timing| timing.succeeded && timing.ended <= last;
        let succeeded = driven.timings.iter().filter(within).count() as f64;
        let requests_per_second = if last > 0.0 { succeeded / last } else { 0.0 };
        let (from, to) = (driven.sending / 2.0, driven.sending);
        let within = |moment: f64| moment > from && moment <= to;
        let due = driven.timings.iter().filter(|timing| within(timing.intended)).count() as f64;
        let answered = driven.timings.iter().filter(|timing| timing.succeeded && within(timing.ended)).count() as f64;
        let behind = due - answered;
        let growth = (to > from).then(|| behind / (to - from));
        let kept_up = (due > 0.0).then(|| if behind < BEHIND { 1.0 } else { answered / due });
        Self { requests_per_second, queue_growth: growth, kept_up }
    }

    /// Whether an open loop asked for more than the server can do.
    pub fn fell_behind(&self) -> bool {
        self.kept_up.is_some_and(|share| share < KEPT_UP)
    }

    /// Whether a closed loop with more users brought no more than `before`.
    pub fn stopped_growing(&self, before: f64) -> bool {
        self.requests_per_second < before * GROWTH
    }
}

/// Answered requests a second while requests were sent, the first `sending` seconds.
///
/// A request that began or ended outside counts with the part of its time that lies inside: neither the ramp at the
/// beginning nor the tail at the end, when users are missing, is taken for a slow server. Where all requests were sent at
/// once there is no such time, and the whole is taken.
fn rate(timings: &[Timing], sending: f64, last: f64) -> f64 {
    let window = if sending > last / 2.0 { sending } else { last };
    if window <= 0.0 {
        return 0.0;
    }
    let part = |timing: &Timing| {
        let length = timing.ended - timing.sent;
        if length <= 0.0 {
            return f64::from(u8::from(timing.ended <= window));
        }
        ((timing.ended.min(window) - timing.sent.max(0.0)) / length).clamp(0.0, 1.0)
    };
    // An empty sum of floats is -0.
    (timings.iter().filter(|timing| timing.succeeded).map(part).sum::<f64>() + 0.0) / window
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::arrival::Arrival;

    fn driven(times: &[(f64, f64)]) -> Driven {
        let timing = |&(sent, ended): &(f64, f64)| Timing {
            is_measured: sent >= 0.0,
            intended: sent,
            sent,
            ended,
            succeeded: true,
        };
        let sending = times.iter().map(|time| time.0).fold(0.0, f64::max);
        let began = tokio::time::Instant::now();
        let timings = times.iter().map(timing).collect();
        Driven { began, sending, timings, abandoned: 0, warm_up: 0, cpu_seconds: None }
    }

    #[test]
    fn ramp_and_tail_do_not_slow_the_rate() {
        // Two users, two seconds a request: one request a second, whatever the length of the run.
        let times: Vec<(f64, f64)> =
            (0..5).flat_map(|turn| [(2.0 * f64::from(turn), 2.0 * f64::from(turn) + 2.0); 2]).collect();
        let throughput = Throughput::of(&driven(&times), Pace::Concurrency(2));
        assert!((throughput.requests_per_second - 1.0).abs() < 1e-12);
        // Cut in the middle of requests: sent until 3, where a request of 2 to 4 is half done.
        let cut = [(0.0, 2.0), (2.0, 4.0), (1.0, 3.0), (3.0, 5.0)];
        assert!((Throughput::of(&driven(&cut), Pace::Concurrency(2)).requests_per_second - 2.5 / 3.0).abs() < 1e-12);
        // All at once: four in four seconds.
        let once = [(0.0, 1.0), (0.0, 2.0), (0.0, 3.0), (0.0, 4.0)];
        assert_eq!(Throughput::of(&driven(&once), Pace::Concurrency(4)).requests_per_second, 1.0);
        assert_eq!(Throughput::of(&driven(&[]), Pace::Concurrency(4)).requests_per_second, 0.0);
    }

    #[test]
    fn what_the_warm_up_left_under_way_counts_with_its_part() {
        // Two users, two seconds a request, the second of whom is half way through a warm-up request at the beginning.
        let users = [(0.0, 2.0), (-1.0, 1.0), (2.0, 4.0), (1.0, 3.0), (3.0, 5.0), (4.0, 6.0)];
        let per_second = Throughput::of(&driven(&users), Pace::Concurrency(2)).requests_per_second;
        assert!((per_second - 1.0).abs() < 1e-12, "{per_second}");
        // At a rate of 10 with answers after two seconds, twenty are under way at the beginning and at the end of sending.
        let due = |index: i32| f64::from(index) / 10.0;
        let open: Vec<(f64, f64)> = (-19..100).map(|index| (due(index), due(index) + 2.0)).collect();
        let rate = Pace::Rate { per_second: 10.0, arrival: Arrival::Constant };
        let per_second = Throughput::of(&driven(&open), rate).requests_per_second;
        assert!((per_second - 10.0).abs() < 0.1, "{per_second}");
    }

    #[test]
    fn a_queue_that_grows_is_told_from_latency() {
        let rate = Pace::Rate { per_second: 10.0, arrival: Arrival::Constant };
        let due = |index: u32| f64::from(index) / 10.0;
        // Every answer takes two seconds, however many: the server keeps up.
        let steady: Vec<(f64, f64)> = (0..200).map(|index| (due(index), due(index) + 2.0)).collect();
        let throughput = Throughput::of(&driven(&steady), rate);
        assert!(!throughput.fell_behind() && throughput.queue_growth.unwrap().abs() < 0.2, "{throughput:?}");
        // Five answers a second at most: half of what is due.
        let slow: Vec<(f64, f64)> = (0..200).map(|index| (due(index), f64::from(index + 1) / 5.0)).collect();
        let throughput = Throughput::of(&driven(&slow), rate);
        assert!(throughput.fell_behind());
        assert!((throughput.queue_growth.unwrap() - 5.0).abs() < 0.2, "{throughput:?}");
        assert_eq!(throughput.requests_per_second, 5.0, "what waits in the queue is not half done");
        // Three requests say nothing.
        assert!(!Throughput::of(&driven(&[(0.0, 9.0), (0.1, 9.0), (0.2, 9.0)]), rate).fell_behind());
    }

    #[test]
    fn growth_is_five_percent() {
        let of = |requests_per_second| Throughput { requests_per_second, queue_growth: None, kept_up: None };
        assert!(of(10.4).stopped_growing(10.0));
        assert!(!of(10.6).stopped_growing(10.0));
    }
}
