//! What a server can do under each effort, from the stages of a sweep.
//!
//! Two numbers, because they answer two questions: the peak is what the machine gives when nobody minds waiting, and the
//! capacity within the limits is what it gives while users are served as they were promised. Users are requests a second
//! times the seconds from request to request of one user (the response time law of interactive systems, N = X (R + Z)).

use serde::{Deserialize, Serialize};

use super::run::Finished;
use super::summary::{Aims, Head, StageSummary};

/// Share of requests within the limits from which on a load counts as served well.
const WELL: f64 = 0.95;

/// What the server can do under one effort.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saturation {
    /// The effort.
    pub effort: String,
    /// The most that any stage got done, however long its requests took.
    pub peak: Capacity,
    /// The most that a stage got done in which at least 95 % of requests were within the limits and the queue did not grow;
    /// absent without limits.
    pub within_limits: Option<Capacity>,
}

/// How much work that is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Requests a second; 0 when no stage was good enough.
    pub requests_per_second: f64,
    /// Completion tokens a second; absent when nobody counted them.
    pub tokens_per_second: Option<f64>,
    /// How many people that are who each ask once in `user_interval` seconds.
    pub users: f64,
    /// The requests over those of the reference.
    pub over_reference: Option<f64>,
    /// Whether a higher load was tried and was too much; otherwise it may be more.
    pub reached: bool,
}

/// The capacity of every effort; nothing without a sweep.
pub fn of(head: &Head, aims: &Aims<'_>, run: &Finished, stages: &[StageSummary]) -> Vec<Saturation> {
    let capacity = |stage: Option<&StageSummary>, reached: bool| {
        let rates = stage.map(|stage| stage.rates);
        let requests_per_second = rates.map_or(0.0, |rates| rates.requests_per_second);
        Capacity {
            requests_per_second,
            tokens_per_second: rates.map_or(Some(0.0), |rates| rates.tokens_per_second),
            users: requests_per_second * head.user_interval,
            over_reference: None,
            reached,
        }
    };
    let one = |(effort, peak): (&String, &super::run::Peak)| {
        let own = || stages.iter().filter(|stage| stage.effort == *effort);
        let good = best(own().filter(|stage| is_good(stage)));
        Saturation {
            effort: effort.clone(),
            peak: capacity(best(own()), peak.saturated),
            within_limits: aims.objectives.map(|_| capacity(good, own().any(is_bad))),
        }
    };
    let mut all: Vec<Saturation> = aims.efforts.iter().zip(&run.peaks).map(one).collect();
    let reference = all.iter().find(|saturation| saturation.effort == head.reference).cloned();
    for saturation in &mut all {
        let over = |own: f64, of: fn(&Saturation) -> Option<f64>| {
            reference.as_ref().and_then(of).filter(|&below| below > 0.0).map(|below| own / below)
        };
        saturation.peak.over_reference =
            over(saturation.peak.requests_per_second, |reference| Some(reference.peak.requests_per_second));
        if let Some(good) = &mut saturation.within_limits {
            good.over_reference =
                over(good.requests_per_second, |reference| Some(reference.within_limits?.requests_per_second));
        }
    }
    all
}

/// The stage that got the most requests done.
fn best<'a>(stages: impl Iterator<Item = &'a StageSummary>) -> Option<&'a StageSummary> {
    stages.max_by(|a, b| a.rates.requests_per_second.total_cmp(&b.rates.requests_per_second))
}

/// Whether users were served well, and would be for longer: neither can be said of a stage that is too short to tell.
fn is_good(stage: &StageSummary) -> bool {
    !is_bad(stage) && !stage.too_short
}

/// Whether users were not served well, or would not be for longer: a queue that grows only has not yet made them wait too
/// long. More users than bring anything are no queue.
fn is_bad(stage: &StageSummary) -> bool {
    let grows = stage.saturated && stage.offered.is_some();
    grows || stage.rates.goodput.is_none_or(|goodput| goodput.share < WELL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::record::Record;
    use crate::load::run::{Peak, StageRun};
    use crate::load::summary::tests::{head, judged};
    use crate::load::throughput::{Throughput, Verdict};
    use crate::load::{Arrival, Objectives, Pace, Summary};

    /// A stage of an effort at a rate that got so many done a second, with an answer time for each of twenty requests.
    type Told<'a> = (&'a str, f64, f64, [f64; 20]);

    fn summary(told: &[Told<'_>], limits: Option<&str>) -> Summary {
        let efforts = ["low".to_owned(), "high".to_owned()];
        let stage = |&(effort, per_second, done, _): &Told<'_>| StageRun {
            effort: efforts.iter().position(|name| name == effort),
            pace: Pace::Rate { per_second, arrival: Arrival::Poisson },
            began: 0.0,
            seconds: 10.0,
            throughput: Throughput {
                requests_per_second: done,
                verdict: (done > per_second).then_some(Verdict::TooShort),
                ..Throughput::default()
            },
            saturated: done < 0.9 * per_second,
        };
        let records = told.iter().enumerate().flat_map(|(stage, (effort, .., times))| {
            times.iter().map(move |&end_to_end| Record { stage, end_to_end, ..Record::sample("p", effort) })
        });
        let peak = |effort: &str| {
            let of = told.iter().filter(|stage| stage.0 == effort).map(|stage| stage.2);
            Peak { requests_per_second: of.fold(0.0, f64::max), saturated: true }
        };
        let run = Finished {
            stages: told.iter().map(stage).collect(),
            peaks: vec![peak("low"), peak("high")],
            seconds: 40.0,
            warm_up: 0,
            cpu_seconds: None,
            abandoned: 0,
            interrupted: false,
        };
        let objectives: Option<Objectives> = limits.map(|limits| limits.parse().unwrap());
        let aims = Aims { efforts: &efforts, objectives: objectives.as_ref() };
        Summary::of(head(), &aims, &run, &judged(&records.collect::<Vec<_>>()))
    }

    /// So many of twenty take five seconds, the others one.
    fn slow(count: usize) -> [f64; 20] {
        std::array::from_fn(|index| if index < count { 5.0 } else { 1.0 })
    }

    #[test]
    fn users_are_those_who_are_served_well_and_the_peak_stands_beside() {
        let stages = [
            ("low", 4.0, 4.0, slow(0)),
            ("low", 8.0, 8.0, slow(1)),
            ("low", 16.0, 15.0, slow(9)),
            ("low", 32.0, 20.0, slow(20)),
            ("high", 2.0, 2.0, slow(0)),
            // Every request was in time, but the queue grew.
            ("high", 4.0, 3.0, slow(0)),
        ];
        let summary = summary(&stages, Some("e2e:2s"));
        let [low, high] = &summary.saturation[..] else { panic!() };
        // 95 % of those at eight a second are within the limit, 55 % at sixteen; 60 s from request to request.
        let good = low.within_limits.unwrap();
        assert_eq!((good.requests_per_second, good.users, good.reached), (8.0, 480.0, true));
        assert_eq!((low.peak.requests_per_second, low.peak.users), (20.0, 1200.0));
        assert_eq!(high.within_limits.unwrap().requests_per_second, 2.0);
        assert_eq!((good.over_reference, low.peak.over_reference), (Some(4.0), Some(20.0 / 3.0)));
    }

    #[test]
    fn a_stage_that_is_too_short_claims_no_users_and_ends_nothing() {
        let stages = [("low", 4.0, 4.0, slow(0)), ("low", 8.0, 8.1, slow(0)), ("high", 4.0, 4.1, slow(9))];
        let found = summary(&stages, Some("e2e:2s"));
        let good = found.saturation[0].within_limits.unwrap();
        assert_eq!((good.requests_per_second, good.reached), (4.0, false));
        // What was too slow was too slow.
        assert_eq!(found.saturation[1].within_limits.map(|good| (good.users, good.reached)), Some((0.0, true)));
    }

    #[test]
    fn without_limits_or_without_a_good_stage_nothing_is_claimed() {
        let stages = [("low", 4.0, 4.0, slow(9)), ("high", 4.0, 4.0, slow(0))];
        assert!(summary(&stages, None).saturation.iter().all(|saturation| saturation.within_limits.is_none()));
        let found = summary(&stages, Some("e2e:2s")).saturation;
        assert_eq!(found[0].within_limits.map(|good| (good.users, good.reached)), Some((0.0, true)));
        // Nothing was too much for `high`: it may be able to do more.
        assert_eq!(found[1].within_limits.map(|good| good.reached), Some(false));
    }
}
