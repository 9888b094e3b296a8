//! Where a tier's server is, its key, and how long to wait for it.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use secrecy::{ExposeSecret, SecretString};

use crate::engine::EngineError;
use crate::family::Upstream;

/// One tier behind another server: what the manifest says, and the key from the environment.
#[derive(Debug, Clone)]
pub struct UpstreamTier {
    /// `[tier.upstream]` of the manifest.
    pub settings: Upstream,
    /// Key for `Authorization: Bearer`.
    pub key: Option<SecretString>,
}

impl UpstreamTier {
    /// The tier called `name` with the key that `variable` (most often the process environment) gives for
    /// `api_key_env`.
    ///
    /// # Errors
    /// [`EngineError::Failed`] when the manifest names a variable that is not set or empty.
    pub fn new(
        name: &str,
        settings: &Upstream,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, EngineError> {
        let key = match &settings.api_key_env {
            None => None,
            Some(env) => {
                let key = variable(env).map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
                let missing = || {
                    let message = format!(
                        "tier `{name}`: the environment variable {env} is not set, put the server's key into it"
                    );
                    EngineError::failed(message)
                };
                Some(SecretString::from(key.ok_or_else(missing)?))
            }
        };
        Ok(Self { settings: settings.clone(), key })
    }
}

/// How long the other server may keep silent. Whole requests are bounded by whoever drops the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until the connection stands.
    pub connect: Duration,
    /// Between two pieces of the response, its head included; comments that keep a stream alive count as pieces.
    pub idle: Duration,
}

impl Default for Patience {
    /// Five seconds to connect (as OpenAI's clients wait), two minutes of silence: a queue at the server is silent too.
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), idle: Duration::from_secs(120) }
    }
}

/// A tier that is ready to be asked.
#[derive(Debug)]
pub(super) struct Server {
    pub name: String,
    pub tier: UpstreamTier,
    base: Url,
    client: Client,
}

impl Server {
    pub fn new(name: &str, tier: UpstreamTier, patience: Patience) -> Result<Self, EngineError> {
        let fault = |what: String| EngineError::failed(format!("tier `{name}`: {what}"));
        let mut base = Url::parse(&tier.settings.url)
            .map_err(|error| fault(format!("`{}` is no address: {error}", tier.settings.url)))?;
        if base.cannot_be_a_base() || !base.has_host() || !["http", "https"].contains(&base.scheme()) {
            return Err(fault(format!("`{base}` is no address, write it as http://127.0.0.1:8000/v1")));
        }
        base.set_path(&format!("{}/", base.path().trim_end_matches('/')));
        let mut headers = HeaderMap::new();
        if let Some(key) = &tier.key {
            let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))
                .map_err(|_| fault("its key holds characters that no header can carry".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // Redirects are not followed: they would carry prompts and keys to where nobody configured.
        let builder = Client::builder()
            .default_headers(headers)
            .connect_timeout(patience.connect)
            .read_timeout(patience.idle)
            .redirect(Policy::none());
        let own = ["127.0.0.1", "localhost", "[::1]"].contains(&base.host_str().unwrap_or_default());
        let builder = if own { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| fault(format!("no HTTP client can be made: {error}")))?;
        Ok(Self { name: name.to_owned(), tier, base, client })
    }

    /// A request to `path` under the base URL.
    pub fn post(&self, path: &str) -> Result<reqwest::RequestBuilder, EngineError> {
        let url =
            self.base.join(path).map_err(|error| EngineError::failed(format!("tier `{}`: {error}", self.name)))?;
        Ok(self.client.post(url))
    }

    /// `text` from the server, without the key should it be repeated there, on one line, and not endless.
    pub fn clean(&self, text: &str) -> String {
        let key = self.tier.key.as_ref().map(|key| key.expose_secret()).filter(|key| !key.is_empty());
        let text = key.map_or_else(|| text.to_owned(), |key| text.replace(key, "[key]"));
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match text.char_indices().nth(500) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(env: Option<&str>) -> Upstream {
        Upstream {
            url: "http://127.0.0.1:1/v1".to_owned(),
            model: "m".to_owned(),
            api_key_env: env.map(str::to_owned),
            ..Upstream::default()
        }
    }

    #[test]
    fn keys_come_from_the_environment_and_are_never_shown() {
        let variable = |name: &str| (name == "KEY").then(|| "sk-secret\n".to_owned());
        let tier = UpstreamTier::new("short", &settings(Some("KEY")), variable).unwrap();
        assert_eq!(tier.key.as_ref().unwrap().expose_secret(), "sk-secret");
        let server = Server::new("short", tier, Patience::default()).unwrap();
        assert!(!format!("{server:?}").contains("sk-secret"));
        assert_eq!(server.clean("wrong key\n sk-secret!"), "wrong key [key]!");
        assert_eq!(server.clean(&"é".repeat(600)).chars().count(), 501);
        let error = UpstreamTier::new("short", &settings(Some("OTHER")), variable).unwrap_err().to_string();
        assert_eq!(error, "tier `short`: the environment variable OTHER is not set, put the server's key into it");
        assert!(UpstreamTier::new("short", &settings(None), variable).unwrap().key.is_none());
    }

    #[test]
    fn paths_are_put_under_the_base() {
        for base in ["http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1/"] {
            let tier = UpstreamTier { settings: Upstream { url: base.to_owned(), ..settings(None) }, key: None };
            let server = Server::new("t", tier, Patience::default()).unwrap();
            let request = server.post("chat/completions").unwrap().build().unwrap();
            assert_eq!(request.url().as_str(), "http://127.0.0.1:1/v1/chat/completions");
        }
        for base in ["127.0.0.1:1/v1", "ftp://host/v1", "", "http://"] {
            let tier = UpstreamTier { settings: Upstream { url: base.to_owned(), ..settings(None) }, key: None };
            assert!(Server::new("t", tier, Patience::default()).is_err(), "{base}");
        }
    }
}
