//! The metrics of a run as a TensorBoard event file.
//!
//! An event file is a sequence of TFRecords (length, checksum, bytes, checksum), each an `Event` message of protobuf.
//! Only scalars are written, which takes five kinds of field; a protobuf library would be more code than this. The file
//! can always be made again from `metrics.jsonl`, and a run that resumes does so.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::lines::Line;
use super::metrics::{MetricsLog, StepTimings};
use super::run_folder::RunFolder;
use crate::{Error, Result, files};

/// TensorBoard looks for `tfevents` in the name; the rest is ours.
const NAME: &str = "events.out.tfevents.0.brevity";

/// An event file, open for one more step.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Writes the event file of `run` anew from the steps that `log` found, and opens it for the next.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn resume<M: Line>(run: &RunFolder, log: &MetricsLog<M>) -> Result<Self> {
        let path = run.file(NAME);
        let mut wall_time = 0.0;
        let mut bytes = Vec::new();
        let steps: Vec<Vec<u8>> = log
            .history()
            .iter()
            .map(|(metrics, timings)| {
                wall_time = timings.as_ref().map_or(wall_time, |timings| timings.wall_time);
                step_records(metrics, timings.as_ref(), wall_time)
            })
            .collect::<Result<_>>()?;
        let began = log.history().first().and_then(|(_, timings)| timings.as_ref());
        bytes.extend(record(&version_event(began.map_or(0.0, |timings| timings.wall_time - timings.step_time))));
        bytes.extend(steps.concat());
        files::write(&path, &bytes)?;
        let file = File::options().append(true).open(&path).map_err(Error::io("write", &path))?;
        Ok(Self { path, file })
    }

    /// Adds a step.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn append<M: Line>(&mut self, metrics: &M, timings: &StepTimings) -> Result<()> {
        let bytes = step_records(metrics, Some(timings), timings.wall_time)?;
        self.file.write_all(&bytes).map_err(Error::io("write", &self.path))
    }
}

/// One record with all scalars of a step; timings are tagged `time/…`.
fn step_records<M: Line>(metrics: &M, timings: Option<&StepTimings>, wall_time: f64) -> Result<Vec<u8>> {
    let mut scalars = scalars("", metrics)?;
    if let Some(timings) = timings {
        scalars.extend(self::scalars("time/", timings)?);
    }
    Ok(record(&scalar_event(wall_time, metrics.step(), &scalars)))
}

/// The numbers of a flat struct by key, sorted, without its step and wall time.
fn scalars<T: Serialize>(prefix: &str, values: &T) -> Result<Vec<(String, f32)>> {
    let value = serde_json::to_value(values).map_err(|error| Error::config(error.to_string()))?;
    let Value::Object(table) = value else { return Ok(Vec::new()) };
    let mut scalars: Vec<(String, f32)> = table
        .into_iter()
        .filter(|(key, _)| key != "step" && key != "wall_time")
        .filter_map(|(key, value)| Some((format!("{prefix}{key}"), value.as_f64()? as f32)))
        .collect();
    scalars.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(scalars)
}

/// `Event { wall_time = 1, file_version = 3 }`, which every file begins with.
fn version_event(wall_time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    put_fixed64(&mut event, 1, wall_time);
    put_bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// `Event { wall_time = 1, step = 2, summary = 5 { value = 1 { tag = 1, simple_value = 2 } … } }`.
fn scalar_event(wall_time: f64, step: u64, scalars: &[(String, f32)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, scalar) in scalars {
        let mut value = Vec::new();
        put_bytes(&mut value, 1, tag.as_bytes());
        put_tag(&mut value, 2, 5);
        value.extend(scalar.to_le_bytes());
        put_bytes(&mut summary, 1, &value);
    }
    let mut event = Vec::new();
    put_fixed64(&mut event, 1, wall_time);
    put_tag(&mut event, 2, 0);
    put_varint(&mut event, step);
    put_bytes(&mut event, 5, &summary);
    event
}

/// A field's number and wire type (0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes).
fn put_tag(into: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(into, field << 3 | wire_type);
}

fn put_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn put_bytes(into: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_tag(into, field, 2);
    put_varint(into, bytes.len() as u64);
    into.extend(bytes);
}

fn put_fixed64(into: &mut Vec<u8>, field: u64, value: f64) {
    put_tag(into, field, 1);
    into.extend(value.to_le_bytes());
}

/// A TFRecord: length, checksum of the length, bytes, checksum of the bytes, all little-endian.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked(crc32c(&length)).to_le_bytes());
    record.extend(bytes);
    record.extend(masked(crc32c(bytes)).to_le_bytes());
    record
}

/// The format masks checksums, so that one of bytes that hold checksums stays a good one.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with Castagnoli's polynomial, reflected (RFC 3720, appendix B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut crc = index as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[index] = crc;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, &byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::super::metrics::StepMetrics;
    use super::super::run_folder::tests::fresh;
    use super::*;

    #[test]
    fn checksums_are_the_known_ones() {
        // The check value of the polynomial, and the vectors of RFC 3720, appendix B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b""), 0);
        // 0xe3069283 rotated right by 15 is 0x2507c60d.
        assert_eq!(masked(0xe306_9283), 0x2507_c60d_u32.wrapping_add(0xa282_ead8));
    }

    #[test]
    fn messages_have_the_bytes_worked_out_by_hand() {
        assert_eq!(
            scalar_event(1.5, 300, &[("a".to_owned(), 1.0)]),
            [
                &[0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f][..], // wall_time = 1.5
                &[0x10, 0xac, 0x02],                       // step = 300
                &[0x2a, 10, 0x0a, 8, 0x0a, 1, b'a', 0x15, 0, 0, 0x80, 0x3f],
            ]
            .concat()
        );
        assert_eq!(version_event(0.0), *b"\x09\0\0\0\0\0\0\0\0\x1a\x0dbrain.Event:2");
    }

    /// A reader of its own: the fields of a message as (number, payload).
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (byte, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                value |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let length = match tag & 7 {
                0 => {
                    found.push((tag >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut bytes) as usize,
                5 => 4,
                other => panic!("wire type {other}"),
            };
            let (payload, rest) = bytes.split_at(length);
            found.push((tag >> 3, payload.to_vec()));
            bytes = rest;
        }
        found
    }

    /// The events of a file: (wall time, step, scalars).
    fn events(run: &RunFolder) -> Vec<(f64, u64, BTreeMap<String, f32>)> {
        let bytes = fs::read(run.file(NAME)).unwrap();
        let mut rest = &bytes[..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let check = |bytes: &[u8], crc: &[u8]| {
                assert_eq!(masked(crc32c(bytes)), u32::from_le_bytes(crc.try_into().unwrap()));
            };
            check(&rest[..8], &rest[8..12]);
            check(&rest[12..12 + length], &rest[12 + length..16 + length]);
            let (mut wall_time, mut step, mut scalars) = (f64::NAN, 0, BTreeMap::new());
            for (number, payload) in fields(&rest[12..12 + length]) {
                match number {
                    1 => wall_time = f64::from_le_bytes(payload.try_into().unwrap()),
                    2 => step = u64::from_le_bytes(payload.try_into().unwrap()),
                    3 => assert_eq!(payload, b"brain.Event:2"),
                    5 => {
                        for (_, value) in fields(&payload) {
                            let value = fields(&value);
                            let scalar = f32::from_le_bytes(value[1].1.clone().try_into().unwrap());
                            scalars.insert(String::from_utf8(value[0].1.clone()).unwrap(), scalar);
                        }
                    }
                    other => panic!("field {other}"),
                }
            }
            found.push((wall_time, step, scalars));
            rest = &rest[16 + length..];
        }
        found
    }

    fn step(step: u64) -> (StepMetrics, StepTimings) {
        let metrics = StepMetrics { step, reward: step as f64 / 4.0, mean_length: 200.0, ..Default::default() };
        (metrics, StepTimings { step, wall_time: 1e9 + step as f64, step_time: 0.5, ..Default::default() })
    }

    #[test]
    fn what_is_written_is_read_back_and_a_resumed_file_is_the_same() {
        let (_guard, run) = fresh();
        let mut log = MetricsLog::resume(&run, 0).unwrap();
        let mut writer = EventWriter::resume(&run, &log).unwrap();
        for number in 1..=3 {
            let (metrics, timings) = step(number);
            log.append(&metrics, &timings).unwrap();
            writer.append(&metrics, &timings).unwrap();
        }
        let found = events(&run);
        assert_eq!(found.len(), 4);
        assert!(found[0].2.is_empty(), "the first event is the version");
        let (wall_time, number, scalars) = &found[2];
        assert_eq!((*wall_time, *number), (1e9 + 2.0, 2));
        assert_eq!(scalars["reward"], 0.5);
        assert_eq!(scalars["completions/mean_length"], 200.0);
        assert_eq!(scalars["time/step_time"], 0.5);
        assert!(!scalars.contains_key("step") && !scalars.contains_key("time/wall_time"));

        // Going back to step 2: the events of step 3 are gone, those before are unchanged.
        let log = MetricsLog::<StepMetrics>::resume(&run, 2).unwrap();
        EventWriter::resume(&run, &log).unwrap();
        assert_eq!(events(&run)[1..], found[1..3]);
    }
}
