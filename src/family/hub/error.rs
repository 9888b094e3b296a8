//! What can go wrong between here and the hub, and what to do about it.

use std::path::PathBuf;

use hf_hub::api::sync::ApiError;

use super::HubId;

/// Why a repository or a file of it is not here.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The hub wants to know who asks, or does not let this one in (401, 403).
    #[error("the hub does not give out `{id}` ({status}): {}", access(.token))]
    Forbidden {
        /// The repository.
        id: HubId,
        /// The status code.
        status: u16,
        /// Whether a token was sent.
        token: bool,
    },
    /// No such repository, revision or file (404).
    #[error("there is no {}`{id}` on {endpoint}: check the name and the revision{}", of(.file), private(.token))]
    NotFound {
        /// The repository and revision.
        id: HubId,
        /// The file, where one was asked for.
        file: Option<String>,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The hub cannot be reached, or breaks off.
    #[error(
        "cannot fetch `{id}` from {endpoint}: {reason}; check the network, set HF_ENDPOINT to another address of the hub, or HF_HUB_OFFLINE=1 to use what was fetched before"
    )]
    Network {
        /// The repository.
        id: HubId,
        /// The hub.
        endpoint: String,
        /// What the client says.
        reason: String,
    },
    /// Only the cache may be used, and something is not in it.
    #[error("HF_HUB_OFFLINE is set and the cache does not have {missing} of `{id}`: run the same command once without HF_HUB_OFFLINE, or `hf download {}{}` where there is a network, and copy HF_HOME", .id.name(), options(.id))]
    Offline {
        /// The repository.
        id: HubId,
        /// The file that is not there, or "the repository".
        missing: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot use the cache `{}`: {source}; set HF_HOME to a folder that can be written", folder.display())]
    Cache {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The repository is there but cannot be used.
    #[error("cannot use `{id}`: {reason}")]
    Unusable {
        /// The repository.
        id: HubId,
        /// Why.
        reason: String,
    },
}

impl HubError {
    /// What the client's error means.
    pub(super) fn of_api(id: &HubId, file: Option<&str>, endpoint: &str, token: bool, error: ApiError) -> Self {
        let id = id.clone();
        let endpoint = endpoint.to_owned();
        match error {
            ApiError::RequestError(error) => {
                let reason = error.to_string();
                match error.into_response().map(|response| response.status()) {
                    Some(status @ (401 | 403)) => Self::Forbidden { id, status, token },
                    Some(404) => Self::NotFound { id, file: file.map(str::to_owned), endpoint, token },
                    _ => Self::Network { id, endpoint, reason },
                }
            }
            ApiError::TooManyRetries(error) => Self::of_api(&id, file, &endpoint, token, *error),
            ApiError::LockAcquisition(path) => Self::Unusable {
                id,
                reason: format!("another process is fetching it (`{}` is locked), try again later", path.display()),
            },
            other => Self::Network { id, endpoint, reason: other.to_string() },
        }
    }
}

impl From<HubError> for brevity_training::Error {
    fn from(error: HubError) -> Self {
        Self::config(error.to_string())
    }
}

/// Kind and revision as arguments of Hugging Face's command.
fn options(id: &HubId) -> String {
    let kind = if id.is_dataset() { " --repo-type dataset" } else { "" };
    let revision = if id.revision() == "main" { String::new() } else { format!(" --revision {}", id.revision()) };
    format!("{kind}{revision}")
}

fn access(token: &bool) -> &'static str {
    if *token {
        "the token may not read it, accept the terms on its page or set HF_TOKEN to a token that may read it"
    } else {
        "set HF_TOKEN to a token that may read it"
    }
}

fn private(token: &bool) -> &'static str {
    if *token { "" } else { "; for a private repository set HF_TOKEN" }
}

fn of(file: &Option<String>) -> String {
    file.as_ref().map(|file| format!("`{file}` in ")).unwrap_or_default()
}
