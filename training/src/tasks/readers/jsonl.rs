//! JSON data sets: one object a line, or a single array of objects.
//!
//! Turns text into rows and says in which line it is malformed. Which columns are wanted is not known here.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use super::{Cell, Row};
use crate::{Error, Result, files};

/// The first `limit` rows; blank lines are skipped but counted.
pub(super) fn rows(path: &Path, limit: usize) -> Result<Vec<Row>> {
    let mut reader = BufReader::new(File::open(path).map_err(Error::io("read", path))?);
    let mut rows = Vec::new();
    let (mut bytes, mut number) = (Vec::new(), 0);
    while rows.len() < limit {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes);
        // A folder opens like a file and fails only here.
        if read.map_err(Error::io("read", path))? == 0 {
            break;
        }
        number += 1;
        let malformed = |reason: String| Error::format(path, format!("line {number}: {reason}"));
        let line = std::str::from_utf8(&bytes).map_err(|error| malformed(format!("is not UTF-8 text: {error}")))?;
        let line = if number == 1 { line.trim_start_matches('\u{feff}') } else { line };
        if line.trim().is_empty() {
            continue;
        }
        if rows.is_empty() && line.trim_start().starts_with('[') {
            return array(path, limit);
        }
        let object: Map<String, Value> = serde_json::from_str(line).map_err(|error| {
            malformed(format!("is not a JSON object: {}; every line must hold one whole object", reason(&error)))
        })?;
        rows.push(row("line", number, object));
    }
    Ok(rows)
}

/// The rows of a file that is one array.
fn array(path: &Path, limit: usize) -> Result<Vec<Row>> {
    let text = files::read_text(path)?;
    let objects: Vec<Map<String, Value>> = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| Error::format(path, format!("is not an array of JSON objects: {error}")))?;
    Ok(objects.into_iter().take(limit).enumerate().map(|(index, object)| row("row", index + 1, object)).collect())
}

/// What is wrong, with the column but without the line, which within a single line is always the first.
fn reason(error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "it ends too early".to_owned();
    }
    error.to_string().replace(&format!("line {} column", error.line()), "column")
}

fn row(unit: &'static str, number: usize, object: Map<String, Value>) -> Row {
    let cells = object.into_iter().map(|(name, value)| (name, cell(value))).collect();
    Row { unit, number, cells }
}

fn cell(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Missing,
        Value::Bool(truth) => Cell::Text(truth.to_string()),
        Value::Number(number) => Cell::Text(number.to_string()),
        Value::String(text) => Cell::Text(text),
        Value::Array(_) => Cell::Other("a list"),
        Value::Object(_) => Cell::Other("an object"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(content: &[u8], limit: usize) -> Result<Vec<Row>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.jsonl");
        files::write(&path, content).unwrap();
        rows(&path, limit)
    }

    fn failure(content: &[u8]) -> String {
        read(content, usize::MAX).unwrap_err().to_string()
    }

    #[test]
    fn malformed_lines_are_numbered() {
        let message = failure(b"{\"a\": 1}\n\n{\"a\": }\n");
        assert!(message.contains("line 3: is not a JSON object: expected value at column 7"), "{message}");
        assert!(failure(b"{\"a\": 1}\n\"text\"\n").contains("line 2: is not a JSON object"));
        assert!(failure(b"{\"a\": 1}\n{\"a\": \"\xff\"}\n").contains("line 2: is not UTF-8"));
        assert!(failure(b"{\"a\":\n1}\n").contains("line 1: is not a JSON object: it ends too early"));
        assert!(failure(b"[{\"a\": 1}, 2]").contains("is not an array of JSON objects"));
    }

    #[test]
    fn lines_past_the_limit_are_not_looked_at() {
        let rows = read(b"{\"a\": 1}\nrubbish\n", 1).unwrap();
        assert_eq!(rows, [Row { unit: "line", number: 1, cells: vec![("a".into(), Cell::Text("1".into()))] }]);
    }

    #[test]
    fn an_array_and_a_byte_order_mark_are_understood() {
        let rows = read("\u{feff}[\n{\"a\": null},\n{\"b\": {}}]".as_bytes(), usize::MAX).unwrap();
        assert_eq!(rows[0].cells, [("a".to_owned(), Cell::Missing)]);
        assert_eq!((rows[1].number, &rows[1].cells[0].1), (2, &Cell::Other("an object")));
    }

    proptest! {
        #[test]
        fn any_bytes_give_rows_or_an_error(content in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&content, usize::MAX);
        }

        #[test]
        fn any_text_comes_back_unchanged(texts in prop::collection::vec(".{0,40}", 1..5)) {
            let lines: Vec<String> = texts.iter().map(|text| serde_json::json!({ "t": text }).to_string()).collect();
            let rows = read(lines.join("\r\n").as_bytes(), usize::MAX).unwrap();
            let read: Vec<Cell> = rows.into_iter().map(|mut row| row.cells.remove(0).1).collect();
            prop_assert_eq!(read, texts.into_iter().map(Cell::Text).collect::<Vec<_>>());
        }
    }
}
