//! Pure: inbound target -> upstream target, and the Location of an answer back again.

use http::HeaderValue;
use http::uri::{InvalidUri, PathAndQuery};

use crate::message::text;
use crate::net::Origin;
use crate::route::PathPattern;

/// How one upstream's targets differ from ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Bytes of the mount prefix that are taken off.
    strip: usize,
    base_path: String,
}

impl Rewrite {
    /// Takes `mount` off where `strip_mount` says so, and puts `base_path` before what is left.
    pub fn new(mount: &str, strip_mount: bool, base_path: &str) -> Self {
        let strip = if strip_mount { mount.len() } else { 0 };
        Self { strip, base_path: base_path.to_owned() }
    }

    /// The upstream's target for one that a route below the mount has claimed. The query passes
    /// byte for byte; where nothing changes, nothing is copied.
    ///
    /// # Errors
    /// Where the outcome is no valid target.
    pub fn apply(&self, inbound: &PathAndQuery) -> Result<PathAndQuery, InvalidUri> {
        if self.strip == 0 && self.base_path.is_empty() {
            return Ok(inbound.clone());
        }
        let left = inbound.as_str().get(self.strip..).unwrap_or_default();
        let slash = if left.is_empty() || left.starts_with('?') { "/" } else { "" };
        // A mount itself, without a slash, stands for the upstream's base path as it was written.
        let slash = if self.base_path.is_empty() { slash } else { "" };
        PathAndQuery::try_from(format!("{}{slash}{left}", self.base_path))
    }
}

impl Rewrite {
    /// The inbound path by which a pattern reaches an upstream path, if it does.
    pub fn reaches(&self, pattern: &PathPattern, upstream_path: &str) -> Option<String> {
        let below = upstream_path.strip_prefix(self.base_path.as_str())?;
        let prefix = pattern.as_str().get(..self.strip)?;
        let inbound = format!("{prefix}{below}");
        pattern.covers(&inbound).then_some(inbound)
    }
}

/// The Location of a redirect within the same upstream, as our client must see it; `None` where it
/// leads elsewhere and passes as it is (RFC 9110 section 10.2.2).
pub fn location(
    value: &[u8],
    origin: &Origin,
    mount: &str,
    strip_mount: bool,
    base_path: &str,
) -> Option<HeaderValue> {
    let text = text(value)?;
    // `http::Uri` forgets the fragment, which is the app's to follow (RFC 9110 section 10.2.2).
    let (text, fragment) = text.split_at(text.find('#').unwrap_or(text.len()));
    let target = match text.strip_prefix('/') {
        Some(rest) if !rest.starts_with('/') => text.to_owned(),
        _ => {
            let uri: http::Uri = text.parse().ok()?;
            (Origin::of(&uri).ok()? == *origin).then_some(())?;
            uri.path_and_query()?.as_str().to_owned()
        }
    };
    let below = target.strip_prefix(base_path)?;
    if !(below.is_empty() || below.starts_with(['/', '?'])) {
        return None;
    }
    if !strip_mount && !is_below(below, mount) {
        return None;
    }
    let mount = if strip_mount { mount } else { "" };
    let slash = if mount.is_empty() && !below.starts_with('/') { "/" } else { "" };
    let ours = format!("{mount}{slash}{below}{fragment}");
    // What begins with two slashes names another host (RFC 3986 section 4.2); to browsers, `/\` does too.
    if ours.starts_with("//") || ours.starts_with("/\\") {
        return None;
    }
    HeaderValue::try_from(ours).ok()
}

fn is_below(path: &str, mount: &str) -> bool {
    path.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_rewritten() {
        let check = |mount: &str, strip: bool, base: &str, inbound: &str, expected: &str| {
            let outbound =
                Rewrite::new(mount, strip, base).apply(&inbound.parse().unwrap()).unwrap();
            assert_eq!(outbound.as_str(), expected, "{mount} {strip} {base} {inbound}");
        };
        check("", true, "", "/v1/x?q=1", "/v1/x?q=1");
        check("/qbank", true, "", "/qbank/v1/x?q=%2F", "/v1/x?q=%2F");
        check("/qbank", false, "", "/qbank/v1", "/qbank/v1");
        check("/qbank", true, "", "/qbank", "/");
        check("/qbank", true, "", "/qbank?a", "/?a");
        check("/core", true, "/api", "/core/v1", "/api/v1");
        check("/core", true, "/api", "/core", "/api");
        check("", true, "/api", "/v1", "/api/v1");
    }

    #[test]
    fn redirects_of_the_same_upstream_lead_back_to_us() {
        let origin = Origin::of(&"https://bank.example".parse().unwrap()).unwrap();
        let check = |value: &str, expected: Option<&str>| {
            let found = location(value.as_bytes(), &origin, "/core", true, "/api");
            assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), expected, "{value}");
        };
        check("https://bank.example/api/v1?x", Some("/core/v1?x"));
        check("/api/v1", Some("/core/v1"));
        check("/api", Some("/core"));
        check("/apiary", None);
        check("/other", None);
        check("//evil.example/api", None);
        check("https://evil.example/api/v1", None);
        check("relative", None);
        check("https://bank.example/api/v1#part", Some("/core/v1#part"));
    }

    #[test]
    fn no_redirect_is_turned_towards_another_host() {
        let origin = Origin::of(&"https://bank.example".parse().unwrap()).unwrap();
        let check = |value: &str, mount: &str, strip: bool, base: &str, expected: Option<&str>| {
            let found = location(value.as_bytes(), &origin, mount, strip, base);
            assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), expected, "{value}");
        };
        check("https://bank.example//evil.example/x", "", true, "", None);
        check("/api//evil.example/x", "", true, "/api", None);
        check("/api/\\evil.example", "", true, "/api", None);
        check("/api?x=1", "", true, "/api", Some("/?x=1"));
        check("/api", "", true, "/api", Some("/"));
        check("https://bank.example/other", "/core", false, "", None);
        check("https://bank.example/core/x", "/core", false, "", Some("/core/x"));
    }
}
