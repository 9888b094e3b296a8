//! Rotary positions (arXiv 2104.09864): by which angle each pair of a head's values is turned at each position.

use std::f32::consts::TAU;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};

/// How the frequencies of a model were stretched to reach beyond the context that it was first trained with: Llama 3.1's
/// rule (`rope_type` "llama3"). Fast frequencies stay, slow ones are divided by the factor, those between go over smoothly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    /// What slow frequencies are divided by.
    pub factor: f32,
    /// Slow are those with fewer turns than this in the original context.
    pub low_freq_factor: f32,
    /// Fast are those with more turns than this in the original context.
    pub high_freq_factor: f32,
    /// Tokens of the original context.
    pub original_max_position_embeddings: usize,
}

impl Stretch {
    /// What becomes of a frequency, in radians a token.
    fn of(&self, frequency: f32) -> f32 {
        let turns = self.original_max_position_embeddings as f32 * frequency / TAU;
        let share = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
        let kept = share.clamp(0.0, 1.0);
        kept * frequency + (1.0 - kept) * frequency / self.factor
    }
}

/// Cosines and sines of the rotary position embedding for every position a model may use.
#[derive(Debug, Clone)]
pub struct Rotary {
    half: usize,
    /// `[positions, head_dim / 2]`, row-major.
    cos: Arc<Vec<f32>>,
    sin: Arc<Vec<f32>>,
}

impl Rotary {
    /// Tables for `positions` positions: angle `position * theta^(-2i / head_dim)`, stretched where that is asked for,
    /// computed in `f32` as the reference implementations do.
    pub fn new(head_dim: usize, positions: usize, theta: f64, stretch: Option<Stretch>) -> Self {
        let half = head_dim / 2;
        let frequency = |i: usize| 1.0 / (theta as f32).powf(2.0 * i as f32 / head_dim as f32);
        let stretched = |frequency| stretch.map_or(frequency, |stretch| stretch.of(frequency));
        let frequencies: Vec<f32> = (0..half).map(frequency).map(stretched).collect();
        let angles = (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        let (cos, sin) = angles.map(|angle| (angle.cos(), angle.sin())).unzip();
        Self { half, cos: Arc::new(cos), sin: Arc::new(sin) }
    }

    /// Positions the tables reach to.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }

    /// Cosines and sines of the first `positions` positions as tensors `[positions, head_dim / 2]`.
    ///
    /// # Errors
    /// When `device` has no room for them.
    pub fn tables(&self, positions: usize, device: &Device) -> Result<(Tensor, Tensor)> {
        let table =
            |values: &[f32]| Tensor::from_slice(&values[..positions * self.half], (positions, self.half), device);
        Ok((table(&self.cos)?, table(&self.sin)?))
    }

    /// Cosines and sines at `position`, `[head_dim / 2]` each.
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_frequencies_are_divided_and_fast_ones_stay() {
        // Llama 3.1: wavelengths below 8192 / 4 = 2048 tokens stay, above 8192 are eight times as long.
        let stretch = Stretch {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let wavelength = |tokens: f32| TAU / stretch.of(TAU / tokens);
        for (tokens, expected) in [(6.3, 6.3), (2047.0, 2047.0), (8193.0, 65_544.0), (1e6, 8e6)] {
            assert!((wavelength(tokens) / expected - 1.0).abs() < 1e-3, "{tokens}: {}", wavelength(tokens));
        }
        // Half way between one and four turns, 3,276.8 tokens: half the frequency stays, a sixteenth comes to it.
        assert!((wavelength(3276.8) / (3276.8 / 0.5625) - 1.0).abs() < 1e-3, "{}", wavelength(3276.8));
    }
}
