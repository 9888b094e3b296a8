//! Arrow data sets, as Hugging Face's `datasets` keeps them on disk: the stream format of Arrow IPC, or its file format.
//!
//! Turns record batches into rows of text cells; nested values are only named, not read. Which columns are wanted is not
//! known here.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, DataType};

use super::{Cell, Row};
use crate::{Error, Result};

/// How the file format begins; the stream format does not.
const MAGIC: &[u8] = b"ARROW1";

type Batches = Box<dyn Iterator<Item = std::result::Result<RecordBatch, ArrowError>>>;

/// The first `limit` rows.
pub(super) fn rows(path: &Path, limit: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for batch in batches(path)? {
        let batch = batch.map_err(|error| malformed(path, &error))?;
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            if rows.len() == limit {
                return Ok(rows);
            }
            let columns = schema.fields().iter().zip(batch.columns());
            let cells = columns.map(|(field, column)| (field.name().clone(), cell(column.as_ref(), row))).collect();
            rows.push(Row { unit: "row", number: rows.len() + 1, cells });
        }
    }
    Ok(rows)
}

fn batches(path: &Path) -> Result<Batches> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io("read", path))?);
    let mut start = Vec::new();
    file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut start).map_err(Error::io("read", path))?;
    file.rewind().map_err(Error::io("read", path))?;
    let malformed = |error| malformed(path, &error);
    Ok(if start == MAGIC {
        Box::new(FileReader::try_new(file, None).map_err(malformed)?)
    } else {
        Box::new(StreamReader::try_new(file, None).map_err(malformed)?)
    })
}

fn malformed(path: &Path, error: &ArrowError) -> Error {
    Error::format(path, format!("cannot be read as Arrow: {error}; convert it to .jsonl"))
}

fn cell(column: &dyn Array, row: usize) -> Cell {
    if column.is_null(row) {
        return Cell::Missing;
    }
    /// A number as the text that people would write.
    macro_rules! number {
        ($kind:ty) => {
            Cell::Text(column.as_primitive::<$kind>().value(row).to_string())
        };
    }
    match column.data_type() {
        DataType::Utf8 => Cell::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Cell::Text(column.as_string::<i64>().value(row).to_owned()),
        DataType::Utf8View => Cell::Text(column.as_string_view().value(row).to_owned()),
        DataType::Boolean => Cell::Text(column.as_boolean().value(row).to_string()),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => number!(Float32Type),
        DataType::Float64 => number!(Float64Type),
        DataType::Dictionary(_, _) => {
            let dictionary = column.as_any_dictionary();
            match cell(dictionary.keys(), row) {
                Cell::Text(key) => key.parse().map_or(Cell::Missing, |key| cell(dictionary.values().as_ref(), key)),
                other => other,
            }
        }
        DataType::Struct(_) => Cell::Other("an object"),
        DataType::Map(_, _) => Cell::Other("a map"),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _) => Cell::Other("a list"),
        _ => Cell::Other("a value that is neither text nor a number"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, LargeStringArray, ListArray, StringArray,
    };
    use arrow_ipc::writer::{FileWriter, StreamWriter};

    use super::super::{Columns, read_problems};
    use super::*;
    use crate::files;

    /// Two rows of every kind that is told apart.
    fn batch() -> RecordBatch {
        let lists = [Some(vec![Some(1), None]), Some(vec![])];
        let levels: DictionaryArray<Int32Type> = [Some("Level 3"), None].into_iter().collect();
        let columns: [(&str, ArrayRef); 6] = [
            ("problem", Arc::new(StringArray::from(vec!["6 * 7", "caf\u{e9}"]))),
            ("answer", Arc::new(Int64Array::from(vec![42, -7]))),
            ("level", Arc::new(levels)),
            ("share", Arc::new(Float64Array::from(vec![-0.5, 2.0]))),
            ("raw", Arc::new(LargeStringArray::from(vec![Some("a"), None]))),
            ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn written(folder: &Path, as_file: bool) -> PathBuf {
        let (path, batch) = (folder.join("set.arrow"), batch());
        let file = File::create(&path).unwrap();
        if as_file {
            let mut writer = FileWriter::try_new(file, &batch.schema()).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
        } else {
            let mut writer = StreamWriter::try_new(file, &batch.schema()).unwrap();
            writer.write(&batch).unwrap();
            writer.write(&batch.slice(0, 1)).unwrap();
            writer.finish().unwrap();
        }
        path
    }

    #[test]
    fn written_values_come_back_as_text_in_both_formats() {
        let folder = tempfile::tempdir().unwrap();
        for (as_file, count) in [(true, 2), (false, 3)] {
            let path = written(folder.path(), as_file);
            let rows = rows(&path, usize::MAX).unwrap();
            assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), (1..=count).collect::<Vec<_>>());
            let text = |text: &str| Cell::Text(text.to_owned());
            let cells = |index: usize| rows[index].cells.iter().map(|(_, cell)| cell.clone()).collect::<Vec<_>>();
            let list = Cell::Other("a list");
            assert_eq!(cells(0), [text("6 * 7"), text("42"), text("Level 3"), text("-0.5"), text("a"), list.clone()]);
            assert_eq!(cells(1), [text("caf\u{e9}"), text("-7"), Cell::Missing, text("2"), Cell::Missing, list]);
            assert_eq!(super::rows(&path, 1).unwrap().len(), 1);
        }
        let truth = BooleanArray::from(vec![true]);
        assert_eq!(cell(&truth, 0), Cell::Text("true".to_owned()));
    }

    #[test]
    fn problems_are_read_and_gaps_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), false);
        let first = read_problems(&path, &Columns::math(), Some(1)).unwrap();
        assert_eq!((first[0].answer.as_str(), first[0].level.as_deref()), ("42", Some("3")));
        let message = read_problems(&path, &Columns::math(), None).unwrap_err().to_string();
        assert!(message.contains("row 2: column `level` is empty"), "{message}");
    }

    #[test]
    fn what_is_not_arrow_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.arrow");
        for content in ["not arrow at all", "ARROW1 and nothing else", ""] {
            files::write(&path, content.as_bytes()).unwrap();
            let message = read_problems(&path, &Columns::math(), None).unwrap_err().to_string();
            assert!(message.contains("cannot be read as Arrow"), "{content}: {message}");
        }
    }
}
