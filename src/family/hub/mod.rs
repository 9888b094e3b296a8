//! The Hugging Face hub: repositories of weights and of data, fetched into the cache that all Hugging Face tools share.
//!
//! Honours `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` (or the token file in `HF_HOME`) and `HF_HUB_OFFLINE`. Only files that a
//! model, an adapter or a family needs are fetched, all of one commit. Nothing is printed here: who wants to show progress
//! passes a [`Downloads`]. What the files mean is not known here.

mod error;
mod files;
mod id;
mod location;

use std::path::{Component, Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use secrecy::{ExposeSecret, SecretString};

pub use error::HubError;
pub use id::HubId;
pub use location::HubFile;

/// Where the hub is unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// Tries after the first failed one, for each file.
const RETRIES: usize = 2;

/// Sees downloads go on. Every method has an empty default.
pub trait Downloads {
    /// The file `name` of `repository`, of `bytes` bytes, begins.
    fn begin(&mut self, repository: &HubId, name: &str, bytes: u64) {
        let _ = (repository, name, bytes);
    }

    /// This many more bytes have come.
    fn received(&mut self, bytes: u64) {
        let _ = bytes;
    }

    /// The file is whole.
    fn end(&mut self) {}
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Downloads for Quiet {}

/// A hub and the cache on this machine.
#[derive(Debug, Clone)]
pub struct Hub {
    endpoint: String,
    cache: Option<PathBuf>,
    token: Option<SecretString>,
    offline: bool,
}

/// One commit of a repository, as it lies in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What was asked for.
    pub id: HubId,
    /// The commit that the revision stands for.
    pub commit: String,
    /// Folder of the commit's files; holds those that were fetched.
    pub folder: PathBuf,
    /// Names of all files of the commit as the hub lists them; offline, of those in the cache.
    files: Vec<String>,
}

impl Snapshot {
    /// Whether the commit has this file (offline: whether it is in the cache).
    pub fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file == name)
    }
}

impl Hub {
    /// The hub, cache, token and mode that the environment names; see the module.
    pub fn from_env() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let home = variable("HF_HOME").map(PathBuf::from);
        let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cache").join("huggingface")));
        let offline = variable("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value));
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let cache = home.map(|home| home.join("hub"));
        // Hugging Face's tools look at the variable first, then at the file that `hf auth login` writes.
        let file = || cache.clone().and_then(|cache| Cache::new(cache).token());
        let token = variable("HF_TOKEN").map(|token| token.trim().to_owned()).or_else(file);
        Self { cache, ..Self::new(PathBuf::new()) }.with_endpoint(&endpoint).with_token(token).offline(offline)
    }

    /// The public hub with this cache folder, without a token.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self { endpoint: ENDPOINT.to_owned(), cache: Some(cache.into()), token: None, offline: false }
    }

    /// The same at another address.
    pub fn with_endpoint(self, endpoint: &str) -> Self {
        Self { endpoint: endpoint.trim().trim_end_matches('/').to_owned(), ..self }
    }

    /// The same with this access token.
    pub fn with_token(self, token: Option<String>) -> Self {
        Self { token: token.map(SecretString::from), ..self }
    }

    /// The same, using the network or only the cache.
    pub fn offline(self, offline: bool) -> Self {
        Self { offline, ..self }
    }

    /// Finds the commit of a repository and what it holds; fetches no file. Offline the cache is asked.
    ///
    /// # Errors
    /// [`HubError`], saying what to do.
    pub fn find(&self, id: &HubId) -> Result<Snapshot, HubError> {
        let cache = Cache::new(self.cache(id)?);
        if self.offline {
            return cached(&cache, id);
        }
        let info = self.repository(id, id.revision())?.info().map_err(|error| self.explain(id, None, error))?;
        let commit = info.sha;
        if !id::is_revision(&commit) {
            return Err(HubError::Unusable { id: id.clone(), reason: format!("its commit is called `{commit}`") });
        }
        let folder = cache.path().join(folder_name(id)).join("snapshots").join(&commit);
        let files = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        // So that the revision is found again offline.
        let reference = cache.repo(repository(id, id.revision()));
        reference.create_ref(&commit).map_err(|source| HubError::Cache { folder: cache.path().clone(), source })?;
        Ok(Snapshot { id: id.clone(), commit, folder, files })
    }

    /// Fetches one file of a commit, unless it is in the cache.
    ///
    /// # Errors
    /// [`HubError`], saying what to do.
    pub fn file(&self, at: &Snapshot, name: &str, downloads: &mut dyn Downloads) -> Result<PathBuf, HubError> {
        let path = at.folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
        if self.offline {
            return Err(HubError::Offline { id: at.id.clone(), missing: name.to_owned() });
        }
        let observer = Observer { id: &at.id, began: false, downloads };
        let repository = self.repository(&at.id, &at.commit)?;
        repository.download_with_progress(name, observer).map_err(|error| self.explain(&at.id, Some(name), error))
    }

    /// Fetches what a model, an adapter or both need of a folder of a commit (`""` for the top), and returns where it is.
    ///
    /// # Errors
    /// [`HubError`], saying what to do; [`HubError::Unusable`] when the folder leads out of the repository.
    pub fn folder(&self, at: &Snapshot, folder: &Path, downloads: &mut dyn Downloads) -> Result<PathBuf, HubError> {
        let prefix = prefix(folder).ok_or_else(|| HubError::Unusable {
            id: at.id.clone(),
            reason: format!("`{}` leads out of the repository", folder.display()),
        })?;
        let place = at.folder.join(&prefix);
        for name in files::needed(&at.files, &prefix) {
            self.file(at, &name, downloads)?;
        }
        if self.offline {
            files::complete(&place)
                .map_err(|missing| HubError::Offline { id: at.id.clone(), missing: format!("{prefix}{missing}") })?;
        }
        Ok(place)
    }

    /// [`Hub::find`] and [`Hub::folder`] at the top: a repository that is a model or an adapter.
    ///
    /// # Errors
    /// [`HubError`], saying what to do.
    pub fn fetch(&self, id: &HubId, downloads: &mut dyn Downloads) -> Result<PathBuf, HubError> {
        self.folder(&self.find(id)?, Path::new(""), downloads)
    }

    /// Fetches one file by its address, unless it is in the cache.
    ///
    /// # Errors
    /// [`HubError`], saying what to do.
    pub fn fetch_file(&self, file: &HubFile, downloads: &mut dyn Downloads) -> Result<PathBuf, HubError> {
        self.file(&self.find(&file.repository)?, &file.path, downloads)
    }

    fn cache(&self, id: &HubId) -> Result<PathBuf, HubError> {
        self.cache.clone().ok_or_else(|| HubError::Unusable {
            id: id.clone(),
            reason: "there is no home folder for its files, set HF_HOME to a folder".to_owned(),
        })
    }

    fn repository(&self, id: &HubId, revision: &str) -> Result<ApiRepo, HubError> {
        let builder = ApiBuilder::from_cache(Cache::new(self.cache(id)?))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.as_ref().map(|token| token.expose_secret().to_owned()))
            .with_retries(RETRIES)
            .with_progress(false);
        let api = builder.build().map_err(|error| self.explain(id, None, error))?;
        Ok(api.repo(repository(id, revision)))
    }

    fn explain(&self, id: &HubId, file: Option<&str>, error: hf_hub::api::sync::ApiError) -> HubError {
        HubError::of_api(id, file, &self.endpoint, self.token.is_some(), error)
    }
}

/// The snapshot of a revision as the cache has it.
fn cached(cache: &Cache, id: &HubId) -> Result<Snapshot, HubError> {
    let root = cache.path().join(folder_name(id));
    let missing = || HubError::Offline { id: id.clone(), missing: "the repository".to_owned() };
    let reference = std::fs::read_to_string(root.join("refs").join(id.revision())).ok();
    // A revision that no reference names may be a commit itself.
    let commit = reference.map_or_else(|| id.revision().to_owned(), |commit| commit.trim().to_owned());
    let folder = root.join("snapshots").join(&commit);
    if !folder.is_dir() {
        return Err(missing());
    }
    let files = files::list(&folder).map_err(|source| HubError::Cache { folder: folder.clone(), source })?;
    Ok(Snapshot { id: id.clone(), commit, folder, files })
}

/// The repository as the client names it.
fn repository(id: &HubId, revision: &str) -> Repo {
    let kind = if id.is_dataset() { RepoType::Dataset } else { RepoType::Model };
    Repo::with_revision(id.name().to_owned(), kind, revision.to_owned())
}

fn folder_name(id: &HubId) -> String {
    repository(id, id.revision()).folder_name()
}

/// `folder` as the start of a file name in a repository: empty for the top, else with a final slash; `None` when it leads out.
fn prefix(folder: &Path) -> Option<String> {
    let mut prefix = String::new();
    for component in folder.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => {
                prefix.push_str(part.to_str()?);
                prefix.push('/');
            }
            _ => return None,
        }
    }
    Some(prefix)
}

/// What Hugging Face's tools take for "yes" in an environment variable.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|word| value.trim().eq_ignore_ascii_case(word))
}

/// From the client's progress to ours.
struct Observer<'a> {
    id: &'a HubId,
    began: bool,
    downloads: &'a mut dyn Downloads,
}

impl Progress for Observer<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        // The client says it twice.
        if !std::mem::replace(&mut self.began, true) {
            self.downloads.begin(self.id, filename, size as u64);
        }
    }

    fn update(&mut self, size: usize) {
        self.downloads.received(size as u64);
    }

    fn finish(&mut self) {
        self.downloads.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_stay_in_their_repository() {
        assert_eq!(prefix(Path::new("")).as_deref(), Some(""));
        assert_eq!(prefix(Path::new("./tiers/alpha-0.1/")).as_deref(), Some("tiers/alpha-0.1/"));
        assert_eq!(prefix(Path::new("../elsewhere")), None);
        assert_eq!(prefix(Path::new("/etc")), None);
    }

    #[test]
    fn offline_is_what_hugging_face_calls_so() {
        assert!(is_true("1") && is_true("True") && is_true("YES") && is_true("on"));
        assert!(!is_true("0") && !is_true("false") && !is_true(""));
    }

    #[test]
    fn a_token_is_not_printed() {
        let hub = Hub::new("/cache").with_token(Some("hf_secret".to_owned()));
        assert!(!format!("{hub:?}").contains("hf_secret"));
    }
}
