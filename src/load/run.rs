//! A whole run: warm-up, then one stage with all efforts mixed, or a sweep with stages of single efforts.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use super::client::Target;
use super::cpu;
use super::drive::{Driven, Pace, Sample, Stage, Watch, drive};
use super::judge::Judge;
use super::plan::Plan;
use super::sweep::{Climb, Sweep};
use super::throughput::Throughput;

/// The repetition whose seeds warm-up requests take, which no measured request reaches.
const WARM_UP: u64 = 1 << 40;

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
    /// Requests before the measurement, which count for nothing.
    pub warm_up: usize,
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
    /// When it began, in seconds since the run began.
    pub began: f64,
    /// How long it took.
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
    /// How long it took, without warm-up, in seconds.
    pub seconds: f64,
    /// Processor time of this process meanwhile, in seconds.
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
    judge: Option<&'a Judge>,
    observer: &'a mut dyn Observer,
}

impl Watch for Recording<'_> {
    fn sample(&mut self, sample: Sample) {
        if let Some(judge) = self.judge {
            self.observer.on_sample(&sample);
            judge.submit(self.stage, sample);
        }
    }

    fn tick(&mut self) {
        self.observer.on_tick();
    }

    fn should_stop(&self) -> bool {
        self.observer.should_stop()
    }
}

/// Warms `target` up with requests that count for nothing.
pub async fn warm_up<T: Target>(target: &Arc<T>, settings: &Settings, observer: &mut dyn Observer) {
    if settings.warm_up == 0 {
        return;
    }
    let efforts = (0..settings.efforts).collect();
    let plan = Plan::new(settings.prompts.clone(), efforts, settings.seed, Some(settings.warm_up));
    let users = match &settings.shape {
        Shape::Steady(Pace::Concurrency(users)) => *users,
        _ => 1,
    };
    let stage = settings.stage(plan.from_repetition(WARM_UP), Pace::Concurrency(users));
    let stage = Stage { duration: None, ..stage };
    drive(target, stage, &mut Recording { stage: 0, judge: None, observer }).await;
}

/// Runs everything after the warm-up. `epoch` is the moment from which records count.
pub async fn run<T: Target>(
    target: &Arc<T>,
    settings: &Settings,
    (judge, epoch): (&Judge, Instant),
    observer: &mut dyn Observer,
) -> Finished {
    let cpu_before = cpu::seconds();
    let mut runner = Runner { target, settings, judge, epoch, observer, stages: Vec::new(), abandoned: 0 };
    let peaks = match &settings.shape {
        Shape::Steady(pace) => {
            runner.stage(None, *pace, |_| false).await;
            Vec::new()
        }
        Shape::Sweep(sweep) => runner.sweep(sweep).await,
    };
    let (stages, abandoned) = (runner.stages, runner.abandoned);
    Finished {
        stages,
        peaks,
        seconds: epoch.elapsed().as_secs_f64(),
        cpu_seconds: cpu::seconds().zip(cpu_before).map(|(after, before)| after - before),
        abandoned,
        interrupted: observer.should_stop(),
    }
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
}

struct Runner<'a, T> {
    target: &'a Arc<T>,
    settings: &'a Settings,
    judge: &'a Judge,
    epoch: Instant,
    observer: &'a mut dyn Observer,
    stages: Vec<StageRun>,
    abandoned: usize,
}

impl<T: Target> Runner<'_, T> {
    /// Runs a stage of one effort, or of all; `saturated` decides from what was done.
    async fn stage(&mut self, effort: Option<usize>, pace: Pace, saturated: impl FnOnce(&Throughput) -> bool) {
        let efforts = effort.map_or_else(|| (0..self.settings.efforts).collect(), |effort| vec![effort]);
        let requests = self.settings.requests(efforts.len());
        let plan = Plan::new(self.settings.prompts.clone(), efforts, self.settings.seed, requests);
        self.observer.on_stage(effort, &pace, plan.remaining(), self.settings.duration);
        let mut recording =
            Recording { stage: self.stages.len(), judge: Some(self.judge), observer: &mut *self.observer };
        let driven: Driven = drive(self.target, self.settings.stage(plan, pace), &mut recording).await;
        let throughput = Throughput::of(&driven, pace);
        let seconds = driven.timings.iter().map(|timing| timing.ended).fold(0.0, f64::max);
        self.abandoned += driven.abandoned;
        self.stages.push(StageRun {
            effort,
            pace,
            began: driven.began.saturating_duration_since(self.epoch).as_secs_f64(),
            seconds,
            throughput,
            saturated: saturated(&throughput),
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
