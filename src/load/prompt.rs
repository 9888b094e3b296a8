//! What is asked: prompts with, perhaps, a reference answer, from a suite or from a file of the user's own.
//!
//! A prompt is a list of chat messages and a stable name; the name is what pairs requests across efforts and across runs.
//! How it is sent, and with which effort, is not known here.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use brevity_training::tasks::Problem;
use brevity_training::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::eval::{NamedColumns, Suite};

/// One prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Its name, unique in the list.
    pub id: String,
    /// `messages` of the request.
    pub messages: Value,
    /// The reference answer; without one, nothing is graded.
    pub answer: Option<String>,
    /// The difficulty class, if the source has one.
    pub level: Option<String>,
}

/// How a question becomes messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The user's message, `{question}` standing for the question.
    pub template: String,
    /// The system message, if there is to be one.
    pub system: Option<String>,
}

impl Default for Frame {
    fn default() -> Self {
        Self { template: "{question}".to_owned(), system: None }
    }
}

impl Frame {
    /// The messages for `question`.
    pub fn messages(&self, question: &str) -> Value {
        let user = json!({ "role": "user", "content": self.template.replace("{question}", question) });
        match &self.system {
            Some(system) => json!([{ "role": "system", "content": system }, user]),
            None => json!([user]),
        }
    }
}

/// The problems of `suite` as prompts, at most `per_level` of each level.
fn problems(suite: &Suite, columns: &NamedColumns, per_level: usize, frame: &Frame) -> Result<Vec<Prompt>> {
    let prompt = |problem: Problem| Prompt {
        messages: frame.messages(&problem.question),
        id: problem.id,
        answer: Some(problem.answer),
        level: problem.level,
    };
    Ok(suite.problems_of(per_level, columns)?.into_iter().map(prompt).collect())
}

/// A line of a prompt file.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    messages: Option<Vec<Value>>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    question: Option<String>,
    #[serde(default)]
    problem: Option<String>,
    #[serde(default)]
    answer: Option<Value>,
    #[serde(default)]
    id: Option<Value>,
    #[serde(default)]
    level: Option<Value>,
}

/// The first `limit` prompts of a JSONL file: an object a line with `messages` (sent as they are), or `prompt`, `question`
/// or `problem` (put into `frame`); perhaps `answer`, `level` and `id`. Without an id, the number of the line is the name.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Format`] with the line when one is no such object, when an id
/// comes twice, or when there are none.
pub fn read(path: &Path, frame: &Frame, limit: Option<usize>) -> Result<Vec<Prompt>> {
    let reader = BufReader::new(File::open(path).map_err(Error::io("read", path))?);
    let mut prompts: Vec<Prompt> = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for (index, line) in reader.lines().enumerate() {
        if limit.is_some_and(|limit| prompts.len() >= limit) {
            break;
        }
        let line = line.map_err(Error::io("read", path))?;
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() {
            continue;
        }
        let malformed = |what: String| Error::format(path, format!("line {}: {what}", index + 1));
        let read: Line = serde_json::from_str(line).map_err(|error| malformed(format!("is not a prompt: {error}")))?;
        let messages = match (read.messages, read.prompt.or(read.question).or(read.problem)) {
            (Some(messages), _) if !messages.is_empty() => Value::Array(messages),
            (_, Some(text)) if !text.trim().is_empty() => frame.messages(&text),
            _ => return Err(malformed("has none of the columns `messages`, `prompt` and `question`".to_owned())),
        };
        let id = read.id.map_or_else(|| (index + 1).to_string(), plain);
        if !names.insert(id.clone()) {
            return Err(malformed(format!("the id `{id}` is already taken; give every prompt its own")));
        }
        let answer = read.answer.filter(|answer| !answer.is_null()).map(plain);
        prompts.push(Prompt { id, messages, answer, level: read.level.map(plain) });
    }
    if prompts.is_empty() {
        return Err(Error::format(path, "holds no prompts; write one JSON object a line, with `prompt` or `messages`"));
    }
    Ok(prompts)
}

/// A cell as text.
fn plain(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// Where prompts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompts {
    /// A suite of problems, with some columns of its file named.
    Suite(Suite, NamedColumns),
    /// A JSONL file.
    File(PathBuf),
}

impl Prompts {
    /// Reads them, at most `limit` (of each level, for a suite).
    ///
    /// # Errors
    /// As [`read`] and [`Suite::problems_of`].
    pub fn load(&self, frame: &Frame, limit: Option<usize>) -> Result<Vec<Prompt>> {
        match self {
            Self::Suite(suite, columns) => problems(suite, columns, limit.unwrap_or(usize::MAX), frame),
            Self::File(path) => read(path, frame, limit),
        }
    }
}

impl fmt::Display for Prompts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suite(suite, _) => suite.fmt(formatter),
            Self::File(path) => formatter.write_str(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.jsonl");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn every_kind_of_line_is_read() {
        let text = concat!(
            "{\"prompt\": \"a\", \"answer\": 7}\n\n",
            "{\"question\": \"b\", \"id\": \"x\", \"level\": 3, \"answer\": null}\n",
            "{\"messages\": [{\"role\": \"user\", \"content\": \"c\"}]}\n"
        );
        let (_folder, path) = file(text);
        let frame = Frame { template: "Q: {question}".to_owned(), system: Some("brief".to_owned()) };
        let prompts = read(&path, &frame, None).unwrap();
        let ids: Vec<&str> = prompts.iter().map(|prompt| prompt.id.as_str()).collect();
        assert_eq!(ids, ["1", "x", "4"]);
        assert_eq!(prompts[0].answer.as_deref(), Some("7"));
        assert_eq!(prompts[1].answer, None);
        assert_eq!(prompts[1].level.as_deref(), Some("3"));
        let expected = json!([{ "role": "system", "content": "brief" }, { "role": "user", "content": "Q: a" }]);
        assert_eq!(prompts[0].messages, expected);
        assert_eq!(prompts[2].messages, json!([{ "role": "user", "content": "c" }]));
        assert_eq!(read(&path, &frame, Some(2)).unwrap().len(), 2);
    }

    #[test]
    fn lines_that_ask_nothing_are_named() {
        let (_folder, path) = file("{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n");
        let message = read(&path, &Frame::default(), None).unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("`messages`"), "{message}");
        let (_folder, path) = file("{\"prompt\": \"a\", \"id\": 1}\n{\"prompt\": \"a\", \"id\": 1}\n");
        let message = read(&path, &Frame::default(), None).unwrap_err().to_string();
        assert!(message.contains("line 2: the id `1`"), "{message}");
        let (_folder, path) = file("\n");
        let message = read(&path, &Frame::default(), None).unwrap_err().to_string();
        assert!(message.contains("no prompts"), "{message}");
    }

    #[test]
    fn problems_of_a_suite_are_prompts() {
        let prompts = Prompts::Suite("mini:easy,medium".parse().unwrap(), NamedColumns::default());
        let loaded = prompts.load(&Frame::default(), Some(2)).unwrap();
        let levels: Vec<_> = loaded.iter().filter_map(|prompt| prompt.level.as_deref()).collect();
        assert_eq!(levels, ["easy", "easy", "medium", "medium"]);
        assert!(loaded.iter().all(|prompt| prompt.answer.is_some()));
        assert_eq!(prompts.to_string(), "mini:test (easy, medium)");
        let (_folder, path) = file("{\"ask\": \"1 + 1\", \"answer\": \"2\"}\n");
        let columns = NamedColumns { question: Some("ask".to_owned()), ..NamedColumns::default() };
        let own = Prompts::Suite(format!("file:{}", path.display()).parse().unwrap(), columns);
        assert_eq!(own.load(&Frame::default(), None).unwrap()[0].answer.as_deref(), Some("2"));
    }
}
