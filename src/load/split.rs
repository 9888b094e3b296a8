//! Where a saving in time comes from: the first token, the number of tokens, or the time of each.
//!
//! The mean time end to end is T = F + N·P, exactly: F is the mean time to the first token (waiting and prompt included), N
//! the mean number of tokens after the first, and P = sum(end to end − first token) / sum(tokens after the first). Against
//! the reference (index 0) the change is T − T₀ = (F − F₀) + (N − N₀)·(P + P₀)/2 + (P − P₀)·(N + N₀)/2: what each of the
//! factors does, at the mean of the other's two values (Shapley's value of both). The parts are given over T₀ and add up.

use serde::{Deserialize, Serialize};

use super::comparison::{DRAWS, Estimate, Pairs};
use super::record::Record;
use crate::eval::statistics::{Pairing, bootstrap};

/// What the mean time of one side consists of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// Mean seconds to the first token.
    pub first_token: f64,
    /// Mean number of tokens after the first.
    pub further_tokens: f64,
    /// Seconds of each of them: all their time over all of them, not a mean of requests.
    pub time_per_further_token: f64,
}

impl Parts {
    /// Mean seconds end to end.
    pub fn end_to_end(&self) -> f64 {
        self.first_token + self.further_tokens * self.time_per_further_token
    }

    /// What first token, number of tokens and time per token change from `reference` to here, each over the mean time of
    /// the reference.
    fn changes(&self, reference: &Self) -> [f64; 3] {
        let both = |of: fn(&Self) -> f64| (of(self) - of(reference), (of(self) + of(reference)) / 2.0);
        let (more_first, _) = both(|parts| parts.first_token);
        let (more_tokens, tokens) = both(|parts| parts.further_tokens);
        let (more_time, time) = both(|parts| parts.time_per_further_token);
        [more_first, more_tokens * time, more_time * tokens].map(|change| change / reference.end_to_end())
    }
}

/// The change in time, taken apart. Only pairs of streamed answers whose tokens are known have a part in it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// Pairs of requests that it is about.
    pub pairs: usize,
    /// What this effort's mean time consists of.
    pub effort: Parts,
    /// What the reference's consists of.
    pub reference: Parts,
    /// Ratio of mean times end to end; less one it is the sum of the three that follow.
    pub end_to_end: Estimate,
    /// What the time to the first token changes, as a share of the reference's mean time; below 0 it saves.
    pub first_token: Estimate,
    /// What the number of tokens changes.
    pub tokens: Estimate,
    /// What the time per further token changes.
    pub time_per_token: Estimate,
}

/// Sums over requests of one side.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    requests: f64,
    first_token: f64,
    rest: f64,
    further_tokens: f64,
}

impl Sums {
    /// Of one request; `None` without a stream or a count of tokens.
    fn of(record: &Record) -> Option<Self> {
        let first_token = record.time_to_first_token?;
        let further_tokens = record.tokens?.checked_sub(1)? as f64;
        Some(Self { requests: 1.0, first_token, rest: record.end_to_end - first_token, further_tokens })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            first_token: self.first_token + other.first_token,
            rest: self.rest + other.rest,
            further_tokens: self.further_tokens + other.further_tokens,
        }
    }

    /// `None` where nothing followed the first tokens.
    fn parts(&self) -> Option<Parts> {
        (self.further_tokens > 0.0).then(|| Parts {
            first_token: self.first_token / self.requests,
            further_tokens: self.further_tokens / self.requests,
            time_per_further_token: self.rest / self.further_tokens,
        })
    }
}

impl Split {
    /// Takes the change between the sides of `pairs` apart; `seed` decides the draws of prompts behind the intervals.
    pub fn of(pairs: &Pairs<'_>, seed: u64) -> Option<Self> {
        let zero = || [Sums::default(); 2];
        let add = |[left, right]: [Sums; 2], [one, two]: [Sums; 2]| [left.plus(one), right.plus(two)];
        let sides = pairs.groups().iter().map(|group| {
            let sums = group.iter().filter_map(|(left, right)| Some([Sums::of(left)?, Sums::of(right)?]));
            sums.fold(zero(), add)
        });
        let groups: Vec<[Sums; 2]> = sides.filter(|[left, _]| left.requests > 0.0).collect();
        let of = |drawn: &[usize]| {
            let [left, right] = drawn.iter().filter_map(|&index| groups.get(index)).copied().fold(zero(), add);
            left.parts().zip(right.parts()).filter(|(_, reference)| reference.end_to_end() > 0.0)
        };
        let all: Vec<usize> = (0..groups.len()).collect();
        let (effort, reference) = of(&all)?;
        let count = groups.len();
        let estimate = |statistic: &dyn Fn(&Parts, &Parts) -> f64| {
            let drawn =
                |drawn: &[usize], _: &[usize]| of(drawn).map(|(effort, reference)| statistic(&effort, &reference));
            let interval = bootstrap((count, count), Pairing::Paired, (DRAWS, seed), drawn);
            Estimate { value: statistic(&effort, &reference), interval }
        };
        let change = |index: usize| estimate(&|effort, reference| effort.changes(reference)[index]);
        Some(Self {
            pairs: groups.iter().map(|[left, _]| left.requests).sum::<f64>() as usize,
            effort,
            reference,
            end_to_end: estimate(&|effort, reference| effort.end_to_end() / reference.end_to_end()),
            first_token: change(0),
            tokens: change(1),
            time_per_token: change(2),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: usize, effort: &str, (first, tokens, per_token): (f64, u64, f64)) -> Record {
        Record {
            time_to_first_token: Some(first),
            tokens: Some(tokens),
            end_to_end: first + (tokens - 1) as f64 * per_token,
            ..Record::sample(&format!("p{index}"), effort)
        }
    }

    fn split(of: impl Fn(usize) -> [(f64, u64, f64); 2]) -> Split {
        let both = |index| of(index).map(|side| record(index, "any", side));
        let records: Vec<[Record; 2]> = (0..20).map(both).collect();
        let side = |side: usize| records.iter().map(|pair| &pair[side]).collect::<Vec<&Record>>();
        Split::of(&Pairs::of(&side(0), &side(1)), 1).unwrap()
    }

    fn close(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-12, "{left} is not {right}");
    }

    #[test]
    fn equal_decoding_is_no_faster_however_few_tokens() {
        // A tenth of the tokens behind the same wait for the first: end to end over tokens would call that slower tokens.
        let split = split(|_| [(0.2, 101, 0.01), (0.2, 1001, 0.01)]);
        close(split.first_token.value, 0.0);
        close(split.time_per_token.value, 0.0);
        close(split.tokens.value, -9.0 / 10.2);
        close(split.end_to_end.value, 1.2 / 10.2);
        close(split.tokens.interval.unwrap().high, -9.0 / 10.2);
    }

    #[test]
    fn each_cause_alone_is_the_whole_change() {
        let first = split(|_| [(0.2, 101, 0.01), (1.2, 101, 0.01)]);
        let speed = split(|_| [(0.2, 101, 0.005), (0.2, 101, 0.01)]);
        for (split, part) in [(first, first.first_token), (speed, speed.time_per_token)] {
            close(part.value, split.end_to_end.value - 1.0);
            close(split.tokens.value, 0.0);
        }
    }

    #[test]
    fn the_parts_add_up_and_lie_in_their_intervals() {
        let split = split(|index| {
            let spread = index as f64;
            [
                (0.1 + 0.01 * spread, 40 + 7 * index as u64 % 11, 0.008),
                (0.3 - 0.01 * spread, 100 + 3 * index as u64, 0.011),
            ]
        });
        let parts = [split.first_token, split.tokens, split.time_per_token];
        close(parts.iter().map(|part| part.value).sum::<f64>(), split.end_to_end.value - 1.0);
        close(split.effort.end_to_end() / split.reference.end_to_end(), split.end_to_end.value);
        for part in parts {
            let interval = part.interval.unwrap();
            assert!(interval.low <= part.value && part.value <= interval.high, "{part:?}");
        }
        assert_eq!(split.pairs, 20);
    }

    #[test]
    fn what_has_no_stream_or_no_count_cannot_be_split() {
        let whole = |effort: &str| Record { time_to_first_token: None, ..Record::sample("p", effort) };
        let (left, right) = (whole("low"), whole("high"));
        assert_eq!(Split::of(&Pairs::of(&[&left], &[&right]), 1), None);
        let one = Record { tokens: Some(1), ..Record::sample("p", "low") };
        assert_eq!(Split::of(&Pairs::of(&[&one], &[&Record::sample("p", "high")]), 1), None);
        let (left, right) = (Record::sample("p", "low"), Record::sample("p", "high"));
        assert_eq!(
            Split::of(&Pairs::of(&[&left], &[&right]), 1).unwrap().tokens.interval,
            None,
            "one prompt is no spread"
        );
    }
}
