//! Folders as a manifest names them: seen from its own, and called like the tier.
//!
//! Text only, but for finding out where a folder really is. Whether two names become one folder is for the caller to ask.

use std::path::{Component, Path, PathBuf};

use brevity_training::{Error, Result};

/// `target` seen from the folder `from`; both exist.
///
/// # Errors
/// [`Error::Io`] when one of them does not.
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

/// `name` as part of a file's name: everything but letters, digits, `-`, `_` and `.` becomes `_`.
pub fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_file_names() {
        assert_eq!(file_name("α 0.1/b"), "__0.1_b");
    }

    #[test]
    fn folders_are_seen_from_others() {
        let seen = |target: &str, from: &str| between(Path::new(target), Path::new(from));
        assert_eq!(seen("/a/models/mini/base", "/a/models/mini"), Path::new("base"));
        assert_eq!(seen("/a/bases/one", "/a/models/mini"), Path::new("../../bases/one"));
        assert_eq!(seen("/b", "/a"), Path::new("../b"));
    }
}
