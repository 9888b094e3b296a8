//! Which problems a tier is measured on: the mini suite's held-out half, or a file of one of the paper's benchmarks.
//!
//! A suite is named in one word, `mini` or `gsm8k:FILE`, and gives the same problems in the same order every time.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use brevity_training::tasks::Problem;
use brevity_training::tasks::mini::{self, Level};
use brevity_training::tasks::readers::{Columns, read_problems};
use brevity_training::{Error, Result};

/// Seed of the mini suite's test problems: a measurement must not depend on it, so it is no setting.
const MINI_PROBLEMS: u64 = 0;

/// A set of problems to measure on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suite {
    /// Held-out problems of the mini suite's generator, level by level.
    Mini,
    /// A file in the form of a known benchmark.
    File {
        /// Which benchmark: `gsm8k`, `math` or `aime`.
        preset: String,
        /// The JSONL or Parquet file.
        path: PathBuf,
    },
}

impl Suite {
    /// The problems, at most `per_level` of each level (of all, where the suite has no levels).
    ///
    /// # Errors
    /// As [`read_problems`]; [`Error::Config`] when `per_level` is 0.
    pub fn problems(&self, per_level: usize) -> Result<Vec<Problem>> {
        if per_level == 0 {
            return Err(Error::config("an evaluation needs at least one problem a level"));
        }
        match self {
            Self::Mini => {
                let sets = Level::ALL.into_iter().flat_map(|level| mini::test_set(level, per_level, MINI_PROBLEMS));
                Ok(sets.map(|problem| problem.to_problem()).collect())
            }
            Self::File { preset, path } => {
                let mut problems = read_problems(path, &Columns::preset(preset)?, None)?;
                let mut taken: BTreeMap<Option<String>, usize> = BTreeMap::new();
                problems.retain(|problem| {
                    let count = taken.entry(problem.level.clone()).or_default();
                    *count += 1;
                    *count <= per_level
                });
                Ok(problems)
            }
        }
    }
}

impl FromStr for Suite {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "mini" => Ok(Self::Mini),
            Some((preset, path)) if !path.is_empty() => {
                Columns::preset(preset)?;
                Ok(Self::File { preset: preset.to_owned(), path: path.into() })
            }
            _ => Err(Error::config(format!("`{text}` is no suite; write mini, gsm8k:FILE, math:FILE or aime:FILE"))),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mini => formatter.write_str("mini:test"),
            Self::File { preset, path } => {
                let name = path.file_name().unwrap_or(path.as_os_str());
                write!(formatter, "{preset}:{}", name.to_string_lossy())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mini_suite_has_levels_and_a_smaller_set_begins_a_larger_one() {
        let small = Suite::Mini.problems(2).unwrap();
        let levels: Vec<_> = small.iter().filter_map(|problem| problem.level.as_deref()).collect();
        assert_eq!(levels, ["easy", "easy", "medium", "medium", "hard", "hard"]);
        let large = Suite::Mini.problems(3).unwrap();
        assert_eq!(small[..2], large[..2]);
        assert_eq!(small[2..4], large[3..5]);
    }

    #[test]
    fn files_are_cut_level_by_level() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("math.jsonl");
        let line = |level: u8| format!("{{\"problem\": \"p\", \"answer\": \"1\", \"level\": {level}}}\n");
        std::fs::write(&path, [1, 1, 2, 1].map(line).concat()).unwrap();
        let suite: Suite = format!("math:{}", path.display()).parse().unwrap();
        let ids: Vec<String> = suite.problems(2).unwrap().into_iter().map(|problem| problem.id).collect();
        assert_eq!(ids, ["1", "2", "3"]);
        assert_eq!(suite.to_string(), "math:math.jsonl");
    }

    #[test]
    fn a_suite_that_does_not_exist_is_refused_with_those_that_do() {
        for wrong in ["maxi", "gsm8k", "gsm8k:", "gms8k:file.jsonl"] {
            let message = wrong.parse::<Suite>().unwrap_err().to_string();
            assert!(message.contains("gsm8k") && message.contains("aime"), "{message}");
        }
        assert!(Suite::Mini.problems(0).unwrap_err().to_string().contains("at least one"));
    }
}
