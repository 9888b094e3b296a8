//! Drawing an index from logits: truncation and softmax over reused buffers, sorting only what truncation needs.
//!
//! Knows nothing of tokens, grammars or seeds; the random number is an argument. A large vocabulary is read in vector
//! instructions, and in few passes: every token of every sequence is drawn here.

use std::cmp::Ordering;

use brevity_training::model::ops::kernels;
use toktrie::SimpleVob;

/// Larger than any logit that means something, and far from overflow.
const HIGHEST: f32 = 1e30;

/// How far below the highest logit candidates are looked for, in units of the temperature, until there are enough.
const REACHES: [f64; 3] = [6.0, 12.0, 24.0];

/// Weights whose sum is taken at a time when one of them is looked for.
const BLOCK: usize = 1024;

/// Logits of one place, changed in steps until one is drawn.
#[derive(Debug, Default)]
pub(super) struct Draw {
    logits: Vec<f32>,
    candidates: Vec<(f32, u32)>,
    weights: Vec<f32>,
}

/// Most likely first, ties to the lowest id.
fn descending(left: &(f32, u32), right: &(f32, u32)) -> Ordering {
    right.0.total_cmp(&left.0).then(left.1.cmp(&right.1))
}

impl Draw {
    /// Takes new logits: the first `size` of them, without `holes`; what is not a number counts as −∞.
    pub fn load(&mut self, logits: &[f32], size: usize, holes: &[u32]) {
        self.logits.clear();
        let clean = |&logit: &f32| if logit.is_nan() { f32::NEG_INFINITY } else { logit.min(HIGHEST) };
        self.logits.extend(logits.iter().take(size).map(clean));
        holes.iter().for_each(|&id| self.forbid(id));
    }

    /// Whether any index can still be drawn.
    pub fn any(&self) -> bool {
        self.logits.iter().any(|&logit| logit > f32::NEG_INFINITY)
    }

    /// Adds to one logit.
    pub fn add(&mut self, id: u32, amount: f32) {
        if let Some(logit) = self.logits.get_mut(id as usize) {
            *logit += amount;
        }
    }

    /// Takes one index out.
    pub fn forbid(&mut self, id: u32) {
        if let Some(logit) = self.logits.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }

    /// Keeps the indices of `mask`, and `also`.
    pub fn keep(&mut self, mask: &SimpleVob, also: Option<u32>) {
        let size = mask.len();
        for (id, logit) in self.logits.iter_mut().enumerate() {
            if (id >= size || !mask.is_allowed(id as u32)) && also != Some(id as u32) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// Natural logarithm of the sum of exponentials.
    pub fn log_total(&mut self) -> f64 {
        let highest = self.highest();
        if highest == f32::NEG_INFINITY {
            return 0.0;
        }
        self.weigh(highest, 1.0);
        f64::from(highest) + self.weights.chunks(BLOCK).map(sum).sum::<f64>().ln()
    }

    /// The `count` most likely indices with their logits, most likely first.
    pub fn most_likely(&mut self, count: usize) -> Vec<(u32, f32)> {
        let highest = self.highest();
        if highest == f32::NEG_INFINITY {
            return Vec::new();
        }
        if count <= 1 {
            let first = self.logits.iter().position(|&logit| logit == highest);
            return first.into_iter().take(count).map(|id| (id as u32, highest)).collect();
        }
        let cuts = REACHES.map(|reach| highest - reach as f32);
        self.gather(cuts, f32::NEG_INFINITY, |candidates| candidates.len() >= count);
        self.keep_best(count);
        self.candidates.iter().map(|&(logit, id)| (id, logit)).collect()
    }

    /// Draws an index; `random` in [0, 1) decides. `None` when no index is left.
    pub fn draw(&mut self, temperature: f64, top_k: Option<usize>, min_p: f64, top_p: f64, random: f64) -> Option<u32> {
        let highest = self.highest();
        if highest == f32::NEG_INFINITY {
            return None;
        }
        // Single precision is exact enough for a draw.
        let scale = temperature.recip().min(f64::from(f32::MAX)) as f32;
        let top_k = top_k.filter(|&k| k > 0 && k < self.logits.len());
        if top_k.is_none() && min_p <= 0.0 && top_p >= 1.0 {
            self.weigh(highest, scale);
            return pick_in_blocks(&self.weights, random);
        }
        let weight = |logit: f32| ((f64::from(logit - highest) / temperature) as f32).exp().into();
        let mass = |candidates: &[(f32, u32)]| candidates.iter().map(|&(logit, _)| weight(logit)).sum::<f64>();
        // A candidate below the share that `min_p` asks for cannot come back, whatever `top_k` says.
        let floor = if min_p > 0.0 { highest + (temperature * min_p.ln()) as f32 } else { f32::NEG_INFINITY };
        let floor = floor.min(highest);
        let cuts = REACHES.map(|reach| highest - (temperature * reach) as f32);
        let total = match top_k {
            Some(k) => {
                self.gather(cuts, floor, |candidates| candidates.len() >= k);
                self.keep_best(k);
                mass(&self.candidates)
            }
            None if min_p > 0.0 => {
                self.gather([], floor, |_| true);
                mass(&self.candidates)
            }
            None => {
                self.weigh(highest, scale);
                let total = self.weights.chunks(BLOCK).map(sum).sum();
                self.gather(cuts, floor, |candidates| mass(candidates) >= total * top_p);
                total
            }
        };
        if top_p < 1.0 {
            self.sort_until(total * top_p, weight);
        }
        let total = mass(&self.candidates);
        pick(self.candidates.iter().map(|&(logit, id)| (id, weight(logit))), random * total)
    }

    fn highest(&self) -> f32 {
        kernels::largest(&self.logits)
    }

    /// The weights of all logits.
    fn weigh(&mut self, highest: f32, scale: f32) {
        self.weights.resize(self.logits.len(), 0.0);
        kernels::softmax_weights(&self.logits, highest, scale, &mut self.weights);
    }

    /// Fills the candidates with the possible indices above the first of the `cuts` that leaves `enough` of them, or with all
    /// of at least `floor`.
    fn gather(&mut self, cuts: impl IntoIterator<Item = f32>, floor: f32, enough: impl Fn(&[(f32, u32)]) -> bool) {
        for cut in cuts.into_iter().take_while(|&cut| cut > floor).chain([floor]) {
            self.candidates.clear();
            let pairs = self.logits.iter().enumerate();
            let possible = pairs.filter(|&(_, &logit)| logit > f32::NEG_INFINITY && logit >= cut);
            self.candidates.extend(possible.map(|(id, &logit)| (logit, id as u32)));
            if cut == floor || enough(&self.candidates) {
                return;
            }
        }
    }

    /// Keeps the `count` most likely candidates, sorted.
    fn keep_best(&mut self, count: usize) {
        if count < self.candidates.len() {
            self.candidates.select_nth_unstable_by(count, descending);
            self.candidates.truncate(count);
        }
        self.candidates.sort_unstable_by(descending);
    }

    /// Keeps the most likely candidates, sorted, up to the one with which their weights reach `mass`.
    fn sort_until(&mut self, mass: f64, weight: impl Fn(f32) -> f64) {
        let (mut sorted, mut block, mut reached) = (0, 64, 0.0);
        while sorted < self.candidates.len() {
            let rest = &mut self.candidates[sorted..];
            let size = block.min(rest.len());
            if size < rest.len() {
                rest.select_nth_unstable_by(size, descending);
            }
            rest[..size].sort_unstable_by(descending);
            for index in sorted..sorted + size {
                reached += weight(self.candidates[index].0);
                if reached >= mass {
                    self.candidates.truncate(index + 1);
                    return;
                }
            }
            sorted += size;
            block *= 4;
        }
    }
}

/// A sum in lanes.
fn sum(weights: &[f32]) -> f64 {
    let mut lanes = [0f64; 8];
    let blocks = weights.chunks_exact(8);
    let rest: f64 = blocks.remainder().iter().map(|&weight| f64::from(weight)).sum();
    for block in blocks {
        for (lane, &weight) in lanes.iter_mut().zip(block) {
            *lane += f64::from(weight);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// As [`pick`] at the share `random` of all weights, looking into one block of them.
fn pick_in_blocks(weights: &[f32], random: f64) -> Option<u32> {
    let sums: Vec<f64> = weights.chunks(BLOCK).map(sum).collect();
    let target = random * sums.iter().sum::<f64>();
    let (mut mass, mut chosen) = (0.0, None);
    for (number, sum) in sums.iter().enumerate().filter(|(_, sum)| **sum > 0.0) {
        // Rounding may leave nothing above the target: then it is the last block.
        chosen = Some((number, target - mass));
        mass += sum;
        if mass > target {
            break;
        }
    }
    let (number, target) = chosen?;
    let first = number * BLOCK;
    let block = weights.iter().enumerate().skip(first).take(BLOCK);
    pick(block.map(|(id, &weight)| (id as u32, f64::from(weight))), target)
}

/// The first index with which the weights exceed `target`; the last possible one should rounding never reach it.
fn pick(pairs: impl Iterator<Item = (u32, f64)>, target: f64) -> Option<u32> {
    let (mut mass, mut last) = (0.0, None);
    for (id, weight) in pairs {
        if weight > 0.0 {
            mass += weight;
            last = Some(id);
            if mass > target {
                break;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loaded(logits: &[f32]) -> Draw {
        let mut draw = Draw::default();
        draw.load(logits, logits.len(), &[]);
        draw
    }

    /// All indices that can be drawn, by drawing at many places.
    fn drawn(logits: &[f32], top_k: Option<usize>, min_p: f64, top_p: f64) -> Vec<u32> {
        let mut draw = loaded(logits);
        let mut ids: Vec<u32> =
            (0..1000).filter_map(|step| draw.draw(1.0, top_k, min_p, top_p, f64::from(step) / 1000.0)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    #[test]
    fn truncation_keeps_what_it_says() {
        // Probabilities 0.5, 0.3, 0.15, 0.05.
        let logits: Vec<f32> = [0.15f32, 0.5, 0.05, 0.3].iter().map(|share| share.ln()).collect();
        assert_eq!(drawn(&logits, None, 0.0, 1.0), [0, 1, 2, 3]);
        assert_eq!(drawn(&logits, Some(2), 0.0, 1.0), [1, 3]);
        assert_eq!(drawn(&logits, Some(0), 0.0, 1.0), [0, 1, 2, 3]);
        assert_eq!(drawn(&logits, None, 0.25, 1.0), [0, 1, 3]);
        assert_eq!(drawn(&logits, None, 0.0, 0.75), [1, 3]);
        assert_eq!(drawn(&logits, None, 0.0, 0.85), [0, 1, 3]);
        // Of the two that top_k leaves, one has 0.625 of the mass.
        assert_eq!(drawn(&logits, Some(2), 0.0, 0.6), [1]);
        assert_eq!(drawn(&[1.0, 1.0, 1.0], Some(1), 0.0, 1.0), [0], "ties go to the lowest id");
        assert_eq!(drawn(&[f32::NEG_INFINITY, 0.0], None, 0.0, 1.0), [1]);
        assert!(drawn(&[f32::NEG_INFINITY], None, 0.0, 1.0).is_empty());
    }

    #[test]
    fn a_share_of_the_draws_is_a_share_of_the_probability() {
        let logits: Vec<f32> = [0.2f32, 0.8].iter().map(|share| share.ln()).collect();
        let mut draw = loaded(&logits);
        let mut count = |temperature: f64| {
            (0..1000)
                .filter(|&step| draw.draw(temperature, None, 0.0, 1.0, f64::from(step) / 1000.0) == Some(0))
                .count()
        };
        assert_eq!(count(1.0), 200);
        // 0.2² / (0.2² + 0.8²) = 1 / 17.
        assert_eq!(count(0.5), 59);
    }

    proptest! {
        #[test]
        fn totals_and_the_most_likely_are_those_of_all_logits(
            logits in prop::collection::vec(-90f32..30.0, 1..3000),
            count in 0usize..25,
        ) {
            let mut sorted: Vec<(f32, u32)> = logits.iter().enumerate().map(|(id, &logit)| (logit, id as u32)).collect();
            sorted.sort_by(descending);
            let wanted: Vec<(u32, f32)> = sorted.iter().take(count).map(|&(logit, id)| (id, logit)).collect();
            let mut draw = loaded(&logits);
            prop_assert_eq!(draw.most_likely(count), wanted);
            let highest = f64::from(sorted[0].0);
            let total = highest + logits.iter().map(|&logit| (f64::from(logit) - highest).exp()).sum::<f64>().ln();
            prop_assert!((draw.log_total() - total).abs() < 1e-6, "{} {total}", draw.log_total());
        }

        #[test]
        fn partial_sorting_finds_the_nucleus_of_a_full_sort(
            logits in prop::collection::vec(-4f32..4.0, 1..600),
            top_p in 0.01f64..0.999,
            random in 0f64..1.0,
        ) {
            let mut sorted: Vec<(f32, u32)> = logits.iter().enumerate().map(|(id, &logit)| (logit, id as u32)).collect();
            sorted.sort_by(descending);
            let total: f64 = sorted.iter().map(|&(logit, _)| f64::from(logit).exp()).sum();
            let mut mass = 0.0;
            let mut nucleus = Vec::new();
            for (logit, id) in sorted {
                nucleus.push(id);
                mass += f64::from(logit).exp();
                // One more is allowed for: where the mass is reached exactly, rounding decides.
                if mass > total * top_p * 1.000_01 {
                    break;
                }
            }
            let drawn = loaded(&logits).draw(1.0, None, 0.0, top_p, random).unwrap();
            prop_assert!(nucleus.contains(&drawn));
        }

        #[test]
        fn draws_invert_the_distribution(
            logits in prop::collection::vec(-60f32..4.0, 1..5000),
            temperature in 0.2f64..3.0,
            top_k in prop::option::of(1usize..40),
            random in 0f64..1.0,
        ) {
            // In the order of ids, or of likelihood where that is what truncation sorts by.
            let mut order: Vec<(f32, u32)> = logits.iter().enumerate().map(|(id, &logit)| (logit, id as u32)).collect();
            let kept = top_k.filter(|&k| k < logits.len());
            if let Some(k) = kept {
                order.sort_by(descending);
                order.truncate(k);
            }
            let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let weight = |logit: f32| ((f64::from(logit) - highest) / temperature).exp();
            let total: f64 = order.iter().map(|&(logit, _)| weight(logit)).sum();
            let drawn = loaded(&logits).draw(temperature, top_k, 0.0, 1.0, random).unwrap();
            let place = order.iter().position(|&(_, id)| id == drawn);
            prop_assert!(place.is_some(), "{drawn} is not among the {top_k:?} most likely");
            let below: f64 = order.iter().take(place.unwrap()).map(|&(logit, _)| weight(logit)).sum();
            let upto = below + weight(logits[drawn as usize]);
            prop_assert!(below / total <= random + 1e-5 && random <= upto / total + 1e-5, "{below} {upto} {total}");
        }
    }
}
