//! The order in which a data set is seen: every pass shuffled anew, each row once a pass.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Streams of random numbers from here down belong to passes; those of steps count up from 1 and never meet them.
const FIRST_STREAM: u64 = u64::MAX;

/// An endless sequence of rows, a function of the seed alone: nothing of it needs to be saved but a position.
pub(super) struct ShuffledPasses {
    seed: u64,
    rows: usize,
    pass: u64,
    order: Vec<usize>,
}

impl ShuffledPasses {
    /// Passes over `rows` rows, at least one.
    pub(super) fn new(seed: u64, rows: usize) -> Self {
        Self { seed, rows, pass: 0, order: shuffled(seed, 0, rows) }
    }

    /// The row at a position, counted from 0 over all passes.
    pub(super) fn row(&mut self, position: u64) -> usize {
        let (pass, index) = (position / self.rows as u64, position % self.rows as u64);
        if pass != self.pass {
            self.pass = pass;
            self.order = shuffled(self.seed, pass, self.rows);
        }
        self.order[index as usize]
    }
}

fn shuffled(seed: u64, pass: u64, rows: usize) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(FIRST_STREAM - pass);
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut rng);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_holds_every_row_once_in_an_order_of_its_own() {
        let mut passes = ShuffledPasses::new(7, 50);
        let rows: Vec<usize> = (0..150).map(|position| passes.row(position)).collect();
        for pass in rows.chunks(50) {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        }
        assert_ne!(rows[..50], rows[50..100]);
        assert_eq!(ShuffledPasses::new(7, 50).row(103), rows[103], "a position needs no history");
        assert_ne!(rows[..50], (0..50).map(|p| ShuffledPasses::new(8, 50).row(p)).collect::<Vec<_>>());
    }
}
