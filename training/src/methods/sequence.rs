//! Token sequences with a part that is given and a part that is learnt from, and how they pass through a decoder.

use candle_core::Tensor;

use crate::Result;
use crate::model::ops::kernels::UNIFORM_ABOVE;
use crate::model::{Decoder, ModelConfig, Packed};

/// A sequence that only makes a batch larger.
const FILLING: &[u32] = &[0];

/// One sequence and which of its tokens are learnt from; the others are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) ids: Vec<u32>,
    /// Positions learnt from, in order; never the first token, which nothing predicts.
    pub(super) targets: Vec<usize>,
}

impl Sequence {
    /// A prompt that is given and the response to it, which is learnt from.
    pub(super) fn response(prompt: &[u32], response: &[u32]) -> Self {
        let ids: Vec<u32> = prompt.iter().chain(response).copied().collect();
        let targets = (prompt.len().max(1)..ids.len()).collect();
        Self { ids, targets }
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

/// Logits that predict the targets of `sequences`, divided by the sampling temperature, `[targets, vocabulary]`, and the
/// targets themselves, both in order.
///
/// A sequence's logits are the same to the bit in whatever company it passes through the model: where there are so few rows
/// that a product would be summed in another order, rows are added whose results nobody sees.
///
/// # Errors
/// As [`Decoder::hidden`].
pub(super) fn target_logits(
    decoder: &Decoder,
    sequences: &[&Sequence],
    temperature: f64,
) -> Result<(Tensor, Vec<u32>)> {
    let given = |sequence: &&Sequence| sequence.ids.len() - 1;
    let missing = fewest_rows(decoder.config()).saturating_sub(sequences.iter().map(given).sum());
    let inputs = sequences.iter().map(|sequence| &sequence.ids[..given(sequence)]);
    let packed = Packed::new(inputs.chain(std::iter::repeat_n(FILLING, missing)));
    let mut rows = Vec::new();
    let mut targets = Vec::new();
    for (sequence, &offset) in sequences.iter().zip(&packed.offsets) {
        rows.extend(sequence.targets.iter().map(|target| (offset + target - 1) as u32));
        targets.extend(sequence.targets.iter().map(|&target| sequence.ids[target]));
    }
    let wanted = rows.len();
    rows.resize(wanted.max(fewest_rows(decoder.config())), 0);
    let logits = decoder.logits_at(&decoder.hidden(&packed)?, &rows)?;
    let logits = if rows.len() > wanted { logits.narrow(0, 0, wanted)?.contiguous()? } else { logits };
    let logits = if temperature == 1.0 { logits } else { (logits / temperature)? };
    Ok((logits, targets))
}

/// Rows from which on every product of a decoder is summed in one and the same order.
fn fewest_rows(config: &ModelConfig) -> usize {
    let narrowest =
        [config.hidden_size, config.head_shape().qkv_width(), 2 * config.intermediate_size, config.vocab_size];
    UNIFORM_ABOVE / narrowest.into_iter().min().unwrap_or(1) + 2
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
