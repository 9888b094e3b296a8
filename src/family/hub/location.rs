//! The address of one file on the hub, as Hugging Face's own tools write it.

use std::fmt;
use std::str::FromStr;

use super::HubId;

const DATASETS: &str = "datasets/";

/// `hf://datasets/organisation/name[@revision]/path` for a file of a data set, without `datasets/` for one of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// The repository.
    pub repository: HubId,
    /// The file's path in it.
    pub path: String,
}

impl HubFile {
    /// How addresses on the hub begin, those of files and others.
    pub const SCHEME: &str = "hf://";
}

impl FromStr for HubFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "`{text}` {why}; write `hf://datasets/organisation/name/path` or `hf://datasets/organisation/name@revision/path`"
            )
        };
        let address = text.strip_prefix(Self::SCHEME).ok_or_else(|| wrong("is no file on the hub"))?;
        let (is_dataset, address) = address.strip_prefix(DATASETS).map_or((false, address), |address| (true, address));
        let mut parts = address.splitn(3, '/');
        let (Some(organisation), Some(name), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("names no file of a repository"));
        };
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(wrong("has a path that is none"));
        }
        let id: HubId = format!("{organisation}/{name}").parse().map_err(|_| wrong("names no repository"))?;
        Ok(Self { repository: if is_dataset { id.of_dataset() } else { id }, path: path.to_owned() })
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}/{}", Self::SCHEME, self.repository, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["hf://datasets/org/math/data/train-0.parquet", "hf://datasets/org/math@v1/a.jsonl", "hf://o/n/f"] {
            assert_eq!(text.parse::<HubFile>().unwrap().to_string(), text);
        }
        let file: HubFile = "hf://datasets/org/math@v1/data/a.arrow".parse().unwrap();
        let id = &file.repository;
        assert_eq!((id.name(), id.revision(), file.path.as_str()), ("org/math", "v1", "data/a.arrow"));
        assert_ne!(*id, "org/math@v1".parse().unwrap(), "a model of that name is another repository");
    }

    #[test]
    fn what_is_no_address_says_how_to_write_one() {
        for wrong in ["data.jsonl", "hf://", "hf://datasets/org", "hf://datasets/org/n", "hf://o/n/../f", "hf://o/n@/f"]
        {
            let message = wrong.parse::<HubFile>().unwrap_err();
            assert!(message.contains(wrong) && message.contains("hf://datasets/organisation/name/path"), "{message}");
        }
    }
}
