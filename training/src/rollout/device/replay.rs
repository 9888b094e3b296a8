//! Steps of one token a sequence through kernels, recorded once for every number of sequences and played from then on.
//!
//! A recording holds addresses, so what changes from step to step lies in tensors of its own: ids, positions, logits.
//! Numbers of sequences are rounded up, so that few recordings are made; rows beyond the last sequence work on slots that
//! nobody has, at position 0, which a prompt overwrites when the slot is taken.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::cache::Caches;
use crate::Result;
use crate::compute::kernels::{Kernels, Recording};
use crate::model::Layered;

/// Numbers of sequences are rounded up to a multiple of this.
const ROWS: usize = 8;

/// Steps of some model over some caches.
pub(super) struct Replay {
    kernels: Kernels,
    /// u32 `[slots]`.
    ids: Tensor,
    /// u32 `[slots]`.
    positions: Tensor,
    /// f32 `[slots, vocabulary]`.
    logits: Tensor,
    /// By number of rows; none where recording failed.
    recordings: BTreeMap<usize, Option<Recording>>,
}

impl Replay {
    /// Steps for up to `slots` sequences, where there are kernels for the caches.
    pub(super) fn new(model: &Layered, caches: &Caches, slots: usize) -> Result<Option<Self>> {
        let Some(kernels) = caches.kernels(&model.attention()) else {
            return Ok(None);
        };
        let device = model.device();
        let zeros = || Tensor::zeros(slots, DType::U32, device);
        let logits = Tensor::zeros((slots, model.config().vocab_size), DType::F32, device)?;
        Ok(Some(Self { kernels, ids: zeros()?, positions: zeros()?, logits, recordings: BTreeMap::new() }))
    }

    /// Runs token `ids[i]` at `positions[i]` of slot `i`; returns the logits after each, `[sequences, vocabulary]`, which
    /// the next step overwrites.
    pub(super) fn step(
        &mut self,
        model: &Layered,
        caches: &Caches,
        mut ids: Vec<u32>,
        mut positions: Vec<u32>,
    ) -> Result<Tensor> {
        let sequences = ids.len();
        let rows = sequences.next_multiple_of(ROWS).min(self.ids.dim(0)?);
        ids.resize(rows, 0);
        positions.resize(rows, 0);
        self.ids.slice_set(&Tensor::new(ids, model.device())?, 0, 0)?;
        self.positions.slice_set(&Tensor::new(positions, model.device())?, 0, 0)?;
        match self.recordings.get(&rows) {
            Some(Some(recording)) => recording.play()?,
            Some(None) => self.run(model, caches, rows)?,
            None => {
                let recording = self.kernels.run_and_record(|| self.run(model, caches, rows))?;
                self.recordings.insert(rows, recording);
            }
        }
        Ok(self.logits.narrow(0, 0, sequences)?)
    }

    fn run(&self, model: &Layered, caches: &Caches, rows: usize) -> Result<()> {
        let positions = self.positions.narrow(0, 0, rows)?;
        let (attention, turns) = (model.attention().keeping_format(), model.turns_at(&positions)?);
        let mut x = model.embed_at(&self.ids.narrow(0, 0, rows)?)?;
        for (layer, block) in model.blocks().iter().enumerate() {
            let heads = block.project(&x, &attention, &turns)?;
            let attended = caches.attend(&self.kernels, layer, &heads, &positions, attention.scale())?;
            x = block.finish(&x, &attended)?;
        }
        model.logits_into(&self.kernels, &x, &self.logits.narrow(0, 0, rows)?)
    }

    /// Recordings that are played, and numbers of rows for which there is none.
    #[cfg(all(test, feature = "cuda"))]
    pub(super) fn recorded(&self) -> (usize, usize) {
        let played = self.recordings.values().flatten().count();
        (played, self.recordings.len() - played)
    }

    /// From now on no step is recorded.
    #[cfg(all(test, feature = "cuda"))]
    pub(super) fn forget(&mut self) {
        for rows in 1..=self.ids.elem_count() {
            self.recordings.insert(rows, None);
        }
    }
}
