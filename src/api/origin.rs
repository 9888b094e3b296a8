//! Pages of other sites may not make a server without keys compute.
//!
//! A browser sends simple requests anywhere and only keeps the answer from the page, so without a key nothing else would
//! stand between any page and the engine. Browsers say who asks: `Sec-Fetch-Site` and `Origin` (Fetch Metadata, RFC 6454).
//! Programs that are no browsers send neither and are not concerned.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::ApiError;

/// Origins whose pages may ask; `*` for all.
pub type Origins = Arc<[HeaderValue]>;

/// Lets `request` through unless a page of another site sends it.
pub async fn guard(State(allowed): State<Origins>, request: Request, next: Next) -> Response {
    match is_foreign(request.method(), request.headers(), &allowed) {
        false => next.run(request).await,
        true => ApiError::forbidden(
            "a page of another site sent this request; name its origin with --cors-origin, or ask with a key (--api-key)",
        )
        .into_response(),
    }
}

fn is_foreign(method: &Method, headers: &HeaderMap, allowed: &[HeaderValue]) -> bool {
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    if is_safe || headers.get("sec-fetch-site").is_none_or(|site| site != "cross-site") {
        return false;
    }
    headers.get(header::ORIGIN).is_none_or(|origin| {
        let is_allowed = allowed.iter().any(|known| known == "*" || known == origin);
        !is_allowed && !is_of_this_machine(origin)
    })
}

/// Whether the page is from a server on the reader's own machine, or a browser's extension.
fn is_of_this_machine(origin: &HeaderValue) -> bool {
    let Some(uri) = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()) else { return false };
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) => {
            let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
            host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
        }
        (Some(_), _) => true,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(
        method: Method,
        site: Option<&'static str>,
        origin: Option<&'static str>,
        allowed: &[&'static str],
    ) -> bool {
        let mut headers = HeaderMap::new();
        site.map(|site| headers.insert("sec-fetch-site", HeaderValue::from_static(site)));
        origin.map(|origin| headers.insert(header::ORIGIN, HeaderValue::from_static(origin)));
        let allowed: Vec<HeaderValue> = allowed.iter().map(|origin| HeaderValue::from_static(origin)).collect();
        is_foreign(&method, &headers, &allowed)
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let (cross, evil) = (Some("cross-site"), Some("https://evil.example"));
        assert!(foreign(Method::POST, cross, evil, &[]));
        assert!(foreign(Method::DELETE, cross, Some("null"), &[]), "a sandboxed frame");
        assert!(foreign(Method::POST, cross, None, &[]));
        assert!(foreign(Method::POST, cross, evil, &["https://chat.example"]));
        assert!(foreign(Method::POST, cross, Some("https://127.0.0.1.evil.example"), &[]));
    }

    #[test]
    fn others_are_not_concerned() {
        let (cross, evil) = (Some("cross-site"), Some("https://evil.example"));
        assert!(!foreign(Method::POST, None, None, &[]), "no browser");
        assert!(!foreign(Method::POST, None, evil, &[]), "a program that says so");
        assert!(!foreign(Method::POST, Some("same-origin"), evil, &[]), "behind a proxy of that name");
        assert!(!foreign(Method::GET, cross, evil, &[]), "nothing is computed");
        assert!(!foreign(Method::OPTIONS, cross, evil, &[]), "CORS decides");
        assert!(!foreign(Method::POST, cross, evil, &["https://evil.example"]));
        assert!(!foreign(Method::POST, cross, evil, &["*"]));
        for own in ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:8000", "chrome-extension://abc"] {
            assert!(!foreign(Method::POST, cross, Some(own), &[]), "{own}");
        }
    }
}
