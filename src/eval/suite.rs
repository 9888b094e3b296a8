//! Which problems a tier is measured on: the mini suite's held-out half, or a file of one of the paper's benchmarks.
//!
//! A suite is named in one word, `mini`, `mini:easy`, `gsm8k:FILE` or `file:FILE`, the same in every command, and gives the
//! same problems in the same order every time.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use brevity_training::tasks::Problem;
use brevity_training::tasks::mini::{self, Level};
use brevity_training::tasks::readers::{Columns, read_problems};
use brevity_training::{Error, Result};

use crate::family::HubFile;

/// Seed of the mini suite's test problems: a measurement must not depend on it, so it is no setting.
const MINI_PROBLEMS: u64 = 0;

/// The preset of a file that has the form of no known benchmark.
const ANY: &str = "file";

/// How suites are written.
const FORMS: &str = "mini, mini:LEVEL,…, gsm8k:FILE, math:FILE, aime:FILE or file:FILE";

/// Columns of a file by name, before those that its form implies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedColumns {
    /// The problem.
    pub question: Option<String>,
    /// The reference answer, bare or inside a worked solution.
    pub answer: Option<String>,
    /// The difficulty class.
    pub level: Option<String>,
}

/// A set of problems to measure on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suite {
    /// Held-out problems of the mini suite's generator, level by level.
    Mini {
        /// Only these; all where there are none.
        levels: Vec<Level>,
    },
    /// A file in the form of a known benchmark, or of any.
    File {
        /// Which benchmark: `gsm8k`, `math` or `aime`; or `file`, with columns `problem` and `answer`.
        preset: String,
        /// The JSONL, Parquet or Arrow file.
        path: PathBuf,
    },
}

impl Suite {
    /// The mini suite, all levels.
    pub const MINI: Self = Self::Mini { levels: Vec::new() };

    /// Whether it is the mini suite or some levels of it.
    pub fn is_mini(&self) -> bool {
        matches!(self, Self::Mini { .. })
    }

    /// How its problems are asked, `{question}` standing for the problem: those of the mini suite as they are, others with
    /// the paper's instruction to put the answer into a box.
    pub fn prompt_template(&self) -> String {
        let instruction = if self.is_mini() { "" } else { mini::INSTRUCTION };
        format!("{instruction}{{question}}")
    }

    /// The problems, at most `per_level` of each level (of all, where the suite has no levels).
    ///
    /// # Errors
    /// As [`read_problems`]; [`Error::Config`] when `per_level` is 0.
    pub fn problems(&self, per_level: usize) -> Result<Vec<Problem>> {
        self.problems_of(per_level, &NamedColumns::default())
    }

    /// As [`Suite::problems`], with some columns of the file named.
    ///
    /// # Errors
    /// As [`Suite::problems`]; [`Error::Config`] when columns are named of a suite that is no file.
    pub fn problems_of(&self, per_level: usize, named: &NamedColumns) -> Result<Vec<Problem>> {
        if per_level == 0 {
            return Err(Error::config("an evaluation needs at least one problem a level"));
        }
        match self {
            Self::Mini { .. } if *named != NamedColumns::default() => {
                Err(Error::config("the mini suite is no file, so it has no columns to be named"))
            }
            Self::Mini { levels } => {
                let levels = Level::ALL.into_iter().filter(|level| levels.is_empty() || levels.contains(level));
                let sets = levels.flat_map(|level| mini::test_set(level, per_level, MINI_PROBLEMS));
                Ok(sets.map(|problem| problem.to_problem()).collect())
            }
            Self::File { preset, path } => {
                let mut problems = read_problems(path, &columns(preset, named)?, None)?;
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

    /// Responses to each problem in the paper's evaluation: 1 on GSM8K, 3 on MATH500, 10 on AIME, whose few problems give
    /// the least certain numbers; 1 on everything else.
    pub fn samples(&self) -> usize {
        match self {
            Self::File { preset, .. } if preset == "math" => 3,
            Self::File { preset, .. } if preset == "aime" => 10,
            Self::File { .. } | Self::Mini { .. } => 1,
        }
    }
}

/// The columns of a preset, those with a name replaced.
fn columns(preset: &str, named: &NamedColumns) -> Result<Columns> {
    let mut columns = if preset == ANY { Columns::new("problem", "answer") } else { Columns::preset(preset)? };
    let NamedColumns { question, answer, level } = named.clone();
    columns.question = question.map_or(columns.question, |name| vec![name]);
    columns.answer = answer.map_or(columns.answer, |name| vec![name]);
    columns.level = level.map(|name| vec![name]).or(columns.level);
    Ok(columns)
}

impl FromStr for Suite {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::config(format!("`{text}` is no suite; write {FORMS}"));
        let (name, rest) = match text.split_once(':') {
            None if text == "mini" => return Ok(Self::MINI),
            Some((name, rest)) if !rest.is_empty() => (name, rest),
            _ => return Err(unknown()),
        };
        let preset = match name {
            "mini" => return Ok(Self::Mini { levels: rest.split(',').map(str::parse).collect::<Result<_>>()? }),
            "math500" => "math",
            "aime24" | "aime25" => "aime",
            other => other,
        };
        columns(preset, &NamedColumns::default()).map_err(|_| unknown())?;
        Ok(Self::File { preset: preset.to_owned(), path: rest.into() })
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mini { levels } if levels.is_empty() => formatter.write_str("mini:test"),
            Self::Mini { levels } => {
                let levels: Vec<String> = levels.iter().map(Level::to_string).collect();
                write!(formatter, "mini:test ({})", levels.join(", "))
            }
            // A file on the hub is known to everybody by its address, one of this machine by its name.
            Self::File { preset, path } if path.to_str().is_some_and(|path| path.starts_with(HubFile::SCHEME)) => {
                write!(formatter, "{preset}:{}", path.display())
            }
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
        let small = Suite::MINI.problems(2).unwrap();
        let levels: Vec<_> = small.iter().filter_map(|problem| problem.level.as_deref()).collect();
        assert_eq!(levels, ["easy", "easy", "medium", "medium", "hard", "hard"]);
        let large = Suite::MINI.problems(3).unwrap();
        assert_eq!(small[..2], large[..2]);
        assert_eq!(small[2..4], large[3..5]);
        let some: Suite = "mini:medium,easy".parse().unwrap();
        assert_eq!(some.problems(2).unwrap(), small[..4]);
        assert_eq!(
            (some.to_string(), Suite::MINI.to_string()),
            ("mini:test (medium, easy)".into(), "mini:test".into())
        );
    }

    #[test]
    fn the_names_of_the_benchmarks_are_those_of_their_forms() {
        let parsed = |name: &str| format!("{name}:a/b.jsonl").parse::<Suite>().unwrap().to_string();
        assert_eq!(["math", "math500"].map(parsed), ["math:b.jsonl"; 2]);
        assert_eq!(["aime", "aime24", "aime25"].map(parsed), ["aime:b.jsonl"; 3]);
        let far = "gsm8k:hf://datasets/o/n@v1/a/b.parquet";
        assert_eq!(far.parse::<Suite>().unwrap().to_string(), far);
        assert_eq!(Suite::MINI.prompt_template(), "{question}");
        let template = "gsm8k:f".parse::<Suite>().unwrap().prompt_template();
        assert!(template.contains(r"\boxed{}") && template.ends_with("{question}"), "{template}");
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
    fn columns_may_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.jsonl");
        std::fs::write(&path, "{\"ask\": \"1 + 1\", \"problem\": \"p\", \"gold\": \"2\", \"class\": \"x\"}\n").unwrap();
        let suite: Suite = format!("file:{}", path.display()).parse().unwrap();
        assert!(suite.problems(9).unwrap_err().to_string().contains("no column `answer`"));
        let name = |name: &str| Some(name.to_owned());
        let mut named = NamedColumns { question: None, answer: name("gold"), level: None };
        assert_eq!(suite.problems_of(9, &named).unwrap()[0].question, "p");
        named = NamedColumns { question: name("ask"), level: name("class"), ..named };
        let problem = &suite.problems_of(9, &named).unwrap()[0];
        assert_eq!((problem.question.as_str(), problem.level.as_deref()), ("1 + 1", Some("x")));
        assert!(Suite::MINI.problems_of(9, &named).unwrap_err().to_string().contains("no file"));
    }

    #[test]
    fn responses_are_as_many_as_in_the_paper() {
        let samples = |suite: &str| suite.parse::<Suite>().unwrap().samples();
        assert_eq!(["mini", "gsm8k:f", "math:f", "aime:f", "file:f"].map(samples), [1, 1, 3, 10, 1]);
    }

    #[test]
    fn a_suite_that_does_not_exist_is_refused_with_those_that_do() {
        for wrong in ["maxi", "gsm8k", "gsm8k:", "mini:", "gms8k:file.jsonl"] {
            let message = wrong.parse::<Suite>().unwrap_err().to_string();
            assert!(message.contains("gsm8k") && message.contains("aime"), "{message}");
        }
        assert!("mini:huge".parse::<Suite>().unwrap_err().to_string().contains("huge"));
        assert!(Suite::MINI.problems(0).unwrap_err().to_string().contains("at least one"));
    }
}
