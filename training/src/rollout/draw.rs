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

/// Draws from softmax(logits / temperature), truncated as the parameters say; temperature 0 takes the largest logit (the smallest id
/// among equals). `logits` is left divided by the temperature.
pub(super) fn draw(logits: &mut [f32], params: &SamplingParams, rng: &mut ChaCha8Rng) -> Drawn {
    if params.temperature != 0.0 && params.temperature != 1.0 {
        let scale = (1.0 / params.temperature) as f32;
        logits.iter_mut().for_each(|logit| *logit *= scale);
    }
    let log_sum = log_sum_exp(logits);
    let id = if params.temperature == 0.0 {
        largest(logits)
    } else if params.truncates() {
        from_likely(logits, log_sum, params, rng)
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

/// How far below the largest logit likely ids are looked for, until one is found: few ids are near it, and only they need an
/// order.
const REACHES: [f32; 3] = [4.0, 8.0, f32::INFINITY];

/// Inversion over the likely ids: at most `top_k`, none below the share `min_p` of the likeliest one's probability, and of
/// these the smallest set of the likeliest whose probabilities reach `top_p` of theirs (arXiv 1904.09751).
fn from_likely(logits: &[f32], log_sum: f32, params: &SamplingParams, rng: &mut ChaCha8Rng) -> usize {
    let first = largest(logits);
    let most = params.top_k.unwrap_or(usize::MAX);
    let floor = logits[first] + (params.min_p as f32).ln();
    let is_relative = params.top_k.is_some() || params.min_p > 0.0;
    let probability = |id: usize| exp(logits[id] - log_sum);
    let (mut order, mut mass, mut kept): (Vec<usize>, f32, usize) = (Vec::new(), 0.0, 0);
    for reach in REACHES {
        let cut = (logits[first] - reach).max(floor);
        order.clear();
        order.extend((0..logits.len()).filter(|&id| logits[id] >= cut));
        order.sort_unstable_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap_or(Ordering::Equal).then(a.cmp(&b)));
        let is_complete = order.len() >= most || cut <= floor;
        if is_relative && !is_complete {
            continue;
        }
        order.truncate(most);
        let whole = if is_relative { order.iter().map(|&id| probability(id)).sum() } else { 1.0 };
        let wanted = whole * params.top_p as f32;
        (mass, kept) = (0.0, 0);
        while kept < order.len() && (mass < wanted || kept == 0) {
            mass += probability(order[kept]);
            kept += 1;
        }
        if is_complete || mass >= wanted {
            break;
        }
    }
    let mut left = rng.random::<f32>() * mass;
    for &id in &order[..kept] {
        left -= probability(id);
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
        SamplingParams { top_p, ..SamplingParams::whole(temperature, 1) }
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
    fn what_is_likely_is_what_the_parameters_say() {
        // Probabilities 0.15, 0.5, 0.05, 0.3.
        let logits = [0.15f32, 0.5, 0.05, 0.3].map(f32::ln);
        let possible = |top_k: Option<usize>, min_p: f64, top_p: f64| -> Vec<usize> {
            let params = SamplingParams { top_k, min_p, ..params(1.0, top_p) };
            let at = frequencies(&logits, &params);
            (0..4).filter(|&id| at[id] > 0.0).collect()
        };
        assert_eq!(possible(Some(2), 0.0, 1.0), [1, 3]);
        assert_eq!(possible(Some(9), 0.0, 1.0), [0, 1, 2, 3], "more than there are");
        assert_eq!(possible(None, 0.25, 1.0), [0, 1, 3], "a quarter of 0.5 is 0.125");
        // Of the two that top_k leaves, one has 0.625 of the mass; of all it has a half.
        assert_eq!(possible(Some(2), 0.0, 0.6), [1]);
        assert_eq!(possible(None, 0.0, 0.6), [1, 3]);
        let at = frequencies(&logits, &SamplingParams { top_k: Some(2), ..params(1.0, 1.0) });
        assert!((at[3] - 0.375).abs() < 0.01, "{at:?}");
        // At temperature 1/2 the shares are squared: 0.3² is 0.36 of 0.5², 0.15² is 0.09.
        let at = frequencies(&logits, &SamplingParams { min_p: 0.2, ..params(0.5, 1.0) });
        assert!(at[0] == 0.0 && (at[3] - 0.36 / 1.36).abs() < 0.01, "{at:?}");
        // Wider than the first look reaches.
        let far = [0.0, -5.0, -9.0, -20.0];
        let at = frequencies(&far, &SamplingParams { top_k: Some(2), ..params(4.0, 1.0) });
        assert!(at[1] > 0.2 && at[2] == 0.0 && at[3] == 0.0, "{at:?}");
        let equal = frequencies(&[1.0, 1.0, 1.0], &SamplingParams { top_k: Some(2), ..params(1.0, 1.0) });
        assert_eq!(equal[2], 0.0, "of equals, those of the smallest ids");
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
                let drawn = from_likely(&logits, log_sum_exp(&logits), &params(1.0, top_p.into()), &mut draws);
                assert_eq!(drawn, expected, "{width} {seed}");
            }
        }
        let impossible = [0.0, f32::NEG_INFINITY, 0.0];
        let mut draws = ChaCha8Rng::seed_from_u64(1);
        assert!((0..50).all(|_| from_likely(&impossible, 2f32.ln(), &params(1.0, 1.0), &mut draws) != 1));
    }

    #[test]
    fn temperature_zero_takes_the_most_likely_and_reports_its_probability() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let drawn = draw(&mut [0.0, 3f32.ln(), 3f32.ln()], &params(0.0, 1.0), &mut rng);
        assert_eq!(drawn.id, 1);
        assert!((drawn.logprob - (3f32 / 7.0).ln()).abs() < 1e-6);
    }
}
