//! SHA-256 of weights, so that a manifest, a card and the files on disk can be shown to belong together.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use brevity_training::{Error, Result};
use sha2::{Digest, Sha256};

/// SHA-256 of one file, as lowercase hexadecimal; read in pieces, so the size does not matter.
///
/// # Errors
/// [`Error::Io`] when it cannot be read.
pub fn file_sha256(path: &Path) -> Result<String> {
    let digest = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0u8; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hex(&hasher.finalize())),
                count => hasher.update(buffer.get(..count).unwrap_or_default()),
            }
        }
    };
    digest().map_err(Error::io("read", path))
}

/// SHA-256 of the weights in `folder`: of its `*.safetensors` files, which are a base's, a checkpoint's or an adapter's.
///
/// One file is hashed as it is, so `sha256sum model.safetensors` prints the same. For several the hash is that of
/// `sha256sum`'s own output for them in the order of their names, so `sha256sum *.safetensors | sha256sum` prints the same.
///
/// # Errors
/// [`Error::Io`] when the folder or a file cannot be read, [`Error::Format`] when it holds no such file.
pub fn weights_sha256(folder: &Path) -> Result<String> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    match files.as_slice() {
        [] => Err(Error::format(folder, "no `*.safetensors` file in this folder, put the weights there")),
        [only] => file_sha256(only),
        several => {
            let mut list = Sha256::new();
            for path in several {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                list.update(format!("{}  {name}\n", file_sha256(path)?));
            }
            Ok(hex(&list.finalize()))
        }
    }
}

/// SHA-256 of a text, as lowercase hexadecimal.
pub(super) fn text_sha256(text: &str) -> String {
    hex(&Sha256::digest(text))
}

/// Whether `text` is a SHA-256 as [`file_sha256`] writes it.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_sha256sum() {
        let folder = tempfile::tempdir().unwrap();
        assert!(weights_sha256(folder.path()).unwrap_err().to_string().contains("no `*.safetensors` file"));
        fs::write(folder.path().join("model-2.safetensors"), "abc").unwrap();
        fs::write(folder.path().join("config.json"), "{}").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(weights_sha256(folder.path()).unwrap(), abc);
        assert!(is_sha256(abc) && !is_sha256(&abc.to_uppercase()) && !is_sha256(&abc[1..]));
        // printf abc > model-2.safetensors; : > model-1.safetensors; sha256sum *.safetensors | sha256sum
        fs::write(folder.path().join("model-1.safetensors"), "").unwrap();
        assert_eq!(
            weights_sha256(folder.path()).unwrap(),
            "4ecfe99609c718ebe5bf285f6e872a6afd929a38b729422e6e685c8f400bdfb8"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        assert!(file_sha256(Path::new("/nowhere/w.safetensors")).unwrap_err().to_string().contains("w.safetensors"));
    }
}
