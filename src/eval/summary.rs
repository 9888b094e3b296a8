//! Summaries of one tier's responses: per level, over all responses, and the plain mean over levels.
//!
//! As JSON (one object, shares in [0, 1], intervals 95 %, absent values `null`):
//! `schema` (`"brevity.eval/1"`), `levels` (one [`LevelSummary`] a level, in the order of the data set), `overall` (a
//! [`LevelSummary`] over all responses, level `all`), `macro_mean` ([`MacroMean`], every level weighted the same). The
//! fields are those of the structs here; a field may be added, none changes its meaning without a new number in `schema`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::statistics::{self, Interval, Tally};
use super::{Comparison, Response, by_problem, level_names};
use crate::family::LevelCard;
use crate::report::{Align, Table, number};

/// The value of [`Summary::schema`].
pub const SCHEMA: &str = "brevity.eval/1";

/// Lengths of responses in completion tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenSummary {
    /// Mean per response.
    pub mean: f64,
    /// 95 % interval of the mean, problems being the sampling unit; `null` with fewer than two problems.
    pub mean_interval: Option<Interval>,
    /// Median.
    pub p50: f64,
    /// 95 % quantile.
    pub p95: f64,
    /// Longest response.
    pub max: usize,
    /// Mean of the tokens inside the thinking block.
    pub reasoning_mean: f64,
}

/// The unbiased estimate that at least one of k samples is correct.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PassAt {
    /// Samples that may be tried.
    pub k: usize,
    /// Mean over problems, in [0, 1].
    pub share: f64,
}

/// One level of one tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LevelSummary {
    /// The level's name; `all` for all responses.
    pub level: String,
    /// Different problems answered.
    pub problems: usize,
    /// Responses graded.
    pub responses: usize,
    /// Share of correct responses.
    pub accuracy: f64,
    /// Its 95 % interval ([`statistics::accuracy_interval`]).
    pub accuracy_interval: Interval,
    /// Lengths.
    pub tokens: TokenSummary,
    /// Share of responses cut off before their end-of-sequence token.
    pub truncated: f64,
    /// Verification markers per response.
    pub verification: f64,
    /// Backtracking markers per response.
    pub backtracking: f64,
    /// Exploration markers per response.
    pub exploration: f64,
    /// pass@k for k = 1, 2, 4 ... up to the samples that every problem has; empty with one sample a problem.
    pub pass_at: Vec<PassAt>,
}

/// Means over levels, every level weighted the same whatever its number of problems.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MacroMean {
    /// Mean accuracy.
    pub accuracy: f64,
    /// Its 95 % interval ([`statistics::mean_of_intervals`]).
    pub accuracy_interval: Interval,
    /// Mean of the levels' mean tokens.
    pub tokens_mean: f64,
}

/// Everything measured of one tier on one data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SCHEMA`].
    pub schema: Cow<'static, str>,
    /// One a level, in order of first appearance.
    pub levels: Vec<LevelSummary>,
    /// All responses together.
    pub overall: LevelSummary,
    /// The plain mean over levels.
    pub macro_mean: MacroMean,
}

impl Summary {
    /// Summarises `responses`; `None` when there are none.
    pub fn of(responses: &[Response]) -> Option<Self> {
        let named = |level: &str| if level.is_empty() { "all".to_owned() } else { level.to_owned() };
        let levels: Vec<LevelSummary> = level_names(responses)
            .into_iter()
            .filter_map(|level| summarise(named(level), responses.iter().filter(|response| response.level == level)))
            .collect();
        let estimates: Vec<(f64, Interval)> =
            levels.iter().map(|level| (level.accuracy, level.accuracy_interval)).collect();
        let (accuracy, accuracy_interval) = statistics::mean_of_intervals(&estimates)?;
        let tokens_mean = levels.iter().map(|level| level.tokens.mean).sum::<f64>() / levels.len() as f64;
        let overall = summarise("all".to_owned(), responses)?;
        let macro_mean = MacroMean { accuracy, accuracy_interval, tokens_mean };
        Some(Self { schema: Cow::Borrowed(SCHEMA), levels, overall, macro_mean })
    }

    /// The rows of a tier card.
    pub fn level_cards(&self) -> Vec<LevelCard> {
        self.levels
            .iter()
            .map(|level| LevelCard {
                level: level.level.clone(),
                problems: level.problems,
                responses: level.responses,
                accuracy: level.accuracy,
                accuracy_low: level.accuracy_interval.low,
                accuracy_high: level.accuracy_interval.high,
                tokens_mean: level.tokens.mean,
                tokens_p50: level.tokens.p50,
                tokens_p95: level.tokens.p95,
                truncated: level.truncated,
                verification: level.verification,
                backtracking: level.backtracking,
                exploration: level.exploration,
            })
            .collect()
    }

    /// A row per level, then one over all responses when there are several levels. With `comparisons` (from
    /// [`super::compare`]) two more columns say what the tier saves and costs against the base:
    /// mean tokens in percent and accuracy in percentage points, each with its 95 % interval, if there is one.
    pub fn table(&self, comparisons: &[Comparison]) -> Table {
        let mut columns = vec![
            ("level", Align::Left),
            ("problems", Align::Right),
            ("accuracy (95 %)", Align::Right),
            ("tokens", Align::Right),
            ("p50", Align::Right),
            ("p95", Align::Right),
            ("cut off", Align::Right),
            ("checks", Align::Right),
            ("backtracks", Align::Right),
            ("restarts", Align::Right),
        ];
        if !comparisons.is_empty() {
            columns.extend([("tokens vs base", Align::Right), ("points vs base", Align::Right)]);
        }
        let mut table = Table::new(columns);
        let total = (self.levels.len() > 1).then_some(&self.overall);
        for level in self.levels.iter().chain(total) {
            let mut row = cells(level);
            row.extend(
                comparisons.iter().find(|comparison| comparison.level == level.level).into_iter().flat_map(versus),
            );
            table.push(row);
        }
        table
    }
}

fn cells(level: &LevelSummary) -> Vec<String> {
    let Interval { low, high } = level.accuracy_interval;
    vec![
        level.level.clone(),
        number::grouped(level.problems as f64),
        format!("{} ({:.1}–{:.1})", number::percent(level.accuracy, 1), low * 100.0, high * 100.0),
        number::grouped(level.tokens.mean),
        number::grouped(level.tokens.p50),
        number::grouped(level.tokens.p95),
        number::percent(level.truncated, 1),
        format!("{:.2}", level.verification),
        format!("{:.2}", level.backtracking),
        format!("{:.2}", level.exploration),
    ]
}

fn versus(comparison: &Comparison) -> [String; 2] {
    let signed = |value: f64| number::signed(value * 100.0, 1);
    let ends = |interval: Interval| format!(" ({} to {})", signed(interval.low), signed(interval.high));
    let tokens = comparison.tokens_change_interval.map_or_else(String::new, ends);
    [
        format!("{}{tokens}", number::signed_percent(comparison.tokens_change, 1)),
        format!("{}{}", signed(comparison.accuracy_difference), ends(comparison.accuracy_difference_interval)),
    ]
}

fn summarise<'a>(level: String, responses: impl IntoIterator<Item = &'a Response>) -> Option<LevelSummary> {
    let groups = by_problem(responses);
    let all: Vec<&Response> = groups.iter().flat_map(|(_, group)| group.iter().copied()).collect();
    let tallies: Vec<Tally> = groups
        .iter()
        .map(|(_, group)| Tally { correct: group.iter().filter(|r| r.correct).count(), samples: group.len() })
        .collect();
    let lengths: Vec<Vec<f64>> =
        groups.iter().map(|(_, group)| group.iter().map(|response| response.tokens as f64).collect()).collect();
    let mut sorted: Vec<f64> = lengths.iter().flatten().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let (accuracy, accuracy_interval) = statistics::accuracy_interval(&tallies)?;
    let (mean, mean_interval) = statistics::mean_interval(&lengths)?;
    let per_response = |value: fn(&Response) -> usize| {
        all.iter().map(|response| value(response) as f64).sum::<f64>() / all.len() as f64
    };
    Some(LevelSummary {
        level,
        problems: groups.len(),
        responses: all.len(),
        accuracy,
        accuracy_interval,
        tokens: TokenSummary {
            mean,
            mean_interval,
            p50: statistics::quantile(&sorted, 0.5)?,
            p95: statistics::quantile(&sorted, 0.95)?,
            max: all.iter().map(|response| response.tokens).max()?,
            reasoning_mean: per_response(|response| response.reasoning_tokens),
        },
        truncated: per_response(|response| usize::from(response.truncated)),
        verification: per_response(|response| response.behaviours.verification),
        backtracking: per_response(|response| response.behaviours.backtracking),
        exploration: per_response(|response| response.behaviours.exploration),
        pass_at: pass_at(&tallies),
    })
}

fn pass_at(tallies: &[Tally]) -> Vec<PassAt> {
    let samples = tallies.iter().map(|tally| tally.samples).min().unwrap_or(0);
    if samples < 2 {
        return Vec::new();
    }
    let mean = |k: usize| -> Option<f64> {
        let shares: Option<Vec<f64>> = tallies.iter().map(|&tally| statistics::pass_at_k(tally, k)).collect();
        shares.map(|shares| shares.iter().sum::<f64>() / tallies.len() as f64)
    };
    let powers = std::iter::successors(Some(1usize), |k| k.checked_mul(2)).take_while(|&k| k <= samples);
    powers.filter_map(|k| mean(k).map(|share| PassAt { k, share })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::compare;
    use crate::eval::sample::response;

    /// Two easy problems with two samples each, one hard problem with two.
    fn responses() -> Vec<Response> {
        vec![
            response(0, "easy", true, 10),
            response(0, "easy", true, 20),
            response(1, "easy", true, 30),
            response(1, "easy", false, 40),
            response(2, "hard", false, 100),
            response(2, "hard", false, 200),
        ]
    }

    #[test]
    fn numbers_match_those_worked_by_hand() {
        let summary = Summary::of(&responses()).unwrap();
        let easy = &summary.levels[0];
        assert_eq!((easy.level.as_str(), easy.problems, easy.responses), ("easy", 2, 4));
        assert_eq!(easy.accuracy, 0.75);
        assert_eq!((easy.tokens.mean, easy.tokens.p50, easy.tokens.max), (25.0, 25.0, 40));
        assert!((easy.tokens.p95 - 38.5).abs() < 1e-12); // rank 2.85
        assert_eq!(easy.tokens.reasoning_mean, 12.5);
        // Problem sums about the mean: (10+20-50)^2 + (30+40-50)^2 = 800; times 2/1, root 40, over 4 responses = 10.
        let interval = easy.tokens.mean_interval.unwrap();
        assert!((interval.high - (25.0 + 10.0 * statistics::Z95)).abs() < 1e-9);
        assert_eq!((easy.verification, easy.backtracking, easy.exploration), (2.0, 0.75, 0.0));
        assert_eq!(easy.pass_at, [PassAt { k: 1, share: 0.75 }, PassAt { k: 2, share: 1.0 }]);
        let hard = &summary.levels[1];
        assert_eq!((hard.accuracy, hard.truncated), (0.0, 0.5));
        assert_eq!(hard.tokens.mean_interval, None);
        assert_eq!(summary.overall.accuracy, 0.5);
        assert_eq!(summary.macro_mean.accuracy, 0.375);
        assert_eq!(summary.macro_mean.tokens_mean, 87.5);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn json_comes_back_the_same() {
        let summary = Summary::of(&responses()).unwrap();
        let text = serde_json::to_string(&summary).unwrap();
        assert!(text.starts_with(r#"{"schema":"brevity.eval/1","levels":[{"level":"easy","problems":2"#), "{text}");
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
    }

    #[test]
    fn a_level_without_name_is_called_all() {
        let only: Vec<Response> = (0..3).map(|problem| response(problem, "", true, 5)).collect();
        let summary = Summary::of(&only).unwrap();
        assert_eq!(summary.levels[0].level, "all");
        assert_eq!(summary.table(&[]).len(), 1, "no second row with the same content");
        assert_eq!(compare(&only, &only, 1)[0].level, "all", "the row finds its comparison");
    }

    #[test]
    fn the_table_says_what_was_measured() {
        let base = responses();
        let tier: Vec<Response> = base.iter().map(|r| Response { tokens: r.tokens / 2, ..r.clone() }).collect();
        let text = Summary::of(&tier).unwrap().table(&compare(&base, &tier, 1)).to_terminal();
        insta::assert_snapshot!(text, @r"
        level  problems     accuracy (95 %)  tokens  p50  p95  cut off  checks  backtracks  restarts  tokens vs base         points vs base
        ─────  ────────  ──────────────────  ──────  ───  ───  ───────  ──────  ──────────  ────────  ──────────────  ─────────────────────
        easy          2  75.0 % (30.1–95.4)      12   12   19    0.0 %    2.00        0.75      0.00         −50.0 %  ±0.0 (−49.4 to +49.4)
        hard          1    0.0 % (0.0–79.3)      75   75   98   50.0 %    2.00        0.00      0.00         −50.0 %  ±0.0 (−79.3 to +79.3)
        all           3  50.0 % (16.1–83.9)      33   18   88   16.7 %    2.00        0.50      0.00         −50.0 %  ±0.0 (−48.0 to +48.0)
        ");
    }
}
