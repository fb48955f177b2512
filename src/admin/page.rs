//! The status page: one HTML file that reads `/status` and loads nothing else.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response};
use http_body_util::Full;

const HTML: &str = include_str!("status.html");

/// Allows the page's own style and script by their hashes, and reading `/status`; nothing else, so that no
/// text that is shown could load or run anything (Content Security Policy Level 3).
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("<style>", "</style>"),
        hash("<script>", "</script>"),
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// The hash of what stands between two tags, as a source expression.
fn hash(open: &str, close: &str) -> String {
    let inside = HTML.split_once(open).and_then(|(_, rest)| rest.split_once(close));
    let (content, _) = inside.unwrap_or_default();
    format!("sha256-{}", STANDARD.encode(digest(&SHA256, content.as_bytes())))
}

/// The page.
pub(super) fn page() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(HTML.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_and_its_policy_knows_its_parts() {
        assert!(!HTML.contains("style=\""), "a style attribute has no hash");
        for foreign in ["src=", "http://", "https://", "@import", "url("] {
            assert!(!HTML.replace("http://www.w3.org/2000/svg", "").contains(foreign), "{foreign}");
        }
        assert_eq!(HTML.matches("<script>").count(), 1);
        let policy = page().headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert_ne!(hash("<style>", "</style>"), hash("<nothing>", "</nothing>"));
    }
}
