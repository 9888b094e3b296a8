//! Parquet data sets, as the Hugging Face hub keeps them.
//!
//! Turns record rows into rows of text cells; nested values are only named, not read. Which columns are wanted is not
//! known here.

use std::fs::File;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::Field;

use super::{Cell, Row};
use crate::{Error, Result};

/// The first `limit` rows.
pub(super) fn rows(path: &Path, limit: usize) -> Result<Vec<Row>> {
    let malformed =
        |error: ParquetError| Error::format(path, format!("cannot be read as Parquet: {error}; convert it to .jsonl"));
    let file = File::open(path).map_err(Error::io("read", path))?;
    let reader = SerializedFileReader::new(file).map_err(malformed)?;
    let records = reader.into_iter().take(limit).enumerate();
    records
        .map(|(index, record)| {
            let columns = record.map_err(malformed)?.into_columns();
            let cells = columns.into_iter().map(|(name, field)| (name, cell(field))).collect();
            Ok(Row { unit: "row", number: index + 1, cells })
        })
        .collect()
}

fn cell(field: Field) -> Cell {
    match field {
        Field::Null => Cell::Missing,
        Field::Str(text) => Cell::Text(text),
        // Older writers leave out that a column of bytes is text.
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data())
            .map_or(Cell::Other("bytes that are not UTF-8 text"), |text| Cell::Text(text.to_owned())),
        Field::Group(_) => Cell::Other("an object"),
        Field::ListInternal(_) => Cell::Other("a list"),
        Field::MapInternal(_) => Cell::Other("a map"),
        // Parquet's own formatting would write -0.5 as `-5E-1`, which no grader expects.
        Field::Float(number) => Cell::Text(number.to_string()),
        Field::Double(number) => Cell::Text(number.to_string()),
        number => Cell::Text(number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::super::{Columns, read_problems};
    use super::*;
    use crate::files;

    /// Two problems with a text, a number, an optional level, plain bytes and a list.
    fn data_set(folder: &Path, compression: Compression) -> PathBuf {
        let schema = "message set {
            REQUIRED BYTE_ARRAY problem (UTF8); REQUIRED INT64 answer; OPTIONAL BYTE_ARRAY level (UTF8);
            REQUIRED BYTE_ARRAY raw; REQUIRED DOUBLE share; REPEATED INT64 list;
        }";
        let path = folder.join("set.parquet");
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let bytes = |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&bytes(&["6 * 7", "caf\u{e9}"]), None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[42, -7], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&bytes(&["Level 3"]), Some(&[1, 0]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&bytes(&["a", "b"]), None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&[-0.5, 2.0], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[1, 2], Some(&[1, 1]), Some(&[0, 0])).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        path
    }

    #[test]
    fn written_values_come_back_as_text() {
        let folder = tempfile::tempdir().unwrap();
        for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(Default::default())] {
            let path = data_set(folder.path(), compression);
            let rows = rows(&path, usize::MAX).unwrap();
            let text = |text: &str| Cell::Text(text.to_owned());
            let cells = |index: usize| rows[index].cells.iter().map(|(_, cell)| cell.clone()).collect::<Vec<_>>();
            let list = Cell::Other("a list");
            assert_eq!(cells(0), [text("6 * 7"), text("42"), text("Level 3"), text("a"), text("-0.5"), list.clone()]);
            assert_eq!(cells(1), [text("caf\u{e9}"), text("-7"), Cell::Missing, text("b"), text("2"), list]);
        }
    }

    #[test]
    fn problems_are_read_and_gaps_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = data_set(folder.path(), Compression::SNAPPY);
        let first = read_problems(&path, &Columns::math(), Some(1)).unwrap();
        assert_eq!((first[0].answer.as_str(), first[0].level.as_deref()), ("42", Some("3")));
        let message = read_problems(&path, &Columns::math(), None).unwrap_err().to_string();
        assert!(message.contains("row 2: column `level` is empty"), "{message}");
        let message = read_problems(&path, &Columns::new("problems", "answer"), None).unwrap_err().to_string();
        assert!(message.contains("row 1: no column `problems`") && message.contains("mean `problem`"), "{message}");
        let message = read_problems(&path, &Columns::new("problem", "list"), None).unwrap_err().to_string();
        assert!(message.contains("column `list` holds a list"), "{message}");
    }

    #[test]
    fn what_is_not_parquet_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.parquet");
        files::write(&path, b"not parquet at all").unwrap();
        let message = rows(&path, 1).unwrap_err().to_string();
        assert!(message.contains("cannot be read as Parquet"), "{message}");
    }
}
