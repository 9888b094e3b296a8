//! Places to write to, tried before any work begins; and the day, for what is written there.

use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use brevity_training::Error;

use super::{Failure, Result};

/// Makes the folder and sees that a file can be written in it.
///
/// # Errors
/// When it cannot, with what to do instead.
pub fn writable(folder: &Path, option: &str) -> Result<()> {
    // A name of its own, so that several processes may try one folder at a time; the file goes when it is dropped.
    let tried = std::fs::create_dir_all(folder).map_err(Error::io("create", folder)).and_then(|()| {
        tempfile::Builder::new().prefix(".writing-").tempfile_in(folder).map_err(Error::io("write", folder))
    });
    tried
        .map(drop)
        .map_err(|error| Failure::from(error).hint(format!("name a folder that can be written with {option}")))
}

/// The last part of a path, for a name.
pub fn name_of(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    full.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// `name` as part of a file's name: everything but letters, digits, `-`, `_` and `.` becomes `_`.
pub fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

/// `target` seen from the folder `from`; both exist.
///
/// # Errors
/// When one of them does not.
pub fn relative(target: &Path, from: &Path) -> Result<PathBuf> {
    let whole = |path: &Path| path.canonicalize().map_err(Error::io("find", path));
    Ok(between(&whole(target)?, &whole(from)?))
}

/// `target` seen from `from`, both absolute.
fn between(target: &Path, from: &Path) -> PathBuf {
    let shared = target.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(target.components().skip(shared)).collect()
}

/// Today in UTC as RFC 3339 writes a day, `2025-03-31`.
pub fn today() -> String {
    day(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() / 86_400)
}

/// The day that is `days` after 1 January 1970.
fn day(days: u64) -> String {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut rest) = (1970, days);
    while rest >= 365 + u64::from(is_leap(year)) {
        rest -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_178, "2025-03-31"),
            (20_453, "2025-12-31"),
            (20_454, "2026-01-01"),
        ] {
            assert_eq!(day(days), expected);
        }
    }

    #[test]
    fn folders_are_seen_from_others() {
        let seen = |target: &str, from: &str| between(Path::new(target), Path::new(from));
        assert_eq!(seen("/a/models/mini/base", "/a/models/mini"), Path::new("base"));
        assert_eq!(seen("/a/bases/one", "/a/models/mini"), Path::new("../../bases/one"));
        assert_eq!(seen("/b", "/a"), Path::new("../b"));
    }

    #[test]
    fn names_become_file_names() {
        assert_eq!(file_name("α 0.1/b"), "__0.1_b");
        assert_eq!(name_of(Path::new("models/mini/")), "mini");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(writable(&file.join("inner"), "--out").unwrap_err().code(), 1);
        writable(&folder.path().join("a/b"), "--out").unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("a/b")).unwrap().count(), 0);
    }
}
