//! A whole run: one stage with all efforts mixed, or a sweep with stages of single efforts, each behind its warm-up.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use super::client::Target;
use super::drive::{Driven, Pace, Sample, Stage, Watch, drive};
use super::judge::Judge;
use super::plan::Plan;
use super::sweep::{Climb, Sweep};
use super::throughput::Throughput;

/// The load of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// One load throughout, all efforts mixed.
    Steady(Pace),
    /// Load upon load, every effort for itself.
    Sweep(Sweep),
}

/// What a run does.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names of the prompts.
    pub prompts: Vec<String>,
    /// How many efforts there are.
    pub efforts: usize,
    /// The load.
    pub shape: Shape,
    /// Requests of a stage; one pass over prompts and efforts when there is no duration either.
    pub requests: Option<usize>,
    /// How long requests of a stage are sent.
    pub duration: Option<Duration>,
    /// Requests before the measurement of a stage, under its load, which count for nothing. When absent, one of every user, or
    /// those of a second or of as long as answers took in a stage before; and one of every effort at least.
    pub warm_up: Option<usize>,
    /// Longest time of a request.
    pub timeout: Duration,
    /// Most requests under way at a time in an open loop.
    pub most_in_flight: usize,
    /// Seed of order, request seeds and arrivals.
    pub seed: u64,
}

/// One stage after its end.
#[derive(Debug, Clone)]
pub struct StageRun {
    /// Which effort had it to itself; `None` where all were mixed.
    pub effort: Option<usize>,
    /// The load.
    pub pace: Pace,
    /// When its measurement began, in seconds since the run began.
    pub began: f64,
    /// How long it took, from there to the end of its last request.
    pub seconds: f64,
    /// What was done.
    pub throughput: Throughput,
    /// Whether it was beyond saturation.
    pub saturated: bool,
}

/// How far an effort climbed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// The most requests a second.
    pub requests_per_second: f64,
    /// Whether the server was saturated; if not, it can do more than was asked.
    pub saturated: bool,
}

/// A run after its end.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its stages.
    pub stages: Vec<StageRun>,
    /// The peak of every effort, for a sweep.
    pub peaks: Vec<Peak>,
    /// How long its stages took, without warm-up, in seconds.
    pub seconds: f64,
    /// Warm-up requests of all stages.
    pub warm_up: usize,
    /// Processor time of this process in the stages, without warm-up, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Requests under way when somebody asked to stop.
    pub abandoned: usize,
    /// Whether somebody asked to stop.
    pub interrupted: bool,
}

/// Is told how a run goes, and may stop it.
pub trait Observer: Send {
    /// A stage begins; `requests` is how many it will make, where that is known.
    fn on_stage(&mut self, effort: Option<usize>, pace: &Pace, requests: Option<usize>, duration: Option<Duration>);

    /// A request has ended.
    fn on_sample(&mut self, sample: &Sample);

    /// Some time has passed.
    fn on_tick(&mut self);

    /// Whether to stop.
    fn should_stop(&self) -> bool;
}

/// Hands samples of one stage to the judge and tells the observer.
struct Recording<'a> {
    stage: usize,
    judge: &'a Judge,
    observer: &'a mut dyn Observer,
}

#[async_trait]
impl Watch for Recording<'_> {
    async fn sample(&mut self, sample: Sample) {
        if !sample.planned.is_warm_up() {
            self.observer.on_sample(&sample);
            self.judge.submit(self.stage, sample).await;
        }
    }

    fn tick(&mut self) {
        self.observer.on_tick();
    }

    fn should_stop(&self) -> bool {
        self.observer.should_stop()
    }
}

/// Runs everything. `epoch` is the moment from which records count.
pub async fn run<T: Target>(
    target: &Arc<T>,
    settings: &Settings,
    (judge, epoch): (&Judge, Instant),
    observer: &mut dyn Observer,
) -> Finished {
    let sums = Sums { warm_up: 0, abandoned: 0, cpu_seconds: Some(0.0) };
    let latencies = vec![None; settings.efforts];
    let mut runner = Runner { target, settings, judge, epoch, observer, stages: Vec::new(), sums, latencies };
    let peaks = match &settings.shape {
        Shape::Steady(pace) => {
            runner.stage(None, *pace, |_| false).await;
            Vec::new()
        }
        Shape::Sweep(sweep) => runner.sweep(sweep).await,
    };
    let (stages, Sums { warm_up, abandoned, cpu_seconds }) = (runner.stages, runner.sums);
    let seconds = stages.iter().map(|stage| stage.seconds).sum();
    Finished { stages, peaks, seconds, warm_up, cpu_seconds, abandoned, interrupted: observer.should_stop() }
}

impl Settings {
    fn stage(&self, plan: Plan, pace: Pace) -> Stage {
        Stage {
            plan,
            pace,
            duration: self.duration,
            timeout: self.timeout,
            most_in_flight: self.most_in_flight,
            seed: self.seed,
        }
    }

    /// The requests of a stage with so many efforts: whole blocks, so that every prompt meets every effort.
    fn requests(&self, efforts: usize) -> Option<usize> {
        match (self.requests, self.duration) {
            (Some(requests), _) => Some(requests.next_multiple_of(efforts.max(1))),
            (None, Some(_)) => None,
            (None, None) => Some(self.prompts.len() * efforts),
        }
    }

    /// The requests before a stage with so many efforts that bring the server under its load; `latency` is what
    /// answers take, where that is known. At a rate the server fills for as long as that.
    fn warm_up(&self, efforts: usize, pace: Pace, latency: Option<f64>) -> usize {
        let load = match pace {
            Pace::Concurrency(users) => users,
            Pace::Rate { per_second, .. } => (per_second * latency.unwrap_or(0.0).max(1.0)).ceil() as usize,
        };
        self.warm_up.unwrap_or(load.max(efforts))
    }
}

/// What adds up over stages.
struct Sums {
    warm_up: usize,
    abandoned: usize,
    cpu_seconds: Option<f64>,
}

struct Runner<'a, T> {
    target: &'a Arc<T>,
    settings: &'a Settings,
    judge: &'a Judge,
    epoch: Instant,
    observer: &'a mut dyn Observer,
    stages: Vec<StageRun>,
    sums: Sums,
    /// Seconds that 95 % of the answers took under every effort, in its last stage that was not beyond saturation.
    latencies: Vec<Option<f64>>,
}

impl<T: Target> Runner<'_, T> {
    /// Runs a stage of one effort, or of all; `saturated` decides from what was done.
    async fn stage(&mut self, effort: Option<usize>, pace: Pace, saturated: impl FnOnce(&Throughput) -> bool) {
        let efforts = effort.map_or_else(|| (0..self.settings.efforts).collect(), |effort| vec![effort]);
        let requests = self.settings.requests(efforts.len());
        let known = effort.and_then(|effort| self.latencies.get(effort).copied().flatten());
        let warm_up = self.settings.warm_up(efforts.len(), pace, known);
        let plan = Plan::new(self.settings.prompts.clone(), efforts, self.settings.seed, requests);
        let plan = plan.behind_warm_up(warm_up);
        self.observer.on_stage(effort, &pace, plan.remaining(), self.settings.duration);
        let mut recording = Recording { stage: self.stages.len(), judge: self.judge, observer: &mut *self.observer };
        let driven: Driven = drive(self.target, self.settings.stage(plan, pace), &mut recording).await;
        let throughput = Throughput::of(&driven, pace, known);
        let saturated = saturated(&throughput);
        let latency = effort.and_then(|effort| self.latencies.get_mut(effort)).zip(throughput.latency);
        if let Some((known, latency)) = latency.filter(|_| !saturated) {
            *known = Some(latency);
        }
        self.sums.warm_up += driven.warm_up;
        self.sums.abandoned += driven.abandoned;
        self.sums.cpu_seconds = self.sums.cpu_seconds.zip(driven.cpu_seconds).map(|(sum, more)| sum + more);
        self.stages.push(StageRun {
            effort,
            pace,
            began: driven.began.saturating_duration_since(self.epoch).as_secs_f64(),
            seconds: driven.ended(),
            throughput,
            saturated,
        });
    }

    async fn sweep(&mut self, sweep: &Sweep) -> Vec<Peak> {
        let mut climbs: Vec<Climb> = (0..self.settings.efforts).map(|_| Climb::new(sweep)).collect();
        let mut generator = ChaCha8Rng::seed_from_u64(self.settings.seed);
        // Efforts climb side by side, a stage each in turn and in random order, so that drift falls on all alike.
        loop {
            let mut order: Vec<usize> = (0..climbs.len()).collect();
            order.shuffle(&mut generator);
            let mut climbing = false;
            for effort in order {
                let Some(climb) = climbs.get_mut(effort) else { continue };
                if self.observer.should_stop() {
                    break;
                }
                if let Some(pace) = climb.next_pace() {
                    climbing = true;
                    self.stage(Some(effort), pace, |throughput| climb.note(throughput)).await;
                }
            }
            if !climbing {
                break;
            }
        }
        let peak = |climb: &Climb| Peak { requests_per_second: climb.best(), saturated: climb.saturated() };
        climbs.iter().map(peak).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::arrival::Arrival;

    #[test]
    fn a_stage_is_warmed_up_under_its_own_load() {
        let settings = Settings {
            prompts: vec!["p".to_owned()],
            efforts: 3,
            shape: Shape::Steady(Pace::Concurrency(1)),
            requests: None,
            duration: None,
            warm_up: None,
            timeout: Duration::from_secs(1),
            most_in_flight: 1,
            seed: 0,
        };
        let rate = |per_second| Pace::Rate { per_second, arrival: Arrival::Poisson };
        for (pace, requests) in
            [(Pace::Concurrency(1), 3), (Pace::Concurrency(16), 16), (rate(0.5), 3), (rate(20.5), 21)]
        {
            assert_eq!(settings.warm_up(3, pace, None), requests, "{pace:?}");
        }
        assert_eq!(settings.warm_up(1, rate(0.5), None), 1);
        // As long as an answer takes: then the first come back while others go out.
        assert_eq!(settings.warm_up(1, rate(20.5), Some(4.0)), 82);
        assert_eq!(settings.warm_up(1, rate(20.5), Some(0.1)), 21);
        assert_eq!(settings.warm_up(1, Pace::Concurrency(2), Some(4.0)), 2);
        assert_eq!(Settings { warm_up: Some(0), ..settings }.warm_up(3, Pace::Concurrency(16), None), 0);
    }
}
