//! Drives a target through one stage of load: a fixed number of users, or users who come at a rate.
//!
//! With a fixed number each user waits for an answer before asking again (a closed loop). At a rate, requests are sent
//! when they are due whether or not earlier ones were answered (an open loop), and every latency counts from the moment a
//! request was *meant* to be sent: a server that stalls delays those that were due meanwhile, and a measurement that only
//! looks at them once they were sent would omit just that (coordinated omission).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::arrival::{Arrival, Arrivals};
use super::client::Target;
use super::exchange::{ErrorKind, Exchange};
use super::plan::{Plan, Planned};

/// How often the watcher is asked whether to go on.
const TICK: Duration = Duration::from_millis(100);

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
    /// How long requests are sent; as long as the plan goes on when absent. What is under way then is waited for.
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

/// The times of one request, in seconds since the stage began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
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
    /// When it began.
    pub began: Instant,
    /// When the last request was meant to be sent, in seconds since the beginning.
    pub sending: f64,
    /// Every request that ended.
    pub timings: Vec<Timing>,
    /// Requests that were under way when somebody asked to stop.
    pub abandoned: usize,
}

/// Looks on while a stage runs.
pub trait Watch: Send {
    /// A request has ended.
    fn sample(&mut self, sample: Sample);

    /// Some time has passed.
    fn tick(&mut self);

    /// Whether to stop: nothing more is sent, and what is under way is abandoned.
    fn should_stop(&self) -> bool;
}

/// Runs a stage to its end.
pub async fn drive<T: Target>(target: &Arc<T>, stage: Stage, watch: &mut dyn Watch) -> Driven {
    let began = Instant::now();
    let (sender, mut samples) = mpsc::unbounded_channel();
    let crew = Crew {
        target: target.clone(),
        sender,
        stop: CancellationToken::new(),
        abandoned: Arc::default(),
        timeout: stage.timeout,
    };
    let (stop, abandoned) = (crew.stop.clone(), crew.abandoned.clone());
    match stage.pace {
        Pace::Concurrency(users) => closed_loop(crew, stage, users, began),
        Pace::Rate { per_second, arrival } => {
            let arrivals = Arrivals::new(arrival, per_second, stage.seed);
            tokio::spawn(open_loop(crew, stage, arrivals, began));
        }
    }
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut driven = Driven { began, sending: 0.0, timings: Vec::new(), abandoned: 0 };
    loop {
        tokio::select! {
            sample = samples.recv() => {
                let Some(sample) = sample else { break };
                driven.note(&sample);
                watch.sample(sample);
            }
            _ = ticks.tick() => {
                if watch.should_stop() {
                    stop.cancel();
                }
                watch.tick();
            }
        }
    }
    driven.abandoned = abandoned.load(Ordering::Relaxed);
    driven
}

impl Driven {
    fn note(&mut self, sample: &Sample) {
        let since = |moment: Instant| moment.saturating_duration_since(self.began).as_secs_f64();
        let timing = Timing {
            intended: since(sample.intended),
            sent: since(sample.exchange.sent),
            ended: since(sample.exchange.ended),
            succeeded: sample.exchange.failure.is_none(),
        };
        self.sending = self.sending.max(timing.intended);
        self.timings.push(timing);
    }
}

/// What every request of a stage needs.
struct Crew<T> {
    target: Arc<T>,
    sender: mpsc::UnboundedSender<Sample>,
    stop: CancellationToken,
    abandoned: Arc<AtomicUsize>,
    timeout: Duration,
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
        }
    }
}

impl<T: Target> Crew<T> {
    /// Makes one request, due at `intended` or, in a closed loop, now. False when somebody asked to stop.
    async fn request(&self, planned: Planned, body: T::Body, intended: Option<Instant>) -> bool {
        let mut exchange = Exchange::begin(Instant::now());
        let intended = intended.unwrap_or(exchange.sent);
        let outcome = tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                self.abandoned.fetch_add(1, Ordering::Relaxed);
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
        let _ = self.sender.send(Sample { planned, intended, exchange });
        true
    }
}

fn closed_loop<T: Target>(crew: Crew<T>, stage: Stage, users: usize, began: Instant) {
    let plan = Arc::new(Mutex::new(stage.plan));
    for _ in 0..users {
        let (crew, plan) = (crew.clone(), plan.clone());
        tokio::spawn(async move {
            while stage.duration.is_none_or(|duration| began.elapsed() < duration) && !crew.stop.is_cancelled() {
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
        if stage.duration.is_some_and(|duration| due >= duration) {
            break;
        }
        let Some(planned) = stage.plan.next() else { break };
        let body = crew.target.prepare(&planned);
        let intended = began + due;
        let place = async {
            sleep_until(intended).await;
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

    impl Watch for Keep {
        fn sample(&mut self, sample: Sample) {
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
        assert!(Throughput::of(&driven, rate(100.0)).fell_behind());
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
