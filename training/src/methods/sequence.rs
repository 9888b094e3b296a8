//! Token sequences with a part that is given and a part that is learnt from, and their division into micro-batches.

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
