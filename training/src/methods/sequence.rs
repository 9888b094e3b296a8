//! Token sequences with a part that is given and a part that is learnt from, and how they pass through a decoder.

use candle_core::Tensor;

use crate::Result;
use crate::model::{Decoder, Packed};

/// One sequence; tokens before `first_target` are given (a prompt), the others are learnt from (a response).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) ids: Vec<u32>,
    /// At least 1: nothing predicts the first token.
    pub(super) first_target: usize,
}

impl Sequence {
    /// The tokens learnt from.
    pub(super) fn targets(&self) -> &[u32] {
        &self.ids[self.first_target..]
    }
}

/// Splits `items` into runs of at most `tokens` tokens; an item that is larger makes a run of its own.
pub(super) fn micro_batches<'a, T>(
    items: &'a [T],
    tokens: usize,
    size: impl Fn(&T) -> usize + 'a,
) -> impl Iterator<Item = &'a [T]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut total = 0;
        let fits = rest.iter().take_while(|item| {
            total += size(item);
            total <= tokens
        });
        let (micro, later) = rest.split_at(fits.count().max(1));
        rest = later;
        Some(micro)
    })
}

/// Logits that predict the targets of `sequences`, `[targets, vocabulary]`, and the targets themselves, both in order.
///
/// # Errors
/// As [`Decoder::hidden`].
pub(super) fn target_logits(decoder: &Decoder, sequences: &[&Sequence]) -> Result<(Tensor, Vec<u32>)> {
    let packed = Packed::new(sequences.iter().map(|sequence| &sequence.ids[..sequence.ids.len() - 1]));
    let mut rows = Vec::new();
    let mut targets = Vec::new();
    for (sequence, &offset) in sequences.iter().zip(&packed.offsets) {
        let predicted = sequence.first_target..sequence.ids.len();
        rows.extend(predicted.map(|target| (offset + target - 1) as u32));
        targets.extend_from_slice(sequence.targets());
    }
    let logits = decoder.logits_at(&decoder.hidden(&packed)?, &rows)?;
    Ok((logits, targets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_stay_within_the_limit_where_they_can() {
        let sizes = [3, 4, 2, 9, 1, 1, 1, 1];
        let runs: Vec<Vec<usize>> = micro_batches(&sizes, 7, |&size| size).map(<[usize]>::to_vec).collect();
        assert_eq!(runs, [vec![3, 4], vec![2], vec![9], vec![1, 1, 1, 1]]);
        assert_eq!(micro_batches::<usize>(&[], 7, |&size| size).count(), 0);
    }
}
