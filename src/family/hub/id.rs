//! The name of a repository on the hub, with a revision, and whether it holds a model or a data set.

use std::fmt;
use std::str::FromStr;

/// The revision of a name that gives none.
const MAIN: &str = "main";

/// How names of data sets are told from those of models.
const DATASETS: &str = "datasets/";

/// `organisation/name` or `organisation/name@revision`; the revision is a branch, a tag or a commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubId {
    name: String,
    revision: Option<String>,
    is_dataset: bool,
}

impl HubId {
    /// `organisation/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name without the organisation.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    /// Whether the repository holds a data set, not a model. Text is read as the name of a model.
    pub fn is_dataset(&self) -> bool {
        self.is_dataset
    }

    /// The data set of this name and revision.
    #[must_use]
    pub fn of_dataset(self) -> Self {
        Self { is_dataset: true, ..self }
    }

    /// The repository at this revision.
    #[must_use]
    pub fn at(&self, revision: &str) -> Self {
        Self { revision: Some(revision.to_owned()), ..self.clone() }
    }

    /// The revision; `main` where none was given.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }
}

impl FromStr for HubId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no repository, write `organisation/name` or `organisation/name@revision`");
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        let (organisation, repository) = name.split_once('/').ok_or_else(wrong)?;
        let is_name = is_part(organisation) && is_part(repository);
        if !is_name || !revision.is_none_or(is_revision) {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), revision: revision.map(str::to_owned), is_dataset: false })
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_dataset {
            formatter.write_str(DATASETS)?;
        }
        match &self.revision {
            Some(revision) => write!(formatter, "{}@{revision}", self.name),
            None => formatter.write_str(&self.name),
        }
    }
}

/// Names become folders of the cache: the hub's own rule keeps them harmless.
fn is_part(part: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !part.is_empty() && part.len() <= 96 && !part.starts_with(['-', '.']) && part.chars().all(known)
}

/// Whether `text` may be a branch, a tag or a commit. Branches may have slashes; none of their parts leads upwards.
pub(super) fn is_revision(text: &str) -> bool {
    text.len() <= 255 && text.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_have_an_organisation_and_perhaps_a_revision() {
        let id: HubId = "org/name-1.5B".parse().unwrap();
        assert_eq!((id.name(), id.short_name(), id.revision()), ("org/name-1.5B", "name-1.5B", "main"));
        let id: HubId = "org/name@refs/pr/3".parse().unwrap();
        assert_eq!((id.name(), id.revision()), ("org/name", "refs/pr/3"));
        for wrong in
            ["", "name", "/name", "org/", "org/name@", "org/name@a@b", "a/b/c", "org/../x", "org/na me", "o/n@../../x"]
        {
            let message = wrong.parse::<HubId>().unwrap_err();
            assert!(message.contains("organisation/name@revision"), "{wrong}: {message}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same_and_never_leads_upwards(text in "[a-z./@-]{1,20}") {
            if let Ok(id) = text.parse::<HubId>() {
                prop_assert_eq!(id.to_string(), text);
                prop_assert!(!id.name().split('/').chain(id.revision().split('/')).any(|part| part == ".."));
            }
        }
    }
}
