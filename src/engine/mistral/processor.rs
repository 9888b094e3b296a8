//! The hook through which our own sampler decides every token of the engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use mistralrs::{CustomLogitsProcessor, Device, Result, Tensor};
use tokio::sync::mpsc::UnboundedSender;

use super::room::Room;
use crate::engine::EngineError;
use crate::engine::sequence::{Chosen, TokenSampler};

/// What a [`Processor`] sends to the other side for every token: the choice, or why there is none.
pub type Step = std::result::Result<Chosen, EngineError>;

/// Draws the tokens of one sequence on the engine's thread.
///
/// The engine decodes with temperature 0, so a row of minus infinity with a single zero forces the token. The row ends
/// there: the engine looks for the largest of it and takes the softmax of all, which for a whole vocabulary takes longer
/// than the draw. It must never see an error or a panic from here: an error corrupts the other sequences of its batch, a
/// panic ends its thread. Faults therefore go out through the channel, and the sequence is ended by forcing the token that
/// ends a turn, as it is when nobody listens any more.
pub struct Processor {
    sampler: Mutex<Option<TokenSampler>>,
    steps: UnboundedSender<Step>,
    end: u32,
    /// Room for the prompt, until it is read.
    room: Room,
}

impl Processor {
    /// A processor that draws with `sampler` and sends its choices to `steps`; from the first fault on, or once `steps` is
    /// closed, it forces `end`.
    pub fn new(sampler: TokenSampler, steps: UnboundedSender<Step>, end: u32) -> Self {
        Self { sampler: Mutex::new(Some(sampler)), steps, end, room: Room::default() }
    }

    /// The same processor, which gives `room` back when the first token is drawn.
    #[must_use]
    pub fn reading_in(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// The next token's id.
    fn next(&self, logits: &Tensor) -> u32 {
        self.room.give_back();
        let mut slot = self.sampler.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sampler) = slot.as_mut().filter(|_| !self.steps.is_closed()) else {
            *slot = None;
            return self.end;
        };
        let step = catch_unwind(AssertUnwindSafe(|| choose(sampler, logits)))
            .unwrap_or_else(|_| Err(EngineError::failed("drawing a token for this request failed")));
        let id = step.as_ref().map(|chosen| chosen.id).ok();
        // Only a dropped receiver refuses a step; the next call sees that too.
        let heard = self.steps.send(step).is_ok();
        match id.filter(|_| heard) {
            Some(id) => id,
            None => {
                *slot = None;
                self.end
            }
        }
    }
}

fn choose(sampler: &mut TokenSampler, logits: &Tensor) -> Step {
    let logits = logits.to_vec1::<f32>().map_err(|error| EngineError::failed(format!("reading logits: {error}")))?;
    let chosen = sampler.choose(&logits);
    match sampler.failure() {
        Some(error) => Err(error),
        None if chosen.id as usize >= logits.len() => {
            Err(EngineError::failed(format!("token {} is outside the vocabulary of {}", chosen.id, logits.len())))
        }
        None => Ok(chosen),
    }
}

impl CustomLogitsProcessor for Processor {
    fn apply(&self, logits: &Tensor, _context: &[u32]) -> Result<Tensor> {
        let forced = catch_unwind(AssertUnwindSafe(|| {
            let last = (self.next(logits) as usize).min(logits.elem_count().saturating_sub(1));
            let mut row = vec![f32::NEG_INFINITY; last];
            row.push(0.0);
            Tensor::from_vec(row, last + 1, &Device::Cpu)
        }));
        // A row that cannot be made leaves the logits as they are: whatever the engine draws then, nobody reads it.
        match forced {
            Ok(Ok(row)) => Ok(row),
            Ok(Err(_)) | Err(_) => Ok(logits.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::mpsc::unbounded_channel;

    use super::super::probe;
    use super::*;
    use crate::engine::sequence::LocalModel;

    #[test]
    fn a_row_ends_with_the_token_that_it_forces() {
        let model = LocalModel::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini/base")).unwrap();
        let (steps, mut chosen) = unbounded_channel();
        let end = model.end_ids()[0];
        let processor = Processor::new(model.start(&probe("any")).unwrap().sampler, steps, end);
        let mut logits = vec![0f32; 384];
        logits[7] = 5.0;
        let logits = Tensor::from_vec(logits, 384, &Device::Cpu).unwrap();
        let forced = || processor.apply(&logits, &[]).unwrap().to_vec1::<f32>().unwrap();
        let row = forced();
        assert_eq!((row.len(), row[7]), (8, 0.0));
        assert!(row[..7].iter().all(|&logit| logit == f32::NEG_INFINITY));
        assert_eq!(chosen.try_recv().unwrap().unwrap().id, 7);
        drop(chosen);
        assert_eq!(forced().len(), end as usize + 1, "nobody listens, so the turn ends");
    }
}
