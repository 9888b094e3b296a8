//! How much a stage got done a second, and whether it was more than the server can do.
//!
//! Requests of the warm-up that were still under way when the measurement began are part of what the server did in it, so
//! they count here, and only here.
//!
//! In an open loop both are told from the time in which the server was under its load: until the last request was due, from
//! when it had had requests for as long as an answer takes. A server that keeps up then has as many under way at the end as at
//! the beginning, whether an answer takes a tenth of the stage or nearly all of it; only while it fills, or falls behind,
//! are there ever more.

use super::drive::{Driven, Pace, Timing};
use super::trend::Trend;

/// Of the requests that are due, the share that a server which keeps up must get done meanwhile.
const KEPT_UP: f64 = 0.9;
/// Fewer requests than this behind are noise.
const BEHIND: f64 = 5.0;
/// So many standard deviations of the requests under way are no noise: a sweep has many stages, and ends with the first that is
/// wrongly called too much.
const CERTAIN: f64 = 3.0;
/// Twice the users must bring at least this part more, or the server has no more to give.
const GROWTH: f64 = 1.05;
/// Latency that grows by so many seconds a second is no server that still fills: while one fills that gets slower as it does,
/// latency goes from nothing to what it will be in just that time, so by less than a second a second.
const NO_FILLING: f64 = 1.0;

/// What is to be said of the load of an open loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The server kept up with it.
    KeptUp,
    /// It was more than the server can do.
    FellBehind,
    /// Answers take so long that the server still filled for more than half of the stage.
    TooShort,
}

/// What a stage got done.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Throughput {
    /// Answered requests a second, while the server was under its load.
    pub requests_per_second: f64,
    /// By how many requests a second the queue grew; open loops only, and only where it can be told.
    pub queue_growth: Option<f64>,
    /// What is to be said of the load; open loops only.
    pub verdict: Option<Verdict>,
    /// Seconds within which 95 % were answered, growth taken out; absent when none ended well.
    pub latency: Option<f64>,
}

impl Throughput {
    /// Measures a stage. `known` is what 95 % of the answers take under a lower load, where that was measured: what has become
    /// slower than that is no server that still fills.
    pub fn of(driven: &Driven, pace: Pace, known: Option<f64>) -> Self {
        let trend = Trend::of(&driven.timings);
        let latency = trend.map(|trend| trend.most);
        let Pace::Rate { .. } = pace else {
            let requests_per_second = rate(&driven.timings, driven.sending, driven.ended());
            return Self { requests_per_second, latency, ..Self::default() };
        };
        if driven.sending <= 0.0 {
            let last = driven.ended();
            let requests_per_second = if last > 0.0 { driven.ended_within(0.0, last) / last } else { 0.0 };
            return Self { requests_per_second, verdict: Some(Verdict::KeptUp), latency, ..Self::default() };
        }
        let (half, lead) = (driven.sending / 2.0, driven.lead());
        let full = (latency.unwrap_or(0.0) - lead).max(0.0);
        let was_full = known.is_some_and(|known| known <= lead + half);
        if full > half && !was_full {
            let requests_per_second = trend.map_or(0.0, |trend| answered_at_last(driven, &trend));
            let verdict = if refuses(driven) || trend.is_some_and(|trend| is_overrun(driven, &trend)) {
                Verdict::FellBehind
            } else {
                Verdict::TooShort
            };
            return Self { requests_per_second, queue_growth: None, verdict: Some(verdict), latency };
        }
        let from = full.min(half);
        let seconds = driven.sending - from;
        let answered = driven.ended_within(from, driven.sending);
        let growth = Growth::of(driven, from);
        let fell_behind = refuses(driven) || growth.is_too_much();
        Self {
            requests_per_second: answered / seconds,
            queue_growth: Some((growth.after - growth.before) / seconds),
            verdict: Some(if fell_behind { Verdict::FellBehind } else { Verdict::KeptUp }),
            latency,
        }
    }

    /// Whether an open loop asked for more than the server can do.
    pub fn fell_behind(&self) -> bool {
        self.verdict == Some(Verdict::FellBehind)
    }

    /// Whether a closed loop with so many times the users of `before` brought no more: what is expected of more users grows
    /// with how many more they are, so that it does not depend on the steps of a list.
    pub fn stopped_growing(&self, before: f64, times: f64) -> bool {
        self.requests_per_second < before * GROWTH.powf(times.log2())
    }
}

impl Driven {
    /// How long before the measurement the first request was due that was still under way when it began.
    fn lead(&self) -> f64 {
        self.timings.iter().map(|timing| -timing.intended).fold(0.0, f64::max)
    }

    /// Requests that ended well after `from` and until `to`. Of those that queue in the server nobody knows what part is done, so
    /// only whole ones count.
    fn ended_within(&self, from: f64, to: f64) -> f64 {
        let ended = self.timings.iter().filter(|timing| timing.succeeded).map(|timing| timing.ended);
        ended.filter(|&ended| ended > from && ended <= to).count() as f64
    }
}

/// Answered requests a second of a stage that ended before the server was full.
///
/// Where all take the same time, as many come back in as long as were sent, only later. Where latency changes with the load,
/// the server may have been busy with all of them from the first that was sent to the last answer: all over all that time are
/// never too many.
fn answered_at_last(driven: &Driven, trend: &Trend) -> f64 {
    if trend.slope.abs() < 1.0 - KEPT_UP {
        let from = (trend.half - driven.lead()).max(0.0);
        return driven.ended_within(from, from + driven.sending) / driven.sending;
    }
    let last = driven.ended();
    driven.ended_within(0.0, last) / (driven.lead() + last)
}

/// Requests under way at two moments, and those that were due between them.
struct Growth {
    before: f64,
    after: f64,
    due: f64,
}

impl Growth {
    /// Between `from` and the end of the sending.
    fn of(driven: &Driven, from: f64) -> Self {
        let count =
            |holds: &dyn Fn(&Timing) -> bool| driven.timings.iter().filter(|timing| holds(timing)).count() as f64;
        let at = |moment: f64| count(&|timing| timing.intended <= moment && timing.ended > moment);
        let due = count(&|timing| timing.intended > from && timing.intended <= driven.sending);
        Self { before: at(from), after: at(driven.sending), due }
    }

    /// Whether the server got less done than was due, by more than chance explains. Where users know nothing of each other, how
    /// many are under way is spread like a Poisson variable, and so is how many come and go; the less of both is meant.
    fn is_too_much(&self) -> bool {
        let behind = self.after - self.before;
        let come_and_gone = 2.0 * self.due - behind;
        let noise = CERTAIN * (self.before + self.after).min(come_and_gone).max(0.0).sqrt();
        behind >= BEHIND && behind > (1.0 - KEPT_UP) * self.due && behind > noise
    }
}

/// Whether more requests failed than a server may that keeps up: one that is full may refuse instead of letting wait. Those
/// that were due late tell.
fn refuses(driven: &Driven) -> bool {
    let late = || driven.timings.iter().filter(|timing| timing.is_measured && timing.intended > driven.sending / 2.0);
    let (due, failed) = (late().count() as f64, late().filter(|timing| !timing.succeeded).count() as f64);
    failed >= BEHIND && failed > (1.0 - KEPT_UP) * due
}

/// Whether latency grows faster than that of a server can that still fills.
fn is_overrun(driven: &Driven, trend: &Trend) -> bool {
    let answered = driven.timings.iter().filter(|timing| timing.is_measured && timing.succeeded).count() as f64;
    let behind = answered * trend.slope / (1.0 + trend.slope);
    trend.rises && trend.slope >= NO_FILLING && behind >= BEHIND
}

/// Answered requests a second of a closed loop while requests were sent, the first `sending` seconds.
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

    const TEN: Pace = Pace::Rate { per_second: 10.0, arrival: Arrival::Constant };

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
        let throughput = Throughput::of(&driven(&times), Pace::Concurrency(2), None);
        assert!((throughput.requests_per_second - 1.0).abs() < 1e-12);
        // Cut in the middle of requests: sent until 3, where a request of 2 to 4 is half done.
        let cut = [(0.0, 2.0), (2.0, 4.0), (1.0, 3.0), (3.0, 5.0)];
        assert!(
            (Throughput::of(&driven(&cut), Pace::Concurrency(2), None).requests_per_second - 2.5 / 3.0).abs() < 1e-12
        );
        // All at once: four in four seconds.
        let once = [(0.0, 1.0), (0.0, 2.0), (0.0, 3.0), (0.0, 4.0)];
        assert_eq!(Throughput::of(&driven(&once), Pace::Concurrency(4), None).requests_per_second, 1.0);
        assert_eq!(Throughput::of(&driven(&[]), Pace::Concurrency(4), None).requests_per_second, 0.0);
    }

    #[test]
    fn what_the_warm_up_left_under_way_counts_with_its_part() {
        // Two users, two seconds a request, the second of whom is half way through a warm-up request at the beginning.
        let users = [(0.0, 2.0), (-1.0, 1.0), (2.0, 4.0), (1.0, 3.0), (3.0, 5.0), (4.0, 6.0)];
        let per_second = Throughput::of(&driven(&users), Pace::Concurrency(2), None).requests_per_second;
        assert!((per_second - 1.0).abs() < 1e-12, "{per_second}");
        // At a rate of 10 with answers after two seconds, twenty are under way at the beginning and at the end of sending.
        let due = |index: i32| f64::from(index) / 10.0;
        let open: Vec<(f64, f64)> = (-19..100).map(|index| (due(index), due(index) + 2.0)).collect();
        let per_second = Throughput::of(&driven(&open), TEN, None).requests_per_second;
        assert!((per_second - 10.0).abs() < 0.1, "{per_second}");
    }

    /// What is found of a server with so many seats that each take `takes` seconds, when requests are due 10 a second from
    /// `-warm_up` to `sending` seconds.
    fn seats(seats: usize, takes: f64, (warm_up, sending): (f64, f64), known: Option<f64>) -> Throughput {
        let mut free = vec![f64::NEG_INFINITY; seats];
        let first = -(warm_up * 10.0) as i32;
        let times: Vec<(f64, f64)> = (first..=(sending * 10.0) as i32)
            .map(|index| {
                let due = f64::from(index) / 10.0;
                free.sort_by(f64::total_cmp);
                let ended = free[0].max(due) + takes;
                free[0] = ended;
                (due, ended)
            })
            .filter(|&(due, ended)| due >= 0.0 || ended > 0.0)
            .collect();
        Throughput::of(&driven(&times), TEN, known)
    }

    #[test]
    fn a_queue_that_grows_is_told_from_answers_that_take_time() {
        // Every answer takes two seconds, however many: the server keeps up.
        let steady = seats(1000, 2.0, (2.0, 20.0), None);
        assert_eq!(steady.verdict, Some(Verdict::KeptUp));
        assert!(steady.queue_growth.unwrap().abs() < 0.2, "{steady:?}");
        // Five answers a second at most: half of what is due.
        let slow = seats(1, 0.2, (1.0, 20.0), None);
        assert!(slow.fell_behind());
        assert!((slow.queue_growth.unwrap() - 5.0).abs() < 0.2, "{slow:?}");
        assert!((slow.requests_per_second - 5.0).abs() < 0.2, "what waits in the queue is not half done: {slow:?}");
        // Eight of ten are too few, nineteen of twenty within what is noise.
        assert!(seats(16, 2.0, (2.0, 60.0), None).fell_behind());
        assert_eq!(seats(19, 2.0, (2.0, 60.0), None).verdict, Some(Verdict::KeptUp));
        // Three requests say nothing.
        assert!(!Throughput::of(&driven(&[(0.0, 9.0), (0.1, 9.0), (0.2, 9.0)]), TEN, None).fell_behind());
    }

    #[test]
    fn answers_that_take_long_are_no_saturation() {
        // A second of warm-up, whatever an answer takes: the server fills until then.
        for takes in [0.5, 1.0, 2.0, 4.0, 5.5] {
            let unlimited = seats(1000, takes, (1.0, 10.0), None);
            assert_eq!(unlimited.verdict, Some(Verdict::KeptUp), "{takes}");
            assert!((unlimited.requests_per_second - 10.0).abs() < 0.3, "{takes}: {unlimited:?}");
        }
        for takes in [6.5, 8.0, 30.0] {
            let unlimited = seats(1000, takes, (1.0, 10.0), None);
            assert_eq!(unlimited.verdict, Some(Verdict::TooShort), "{takes}");
            assert!((unlimited.requests_per_second - 10.0).abs() < 0.3, "{takes}: {unlimited:?}");
        }
        // A warm-up of as long as an answer takes leaves nothing open.
        for takes in [4.0, 8.0, 30.0] {
            let unlimited = seats(1000, takes, (takes, 10.0), Some(takes));
            assert_eq!(unlimited.verdict, Some(Verdict::KeptUp), "{takes}");
            assert!((unlimited.requests_per_second - 10.0).abs() < 0.3, "{takes}: {unlimited:?}");
        }
    }

    #[test]
    fn a_load_far_too_high_is_no_short_stage() {
        // Sixteen seats of four seconds: four a second. From the second request of a seat on, each waits for those before.
        for known in [None, Some(4.0)] {
            let full = seats(16, 4.0, (4.0, 10.0), known);
            assert!(full.fell_behind(), "{full:?}");
            assert!((full.requests_per_second - 4.0).abs() < 1.5, "answers come sixteen at a time: {full:?}");
        }
    }

    #[test]
    fn a_server_that_shares_itself_among_all_falls_behind() {
        // Work of 0.2 s each for one server that does a part of all at once: five a second. What came early is long under way.
        let mut work: Vec<(f64, f64)> = Vec::new();
        let (mut times, mut due, step) = (Vec::new(), -1.0, 0.001);
        for tick in -1000..40_000 {
            let now = f64::from(tick) * step;
            while due <= now && due <= 10.0 {
                work.push((due, 0.2));
                due += 0.1;
            }
            let part = step / work.len().max(1) as f64;
            work.iter_mut().for_each(|(_, left)| *left -= part);
            times.extend(work.iter().filter(|(_, left)| *left <= 0.0).map(|&(due, _)| (due, now)));
            work.retain(|(_, left)| *left > 0.0);
        }
        times.retain(|&(due, ended)| due >= 0.0 || ended > 0.0);
        let known = Throughput::of(&driven(&times), TEN, Some(0.2));
        assert!(known.fell_behind(), "{known:?}");
        // That it was faster is not always known; but never is the end of the queue taken for its speed.
        for shared in [known, Throughput::of(&driven(&times), TEN, None)] {
            assert!(shared.requests_per_second <= 5.1, "{shared:?}");
        }
    }

    #[test]
    fn a_server_that_refuses_what_is_too_much_falls_behind() {
        let due = |index: i32| f64::from(index) / 10.0;
        let mut refused = driven(&(0..200).map(|index| (due(index), due(index) + 1.0)).collect::<Vec<_>>());
        for timing in refused.timings.iter_mut().skip(10).step_by(2) {
            (timing.succeeded, timing.ended) = (false, timing.intended);
        }
        let throughput = Throughput::of(&refused, TEN, None);
        assert!(throughput.fell_behind());
        assert!((throughput.requests_per_second - 5.0).abs() < 0.5, "{throughput:?}");
        refused.timings.iter_mut().for_each(|timing| timing.succeeded = false);
        let nothing = Throughput::of(&refused, TEN, None);
        assert_eq!((nothing.requests_per_second, nothing.fell_behind()), (0.0, true));
    }

    #[test]
    fn what_more_users_must_bring_does_not_depend_on_the_step() {
        let of = |requests_per_second| Throughput { requests_per_second, ..Throughput::default() };
        assert!(of(10.4).stopped_growing(10.0, 2.0));
        assert!(!of(10.6).stopped_growing(10.0, 2.0));
        // From 16 to 17 users: 4 % more is more than half of what can be had.
        assert!(!of(10.4).stopped_growing(10.0, 17.0 / 16.0));
        assert!(of(10.0).stopped_growing(10.0, 17.0 / 16.0));
        // From 1 to 16: 6 % more is next to nothing.
        assert!(of(10.6).stopped_growing(10.0, 16.0));
    }
}
