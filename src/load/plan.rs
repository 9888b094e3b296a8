//! In which order prompts meet efforts.
//!
//! The same prompts under the same seeds go to every effort, in blocks of one prompt and all efforts, the blocks in random
//! order and the efforts of a block in random order: whatever drifts while the test runs (a cache that warms, a machine
//! that throttles) falls on all efforts alike, and a run that is cut short still holds whole pairs. Pure numbers: no
//! clock, no network.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::eval::runner::response_seed;

/// The repetition from which on warm-up requests count, which no measured request reaches.
const WARM_UP: u64 = 1 << 40;

/// One request to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Which prompt.
    pub prompt: usize,
    /// Which effort.
    pub effort: usize,
    /// Which pass over the prompts, from 0.
    pub repetition: u64,
    /// `seed` of the request: the same for this prompt and repetition under every effort.
    pub seed: u64,
}

impl Planned {
    /// Whether it only brings the server under its load and counts for nothing.
    pub fn is_warm_up(&self) -> bool {
        self.repetition >= WARM_UP
    }
}

/// An order of requests that goes on as long as it is asked, or as long as it was limited to.
#[derive(Debug, Clone)]
pub struct Plan {
    ids: Vec<String>,
    efforts: Vec<usize>,
    seed: u64,
    left: Option<usize>,
    /// Warm-up requests that are still to come before all others.
    warm_up: usize,
    repetition: u64,
    /// What is left of the current pass, last first.
    pass: Vec<Planned>,
}

impl Plan {
    /// A plan over the prompts named `ids` and the efforts with these indices. `requests` bounds its length; without a
    /// bound it is endless. It is empty when there are no prompts or no efforts.
    pub fn new(ids: Vec<String>, efforts: Vec<usize>, seed: u64, requests: Option<usize>) -> Self {
        Self { ids, efforts, seed, left: requests, warm_up: 0, repetition: 0, pass: Vec::new() }
    }

    /// The same behind so many warm-up requests, which have other seeds.
    #[must_use]
    pub fn behind_warm_up(mut self, requests: usize) -> Self {
        (self.warm_up, self.repetition) = (requests, if requests > 0 { WARM_UP } else { 0 });
        self
    }

    /// Requests that are still to come, warm-up left out; `None` when there is no end.
    pub fn remaining(&self) -> Option<usize> {
        if self.ids.is_empty() || self.efforts.is_empty() { Some(0) } else { self.left }
    }

    fn begin_pass(&mut self) {
        let repetition = self.repetition;
        self.repetition += 1;
        let generator = |what: &str| ChaCha8Rng::seed_from_u64(response_seed(self.seed, what, repetition as usize));
        // The order of prompts does not depend on the efforts: stages of single efforts send the same sequence.
        let (mut prompts, mut efforts) = (generator("prompts"), generator("efforts"));
        let mut order: Vec<usize> = (0..self.ids.len()).collect();
        order.shuffle(&mut prompts);
        for prompt in order {
            let id = self.ids.get(prompt).map_or("", String::as_str);
            let seed = request_seed(self.seed, repetition, id);
            let mut block = self.efforts.clone();
            block.shuffle(&mut efforts);
            self.pass.extend(block.into_iter().map(|effort| Planned { prompt, effort, repetition, seed }));
        }
        self.pass.reverse();
    }
}

impl Iterator for Plan {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        if self.remaining() == Some(0) {
            return None;
        }
        if self.pass.is_empty() {
            self.begin_pass();
        }
        let planned = self.pass.pop();
        match self.warm_up.checked_sub(1) {
            Some(0) => {
                // The measured order is what it would be without a warm-up.
                self.pass.clear();
                (self.warm_up, self.repetition) = (0, 0);
            }
            Some(left) => self.warm_up = left,
            None => self.left = self.left.map(|left| left - 1),
        }
        planned
    }
}

/// A request's seed: 31 bits, because not every server takes more.
fn request_seed(seed: u64, repetition: u64, id: &str) -> u64 {
    response_seed(seed, id, repetition as usize) >> 33
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("p{index}")).collect()
    }

    #[test]
    fn every_block_holds_one_prompt_and_all_efforts_under_one_seed() {
        let planned: Vec<Planned> = Plan::new(ids(20), vec![0, 1, 2], 4, Some(120)).collect();
        assert_eq!(planned.len(), 120);
        for block in planned.chunks(3) {
            let efforts: BTreeSet<usize> = block.iter().map(|request| request.effort).collect();
            assert_eq!(efforts, BTreeSet::from([0, 1, 2]));
            assert!(block.iter().all(|request| request.prompt == block[0].prompt && request.seed == block[0].seed));
        }
        let seeds: BTreeSet<u64> = planned.iter().map(|request| request.seed).collect();
        assert_eq!(seeds.len(), 40, "each prompt and repetition has its own");
        assert!(planned.iter().all(|request| request.seed < 1 << 31));
        for pass in planned.chunks(60) {
            assert_eq!(pass.iter().map(|request| request.prompt).collect::<BTreeSet<_>>().len(), 20);
        }
    }

    #[test]
    fn the_order_is_random_interleaved_and_repeatable() {
        let order = |seed| Plan::new(ids(50), vec![0, 1], seed, Some(100)).collect::<Vec<_>>();
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let first = order(1).chunks(2).filter(|block| block[0].effort == 0).count();
        assert!((10..40).contains(&first), "the first of a block is now one effort, now the other: {first} of 50");
        let prompts: Vec<usize> = order(1).chunks(2).map(|block| block[0].prompt).collect();
        assert!(prompts.windows(2).any(|pair| pair[0] > pair[1]), "{prompts:?}");
    }

    #[test]
    fn a_stage_of_one_effort_sends_the_same_sequence_as_that_of_another() {
        let stage = |effort| {
            let plan = Plan::new(ids(10), vec![effort], 9, Some(25));
            plan.map(|request| (request.prompt, request.repetition, request.seed)).collect::<Vec<_>>()
        };
        assert_eq!(stage(0), stage(3));
    }

    #[test]
    fn plans_end_where_they_are_told_or_never() {
        assert_eq!(Plan::new(ids(2), vec![0], 0, None).take(1000).count(), 1000);
        assert_eq!(Plan::new(Vec::new(), vec![0], 0, None).count(), 0);
        assert_eq!(Plan::new(ids(2), Vec::new(), 0, None).count(), 0);
        let mut plan = Plan::new(ids(3), vec![0, 1], 0, Some(2));
        plan.next();
        assert_eq!(plan.remaining(), Some(1));
    }

    #[test]
    fn a_warm_up_comes_before_and_changes_nothing_behind_it() {
        let plain: Vec<Planned> = Plan::new(ids(3), vec![0, 1], 5, Some(9)).collect();
        for count in [1, 6, 8] {
            let plan = Plan::new(ids(3), vec![0, 1], 5, Some(9)).behind_warm_up(count);
            assert_eq!(plan.remaining(), Some(9));
            let mut planned: Vec<Planned> = plan.collect();
            let measured = planned.split_off(count);
            assert!(planned.iter().all(Planned::is_warm_up) && !measured.iter().any(Planned::is_warm_up));
            assert_eq!(measured, plain);
            assert!(planned.iter().all(|warm| measured.iter().all(|request| request.seed != warm.seed)));
        }
        assert_eq!(Plan::new(ids(3), vec![0, 1], 5, Some(9)).behind_warm_up(0).collect::<Vec<_>>(), plain);
        assert_eq!(Plan::new(Vec::new(), vec![0], 0, None).behind_warm_up(3).count(), 0);
    }
}
