//! Drives a target through one stage of load: a fixed number of users, or users who come at a rate.
//!
//! With a fixed number each user waits for an answer before asking again (a closed loop). At a rate, requests are sent
//! when they are due whether or not earlier ones were answered (an open loop), and every latency counts from the moment a
//! request was *meant* to be sent: a server that stalls delays those that were due meanwhile, and a measurement that only
//! looks at them once they were sent would omit just that (coordinated omission).
//!
//! A warm-up runs under the same load without a break before the measurement: the clock starts with the first measured
//! request. The server is then as full as the warm-up made it, which at a rate is as it will be only where the warm-up took as
//! long as an answer does; [`super::throughput`] and [`super::run`] see to the difference.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::arrival::{Arrival, Arrivals};
use super::client::Target;
use super::cpu;
use super::exchange::{ErrorKind, Exchange};
use super::plan::{Plan, Planned};

/// How often the watcher is asked whether to go on.
const TICK: Duration = Duration::from_millis(100);
/// Ended requests that may wait to be looked at.
const WAITING: usize = 256;
/// How exact the runtime's timers are: they never wake early and up to so much late.
const TIMER: Duration = Duration::from_millis(1);

/// The load of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// So many users, each of whom asks again as soon as the answer is there.
    Concurrency(usize),
    /// Requests at a rate, whatever the server does.
    Rate {
        /// Requests a second.
        per_second: f64,
        /// How their gaps are spread.
        arrival: Arrival,
    },
}

/// One stage.
#[derive(Debug, Clone)]
pub struct Stage {
    /// What is asked.
    pub plan: Plan,
    /// How fast.
    pub pace: Pace,
    /// How long measured requests are sent; as long as the plan goes on when absent. What is under way then is waited for.
    pub duration: Option<Duration>,
    /// Longest time of one request.
    pub timeout: Duration,
    /// Most requests under way at the same time in an open loop; more have to wait, which their latency shows.
    pub most_in_flight: usize,
    /// Seed of the arrivals.
    pub seed: u64,
}

/// A request that has ended.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What was asked.
    pub planned: Planned,
    /// When it was meant to be sent.
    pub intended: Instant,
    /// What happened.
    pub exchange: Exchange,
}

/// The times of one request, in seconds since the measurement began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Whether it is measured. What is not belongs to the warm-up and ended after it: part of what the server did meanwhile.
    pub is_measured: bool,
    /// When it was meant to be sent.
    pub intended: f64,
    /// When it was sent.
    pub sent: f64,
    /// When it ended.
    pub ended: f64,
    /// Whether it ended well.
    pub succeeded: bool,
}

/// A stage after its end.
#[derive(Debug, Clone)]
pub struct Driven {
    /// When the measurement began: with its first request, or now when there was none.
    pub began: Instant,
    /// When the last measured request was meant to be sent, in seconds since the beginning.
    pub sending: f64,
    /// Every request that ended after the beginning.
    pub timings: Vec<Timing>,
    /// Measured requests that were under way when somebody asked to stop.
    pub abandoned: usize,
    /// Warm-up requests that ended.
    pub warm_up: usize,
    /// Processor time of this process since the beginning, in seconds.
    pub cpu_seconds: Option<f64>,
}

impl Driven {
    /// When the last measured request ended, in seconds since the beginning.
    pub fn ended(&self) -> f64 {
        let measured = self.timings.iter().filter(|timing| timing.is_measured);
        measured.map(|timing| timing.ended).fold(0.0, f64::max)
    }
}

/// Looks on while a stage runs.
#[async_trait]
pub trait Watch: Send {
    /// A request has ended, of the warm-up or measured. While this waits, others wait to be looked at, and their users with
    /// them.
    async fn sample(&mut self, sample: Sample);

    /// Some time has passed.
    fn tick(&mut self);

    /// Whether to stop: nothing more is sent, and what is under way is abandoned.
    fn should_stop(&self) -> bool;
}

/// Runs a stage to its end.
pub async fn drive<T: Target>(target: &Arc<T>, stage: Stage, watch: &mut dyn Watch) -> Driven {
    let (sender, mut samples) = mpsc::channel(WAITING);
    let crew = Crew {
        target: target.clone(),
        sender,
        stop: CancellationToken::new(),
        abandoned: Arc::default(),
        timeout: stage.timeout,
        start: Arc::default(),
    };
    let (stop, abandoned, start) = (crew.stop.clone(), crew.abandoned.clone(), crew.start.clone());
    match stage.pace {
        Pace::Concurrency(users) => closed_loop(crew, stage, users),
        Pace::Rate { per_second, arrival } => {
            let arrivals = Arrivals::new(arrival, per_second, stage.seed);
            tokio::spawn(open_loop(crew, stage, arrivals, Instant::now()));
        }
    }
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut timings, mut warm_up) = (Vec::new(), 0);
    loop {
        tokio::select! {
            sample = samples.recv() => {
                let Some(sample) = sample else { break };
                warm_up += usize::from(sample.planned.is_warm_up());
                timings.extend(start.get().and_then(|start| start.timing(&sample)));
                watch.sample(sample).await;
            }
            _ = ticks.tick() => {
                if watch.should_stop() {
                    stop.cancel();
                }
                watch.tick();
            }
        }
    }
    let start = start.get().copied().unwrap_or_else(|| Start::at(Instant::now()));
    let measured = timings.iter().filter(|timing| timing.is_measured);
    Driven {
        began: start.moment,
        sending: measured.map(|timing| timing.intended).fold(0.0, f64::max),
        timings,
        abandoned: abandoned.load(Ordering::Relaxed),
        warm_up,
        cpu_seconds: cpu::seconds().zip(start.cpu_seconds).map(|(after, before)| after - before),
    }
}

/// The beginning of the measurement.
#[derive(Debug, Clone, Copy)]
struct Start {
    moment: Instant,
    cpu_seconds: Option<f64>,
}

impl Start {
    fn at(moment: Instant) -> Self {
        Self { moment, cpu_seconds: cpu::seconds() }
    }

    /// The times of a request; `None` when it ended before the beginning.
    fn timing(&self, sample: &Sample) -> Option<Timing> {
        // Requests of the warm-up were sent before.
        let since = |moment: Instant| {
            let after = moment.saturating_duration_since(self.moment).as_secs_f64();
            after - self.moment.saturating_duration_since(moment).as_secs_f64()
        };
        let timing = Timing {
            is_measured: !sample.planned.is_warm_up(),
            intended: since(sample.intended),
            sent: since(sample.exchange.sent),
            ended: since(sample.exchange.ended),
            succeeded: sample.exchange.failure.is_none(),
        };
        (timing.is_measured || timing.ended > 0.0).then_some(timing)
    }
}

/// What every request of a stage needs.
struct Crew<T> {
    target: Arc<T>,
    sender: mpsc::Sender<Sample>,
    stop: CancellationToken,
    abandoned: Arc<AtomicUsize>,
    timeout: Duration,
    /// Set by the first measured request.
    start: Arc<OnceLock<Start>>,
}

// Not derived: a target need not be `Clone`.
impl<T> Clone for Crew<T> {
    fn clone(&self) -> Self {
        Self {
            target: self.target.clone(),
            sender: self.sender.clone(),
            stop: self.stop.clone(),
            abandoned: self.abandoned.clone(),
            timeout: self.timeout,
            start: self.start.clone(),
        }
    }
}

impl<T: Target> Crew<T> {
    /// Makes one request, due at `intended` or, in a closed loop, now. False when somebody asked to stop.
    async fn request(&self, planned: Planned, body: T::Body, intended: Option<Instant>) -> bool {
        let mut exchange = Exchange::begin(Instant::now());
        let intended = intended.unwrap_or(exchange.sent);
        self.starts(&planned, intended);
        let outcome = tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                self.abandoned.fetch_add(usize::from(!planned.is_warm_up()), Ordering::Relaxed);
                return false;
            }
            outcome = timeout(self.timeout, self.target.call(body, &mut exchange)) => outcome,
        };
        // What is done has ended, though its connection may still be read to the end.
        if outcome.is_err() && !exchange.done {
            exchange.ended = Instant::now();
            exchange.fail(ErrorKind::Timeout, format_args!("no end after {} s", self.timeout.as_secs_f64()));
        }
        // The receiver lives as long as anything is sent.
        let _ = self.sender.send(Sample { planned, intended, exchange }).await;
        true
    }

    /// The measurement begins with its first request, meant to be sent at `intended`.
    fn starts(&self, planned: &Planned, intended: Instant) {
        if !planned.is_warm_up() {
            self.start.get_or_init(|| Start::at(intended));
        }
    }

    /// Whether `duration` has passed since the measurement began.
    fn is_over(&self, duration: Option<Duration>, now: Instant) -> bool {
        let start = self.start.get().zip(duration);
        start.is_some_and(|(start, duration)| now.saturating_duration_since(start.moment) >= duration)
    }
}

fn closed_loop<T: Target>(crew: Crew<T>, stage: Stage, users: usize) {
    let plan = Arc::new(Mutex::new(stage.plan));
    for _ in 0..users {
        let (crew, plan) = (crew.clone(), plan.clone());
        tokio::spawn(async move {
            while !crew.is_over(stage.duration, Instant::now()) && !crew.stop.is_cancelled() {
                // A poisoned lock means that another user panicked in between two requests: nothing is half done.
                let planned = plan.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                let Some(planned) = planned else { break };
                let body = crew.target.prepare(&planned);
                if !crew.request(planned, body, None).await {
                    break;
                }
            }
        });
    }
}

async fn open_loop<T: Target>(crew: Crew<T>, mut stage: Stage, arrivals: Arrivals, began: Instant) {
    let places = Arc::new(Semaphore::new(stage.most_in_flight));
    for due in arrivals {
        let intended = began + due;
        if crew.is_over(stage.duration, intended) {
            break;
        }
        let Some(planned) = stage.plan.next() else { break };
        let body = crew.target.prepare(&planned);
        let place = async {
            sleep_exactly_until(intended).await;
            crew.starts(&planned, intended);
            places.clone().acquire_owned().await
        };
        let place = tokio::select! {
            biased;
            () = crew.stop.cancelled() => break,
            place = place => place,
        };
        let sent = crew.clone();
        tokio::spawn(async move {
            sent.request(planned, body, Some(intended)).await;
            drop(place);
        });
    }
}

/// Sleeps until `moment`, not up to a millisecond longer as the runtime's timers do: that would be part of every latency.
/// The last millisecond is slept by a thread, whose timer is exact to about 0.1 ms and takes no processor time.
async fn sleep_exactly_until(moment: Instant) {
    if let Some(early) = moment.checked_sub(TIMER) {
        sleep_until(early).await;
    }
    let rest = moment.saturating_duration_since(Instant::now());
    if !rest.is_zero() {
        let _ = tokio::task::spawn_blocking(move || std::thread::sleep(rest)).await;
        // Time that was paused, or a thread that was not to be had.
        if Instant::now() < moment {
            sleep_until(moment).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::throughput::Throughput;
    use super::*;

    /// Answers after what it is told, one at a time, as a server with one seat does.
    struct Seat {
        seat: tokio::sync::Mutex<()>,
        takes: fn(usize) -> Duration,
        calls: AtomicUsize,
        most: AtomicUsize,
        now: AtomicUsize,
    }

    impl Seat {
        fn new(takes: fn(usize) -> Duration) -> Arc<Self> {
            let (calls, most, now) = Default::default();
            Arc::new(Self { seat: tokio::sync::Mutex::new(()), takes, calls, most, now })
        }
    }

    impl Target for Seat {
        type Body = ();

        fn prepare(&self, _: &Planned) {}

        async fn call(&self, (): (), exchange: &mut Exchange) {
            let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
            let seat = self.seat.lock().await;
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep((self.takes)(call)).await;
            drop(seat);
            self.now.fetch_sub(1, Ordering::Relaxed);
            exchange.done = true;
            exchange.ended = Instant::now();
        }
    }

    /// Keeps what it sees, and asks to stop after so many samples.
    struct Keep {
        samples: Vec<Sample>,
        stop_after: usize,
    }

    #[async_trait]
    impl Watch for Keep {
        async fn sample(&mut self, sample: Sample) {
            self.samples.push(sample);
        }

        fn tick(&mut self) {}

        fn should_stop(&self) -> bool {
            self.samples.len() >= self.stop_after
        }
    }

    fn stage(pace: Pace, requests: Option<usize>) -> Stage {
        let plan = Plan::new(vec!["a".to_owned(), "b".to_owned()], vec![0], 1, requests);
        Stage { plan, pace, duration: None, timeout: Duration::from_secs(60), most_in_flight: 100, seed: 2 }
    }

    fn rate(per_second: f64) -> Pace {
        Pace::Rate { per_second, arrival: Arrival::Constant }
    }

    async fn run(target: &Arc<Seat>, stage: Stage) -> (Driven, Vec<Sample>) {
        let mut keep = Keep { samples: Vec::new(), stop_after: usize::MAX };
        let driven = drive(target, stage, &mut keep).await;
        (driven, keep.samples)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_shows_in_latency_from_the_intended_time() {
        // Ten requests a second to a seat that takes 10 ms, but stalls for 2 s at the sixth: 500 to 2500 ms.
        let takes = |call| Duration::from_millis(if call == 5 { 2000 } else { 10 });
        let (driven, _) = run(&Seat::new(takes), stage(rate(10.0), Some(40))).await;
        let latency = |timing: &Timing| ((timing.ended - timing.intended) * 1000.0).round();
        let mut timings = driven.timings.clone();
        timings.sort_by(|a, b| a.intended.total_cmp(&b.intended));
        let latencies: Vec<f64> = timings.iter().map(latency).collect();
        assert_eq!(latencies[..8], [10.0, 10.0, 10.0, 10.0, 10.0, 2000.0, 1910.0, 1820.0]);
        assert!(latencies.iter().filter(|&&latency| latency > 100.0).count() > 15, "{latencies:?}");
        // One user in a closed loop sees the stall once and then waits: the median and p95 stay at 10 ms.
        let (closed, _) = run(&Seat::new(takes), stage(Pace::Concurrency(1), Some(40))).await;
        assert_eq!(closed.timings.iter().filter(|timing| latency(timing) > 100.0).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_client_delays_sending_but_not_the_intended_time() {
        let takes = |call| Duration::from_millis(if call == 5 { 2000 } else { 10 });
        let full = Stage { most_in_flight: 1, ..stage(rate(10.0), Some(40)) };
        let (driven, samples) = run(&Seat::new(takes), full).await;
        let slow = |value: fn(&Timing) -> f64| driven.timings.iter().filter(|timing| value(timing) > 0.1).count();
        assert_eq!(slow(|timing| timing.ended - timing.sent), 1, "from the sending, all but one look fast");
        assert!(slow(|timing| timing.ended - timing.intended) > 15);
        assert_eq!(samples.len(), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_client_does_not_hide_that_the_server_fell_behind() {
        let full = Stage { most_in_flight: 2, ..stage(rate(100.0), Some(200)) };
        let (driven, _) = run(&Seat::new(|_| Duration::from_millis(100)), full).await;
        assert!(Throughput::of(&driven, rate(100.0), None).fell_behind());
    }

    #[tokio::test(start_paused = true)]
    async fn users_are_as_many_as_asked_for_and_share_the_plan() {
        let target = Seat::new(|_| Duration::from_millis(100));
        let (driven, samples) = run(&target, stage(Pace::Concurrency(4), Some(10))).await;
        assert_eq!((samples.len(), target.most.load(Ordering::Relaxed)), (10, 4));
        // One seat: the last of ten ends after a second.
        let last = driven.timings.iter().map(|timing| timing.ended).fold(0.0, f64::max);
        assert!((last - 1.0).abs() < 0.02, "{last}");
    }

    #[tokio::test(start_paused = true)]
    async fn time_ends_the_sending_and_what_is_under_way_is_waited_for() {
        let target = Seat::new(|_| Duration::from_millis(300));
        let short = Stage { duration: Some(Duration::from_secs(1)), ..stage(Pace::Concurrency(1), None) };
        let (driven, _) = run(&target, short).await;
        assert_eq!((driven.timings.len(), driven.abandoned), (4, 0));
        let open = Stage { duration: Some(Duration::from_secs(1)), ..stage(rate(10.0), None) };
        assert_eq!(run(&target, open).await.0.timings.len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_starts_behind_the_warm_up_under_the_same_load() {
        // Four users on one seat of 100 ms: when the first measured request is sent, three of the warm-up are under way.
        let warmed = |pace, duration| {
            let stage = stage(pace, Some(8));
            Stage { plan: stage.plan.behind_warm_up(8), duration, ..stage }
        };
        let target = Seat::new(|_| Duration::from_millis(100));
        let (driven, samples) = run(&target, warmed(Pace::Concurrency(4), None)).await;
        assert_eq!((samples.len(), driven.warm_up, target.most.load(Ordering::Relaxed)), (16, 8, 4));
        let (measured, before): (Vec<&Timing>, Vec<&Timing>) = driven.timings.iter().partition(|t| t.is_measured);
        assert_eq!((measured.len(), before.len()), (8, 3));
        assert!(before.iter().all(|timing| timing.sent < 0.0 && timing.ended > 0.0), "{before:?}");
        // The first waits for those three, as all later ones do.
        assert!(measured.iter().all(|timing| (timing.ended - timing.sent - 0.4).abs() < 0.01), "{measured:?}");
        let per_second = Throughput::of(&driven, Pace::Concurrency(4), None).requests_per_second;
        assert!((per_second - 10.0).abs() < 0.2, "{per_second}");
        // At a rate, the time of sending counts from the first measured request too.
        let target = Seat::new(|_| Duration::from_millis(10));
        let (driven, _) = run(&target, warmed(rate(10.0), Some(Duration::from_millis(500)))).await;
        let measured: Vec<&Timing> = driven.timings.iter().filter(|timing| timing.is_measured).collect();
        assert_eq!((driven.warm_up, measured.len()), (8, 5));
        assert!((driven.sending - 0.4).abs() < 1e-9 && measured.iter().any(|timing| timing.intended == 0.0));
    }

    #[tokio::test]
    async fn nothing_is_sent_before_it_is_due() {
        for wait in [0, 300, 999, 1000, 1001, 2500] {
            let moment = Instant::now() + Duration::from_micros(wait);
            sleep_exactly_until(moment).await;
            assert!(Instant::now() >= moment, "{wait}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_target_times_out() {
        let target = Seat::new(|_| Duration::from_secs(100_000));
        let hanging = Stage { timeout: Duration::from_secs(2), ..stage(Pace::Concurrency(2), Some(3)) };
        let (driven, samples) = run(&target, hanging).await;
        assert!(samples.iter().all(|sample| sample.exchange.failure.as_ref().unwrap().kind == ErrorKind::Timeout));
        assert_eq!(driven.timings.len(), 3);
        assert!(driven.timings.iter().all(|timing| (timing.ended - timing.sent - 2.0).abs() < 0.02));
    }

    #[tokio::test(start_paused = true)]
    async fn asked_to_stop_it_stops_and_says_what_was_left() {
        for pace in [Pace::Concurrency(3), rate(20.0)] {
            let target = Seat::new(|_| Duration::from_millis(50));
            let mut keep = Keep { samples: Vec::new(), stop_after: 5 };
            let driven = drive(&target, stage(pace, None), &mut keep).await;
            assert!((5..12).contains(&driven.timings.len()), "{pace:?}: {}", driven.timings.len());
            let least = usize::from(matches!(pace, Pace::Concurrency(_)));
            assert!((least..=3).contains(&driven.abandoned), "{pace:?}: {}", driven.abandoned);
        }
    }
}
