//! Pure rewriting of a request's target for the upstream, and of the references in a response back
//! again.

use std::net::IpAddr;

use http::header::{CONTENT_LOCATION, HeaderMap, HeaderValue, LINK, LOCATION, REFRESH, SET_COOKIE};
use http::uri::{InvalidUri, PathAndQuery};

use crate::cleartext::Cleartext;
use crate::net::Origin;
use crate::route::PathPattern;

/// The difference between the targets of apps and those of one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Bytes of the mount prefix that is removed, as the configuration writes it.
    strip: usize,
    /// Segments of that prefix.
    segments: usize,
    base_path: String,
}

impl Rewrite {
    /// Removes `mount` if `strip_mount` is set, and prepends `base_path`.
    pub fn new(mount: &str, strip_mount: bool, base_path: &str) -> Self {
        let mount = if strip_mount { mount } else { "" };
        let segments = mount.matches('/').count();
        Self { strip: mount.len(), segments, base_path: base_path.to_owned() }
    }

    /// The upstream's target for a target below the mount. The query stays as it is, and a target that
    /// does not change is not copied.
    ///
    /// # Errors
    /// The result is not a valid target.
    pub fn apply(&self, inbound: &PathAndQuery) -> Result<PathAndQuery, InvalidUri> {
        if self.strip == 0 && self.base_path.is_empty() {
            return Ok(inbound.clone());
        }
        let left = self.below_mount(inbound.as_str());
        let slash = if left.is_empty() || left.starts_with('?') { "/" } else { "" };
        // The mount itself, without a slash, stands for the upstream's base path as it is configured.
        let slash = if self.base_path.is_empty() { slash } else { "" };
        PathAndQuery::try_from(format!("{}{slash}{left}", self.base_path))
    }

    /// The rest of a target below the mount. It is found by segments, since an app may spell those of the
    /// mount at another length: `%3A` for `:`.
    fn below_mount<'t>(&self, target: &'t str) -> &'t str {
        if self.segments == 0 {
            return target;
        }
        let path_end = target.find('?').unwrap_or(target.len());
        let slashes = target.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
        let end = slashes.map(|(at, _)| at).nth(self.segments).unwrap_or(path_end);
        target.get(end.min(path_end)..).unwrap_or_default()
    }

    /// The path of an app by which a pattern reaches an upstream path; `None` if it does not.
    pub fn reaches(&self, pattern: &PathPattern, upstream_path: &str) -> Option<String> {
        let below = upstream_path.strip_prefix(self.base_path.as_str())?;
        let prefix = pattern.as_str().get(..self.strip)?;
        let inbound = format!("{prefix}{below}");
        pattern.covers(&inbound).then_some(inbound)
    }
}

/// The rewriting of one upstream's responses, so that their references lead apps back through the proxy;
/// made once, when a plan is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseRewrite {
    /// Origin of the upstream.
    origin: Origin,
    /// Path below which apps find it; empty for all paths.
    mount: String,
    /// Set if the mount is removed from requests.
    strip_mount: bool,
    /// Path below which the upstream serves; empty for all paths.
    base_path: String,
    /// Set if cookies are rewritten too.
    cookies: bool,
}

impl ResponseRewrite {
    /// The reverse of [`Rewrite::new`] with the same mount and base path. `cookies` extends it to
    /// the paths and domains of cookies.
    pub fn new(
        origin: Origin,
        mount: &str,
        strip_mount: bool,
        base_path: &str,
        cookies: bool,
    ) -> Self {
        let (mount, base_path) = (mount.to_owned(), base_path.to_owned());
        Self { origin, mount, strip_mount, base_path, cookies }
    }

    /// The reference by which an app reaches a URI reference of the upstream. `None` if it leads
    /// elsewhere or is relative to the app's request: then it stays as it is (RFC 9110 section
    /// 10.2.2).
    fn reference(&self, reference: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(reference).ok()?;
        // `http::Uri` drops the fragment, which the app needs (RFC 9110 section 10.2.2).
        let (text, fragment) = text.split_at(text.find('#').unwrap_or(text.len()));
        let ours = if text.starts_with('/') && !text.starts_with("//") {
            self.target(text)?
        } else {
            let uri: http::Uri = match text.starts_with("//") {
                // A reference without a scheme has that of the response (RFC 3986 section 5.2.2).
                true if self.origin.is_https() => format!("https:{text}").parse().ok()?,
                true => format!("http:{text}").parse().ok()?,
                false => text.parse().ok()?,
            };
            let within = Origin::with_cleartext(&uri, Cleartext::InCluster)
                .is_ok_and(|origin| origin == self.origin);
            within.then(|| self.target(uri.path_and_query()?.as_str())).flatten()?
        };
        Some(format!("{ours}{fragment}"))
    }

    /// The target by which an app reaches a target of the upstream; `None` if none does.
    fn target(&self, target: &str) -> Option<String> {
        let below = target.strip_prefix(self.base_path.as_str())?;
        if !(below.is_empty() || below.starts_with(['/', '?'])) {
            return None;
        }
        if !self.strip_mount && !is_below(below, &self.mount) {
            return None;
        }
        let mount = if self.strip_mount { self.mount.as_str() } else { "" };
        let slash = if mount.is_empty() && !below.starts_with('/') { "/" } else { "" };
        let ours = format!("{mount}{slash}{below}");
        // Two slashes would name another host (RFC 3986 section 4.2), and so would `/\` to browsers.
        (!ours.starts_with("//") && !ours.starts_with("/\\")).then_some(ours)
    }

    /// Rewrites `Link`: a list of references in angle brackets with parameters (RFC 8288 section 3).
    fn link(&self, line: &[u8]) -> Option<Vec<u8>> {
        let (mut ours, mut copied) = (Vec::new(), 0);
        let (mut at, mut quoted) = (0, false);
        while let Some(byte) = line.get(at) {
            at += 1;
            match byte {
                // In a quoted string, a backslash escapes the next byte.
                b'\\' if quoted => at += 1,
                b'"' => quoted = !quoted,
                b'<' if !quoted => {
                    let left = line.get(at..)?;
                    // After an unclosed bracket, the meaning of the rest is unknown.
                    let Some(length) = left.iter().position(|byte| *byte == b'>') else { break };
                    let (reference, _) = left.split_at(length);
                    if let Some(reference) = self.reference(reference) {
                        ours.extend_from_slice(line.get(copied..at)?);
                        ours.extend_from_slice(reference.as_bytes());
                        copied = at + length;
                    }
                    at += length + 1;
                }
                _ => {}
            }
        }
        if copied == 0 {
            return None;
        }
        ours.extend_from_slice(line.get(copied..)?);
        Some(ours)
    }

    /// Rewrites `Refresh`, such as `5; url=/x`, which browsers read leniently (HTML section 4.2.5.3).
    fn refresh(&self, line: &[u8]) -> Option<Vec<u8>> {
        let trimmed = line.trim_ascii_start();
        let digits = trimmed.iter().position(|byte| !(byte.is_ascii_digit() || *byte == b'.'))?;
        let (seconds, behind) = trimmed.split_at(digits);
        let left = match behind.trim_ascii_start() {
            [b';' | b',', left @ ..] => left.trim_ascii_start(),
            // A space separates as well; nothing at all does not.
            left if left.len() < behind.len() => left,
            _ => return None,
        };
        if seconds.is_empty() {
            return None;
        }
        // Browsers take a reference without `url=` too.
        let left = without_url_sign(left).unwrap_or(left);
        let (open, reference) = match left {
            [quote @ (b'"' | b'\''), inner @ ..] => {
                (1, inner.split(|byte| byte == quote).next().unwrap_or_default())
            }
            _ => (0, left),
        };
        // `left` is the end of the line, so that its length gives its start.
        let start = line.len() - left.len() + open;
        let ours = self.reference(reference.trim_ascii())?;
        let (before, behind) = (line.get(..start)?, line.get(start + reference.len()..)?);
        Some([before, ours.as_bytes(), behind].concat())
    }

    /// Rewrites the attributes of `Set-Cookie` (RFC 6265 section 5.2, which has no quoting).
    fn cookie(&self, line: &[u8]) -> Option<Vec<u8>> {
        let mut parts = line.split(|byte| *byte == b';');
        let pair = parts.next()?;
        // Browsers accept a `__Host-` cookie with `Path=/` only (RFC 6265bis section 4.1.3.2).
        let fixed = pair
            .trim_ascii_start()
            .get(..7)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"__Host-"));
        let (mut ours, mut changed) = (pair.to_vec(), false);
        for part in parts {
            let at = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
            let (name, value) = part.split_at(at);
            let value = value.strip_prefix(b"=").unwrap_or(value).trim_ascii();
            let name = name.trim_ascii();
            if name.eq_ignore_ascii_case(b"domain") && self.is_in_domain(value) {
                changed = true;
                continue;
            }
            ours.push(b';');
            match name.eq_ignore_ascii_case(b"path").then(|| self.cookie_path(value)).flatten() {
                Some(path) if !fixed => {
                    changed = true;
                    ours.extend_from_slice(b" Path=");
                    ours.extend_from_slice(path.as_bytes());
                }
                _ => ours.extend_from_slice(part),
            }
        }
        changed.then_some(ours)
    }

    /// The path of a cookie as apps see it. The upstream's root becomes the mount without a trailing
    /// slash, which would not match the mount itself (RFC 6265 section 5.1.4).
    fn cookie_path(&self, path: &[u8]) -> Option<String> {
        let path = std::str::from_utf8(path).ok().filter(|path| path.starts_with('/'))?;
        let root = path == "/" && self.base_path.is_empty();
        let ours = self.target(if root { "" } else { path })?;
        (ours != path).then_some(ours)
    }

    /// True if a cookie's domain includes the upstream: it is the host or a parent of it. An address
    /// has no parents (RFC 6265 section 5.1.3). A leading dot has no meaning (section 5.2.3).
    fn is_in_domain(&self, domain: &[u8]) -> bool {
        let host = self.origin.host();
        let domain = domain.strip_prefix(b".").unwrap_or(domain);
        let Some(start) = host.len().checked_sub(domain.len()) else { return false };
        let (before, end) = host.as_bytes().split_at(start);
        let parent = || before.ends_with(b".") && host.parse::<IpAddr>().is_err();
        !domain.is_empty() && end.eq_ignore_ascii_case(domain) && (before.is_empty() || parent())
    }
}

/// Rewrites references into the upstream, in all lines of `Location`, `Content-Location`, `Link` and
/// `Refresh`, and of `Set-Cookie` if the rule includes cookies. References that lead elsewhere or
/// cannot be parsed stay as they are.
pub fn rewrite_response(headers: &mut HeaderMap, rule: &ResponseRewrite) {
    for (name, value) in headers.iter_mut() {
        let line = value.as_bytes();
        let ours = match *name {
            LOCATION | CONTENT_LOCATION => rule.reference(line).map(String::into_bytes),
            LINK => rule.link(line),
            REFRESH => rule.refresh(line),
            SET_COOKIE if rule.cookies => rule.cookie(line),
            _ => None,
        };
        if let Some(ours) = ours.and_then(|ours| HeaderValue::try_from(ours).ok()) {
            *value = ours;
        }
    }
}

/// The rest of a text that begins with `url`, in any case, and `=`.
fn without_url_sign(bytes: &[u8]) -> Option<&[u8]> {
    let (name, left) = bytes.split_at_checked(3)?;
    let left = left.trim_ascii_start().strip_prefix(b"=")?;
    name.eq_ignore_ascii_case(b"url").then(|| left.trim_ascii_start())
}

fn is_below(path: &str, mount: &str) -> bool {
    path.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;
    use proptest::prelude::*;

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
        check("/core", true, "/api", "/core//v1", "/api//v1");
        check("/a:b/c", true, "", "/a%3ab/c/d?e=/f", "/d?e=/f");
        check("/a:b", true, "", "/a%3Ab?e=/f", "/?e=/f");
        check("", true, "/api", "/v1", "/api/v1");
    }

    /// The bank serves below `/api`, and we serve that below `/core`.
    fn bank(cookies: bool) -> ResponseRewrite {
        rule("https://bank.example", "/core", true, "/api", cookies)
    }

    fn rule(origin: &str, mount: &str, strip: bool, base: &str, cookies: bool) -> ResponseRewrite {
        let origin = Origin::of(&origin.parse().unwrap()).unwrap();
        ResponseRewrite::new(origin, mount, strip, base, cookies)
    }

    /// The value of a field after rewriting; `None` where it is as it was.
    fn rewritten(rule: &ResponseRewrite, name: HeaderName, value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        rewrite_response(&mut headers, rule);
        assert_eq!(headers.len(), 1);
        let value_now = headers.values().next().unwrap().as_bytes().to_vec();
        Some(String::from_utf8(value_now).unwrap()).filter(|now| now != value)
    }

    #[test]
    fn references_into_the_upstream_lead_back_to_us() {
        let check = |value: &str, expected: Option<&str>| {
            for name in [LOCATION, CONTENT_LOCATION] {
                assert_eq!(rewritten(&bank(false), name, value).as_deref(), expected, "{value}");
            }
            let bracketed = |value: &str| format!("</api/first>; rel=a, <{value}>; rel=\"b\"");
            let linked = bracketed(expected.unwrap_or(value)).replacen("/api/", "/core/", 1);
            assert_eq!(rewritten(&bank(false), LINK, &bracketed(value)), Some(linked));
        };
        check("https://bank.example/api/v1?x", Some("/core/v1?x"));
        check("HTTPS://Bank.Example:443/api/v1?x", Some("/core/v1?x"));
        check("//bank.example/api/v1", Some("/core/v1"));
        check("/api/v1", Some("/core/v1"));
        check("/api", Some("/core"));
        check("/api?a=/api", Some("/core?a=/api"));
        check("/api/\u{fc}", Some("/core/\u{fc}"));
        check("https://bank.example/api/v1#part", Some("/core/v1#part"));
        check("/api#/api", Some("/core#/api"));
        check("/apiary", None);
        check("/other", None);
        check("", None);
        check("?page=2", None);
        check("//evil.example/api", None);
        check("https://evil.example/api/v1", None);
        check("https://bank.example:8443/api/v1", None);
        check("https://user@bank.example/api/v1", None);
        check("http://bank.example/api/v1", None);
        check("relative", None);
        check("mailto:api@bank.example", None);
    }

    #[test]
    fn no_reference_is_turned_towards_another_host() {
        let check = |value: &str, mount: &str, strip: bool, base: &str, expected: Option<&str>| {
            let rule = rule("https://bank.example", mount, strip, base, true);
            let found = rewritten(&rule, LOCATION, value);
            assert_eq!(found.as_deref(), expected, "{value}");
            let refresh = rewritten(&rule, REFRESH, &format!("0;url={value}"));
            assert_eq!(refresh, expected.map(|ours| format!("0;url={ours}")), "{value}");
        };
        check("https://bank.example//evil.example/x", "", true, "", None);
        check("//bank.example//evil.example/x", "", true, "", None);
        check("/api//evil.example/x", "", true, "/api", None);
        check("/api/\\evil.example", "", true, "/api", None);
        check("/\\evil.example", "", true, "", None);
        check("/api?x=1", "", true, "/api", Some("/?x=1"));
        check("/api", "", true, "/api", Some("/"));
        check("https://bank.example/other", "/core", false, "", None);
        check("https://bank.example/core/x", "/core", false, "", Some("/core/x"));
        check("https://bank.example", "/core", true, "", Some("/core/"));
    }

    #[test]
    fn all_references_of_a_link_are_rewritten() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(rewritten(&bank(false), LINK, line).as_deref(), expected, "{line}");
        };
        check("</api/a>;rel=next,</api/b>", Some("</core/a>;rel=next,</core/b>"));
        check("<https://bank.example/api/a>; rel=\"next\"", Some("</core/a>; rel=\"next\""));
        check("</other>; rel=x, </api>; rel=y", Some("</other>; rel=x, </core>; rel=y"));
        check("</api/a>; title=\"</api/b>\"", Some("</core/a>; title=\"</api/b>\""));
        check(
            "</api/a>; title=\"\\\"</api/b>\", </api/c>",
            Some("</core/a>; title=\"\\\"</api/b>\", </core/c>"),
        );
        check("</api/a,b;c>; rel=next", Some("</core/a,b;c>; rel=next"));
        check("</api/a>, </api/b", Some("</core/a>, </api/b"));
        check("</api/a", None);
        check("/api/a", None);
        check("<>; rel=self", None);
        check("; title=\"</api/b>, </api/c>", None);
        check("; title=\"\\", None);
        check("", None);
    }

    #[test]
    fn a_refresh_leads_back_to_us() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(rewritten(&bank(false), REFRESH, line).as_deref(), expected, "{line}");
        };
        check("5; url=/api/a", Some("5; url=/core/a"));
        check("0;URL=https://bank.example/api/a?b#c", Some("0;URL=/core/a?b#c"));
        check("5, Url = \"/api/a\"", Some("5, Url = \"/core/a\""));
        check("5; url='/api/a' x", Some("5; url='/core/a' x"));
        check("5; url=\"/api/a", Some("5; url=\"/core/a"));
        check("1.5 url=/api/a", Some("1.5 url=/core/a"));
        check("5; /api/a", Some("5; /core/a"));
        check("5; url=https://evil.example/api", None);
        check("5; url=", None);
        check("5; url", None);
        check("5;", None);
        check("5", None);
        check("5/api/a", None);
        check("; url=/api/a", None);
        check("five; url=/api/a", None);
        check("", None);
    }

    #[test]
    fn cookies_are_rewritten_where_the_rule_says_so() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(rewritten(&bank(true), SET_COOKIE, line).as_deref(), expected, "{line}");
            assert_eq!(rewritten(&bank(false), SET_COOKIE, line), None, "{line}");
        };
        check("a=b", None);
        check("a=b; Path=/api; HttpOnly", Some("a=b; Path=/core; HttpOnly"));
        check("a=b; path = /api/v1", Some("a=b; Path=/core/v1"));
        check("a=/api; Path=/; Secure", None);
        check("a=b; Path=/apiary", None);
        check("a=b; Path=api", None);
        check("a=b; Path=", None);
        check("a=b; Path", None);
        check("a=\"b; Path=/api\"", None);
        check("Path=/api", None);
        check("a=b; Domain=bank.example; Secure", Some("a=b; Secure"));
        check("a=b; domain=.BANK.example", Some("a=b"));
        check("a=b;Domain=example;Path=/api/", Some("a=b; Path=/core/"));
        check("a=b; Domain=ank.example", None);
        check("a=b; Domain=x.bank.example", None);
        check("a=b; Domain=evil.example", None);
        check("a=b; Domain=", None);
        check("a=b; Domain=.", None);
        check("__Host-a=b; Path=/api; Domain=bank.example", Some("__Host-a=b; Path=/api"));
        check("__Secure-a=b; Path=/api", Some("__Secure-a=b; Path=/core"));
        check("a=\u{fc}; Path=/api", Some("a=\u{fc}; Path=/core"));
    }

    #[test]
    fn the_root_of_an_upstream_is_our_mount() {
        let check = |mount: &str, strip: bool, path: &str, expected: Option<&str>| {
            let rule = rule("http://127.0.0.1:9000", mount, strip, "", true);
            let found = rewritten(&rule, SET_COOKIE, &format!("a=b; Path={path}"));
            assert_eq!(found, expected.map(|path| format!("a=b; Path={path}")), "{mount} {path}");
        };
        check("/core", true, "/", Some("/core"));
        check("/core", true, "/v1", Some("/core/v1"));
        check("", true, "/", None);
        check("", true, "/v1", None);
        check("/core", false, "/", None);
        check("/core", false, "/core/v1", None);
    }

    #[test]
    fn an_address_has_no_parents() {
        let check = |domain: &str, expected: Option<&str>| {
            let rule = rule("http://127.0.0.1:9000", "/core", true, "", true);
            let found = rewritten(&rule, SET_COOKIE, &format!("a=b; Domain={domain}"));
            assert_eq!(found.as_deref(), expected, "{domain}");
        };
        check("127.0.0.1", Some("a=b"));
        check("0.0.1", None);
        check("localhost", None);
    }

    #[test]
    fn all_lines_are_rewritten_and_no_others() {
        let mut headers = HeaderMap::new();
        let lines = [
            (LINK, "</api/a>", "</core/a>"),
            (LINK, "</other>", "</other>"),
            (LINK, "</api/b>", "</core/b>"),
            (SET_COOKIE, "a=b; Path=/api", "a=b; Path=/core"),
            (SET_COOKIE, "c=d; Path=/api", "c=d; Path=/core"),
            (HeaderName::from_static("x-location"), "/api", "/api"),
        ];
        for (name, value, _) in &lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        rewrite_response(&mut headers, &bank(true));
        for (name, _, _) in &lines {
            let now: Vec<_> =
                headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
            let expected = lines.iter().filter(|(other, _, _)| other == name);
            assert_eq!(now, expected.map(|(_, _, ours)| *ours).collect::<Vec<_>>(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_leads_to_no_other_host(
            value in r#"(/|\\|api|core|//|https:|bank\.example|evil\.example|<|>|"|'|url=|5|;|,| |#|\?|Path=|Domain=|\.|a=b){0,16}"#,
            strip in any::<bool>(),
            base in prop::sample::select(vec!["", "/api"]),
            mount in prop::sample::select(vec!["", "/core"]),
        ) {
            let rule = rule("https://bank.example", mount, strip, base, true);
            for name in [LINK, REFRESH, SET_COOKIE] {
                rewritten(&rule, name, value.trim());
            }
            let ours = rewritten(&rule, LOCATION, value.trim());
            if let Some(ours) = ours {
                prop_assert!(ours.starts_with('/') && !ours.starts_with("//") && !ours.starts_with("/\\"));
                prop_assert!(!strip || ours.starts_with(mount));
            }
        }

        #[test]
        fn any_bytes_can_be_read(value in prop::collection::vec(any::<u8>(), 0..32)) {
            let rule = bank(true);
            for read in [ResponseRewrite::link, ResponseRewrite::refresh, ResponseRewrite::cookie] {
                read(&rule, &value);
            }
            rule.reference(&value);
        }
    }
}
