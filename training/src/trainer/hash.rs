//! What a file holds, as one short string: to tell whole checkpoints from damaged ones and one base model from another.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// SHA-256 of the file at `path`, in hexadecimal; the file is streamed.
///
/// # Errors
/// [`Error::Io`] when it cannot be read.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut hashing = Hashing(Sha256::new());
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    io::copy(&mut file, &mut hashing).map_err(Error::io("read", path))?;
    Ok(hashing.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_known_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash_file(file.path()).unwrap(), expected);
        assert!(hash_file(Path::new("/nowhere")).unwrap_err().to_string().contains("/nowhere"));
    }
}
