//! A tier's server, ready to be asked, and how long to wait for it.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use secrecy::ExposeSecret;

use crate::engine::EngineError;
use crate::family::RemoteTier;

/// How long a connection without a request is kept: less than the 5 s after which vLLM and SGLang (uvicorn) close it, so
/// that no request is sent into a connection that is just being closed.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);

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
    pub tier: RemoteTier,
    base: Url,
    client: Client,
}

impl Server {
    pub fn new(tier: RemoteTier, patience: Patience) -> Result<Self, EngineError> {
        let fault = |what: String| EngineError::failed(format!("tier `{}`: {what}", tier.name));
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
            .pool_idle_timeout(IDLE_CONNECTION)
            .read_timeout(patience.idle)
            .redirect(Policy::none());
        let own = ["127.0.0.1", "localhost", "[::1]"].contains(&base.host_str().unwrap_or_default());
        let builder = if own { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| fault(format!("no HTTP client can be made: {error}")))?;
        Ok(Self { tier, base, client })
    }

    /// A request to `path` under the base URL.
    pub fn post(&self, path: &str) -> Result<reqwest::RequestBuilder, EngineError> {
        let url =
            self.base.join(path).map_err(|error| EngineError::failed(format!("tier `{}`: {error}", self.tier.name)))?;
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
    use secrecy::SecretString;

    use super::*;
    use crate::family::Upstream;

    fn server(url: &str) -> Result<Server, EngineError> {
        let settings = Upstream { url: url.to_owned(), ..Upstream::default() };
        let key = Some(SecretString::from("sk-secret"));
        Server::new(RemoteTier { name: "short".to_owned(), settings, key }, Patience::default())
    }

    #[test]
    fn keys_are_never_shown() {
        let server = server("http://127.0.0.1:1/v1").unwrap();
        assert!(!format!("{server:?}").contains("sk-secret"));
        assert_eq!(server.clean("wrong key\n sk-secret!"), "wrong key [key]!");
        assert_eq!(server.clean(&"é".repeat(600)).chars().count(), 501);
    }

    #[test]
    fn paths_are_put_under_the_base() {
        for base in ["http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1/"] {
            let request = server(base).unwrap().post("chat/completions").unwrap().build().unwrap();
            assert_eq!(request.url().as_str(), "http://127.0.0.1:1/v1/chat/completions");
        }
        for base in ["127.0.0.1:1/v1", "ftp://host/v1", "", "http://"] {
            assert!(server(base).is_err(), "{base}");
        }
    }
}
