//! Places to write to, tried before any work begins; and the day, for what is written there.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use brevity::family::file_name;
use brevity_training::Error;
use brevity_training::trainer;

use super::{Failure, Result};

/// Size of a trial file: enough that a full disk refuses it.
const TRIAL_BYTES: usize = 1 << 20;

/// Makes the folder and sees that a file of some size can be written in it.
///
/// # Errors
/// When it cannot, with what to do instead.
pub fn writable(folder: &Path, option: &str) -> Result<()> {
    // A name of its own, so that several processes may try one folder at a time; the file goes when it is dropped.
    let tried = std::fs::create_dir_all(folder).map_err(Error::io("create", folder)).and_then(|()| {
        let trial = || {
            let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
            file.write_all(&vec![0x5a; TRIAL_BYTES])?;
            file.as_file().sync_all()
        };
        trial().map_err(Error::io("write", folder))
    });
    tried.map_err(|error| Failure::from(error).hint(format!("name a folder that can be written with {option}")))
}

/// Sees that there is room for what will be written: folders that exist, the options that name them, and bytes. Folders on
/// one disk share its room. A system that does not say how much there is passes.
///
/// # Errors
/// When there is less.
pub fn has_room(needs: &[(&Path, &str, u64)]) -> Result<()> {
    let mut disks: Vec<(Disk, u64, &Path, &str)> = Vec::new();
    for &(folder, option, bytes) in needs {
        let Some(disk) = Disk::of(folder) else { continue };
        match disks.iter_mut().find(|(known, ..)| known.id == disk.id) {
            Some((_, all, ..)) => *all += bytes,
            None => disks.push((disk, bytes, folder, option)),
        }
    }
    match disks.into_iter().find(|(disk, bytes, ..)| *bytes > disk.free) {
        Some((disk, bytes, folder, option)) => {
            let (shown, free) = (folder.display(), trainer::bytes(disk.free));
            let message = format!("the disk of `{shown}` has {free} left, {} are needed", trainer::bytes(bytes));
            Err(Failure::from(Error::config(message)).hint(format!("free some, or name another folder with {option}")))
        }
        None => Ok(()),
    }
}

/// A file system.
struct Disk {
    /// The number by which the system knows it.
    id: u64,
    /// Bytes that may still be written.
    free: u64,
}

impl Disk {
    /// The one that an existing folder lies on; `None` where the system does not say.
    #[cfg(unix)]
    #[allow(clippy::useless_conversion, reason = "on other systems these numbers are narrower")]
    fn of(folder: &Path) -> Option<Self> {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::MetadataExt;

        let path = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
        let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: `path` ends in a zero byte, `found` has room for the answer, and is read only where the call says that it
        // has filled it in.
        let found = unsafe { (libc::statvfs(path.as_ptr(), found.as_mut_ptr()) == 0).then(|| found.assume_init())? };
        let id = std::fs::metadata(folder).ok()?.dev();
        Some(Self { id, free: u64::from(found.f_bavail).saturating_mul(u64::from(found.f_frsize)) })
    }

    #[cfg(not(unix))]
    fn of(_: &Path) -> Option<Self> {
        None
    }
}

/// The last part of a path, for a name.
pub fn name_of(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    full.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
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
    fn a_folder_has_a_name() {
        assert_eq!(name_of(Path::new("models/mini/")), "mini");
    }

    #[cfg(unix)]
    #[test]
    fn room_is_counted_by_the_disk() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let free = Disk::of(one.path()).unwrap().free;
        assert!(has_room(&[(one.path(), "--out", 1), (two.path(), "--runs", 1)]).is_ok());
        assert!(has_room(&[(one.path(), "--out", u64::MAX / 4)]).is_err());
        // Each would fit (whatever others write meanwhile), both together do not.
        let most = free / 4 * 3;
        let shared = has_room(&[(one.path(), "--out", most), (two.path(), "--runs", most)]);
        assert_eq!(shared.unwrap_err().code(), 1);
        assert!(Disk::of(Path::new("/nowhere/at/all")).is_none());
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
