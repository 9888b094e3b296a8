//! Data sets of problems and of prompt and response pairs, read from files that somebody else made.
//!
//! A format (one file each) turns a file into rows of named cells; this file picks the columns and explains what is
//! missing. Answers stay as the data set writes them: finding the gold answer in `#### 18` or `\boxed{204}` is the
//! grader's business.

#[cfg(feature = "arrow")]
mod arrow;
mod jsonl;
#[cfg(feature = "parquet")]
mod parquet;

use std::collections::BTreeMap;
use std::path::Path;

use super::Problem;
use crate::{Error, Result};

/// The columns of a data set that make a [`Problem`].
///
/// Each is a list of names in order of preference: the first that a row has is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The user's message.
    pub question: Vec<String>,
    /// The reference answer, bare or inside a worked solution.
    pub answer: Vec<String>,
    /// The difficulty class; [`None`] leaves problems without one.
    pub level: Option<Vec<String>>,
    /// The identifier; [`None`] takes the number of the line or row, counted from 1.
    pub id: Option<Vec<String>>,
    /// Whether an answer may be empty, or missing in a column that there is.
    pub optional_answer: bool,
}

impl Columns {
    /// The given columns for question and answer, no level, and row numbers for identifiers.
    pub fn new(question: &str, answer: &str) -> Self {
        Self {
            question: vec![question.to_owned()],
            answer: vec![answer.to_owned()],
            level: None,
            id: None,
            optional_answer: false,
        }
    }

    /// GSM8K: `question`, and in `answer` a worked solution that ends in `#### 18`.
    pub fn gsm8k() -> Self {
        Self::new("question", "answer")
    }

    /// MATH and MATH500: `problem`, `answer` or else the worked `solution`, and `level`.
    pub fn math() -> Self {
        let mut columns = Self::new("problem", "answer");
        columns.answer.push("solution".to_owned());
        columns.level = Some(vec!["level".to_owned()]);
        columns
    }

    /// AIME: `problem`, and `answer` or else `solution`, in either capitalisation; no level.
    pub fn aime() -> Self {
        let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        let answer = [names(["answer", "Answer"]), names(["solution", "Solution"])].concat();
        Self { question: names(["problem", "Problem"]), answer, level: None, id: None, optional_answer: false }
    }

    /// The preset of that name: `gsm8k`, `math` or `aime`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the presets there are.
    pub fn preset(name: &str) -> Result<Self> {
        match name {
            "gsm8k" => Ok(Self::gsm8k()),
            "math" => Ok(Self::math()),
            "aime" => Ok(Self::aime()),
            _ => Err(Error::config(format!(
                "unknown data set preset `{name}`; there are gsm8k, math and aime, or name the columns yourself"
            ))),
        }
    }
}

/// One example for supervised training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The user's message.
    pub prompt: String,
    /// What the assistant answers, thoughts included.
    pub response: String,
}

/// The problems of a data set, at most `limit` of them, in the order of the file.
///
/// The format follows from the extension: `.jsonl` (one object a line), `.json` (the same, or one array of objects),
/// `.parquet` and `.arrow` (with the features of these names). Numbers and truth values are taken as their text. Of a level such as
/// `Level 5`, only `5` is kept.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Format`] when it has another extension, a malformed line, no
/// problems, a missing or empty column, or an identifier twice; each names the line or row and what is there instead.
pub fn read_problems(path: &Path, columns: &Columns, limit: Option<usize>) -> Result<Vec<Problem>> {
    let mut seen = BTreeMap::new();
    rows(path, limit)?
        .into_iter()
        .map(|row| {
            let id = match &columns.id {
                Some(names) => row.text(path, names)?,
                None => row.number.to_string(),
            };
            if let Some(before) = seen.insert(id.clone(), row.number) {
                let message = format!("{}: the id `{id}` is already that of {} {before}", row.place(), row.unit);
                return Err(Error::format(path, message));
            }
            let level = columns.level.as_ref().map(|names| row.text(path, names)).transpose()?;
            Ok(Problem {
                id,
                question: row.text(path, &columns.question)?,
                answer: if columns.optional_answer && row.is_empty(&columns.answer) {
                    String::new()
                } else {
                    row.text(path, &columns.answer)?
                },
                level: level.map(|level| level.strip_prefix("Level ").map_or(level.clone(), str::to_owned)),
            })
        })
        .collect()
}

/// The prompt and response pairs of a data set, in the order of the file; formats and errors as [`read_problems`].
///
/// # Errors
/// As [`read_problems`].
pub fn read_pairs(path: &Path, prompt_column: &str, response_column: &str) -> Result<Vec<Pair>> {
    let (prompt, response) = ([prompt_column.to_owned()], [response_column.to_owned()]);
    rows(path, None)?
        .into_iter()
        .map(|row| Ok(Pair { prompt: row.text(path, &prompt)?, response: row.text(path, &response)? }))
        .collect()
}

/// What a column holds in one row.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    /// Text, or a number or truth value as text.
    Text(String),
    /// Nothing: JSON's `null`, Parquet's missing value.
    Missing,
    /// Something that is no text: `a list`, `an object`.
    Other(&'static str),
}

/// One row of a data set.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    /// `line` or `row`, as errors call it.
    unit: &'static str,
    /// Where it is in the file, counted from 1.
    number: usize,
    cells: Vec<(String, Cell)>,
}

impl Row {
    fn place(&self) -> String {
        format!("{} {}", self.unit, self.number)
    }

    /// Whether the first of the columns `names` that this row has holds nothing.
    fn is_empty(&self, names: &[String]) -> bool {
        let present = |name: &String| self.cells.iter().find(|(column, _)| column == name);
        names.iter().find_map(present).is_some_and(|(_, cell)| match cell {
            Cell::Text(text) => text.trim().is_empty(),
            Cell::Missing => true,
            Cell::Other(_) => false,
        })
    }

    /// The text in the first of the columns `names` that this row has.
    fn text(&self, path: &Path, names: &[String]) -> Result<String> {
        let present = |name: &String| self.cells.iter().find(|(column, _)| column == name);
        let error = |message: String| Error::format(path, format!("{}: {message}", self.place()));
        let Some((name, cell)) = names.iter().find_map(present) else {
            return Err(error(self.missing(names)));
        };
        match cell {
            Cell::Text(text) if !text.trim().is_empty() => Ok(text.clone()),
            Cell::Text(_) | Cell::Missing => {
                Err(error(format!("column `{name}` is empty; fill it in or remove the {}", self.unit)))
            }
            Cell::Other(kind) => Err(error(format!("column `{name}` holds {kind}; expected text or a number"))),
        }
    }

    /// Says which column is missing, which there are, and which of these might be meant.
    fn missing(&self, names: &[String]) -> String {
        let quoted = |names: &mut dyn Iterator<Item = &String>| {
            names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let nearest = names
            .iter()
            .flat_map(|name| self.cells.iter().map(move |(column, _)| (strsim::jaro_winkler(name, column), column)))
            .filter(|(likeness, _)| *likeness > 0.75)
            .max_by(|left, right| left.0.total_cmp(&right.0));
        let hint = nearest.map_or_else(String::new, |(_, column)| format!("; did you mean `{column}`?"));
        let wanted = quoted(&mut names.iter());
        if self.cells.is_empty() {
            return format!("no column {wanted}; there are no columns at all");
        }
        let mut columns: Vec<&String> = self.cells.iter().map(|(column, _)| column).collect();
        columns.sort();
        format!("no column {wanted}; there are {}{hint}", quoted(&mut columns.into_iter()))
    }
}

/// The rows of a file of any supported format, at least one and at most `limit`.
fn rows(path: &Path, limit: Option<usize>) -> Result<Vec<Row>> {
    let limit = limit.unwrap_or(usize::MAX);
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    let rows = match extension.as_str() {
        "jsonl" | "json" => jsonl::rows(path, limit)?,
        #[cfg(feature = "parquet")]
        "parquet" => parquet::rows(path, limit)?,
        #[cfg(feature = "arrow")]
        "arrow" => arrow::rows(path, limit)?,
        #[cfg(not(feature = "parquet"))]
        "parquet" => return Err(not_built(path)),
        #[cfg(not(feature = "arrow"))]
        "arrow" => return Err(not_built(path)),
        _ => {
            let message = "a data set must end in .jsonl, .json, .parquet or .arrow; convert it or rename the file";
            return Err(Error::format(path, message));
        }
    };
    if rows.is_empty() {
        let message = if limit == 0 { "a limit of 0 leaves no rows; raise it" } else { "the data set has no rows" };
        return Err(Error::format(path, message));
    }
    Ok(rows)
}

/// Of a format whose feature is off.
#[cfg(not(all(feature = "parquet", feature = "arrow")))]
fn not_built(path: &Path) -> Error {
    let message = "this build cannot read this format; enable the crate's feature of its name or convert it to .jsonl";
    Error::format(path, message)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::files;

    fn shared(name: &str) -> Option<PathBuf> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
        if !path.exists() {
            println!("skipped: {} is absent", path.display());
        }
        path.exists().then_some(path)
    }

    fn file(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        files::write(&path, content.as_bytes()).unwrap();
        (folder, path)
    }

    fn failure(name: &str, content: &str, columns: &Columns) -> String {
        let (_folder, path) = file(name, content);
        let message = read_problems(&path, columns, None).unwrap_err().to_string();
        assert!(message.contains(name), "{message}");
        message
    }

    #[test]
    fn presets_read_the_public_data_sets() {
        if let Some(path) = shared("gsm8k-test.jsonl") {
            let problems = read_problems(&path, &Columns::gsm8k(), None).unwrap();
            assert_eq!(problems.len(), 1319);
            assert!(
                problems[0].question.starts_with("Janet\u{2019}s ducks") && problems[0].answer.ends_with("#### 18")
            );
            assert_eq!((problems[0].id.as_str(), problems[1318].id.as_str()), ("1", "1319"));
        }
        if let Some(path) = shared("math500-test.jsonl") {
            let problems = read_problems(&path, &Columns::math(), Some(100)).unwrap();
            assert_eq!(problems.len(), 100);
            assert_eq!(problems[0].level.as_deref(), Some("2"));
            assert_eq!(problems[0].answer, "\\left( 3, \\frac{\\pi}{2} \\right)");
            let columns = Columns { id: Some(vec!["unique_id".to_owned()]), ..Columns::math() };
            assert_eq!(read_problems(&path, &columns, Some(1)).unwrap()[0].id, "test/precalculus/807.json");
        }
        if let Some(path) = shared("aime24-test.jsonl") {
            let problems = read_problems(&path, &Columns::aime(), None).unwrap();
            assert_eq!((problems.len(), problems[0].answer.as_str()), (30, "\\boxed{204}"));
        }
    }

    #[test]
    fn numbers_are_answers_and_levels_lose_their_word() {
        let lines = "{\"problem\": \"6 * 7\", \"answer\": 42, \"level\": \"Level 5\"}\n\n\
                     {\"problem\": \"1 / 2\", \"answer\": 0.5, \"level\": 1}\n";
        let (_folder, path) = file("set.jsonl", lines);
        let problems = read_problems(&path, &Columns::math(), None).unwrap();
        let short = |problem: &Problem| (problem.id.clone(), problem.answer.clone(), problem.level.clone().unwrap());
        assert_eq!(short(&problems[0]), ("1".into(), "42".into(), "5".into()));
        assert_eq!(short(&problems[1]), ("3".into(), "0.5".into(), "1".into()));
    }

    #[test]
    fn a_solution_stands_in_for_an_answer() {
        let (_folder, path) = file("set.jsonl", r#"{"problem": "6 * 7", "solution": "\\boxed{42}", "level": 1}"#);
        assert_eq!(read_problems(&path, &Columns::math(), None).unwrap()[0].answer, "\\boxed{42}");
    }

    #[test]
    fn a_missing_column_is_named_with_those_there_are() {
        let second = "{\"question\": \"a\", \"answer\": \"b\"}\n{\"questions\": \"a\", \"answer\": \"b\"}\n";
        let message = failure("set.jsonl", second, &Columns::gsm8k());
        assert!(message.contains("line 2: no column `question`; there are `answer`, `questions`"), "{message}");
        assert!(message.contains("did you mean `questions`?"), "{message}");
        let message = failure("set.jsonl", "{\"zzz\": 1}", &Columns::gsm8k());
        assert!(message.contains("there are `zzz`") && !message.contains("did you mean"), "{message}");
        assert!(failure("set.jsonl", "{}", &Columns::gsm8k()).contains("no columns at all"));
    }

    #[test]
    fn unusable_cells_and_files_say_what_to_do() {
        let gsm8k = Columns::gsm8k();
        let message = failure("set.jsonl", "{\"question\": null, \"answer\": 1}", &gsm8k);
        assert!(message.contains("line 1: column `question` is empty"), "{message}");
        let message = failure("set.jsonl", "{\"question\": \"a\", \"answer\": [1]}", &gsm8k);
        assert!(message.contains("column `answer` holds a list; expected text"), "{message}");
        assert!(failure("set.jsonl", "\n\n", &gsm8k).contains("has no rows"));
        assert!(failure("set.csv", "a,b", &gsm8k).contains(".jsonl, .json, .parquet or .arrow"));
        let twice = "{\"n\": 1, \"question\": \"a\", \"answer\": 1}\n".repeat(2);
        let columns = Columns { id: Some(vec!["n".to_owned()]), ..Columns::gsm8k() };
        assert!(failure("set.jsonl", &twice, &columns).contains("line 2: the id `1` is already that of line 1"));
        let (_folder, path) = file("set.jsonl", &twice);
        assert!(read_problems(&path, &gsm8k, Some(0)).unwrap_err().to_string().contains("limit of 0"));
        assert!(
            read_problems(Path::new("absent.jsonl"), &gsm8k, None).unwrap_err().to_string().contains("cannot read")
        );
    }

    #[test]
    fn pairs_are_read_by_their_columns() {
        let (_folder, path) = file("pairs.jsonl", r#"{"prompt": "1 + 1", "response": "1 + 1 = 2.\n</think>2"}"#);
        let pairs = read_pairs(&path, "prompt", "response").unwrap();
        assert_eq!(pairs, [Pair { prompt: "1 + 1".into(), response: "1 + 1 = 2.\n</think>2".into() }]);
        assert!(read_pairs(&path, "prompt", "reply").unwrap_err().to_string().contains("`reply`"));
    }

    #[test]
    fn presets_go_by_name() {
        assert_eq!(Columns::preset("math").unwrap(), Columns::math());
        assert!(Columns::preset("maths").unwrap_err().to_string().contains("gsm8k, math and aime"));
    }
}
