//! Times between tokens: of one stream while it runs, and of all streams of an effort afterwards.
//!
//! A gap is the time from one chunk with text to the next. Networks and servers put several chunks into one packet, and a
//! client that reads them together would see gaps of nothing behind one that is too long. So chunks that come within
//! 0.1 ms of the first of them count as one reading, and the time since the last chunk before it is shared out evenly
//! among them. The first reading has nothing before it: its further chunks have no gap. Gaps add up to the time from the
//! end of the first reading to the last chunk. Of a finished stream only a histogram is kept, however many tokens there were.

use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::errors::CreationError;
use tokio::time::Instant;

use super::distribution::Distribution;
use super::metric::Statistic;

/// Chunks that come within this time came together. No model says 10,000 tokens a second to one reader.
const BURST: Duration = Duration::from_micros(100);
/// Significant digits of kept times.
const DIGITS: u8 = 3;
/// Nanoseconds that are told apart, and the longest gap that is; what is longer counts as that.
const RANGE: (u64, u64) = (1000, 3_600_000_000_000);

/// Chunks that came together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Burst {
    first: Instant,
    last: Instant,
    chunks: u64,
}

/// When the chunks of one stream came.
#[derive(Debug, Clone, Default)]
pub struct Gaps {
    bursts: Vec<Burst>,
}

impl Gaps {
    /// A chunk with text came.
    pub fn chunk(&mut self, now: Instant) {
        match self.bursts.last_mut() {
            Some(burst) if now.saturating_duration_since(burst.first) < BURST => {
                burst.last = now;
                burst.chunks += 1;
            }
            _ => self.bursts.push(Burst { first: now, last: now, chunks: 1 }),
        }
    }

    /// Each gap in seconds with the number of chunks that it counts for.
    pub fn each(&self) -> impl Iterator<Item = (f64, u64)> {
        self.bursts.windows(2).filter_map(|pair| {
            let [before, burst] = pair else { return None };
            let time = burst.last.saturating_duration_since(before.last).as_secs_f64();
            Some((time / burst.chunks as f64, burst.chunks))
        })
    }

    /// Mean seconds of a gap.
    pub fn mean(&self) -> Option<f64> {
        let (time, chunks) =
            self.each().fold((0.0, 0), |(time, all), (gap, chunks)| (time + gap * chunks as f64, all + chunks));
        (chunks > 0).then(|| time / chunks as f64)
    }
}

/// How the gaps of many streams are spread, to three digits. Mean and largest are exact.
#[derive(Debug, Clone)]
pub struct GapSpread {
    /// In nanoseconds.
    histogram: Histogram<u64>,
    sum: f64,
    max: f64,
}

impl GapSpread {
    /// No gaps.
    ///
    /// # Errors
    /// When the histogram cannot be made.
    pub fn new() -> Result<Self, CreationError> {
        Ok(Self { histogram: Histogram::new_with_bounds(RANGE.0, RANGE.1, DIGITS)?, sum: 0.0, max: 0.0 })
    }

    /// Adds a stream's.
    pub fn add(&mut self, gaps: &Gaps) {
        for (seconds, chunks) in gaps.each() {
            self.histogram.saturating_record_n((seconds * 1e9).round() as u64, chunks);
            self.sum += seconds * chunks as f64;
            self.max = self.max.max(seconds);
        }
    }

    /// Their figures; `None` without gaps. A percentile is the smallest time that so many gaps do not exceed.
    pub fn distribution(&self) -> Option<Distribution> {
        let count = self.histogram.len();
        if count == 0 {
            return None;
        }
        let at = |statistic: Statistic| {
            let quantile = statistic.quantile().unwrap_or(1.0);
            (self.histogram.value_at_quantile(quantile) as f64 / 1e9).min(self.max)
        };
        Some(Distribution {
            count: count as usize,
            mean: self.sum / count as f64,
            p50: at(Statistic::P50),
            p90: at(Statistic::P90),
            p95: at(Statistic::P95),
            p99: at(Statistic::P99),
            max: self.max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream whose chunks came at these microseconds.
    pub fn stream(moments: impl IntoIterator<Item = u64>) -> Gaps {
        let (start, mut gaps) = (Instant::now(), Gaps::default());
        moments.into_iter().for_each(|moment| gaps.chunk(start + Duration::from_micros(moment)));
        gaps
    }

    fn rounded(gaps: &Gaps) -> Vec<(u64, u64)> {
        gaps.each().map(|(seconds, chunks)| ((seconds * 1e6).round() as u64, chunks)).collect()
    }

    #[test]
    fn chunks_that_came_one_by_one_have_their_own_gaps() {
        let gaps = stream([0, 10_000, 30_000, 31_000]);
        assert_eq!(rounded(&gaps), [(10_000, 1), (20_000, 1), (1000, 1)]);
        assert!((gaps.mean().unwrap() - 0.031 / 3.0).abs() < 1e-12);
        assert_eq!(stream([5]).mean(), None);
    }

    #[test]
    fn chunks_of_one_reading_share_its_time() {
        // Four chunks every 40 ms, as a server that flushes every fourth: 10 ms each, and none of nothing.
        let moments = (0..5).flat_map(|reading| (0..4).map(move |chunk| reading * 40_000 + chunk * 3));
        let gaps = stream(moments);
        assert_eq!(rounded(&gaps), [(10_000, 4); 4]);
        assert!((gaps.mean().unwrap() - 0.01).abs() < 1e-9);
    }

    #[test]
    fn a_stream_that_never_pauses_is_many_readings() {
        let gaps = stream((0..1000).map(|chunk| chunk * 10));
        assert_eq!(gaps.each().map(|(_, chunks)| chunks).sum::<u64>(), 990);
        assert!((gaps.mean().unwrap() - 1e-5).abs() < 1e-9, "{:?}", gaps.mean());
    }

    #[test]
    fn a_histogram_keeps_three_digits() {
        let mut spread = GapSpread::new().unwrap();
        assert_eq!(spread.distribution(), None);
        // Gaps of 1 to 1000 ms, in ten streams.
        for stream_of in 0..10 {
            let gaps = (1..=100).map(|gap| 1000 * (gap + 100 * stream_of));
            let moments = std::iter::once(0).chain(gaps.scan(0, |at, gap| {
                *at += gap;
                Some(*at)
            }));
            spread.add(&stream(moments));
        }
        let found = spread.distribution().unwrap();
        assert_eq!((found.count, found.max), (1000, 1.0));
        assert!((found.mean - 0.5005).abs() < 1e-9);
        for (found, expected) in [(found.p50, 0.5), (found.p90, 0.9), (found.p95, 0.95), (found.p99, 0.99)] {
            assert!((found / expected - 1.0).abs() < 1.5e-3, "{found} {expected}");
        }
    }
}
