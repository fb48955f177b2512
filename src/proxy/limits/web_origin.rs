//! Rejects requests of web pages: the proxy serves programs, and any page in a browser can reach
//! loopback.
//!
//! A browser names the page that sends a request, in Origin (Fetch section 3.2, RFC 6454) or in
//! Sec-Fetch-Site. Each of the two, if present, must have a value that is known to be harmless.

use http::HeaderMap;
use http::header::{HeaderValue, ORIGIN};

use crate::route::Authority;

/// The origin of a web page: scheme, host and port, compared as browsers do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WebOrigin {
    scheme: String,
    host: Authority,
}

impl WebOrigin {
    /// Parses an origin such as `https://erp.local` or `http://localhost:3000`; `None` for `null`, a
    /// list, and anything with a path or a user name.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, host) = text.split_once("://")?;
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if scheme.is_empty() || !scheme.bytes().all(letter) {
            return None;
        }
        let authority = Authority::parse(host.as_bytes()).ok()?;
        // A name with a trailing dot is another origin to browsers.
        let bare = host.split(':').next().unwrap_or_default();
        if bare.ends_with('.') || host.ends_with(':') {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let host = if authority.port() == usual { authority.without_port() } else { authority };
        Some(Self { scheme, host })
    }
}

/// The field that shows that a web page sent the request without permission; `None` if none did.
pub fn foreign_page(headers: &HeaderMap, allowed: &[WebOrigin]) -> Option<&'static str> {
    let mut origins = headers.get_all(ORIGIN).iter();
    if let Some(origin) = origins.next() {
        let origin = origin.to_str().ok().and_then(WebOrigin::parse);
        let known = origin.is_some_and(|origin| allowed.contains(&origin));
        // A browser sends one Origin; two are ambiguous.
        return (!known || origins.next().is_some()).then_some("Origin");
    }
    let harmless = |site: &HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    (!headers.get_all("sec-fetch-site").iter().all(harmless)).then_some("Sec-Fetch-Site")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    #[test]
    fn origins_are_compared_by_their_parts() {
        let check = |a: &str, b: &str, expected: bool| {
            assert_eq!(WebOrigin::parse(a).unwrap() == WebOrigin::parse(b).unwrap(), expected);
        };
        check("https://erp.local", "HTTPS://ERP.local:443", true);
        check("http://[::1]:80", "http://[0:0::1]", true);
        check("https://erp.local", "http://erp.local", false);
        check("https://erp.local", "https://erp.local:8443", false);
        check("http://erp.local:443", "https://erp.local", false);
        for bad in [
            "null",
            "",
            "erp.local",
            "https://",
            "https://erp.local/",
            "https://user@erp.local",
            "https://erp.local https://evil.example",
            "https://erp.local.",
            "https://erp.local.:443",
            "https://erp.local:",
            "https://*.erp.local",
            "://erp.local",
        ] {
            assert_eq!(WebOrigin::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn pages_are_foreign_unless_known_to_be_harmless() {
        let allowed = [WebOrigin::parse("https://erp.local").unwrap()];
        let check = |fields: &[(&'static str, &str)], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                headers.append(HeaderName::from_static(name), value);
            }
            assert_eq!(foreign_page(&headers, &allowed), expected, "{fields:?}");
        };
        let (origin, site) = ("origin", "sec-fetch-site");
        check(&[], None);
        check(&[(origin, "https://erp.local")], None);
        check(&[(origin, "https://erp.local:443")], None);
        check(&[(origin, "https://erp.local"), (site, "cross-site")], None);
        for foreign in [
            "null",
            "",
            "https://evil.example",
            "https://erp.local.evil.example",
            "https://evil-erp.local",
            "https://erp.local:8443",
            "http://erp.local",
            "https://erp.local, https://evil.example",
            "https://erp.l\u{f6}cal",
        ] {
            check(&[(origin, foreign)], Some("Origin"));
        }
        check(&[(origin, "https://erp.local"), (origin, "https://erp.local")], Some("Origin"));
        check(&[(site, "none")], None);
        check(&[(site, "same-origin")], None);
        for foreign in ["cross-site", "same-site", "Cross-Site", "Same-Origin", "", "none, none"] {
            check(&[(site, foreign)], Some("Sec-Fetch-Site"));
        }
        check(&[(site, "none"), (site, "cross-site")], Some("Sec-Fetch-Site"));
        check(&[(origin, "null"), (site, "same-origin")], Some("Origin"));
    }
}
