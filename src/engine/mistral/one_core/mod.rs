//! One core for all threads of an engine that computes on one thread.
//!
//! The engine's thread does not work off its parallel loops itself: it hands each to the one worker of its pool and sleeps until
//! that is done, thousands of times a second on a small model. On two cores every such exchange wakes a sleeping core, or waits
//! behind the server's threads; on one it is a change of the running thread. So both are bound to one core, where they never
//! want to run at the same time. Other processes may be bound to it too, so a keeper moves them where there is more room.
//! Only on Linux, and not where the user says by `CANDLE_CPU_MASK` or `CANDLE_CPU_AFFINITY` where threads run.

mod affinity;
mod occupancy;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinHandle;

use self::occupancy::Occupancy;

/// How long the keeper looks before it judges.
const PERIOD: Duration = Duration::from_secs(1);

/// How many engines of this process have each core.
static CLAIMS: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// The core of one engine. Its threads stay bound after this is dropped, but are no longer moved.
#[derive(Debug)]
pub struct Core {
    number: Arc<AtomicUsize>,
    keeper: JoinHandle<()>,
}

impl Core {
    /// A core that no other engine of this process has, if there is one. `None` where threads are better left alone: the
    /// engine's pools have more than one thread, the user placed them, or there is only one core. Call it inside the runtime.
    pub fn claim() -> Option<Self> {
        let is_set = |name: &str| std::env::var_os(name).is_some();
        let one_thread = std::env::var("RAYON_NUM_THREADS").is_ok_and(|threads| threads.trim() == "1");
        if !one_thread || is_set("CANDLE_CPU_MASK") || is_set("CANDLE_CPU_AFFINITY") {
            return None;
        }
        let allowed = affinity::of_thread(affinity::SELF).filter(|allowed| allowed.len() > 1)?;
        let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
        // Servers that start at the same time do not all begin with the same core.
        let start = std::process::id() as usize % allowed.len();
        let from_start = allowed[start..].iter().chain(&allowed[..start]);
        let number = *from_start.min_by_key(|core| claims.get(core).copied().unwrap_or(0))?;
        *claims.entry(number).or_default() += 1;
        drop(claims);
        let number = Arc::new(AtomicUsize::new(number));
        let keeper = tokio::spawn(keep(number.clone(), allowed));
        Some(Self { number, keeper })
    }

    /// Binds this thread to the core until the result is dropped; threads that it starts meanwhile are bound for good.
    /// Where the system refuses, nothing is bound.
    pub fn bind(&self) -> Bound {
        let before = affinity::of_thread(affinity::SELF);
        let number = self.number.load(Ordering::Relaxed);
        let bound = before.is_some() && affinity::bind(affinity::SELF, &[number]);
        Bound { before: before.filter(|_| bound) }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.keeper.abort();
        let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = claims.get_mut(&self.number.load(Ordering::Relaxed)) {
            *count = count.saturating_sub(1);
        }
    }
}

/// A thread that is bound to a core.
#[derive(Debug)]
pub struct Bound {
    before: Option<Vec<usize>>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            affinity::bind(affinity::SELF, before);
        }
    }
}

/// Moves the threads that are bound to the core when somebody else needs it, one time in two: two servers that found each other
/// on the same core shall not meet on the next one again.
async fn keep(number: Arc<AtomicUsize>, allowed: Vec<usize>) {
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(std::process::id()));
    let mut before = Occupancy::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        let here = number.load(Ordering::Relaxed);
        let now = Occupancy::read(here);
        let better = occupancy::better(&before, &now, here, &allowed);
        before = now;
        let Some(better) = better.filter(|_| rng.random_bool(0.5)) else { continue };
        let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
        // Whose threads are whose is not known where two engines share a core.
        if claims.get(&here) != Some(&1) || claims.get(&better).is_some_and(|count| *count > 0) {
            continue;
        }
        claims.insert(here, 0);
        claims.insert(better, 1);
        number.store(better, Ordering::Relaxed);
        drop(claims);
        for thread in affinity::bound_to(here) {
            affinity::bind(thread, &[better]);
        }
        before = Occupancy::default();
        tracing::debug!(from = here, to = better, "the engine's threads moved to a core with more room");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn threads_started_while_bound_stay_on_the_core_and_move_with_it() {
        let Some(all) = affinity::of_thread(affinity::SELF).filter(|all| all.len() > 1) else {
            eprintln!("skipped: this test may use one core only");
            return;
        };
        let core = Core { number: Arc::new(AtomicUsize::new(all[1])), keeper: tokio::spawn(async {}) };
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let (say, said) = std::sync::mpsc::channel();
        let bound = core.bind();
        let thread = std::thread::spawn(move || {
            // SAFETY: asks for a number.
            say.send((unsafe { libc::gettid() }, affinity::of_thread(affinity::SELF))).unwrap();
            told.recv().unwrap();
            affinity::of_thread(affinity::SELF)
        });
        assert_eq!(affinity::of_thread(affinity::SELF), Some(vec![all[1]]));
        drop(bound);
        assert_eq!(affinity::of_thread(affinity::SELF).as_ref(), Some(&all), "the binding ends with its guard");
        let (number, cores) = said.recv().unwrap();
        assert_eq!(cores, Some(vec![all[1]]));
        assert!(affinity::bound_to(all[1]).contains(&number) && !affinity::bound_to(all[0]).contains(&number));
        assert!(affinity::bind(number, &[all[0]]));
        tell.send(()).unwrap();
        assert_eq!(thread.join().unwrap(), Some(vec![all[0]]));
    }
}
