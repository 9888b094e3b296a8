//! Who may compute now, who waits, and who is sent away at once.
//!
//! A [`Permit`] is taken before any work and held until the work is done or dropped; it has a place for every choice of the
//! request. Behind the places stands a bounded queue, first come first served; whoever finds it full gets a 429 with the time
//! after which a place is likely. Nothing here knows what a request is: only times and counts.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ApiError;
use super::metrics::{Metrics, Rejection};

/// Shortest time a client is told to wait.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// Longest time a client is told to wait: official clients give up when asked for more than 120 s.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// More places than any machine computes at; all of them can be taken by one permit.
const MOST_PLACES: usize = u32::MAX as usize >> 3;
/// Weight of the newest request in the moving mean of service times.
const NEWEST: f64 = 0.2;

/// The door before the engine; clones are the same door.
#[derive(Debug, Clone)]
pub struct Admission {
    inner: Arc<Inner>,
    metrics: Option<Metrics>,
}

#[derive(Debug)]
struct Inner {
    /// Hands permits out in the order they were asked for.
    permits: Arc<Semaphore>,
    max_running: usize,
    max_queue: usize,
    waiting: AtomicUsize,
    draining: AtomicBool,
    /// Moving mean of how long permits are held, in seconds; `None` before the first came back.
    service_seconds: Mutex<Option<f64>>,
}

/// The right to compute some choices at a time; its drop lets the next one in.
#[derive(Debug)]
pub struct Permit {
    inner: Arc<Inner>,
    _permit: OwnedSemaphorePermit,
    queue_time: Duration,
    since: Instant,
}

/// A place in the queue; its drop, on whatever way, frees the place.
struct Place<'a>(&'a Inner);

impl Admission {
    /// A door with `max_running` places (at least 1) and for `max_queue` requests that wait (0 for none).
    pub fn new(max_running: usize, max_queue: usize) -> Self {
        let max_running = max_running.clamp(1, MOST_PLACES);
        let inner = Inner {
            permits: Arc::new(Semaphore::new(max_running)),
            max_running,
            max_queue,
            waiting: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            service_seconds: Mutex::new(None),
        };
        Self { inner: Arc::new(inner), metrics: None }
    }

    /// The same door, which counts whom it sends away in `metrics`.
    #[must_use]
    pub fn counted_in(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Waits for a permit with this many `places` (no more than there are), until `deadline` at most. Who waits for many is
    /// not overtaken by those behind who want few.
    ///
    /// Whoever stops waiting by dropping the future leaves the queue with that.
    ///
    /// # Errors
    /// 503 while the server drains, 429 at once when the queue is full (both with `Retry-After`), 408 when the deadline comes
    /// first. Nothing was started in any case.
    pub async fn enter(&self, places: usize, deadline: Option<Instant>) -> Result<Permit, ApiError> {
        let entered = self.try_enter(places, deadline).await;
        entered.map_err(|rejection| {
            if let Some(metrics) = &self.metrics {
                metrics.admission_rejected(rejection);
            }
            self.explain(rejection)
        })
    }

    async fn try_enter(&self, places: usize, deadline: Option<Instant>) -> Result<Permit, Rejection> {
        if self.is_draining() {
            return Err(Rejection::Draining);
        }
        let arrived = Instant::now();
        let places = places.clamp(1, self.inner.max_running) as u32;
        // Permits that come back are handed to those who wait before anybody sees them as free, so this overtakes nobody.
        if let Ok(permit) = self.inner.permits.clone().try_acquire_many_owned(places) {
            return Ok(self.permit(permit, Duration::ZERO));
        }
        let place = self.inner.queue().ok_or(Rejection::QueueFull)?;
        let turn = self.inner.permits.clone().acquire_many_owned(places);
        let acquired = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), turn).await.map_err(|_| Rejection::Deadline)?,
            None => turn.await,
        };
        drop(place);
        // The semaphore is never closed; should it be one day, that is a kind of draining.
        let permit = acquired.map_err(|_| Rejection::Draining)?;
        Ok(self.permit(permit, arrived.elapsed()))
    }

    fn permit(&self, permit: OwnedSemaphorePermit, queue_time: Duration) -> Permit {
        Permit { inner: self.inner.clone(), _permit: permit, queue_time, since: Instant::now() }
    }

    fn explain(&self, rejection: Rejection) -> ApiError {
        match rejection {
            Rejection::QueueFull => {
                let (running, queue) = (self.inner.max_running, self.inner.max_queue);
                let message = format!(
                    "all {running} places are taken and {queue} requests wait already; nothing was started, try again later"
                );
                ApiError::overloaded(message, self.inner.expected_wait())
            }
            Rejection::Draining => {
                ApiError::unavailable("the server is shutting down and takes no new requests", Some(SHORTEST_WAIT))
            }
            Rejection::Deadline => ApiError::timeout(
                "the request's deadline came while it waited for a place; nothing was computed, allow more time or try again",
            ),
        }
    }

    /// Places there are.
    pub fn max_running(&self) -> usize {
        self.inner.max_running
    }

    /// Places that are taken, or kept free for the first in the queue, who wants several.
    pub fn running(&self) -> usize {
        self.inner.max_running - self.inner.permits.available_permits()
    }

    /// Requests in the queue.
    pub fn waiting(&self) -> usize {
        self.inner.waiting.load(Ordering::Acquire)
    }

    /// From now on new requests are refused with 503; those that run or wait already are served.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// Whether new requests are refused.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }
}

impl Inner {
    fn queue(&self) -> Option<Place<'_>> {
        let more = |waiting: usize| (waiting < self.max_queue).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Place(self))
    }

    /// How long it takes until the queue has moved up once through all the places.
    fn expected_wait(&self) -> Duration {
        let service = self.service_seconds.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(0.0);
        expected_wait(service, self.waiting.load(Ordering::Acquire), self.max_running)
    }

    fn served(&self, time: Duration) {
        let mut mean = self.service_seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = time.as_secs_f64();
        *mean = Some(mean.map_or(newest, |mean| mean + NEWEST * (newest - mean)));
    }
}

/// Until `waiting` requests are served by `places`, each taking `service` seconds.
fn expected_wait(service: f64, waiting: usize, places: usize) -> Duration {
    let seconds = service * (waiting + 1) as f64 / places as f64;
    Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_WAIT).clamp(SHORTEST_WAIT, LONGEST_WAIT)
}

impl Permit {
    /// How long it was waited for.
    pub fn queue_time(&self) -> Duration {
        self.queue_time
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.served(self.since.elapsed());
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    type Entering = Pin<Box<dyn Future<Output = Result<Permit, ApiError>>>>;

    /// A request for one place that entered and was polled once.
    fn enter(admission: &Admission) -> (Entering, Poll<Result<Permit, ApiError>>) {
        enter_with(admission, 1)
    }

    /// The same with several places.
    fn enter_with(admission: &Admission, places: usize) -> (Entering, Poll<Result<Permit, ApiError>>) {
        let admission = admission.clone();
        let mut entering: Entering = Box::pin(async move { admission.enter(places, None).await });
        let first = poll(&mut entering);
        (entering, first)
    }

    fn poll(entering: &mut Entering) -> Poll<Result<Permit, ApiError>> {
        entering.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_full_queue_answers_at_once() {
        let admission = Admission::new(1, 1);
        let (_, Poll::Ready(Ok(running))) = enter(&admission) else { panic!("a free place was refused") };
        let (mut second, Poll::Pending) = enter(&admission) else { panic!("two ran at a time") };
        let (_, Poll::Ready(Err(error))) = enter(&admission) else { panic!("the queue has no end") };
        assert_eq!((error.status.as_u16(), error.code), (429, Some("queue_full")));
        assert_eq!(error.retry_after, Some(SHORTEST_WAIT));
        assert_eq!((admission.running(), admission.waiting()), (1, 1));
        drop(running);
        let Poll::Ready(Ok(_permit)) = poll(&mut second) else { panic!("the place was not handed on") };
        assert_eq!((admission.running(), admission.waiting()), (1, 0));
    }

    #[test]
    fn a_request_has_a_place_for_every_choice() {
        let admission = Admission::new(4, 2);
        let (_, Poll::Ready(Ok(three))) = enter_with(&admission, 3) else { panic!("free places were refused") };
        assert_eq!(admission.running(), 3);
        let (mut two, Poll::Pending) = enter_with(&admission, 2) else { panic!("five choices ran at four places") };
        let (mut one, Poll::Pending) = enter(&admission) else { panic!("it overtook the first in the queue") };
        drop(three);
        assert!(matches!(poll(&mut two), Poll::Ready(Ok(_))) && matches!(poll(&mut one), Poll::Ready(Ok(_))));
    }

    #[test]
    fn who_goes_away_leaves_the_queue() {
        let admission = Admission::new(1, 2);
        let (_, running) = enter(&admission);
        let (gone, _) = enter(&admission);
        let (mut stays, _) = enter(&admission);
        assert_eq!(admission.waiting(), 2);
        drop(gone);
        assert_eq!(admission.waiting(), 1);
        drop(running);
        assert!(matches!(poll(&mut stays), Poll::Ready(Ok(_))));
        assert_eq!((admission.running(), admission.waiting()), (0, 0));
    }

    #[test]
    fn draining_refuses_new_requests_and_serves_those_that_wait() {
        let admission = Admission::new(1, 2);
        let (_, running) = enter(&admission);
        let (mut waiting, _) = enter(&admission);
        admission.drain();
        let (_, Poll::Ready(Err(error))) = enter(&admission) else { panic!("it still takes requests") };
        assert_eq!(error.status.as_u16(), 503);
        assert!(error.retry_after.is_some());
        drop(running);
        assert!(matches!(poll(&mut waiting), Poll::Ready(Ok(_))));
    }

    #[tokio::test]
    async fn a_deadline_ends_the_waiting() {
        let admission = Admission::new(1, 1).counted_in(Metrics::new());
        let _running = admission.enter(1, None).await.unwrap();
        let error = admission.enter(1, Some(Instant::now())).await.unwrap_err();
        assert_eq!(error.status.as_u16(), 408);
        assert_eq!(admission.waiting(), 0);
        let text = admission.metrics.as_ref().unwrap().render(0, 0);
        assert!(text.contains("brevity_admission_rejections_total{reason=\"deadline\"} 1"), "{text}");
    }

    #[test]
    fn the_wait_follows_the_service_time() {
        assert_eq!(expected_wait(0.0, 5, 1), SHORTEST_WAIT);
        assert_eq!(expected_wait(3.0, 7, 2), Duration::from_secs(12));
        assert_eq!(expected_wait(1e9, 7, 2), LONGEST_WAIT);
        assert_eq!(expected_wait(f64::INFINITY, 7, 2), LONGEST_WAIT);
        let admission = Admission::new(1, 1);
        admission.inner.served(Duration::from_secs(10));
        admission.inner.served(Duration::from_secs(5));
        assert_eq!(admission.inner.expected_wait(), Duration::from_secs(9));
    }

    /// What happens next to the door.
    #[derive(Debug, Clone)]
    enum Step {
        /// With so many places.
        Enter(usize),
        /// The request that has this place among the running ones ends.
        Leave(usize),
        /// The request that has this place among the waiting ones goes away.
        GiveUp(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1_usize..4).prop_map(Step::Enter),
            2 => any::<usize>().prop_map(Step::Leave),
            1 => any::<usize>().prop_map(Step::GiveUp)
        ]
    }

    proptest! {
        /// Against a model of a few lines: never too many at a time, first come first served, and no place is lost.
        #[test]
        fn the_door_is_a_bounded_fair_queue(
            max_running in 1_usize..4, max_queue in 0_usize..4, steps in prop::collection::vec(step(), 0..80),
        ) {
            let admission = Admission::new(max_running, max_queue);
            let mut running: Vec<(usize, Permit)> = Vec::new();
            let mut waiting: VecDeque<(usize, Entering)> = VecDeque::new();
            let taken = |running: &[(usize, Permit)]| running.iter().map(|(places, _)| places).sum::<usize>();
            for step in steps {
                match step {
                    Step::Enter(places) => {
                        let places = places.min(max_running);
                        let fits = taken(&running) + places <= max_running && waiting.is_empty();
                        let (entering, first) = enter_with(&admission, places);
                        match first {
                            Poll::Ready(Ok(permit)) => {
                                prop_assert!(fits);
                                running.push((places, permit));
                            }
                            Poll::Pending => {
                                prop_assert!(!fits && waiting.len() < max_queue);
                                waiting.push_back((places, entering));
                            }
                            Poll::Ready(Err(_)) => prop_assert!(!fits && waiting.len() == max_queue),
                        }
                    }
                    Step::Leave(place) if !running.is_empty() => {
                        running.swap_remove(place % running.len());
                    }
                    Step::GiveUp(place) if !waiting.is_empty() => {
                        waiting.remove(place % waiting.len());
                    }
                    Step::Leave(_) | Step::GiveUp(_) => {}
                }
                // The last first, so that whoever overtakes is seen.
                let polled: Vec<_> = waiting.iter_mut().rev().map(|(_, entering)| poll(entering)).collect();
                let mut blocked = false;
                for outcome in polled.into_iter().rev() {
                    let places = waiting.front().map_or(0, |(places, _)| *places);
                    let fits = !blocked && taken(&running) + places <= max_running;
                    match outcome {
                        Poll::Ready(entered) => {
                            prop_assert!(fits, "somebody overtook the first");
                            running.push((places, entered.unwrap()));
                            waiting.pop_front();
                        }
                        Poll::Pending => {
                            prop_assert!(!fits, "the places were lost");
                            blocked = true;
                        }
                    }
                }
                prop_assert_eq!(admission.waiting(), waiting.len());
                prop_assert!(taken(&running) <= admission.running() && admission.running() <= max_running);
                prop_assert!(!waiting.is_empty() || taken(&running) == admission.running());
            }
            drop((running, waiting));
            prop_assert_eq!((admission.running(), admission.waiting()), (0, 0));
        }
    }
}
