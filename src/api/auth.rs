//! Who may ask: bearer keys, known by name.
//!
//! Keys are kept as SHA-256 digests only and compared in constant time, all of them every time, so that neither length nor
//! place of a key can be measured. The name of the key that was used goes to the log; the key goes nowhere.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::ApiError;
use super::access_log::AccessRecord;

/// Paths anybody may ask for, their sub-paths included: they tell nothing about requests and start no work. Everything else,
/// paths that do not exist included, needs a key.
const OPEN: &[&str] = &["/health", "/ready", "/docs", "/openapi.json"];

/// The keys that are let in. Without any, everybody is.
#[derive(Clone, Default)]
pub struct ApiKeys {
    keys: Arc<[Key]>,
    guard_metrics: bool,
}

struct Key {
    name: Arc<str>,
    digest: [u8; 32],
}

/// An entry that is no key. Messages count entries and never show one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not something an `Authorization` header can carry.
    #[error("API key {0} is empty or has spaces or characters outside ASCII; a header cannot carry it, make another")]
    Unusable(usize),
    /// Two entries of one name.
    #[error("two API keys are called `{0}`; give each a name of its own, as in `name=key`")]
    SameName(String),
    /// One key under two names.
    #[error("API keys `{0}` and `{1}` are the same key; remove one")]
    SameKey(String, String),
}

impl ApiKeys {
    /// Keys from entries `name=key` or `key`; the latter are called `key-1`, `key-2` and so on by their place.
    ///
    /// # Errors
    /// [`KeyError`] for the first entry that cannot be used.
    pub fn new(entries: &[SecretString]) -> Result<Self, KeyError> {
        let mut keys: Vec<Key> = Vec::with_capacity(entries.len());
        for (place, entry) in (1..).zip(entries) {
            let (name, secret) = split(entry.expose_secret());
            if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(KeyError::Unusable(place));
            }
            let name = name.map_or_else(|| format!("key-{place}"), str::to_owned);
            let digest = digest(secret.as_bytes());
            if keys.iter().any(|key| *key.name == *name) {
                return Err(KeyError::SameName(name));
            }
            if let Some(same) = keys.iter().find(|key| key.digest == digest) {
                return Err(KeyError::SameKey(same.name.to_string(), name));
            }
            keys.push(Key { name: name.into(), digest });
        }
        Ok(Self { keys: keys.into(), guard_metrics: false })
    }

    /// The entries of a file: one a line, empty lines and lines that begin with `#` left out.
    pub fn entries_of(text: &str) -> Vec<SecretString> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(SecretString::from).collect()
    }

    /// The same keys, with `/metrics` behind them too.
    #[must_use]
    pub fn guarding_metrics(self, guard_metrics: bool) -> Self {
        Self { guard_metrics, ..self }
    }

    /// Whether there is no key, and so no lock.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The names of the keys, in the order they were given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| &*key.name)
    }

    fn is_open(&self, path: &str) -> bool {
        let within = |open: &str| path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.is_empty() || OPEN.iter().any(|open| within(open)) || (path == "/metrics" && !self.guard_metrics)
    }

    /// The name of the key that equals `token`. Takes the same time whatever the token.
    fn find(&self, token: &[u8]) -> Option<&Arc<str>> {
        let digest = digest(token);
        let mut found = u32::MAX;
        for (place, key) in (0..).zip(self.keys.iter()) {
            let same: Choice = key.digest.ct_eq(&digest);
            found.conditional_assign(&place, same);
        }
        self.keys.get(usize::try_from(found).ok()?).map(|key| &key.name)
    }

    fn check(&self, request: &Request) -> Result<Arc<str>, ApiError> {
        let header = request.headers().get(AUTHORIZATION).ok_or_else(|| {
            ApiError::unauthorized("this server asks for an API key; send it as `Authorization: Bearer KEY`")
        })?;
        let token = bearer(header.as_bytes()).ok_or_else(|| {
            ApiError::unauthorized("the Authorization header holds no bearer token; write `Authorization: Bearer KEY`")
        })?;
        self.find(token).cloned().ok_or_else(|| {
            ApiError::unauthorized(
                "the API key is not known to this server; see that it is spelt right and still valid",
            )
        })
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.names()).finish()
    }
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// `name=key` in its parts. What stands before the first `=` is a name only if it looks like one and more than padding
/// follows: keys in base64 may end with `=`.
fn split(entry: &str) -> (Option<&str>, &str) {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match entry.split_once('=') {
        Some((name, key)) if is_name(name) && key.bytes().any(|byte| byte != b'=') => (Some(name), key),
        _ => (None, entry),
    }
}

/// The token of `Bearer TOKEN`; the scheme in any case (RFC 9110, section 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(b"bearer ".len())?;
    let token = rest.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// Lets a request pass if its path is open or its key is known.
pub async fn require(State(keys): State<ApiKeys>, request: Request, next: Next) -> Response {
    if keys.is_open(request.uri().path()) {
        return next.run(request).await;
    }
    match keys.check(&request) {
        Ok(name) => {
            if let Some(record) = request.extensions().get::<AccessRecord>() {
                record.set_key(name);
            }
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use proptest::prelude::*;
    use tower::ServiceExt;

    use super::*;

    fn keys(entries: &[&str]) -> Result<ApiKeys, KeyError> {
        ApiKeys::new(&entries.iter().map(|entry| SecretString::from(*entry)).collect::<Vec<_>>())
    }

    async fn ask(keys: &ApiKeys, path: &str, authorization: Option<&[u8]>) -> (StatusCode, String) {
        let mut router = Router::new();
        for path in ["/v1/models", "/health", "/docs/index.html", "/metrics", "/healthy"] {
            router = router.route(path, get(|| async {}));
        }
        let router = router.layer(from_fn_with_state(keys.clone(), require));
        let mut request = Request::get(path);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
        }
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_known_key_passes_under_its_name() {
        let keys = keys(&["alice=sk-1", "sk-2"]).unwrap();
        for (token, key, name) in [("Bearer sk-1", "sk-1", "alice"), ("bearer  sk-2 ", "sk-2", "key-2")] {
            assert_eq!(ask(&keys, "/v1/models", Some(token.as_bytes())).await.0, StatusCode::OK);
            assert_eq!(keys.find(key.as_bytes()).map(|name| &**name), Some(name));
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused_with_the_envelope() {
        let keys = keys(&["alice=sk-1"]).unwrap();
        let long = [b"Bearer ".as_slice(), &[b'x'; 100_000]].concat();
        let wrong: [&[u8]; 9] = [
            b"",
            b"Bearer",
            b"Bearer ",
            b"Bearer sk-",
            b"Bearer sk-11",
            b"Basic sk-1",
            b"sk-1",
            b"Bearer \xff\xfe",
            &long,
        ];
        for authorization in wrong.into_iter().map(Some).chain([None]) {
            let (status, body) = ask(&keys, "/v1/models", authorization).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{authorization:?}");
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["error"]["code"], "invalid_api_key");
        }
        let (status, _) = ask(&keys, "/healthy", None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "a path that only begins like an open one");
    }

    #[tokio::test]
    async fn health_is_open_and_metrics_may_be_closed() {
        let keys = keys(&["alice=sk-1"]).unwrap();
        for path in ["/health", "/docs/index.html", "/metrics"] {
            assert_eq!(ask(&keys, path, None).await.0, StatusCode::OK, "{path}");
        }
        let guarded = keys.guarding_metrics(true);
        assert_eq!(ask(&guarded, "/metrics", None).await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(ask(&ApiKeys::default(), "/v1/models", None).await.0, StatusCode::OK, "no keys, no lock");
    }

    #[test]
    fn entries_are_names_and_keys() {
        assert_eq!(split("alice=sk=1"), (Some("alice"), "sk=1"));
        assert_eq!(split("c2VjcmV0cw=="), (None, "c2VjcmV0cw=="));
        assert_eq!(split("a b=c"), (None, "a b=c"));
        let entries = ApiKeys::entries_of("# team\n\n alice=sk-1 \nsk-2\n");
        assert_eq!(ApiKeys::new(&entries).unwrap().names().collect::<Vec<_>>(), ["alice", "key-2"]);
    }

    #[test]
    fn unusable_entries_are_refused_without_being_shown() {
        assert_eq!(keys(&["sk-1", "with space"]).unwrap_err(), KeyError::Unusable(2));
        assert_eq!(keys(&[""]).unwrap_err(), KeyError::Unusable(1));
        assert_eq!(keys(&["a=1", "a=2"]).unwrap_err(), KeyError::SameName("a".into()));
        assert_eq!(keys(&["a=1", "b=1"]).unwrap_err(), KeyError::SameKey("a".into(), "b".into()));
        let shown = format!("{:?} {}", keys(&["alice=verysecret"]).unwrap(), keys(&["very secret"]).unwrap_err());
        assert!(shown.contains("alice") && !shown.contains("very"), "{shown}");
    }

    proptest! {
        #[test]
        fn only_the_keys_themselves_are_found(entries in prop::collection::hash_set("[!-<>-~]{1,12}", 1..6), other in "[!-~]{1,12}") {
            let entries: Vec<String> = entries.into_iter().collect();
            let keys = ApiKeys::new(&entries.iter().map(|key| SecretString::from(key.as_str())).collect::<Vec<_>>()).unwrap();
            for (place, key) in (1..).zip(&entries) {
                prop_assert_eq!(keys.find(key.as_bytes()).map(|name| name.to_string()), Some(format!("key-{place}")));
            }
            prop_assert_eq!(keys.find(other.as_bytes()).is_some(), entries.contains(&other));
        }
    }
}
