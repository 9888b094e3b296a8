//! From a row of logits to one token.

use std::cmp::Ordering;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::SamplingParams;
use crate::model::ops::kernels::{exp, log_sum_exp};

/// A drawn token and its log-probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Drawn {
    pub(super) id: u32,
    pub(super) logprob: f32,
}

/// Draws from softmax(logits / temperature), cut to its nucleus; temperature 0 takes the largest logit (the smallest id
/// among equals). `logits` is left divided by the temperature.
pub(super) fn draw(logits: &mut [f32], params: &SamplingParams, rng: &mut ChaCha8Rng) -> Drawn {
    if params.temperature != 0.0 && params.temperature != 1.0 {
        let scale = (1.0 / params.temperature) as f32;
        logits.iter_mut().for_each(|logit| *logit *= scale);
    }
    let log_sum = log_sum_exp(logits);
    let id = if params.temperature == 0.0 {
        largest(logits)
    } else if params.top_p < 1.0 {
        from_nucleus(logits, log_sum, params.top_p as f32, rng)
    } else {
        from_all(logits, log_sum, rng)
    };
    Drawn { id: id as u32, logprob: logits[id] - log_sum }
}

fn largest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = id;
        }
    }
    best
}

/// Inversion: the first id at which the cumulated probability passes a uniform draw.
fn from_all(logits: &[f32], log_sum: f32, rng: &mut ChaCha8Rng) -> usize {
    let mut left: f32 = rng.random();
    for (id, &logit) in logits.iter().enumerate() {
        left -= exp(logit - log_sum);
        if left < 0.0 {
            return id;
        }
    }
    // Rounding can leave a sliver of the unit interval uncovered.
    largest(logits)
}

/// How far below the largest logit a nucleus is looked for, until one is found: few ids are near it, and only they need an
/// order.
const REACHES: [f32; 3] = [4.0, 8.0, f32::INFINITY];

/// Inversion over the smallest set of most likely ids whose probabilities reach `top_p` (arXiv 1904.09751).
fn from_nucleus(logits: &[f32], log_sum: f32, top_p: f32, rng: &mut ChaCha8Rng) -> usize {
    let first = largest(logits);
    let (mut order, mut mass, mut kept): (Vec<usize>, f32, usize) = (Vec::new(), 0.0, 0);
    for reach in REACHES {
        let floor = logits[first] - reach;
        order.clear();
        order.extend((0..logits.len()).filter(|&id| logits[id] >= floor));
        order.sort_unstable_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap_or(Ordering::Equal).then(a.cmp(&b)));
        (mass, kept) = (0.0, 0);
        while kept < order.len() && (mass < top_p || kept == 0) {
            mass += exp(logits[order[kept]] - log_sum);
            kept += 1;
        }
        if mass >= top_p {
            break;
        }
    }
    let mut left = rng.random::<f32>() * mass;
    for &id in &order[..kept] {
        left -= exp(logits[id] - log_sum);
        if left < 0.0 {
            return id;
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn params(temperature: f64, top_p: f64) -> SamplingParams {
        SamplingParams { temperature, top_p, max_new_tokens: 1 }
    }

    fn frequencies(logits: &[f32], params: &SamplingParams) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut counts = vec![0u32; logits.len()];
        for _ in 0..20_000 {
            counts[draw(&mut logits.to_vec(), params, &mut rng).id as usize] += 1;
        }
        counts.iter().map(|&count| f64::from(count) / 20_000.0).collect()
    }

    #[test]
    fn draws_follow_the_softmax() {
        // Probabilities 1/8, 2/8, 5/8.
        let logits = [1f32.ln(), 2f32.ln(), 5f32.ln()];
        let at = frequencies(&logits, &params(1.0, 1.0));
        assert!((at[0] - 0.125).abs() < 0.01 && (at[1] - 0.25).abs() < 0.01 && (at[2] - 0.625).abs() < 0.01, "{at:?}");
        // Temperature 1/2 squares the weights: 1/30, 4/30, 25/30.
        let at = frequencies(&logits, &params(0.5, 1.0));
        assert!((at[1] - 4.0 / 30.0).abs() < 0.01 && (at[2] - 25.0 / 30.0).abs() < 0.01, "{at:?}");
    }

    #[test]
    fn the_nucleus_drops_the_tail() {
        let logits = [1f32.ln(), 2f32.ln(), 5f32.ln()];
        assert_eq!(frequencies(&logits, &params(1.0, 0.5)), [0.0, 0.0, 1.0]);
        let at = frequencies(&logits, &params(1.0, 0.8));
        assert!(at[0] == 0.0 && (at[1] - 2.0 / 7.0).abs() < 0.01, "{at:?}");
    }

    #[test]
    fn a_nucleus_is_the_same_however_far_it_reaches() {
        // All ids in order, as the definition says.
        let in_order = |logits: &[f32], top_p: f32, random: f32| {
            let log_sum = log_sum_exp(logits);
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            let (mut mass, mut kept) = (0.0, 0);
            while kept < order.len() && mass < top_p {
                mass += exp(logits[order[kept]] - log_sum);
                kept += 1;
            }
            let mut left = random * mass;
            order[..kept].iter().copied().find(|&id| {
                left -= exp(logits[id] - log_sum);
                left < 0.0
            })
        };
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for (width, top_p) in [(1.0, 0.95), (3.0, 0.9), (6.0, 0.999), (0.01, 0.5)] {
            for seed in 0..50 {
                let mut logits: Vec<f32> = (0..500).map(|_| rng.random_range(-width..width)).collect();
                logits[7] = logits[3];
                let random: f32 = ChaCha8Rng::seed_from_u64(seed).random();
                let expected = in_order(&logits, top_p, random).unwrap();
                let mut draws = ChaCha8Rng::seed_from_u64(seed);
                assert_eq!(from_nucleus(&logits, log_sum_exp(&logits), top_p, &mut draws), expected, "{width} {seed}");
            }
        }
        let impossible = [0.0, f32::NEG_INFINITY, 0.0];
        let mut draws = ChaCha8Rng::seed_from_u64(1);
        assert!((0..50).all(|_| from_nucleus(&impossible, 2f32.ln(), 1.0, &mut draws) != 1));
    }

    #[test]
    fn temperature_zero_takes_the_most_likely_and_reports_its_probability() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let drawn = draw(&mut [0.0, 3f32.ln(), 3f32.ln()], &params(0.0, 1.0), &mut rng);
        assert_eq!(drawn.id, 1);
        assert!((drawn.logprob - (3f32 / 7.0).ln()).abs() < 1e-6);
    }
}
