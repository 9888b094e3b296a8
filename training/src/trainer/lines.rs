//! Files of a run that grow by lines, each a JSON object that belongs to a step, and are cut back when the run goes on from
//! an earlier checkpoint. What the lines say is the business of those who write them.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, Result, files};

/// A line of numbers that belongs to a step.
pub trait Line: Serialize + DeserializeOwned {
    /// What to do when a number of it is not finite.
    const REMEDY: &str;

    /// The step, from 1.
    fn step(&self) -> u64;
}

/// A file that grows by lines. It is not replaced as a whole like other files: that would cost more with every step,
/// and half a line at its end does no harm.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    file: File,
    last: Option<u64>,
}

impl Lines {
    /// Opens the file, whose last line is of step `last` or one before it.
    pub(super) fn open(path: PathBuf, last: Option<u64>) -> Result<Self> {
        let file = File::options().append(true).create(true).open(&path).map_err(Error::io("write", &path))?;
        Ok(Self { path, file, last })
    }

    /// The step of the last line, or a later one.
    pub(super) fn last(&self) -> Option<u64> {
        self.last
    }

    /// Writes the line of a step that is later than all before.
    pub(super) fn append<L: Line>(&mut self, line: &L) -> Result<()> {
        self.append_all(line.step(), std::slice::from_ref(line))
    }

    /// Writes all lines of a step that is later than all before; they are on disk when this returns.
    pub(super) fn append_all<L: Line>(&mut self, step: u64, lines: &[L]) -> Result<()> {
        if let Some(last) = self.last.filter(|&last| step <= last) {
            let path = self.path.display();
            return Err(Error::config(format!("`{path}`: step {step} cannot follow step {last}")));
        }
        let refuse = |error: serde_json::Error| Error::format(&self.path, error.to_string());
        let mut text = String::new();
        for line in lines {
            // JSON has no word for a number that is not finite; it becomes null.
            if let Value::Object(keys) = serde_json::to_value(line).map_err(refuse)?
                && let Some((key, _)) = keys.iter().find(|(_, value)| value.is_null())
            {
                return Err(Error::config(format!("step {step}: `{key}` is not a finite number; {}", L::REMEDY)));
            }
            text += &serde_json::to_string(line).map_err(refuse)?;
            text.push('\n');
        }
        let mut write = || {
            self.file.write_all(text.as_bytes())?;
            self.file.sync_data()
        };
        write().map_err(Error::io("write", &self.path))?;
        self.last = Some(step);
        Ok(())
    }
}

/// Cuts the file back to the lines of steps up to `last_step` and returns those.
pub(super) fn cut<L: Line>(path: &Path, last_step: u64) -> Result<Vec<L>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let mut kept = Vec::new();
    let mut length = 0;
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        // Without its end it may be half of a longer line, even if it reads well.
        let Some(content) = line.strip_suffix(b"\n") else { break };
        let value: L = serde_json::from_slice(content)
            .map_err(|error| Error::format(path, format!("line {}: {error}; remove the line to go on", index + 1)))?;
        if value.step() > last_step {
            break;
        }
        length += line.len();
        kept.push(value);
    }
    if length < bytes.len() {
        files::write(path, &bytes[..length])?;
    }
    Ok(kept)
}
