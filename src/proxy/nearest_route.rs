//! The route that a path was probably meant for if no route claims it, and as much of that path as an
//! operator may see.

use std::borrow::Cow;
use std::fmt;

use http::Method;

use crate::diagnostics::nearest;

/// Longest path that is kept, in bytes.
const LONGEST: usize = 200;

/// A route that a path is compared with.
pub struct KnownRoute<'a> {
    /// The name of its upstream.
    pub upstream: &'a str,
    /// Its name.
    pub route: &'a str,
    /// Its methods.
    pub methods: &'a [Method],
    /// The mount of its upstream; may be empty.
    pub mount: &'a str,
    /// The pattern of its path, mount included.
    pub path: Cow<'a, str>,
}

impl KnownRoute<'_> {
    /// Its name, its methods and its path.
    fn words(&self) -> String {
        let Self { upstream, route, methods, path, .. } = self;
        let methods: Vec<_> = methods.iter().map(Method::as_str).collect();
        format!("{upstream}.{route} ({} {path})", methods.join(", "))
    }
}

/// The route whose path is spelt most like a requested one.
pub struct NearestRoute {
    /// Its name, its methods and its path.
    pub words: String,
    /// Its mount, if the requested path is like the rest of its path alone.
    pub missing_mount: Option<String>,
}

impl fmt::Display for NearestRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)?;
        let Some(mount) = &self.missing_mount else { return Ok(()) };
        write!(f, ", whose mount {mount} is missing in the path")
    }
}

/// Finds the route whose path is spelt most like the requested one, if any is like it.
pub fn nearest_route<'a>(
    requested: &str,
    routes: impl Iterator<Item = KnownRoute<'a>>,
) -> Option<NearestRoute> {
    let routes: Vec<_> = routes.collect();
    // The path without its mount is compared too: the mount is what is forgotten most.
    let spellings: Vec<_> = routes
        .iter()
        .flat_map(|route| {
            let below = route.path.strip_prefix(route.mount).unwrap_or(&route.path);
            [fill(&route.path, requested), fill(below, requested)]
        })
        .collect();
    let known: Vec<_> = spellings.iter().map(String::as_str).collect();
    let near = nearest(requested, &known)?;
    let index = known.iter().position(|known| *known == near)?;
    let route = routes.get(index / 2)?;
    // An empty mount makes both spellings one, of which the first is found.
    let missing_mount = (index % 2 == 1).then(|| route.mount.to_owned());
    Some(NearestRoute { words: route.words(), missing_mount })
}

/// A pattern with the segments of a path in place of its parameters, so that the two can be compared.
fn fill(pattern: &str, path: &str) -> String {
    // Counted from the end: a forgotten mount shifts all segments.
    let segments: Vec<_> = path.trim_end_matches('/').rsplit('/').collect();
    let filled = pattern.rsplit('/').enumerate().map(|(index, segment)| match segment {
        segment if segment.starts_with('{') => segments.get(index).copied().unwrap_or(segment),
        segment => segment,
    });
    let filled: Vec<_> = filled.collect();
    filled.into_iter().rev().collect::<Vec<_>>().join("/")
}

/// A path with `_` in place of each segment that may be the number of an account, a name or a token: all but
/// words of letters, hyphens and underscores, and versions such as `v1`.
pub fn masked(path: &str) -> String {
    let segments = path.split('/').map(|segment| if is_word(segment) { segment } else { "_" });
    let mut masked = segments.collect::<Vec<_>>().join("/");
    // All that is left is ASCII.
    masked.truncate(LONGEST);
    masked
}

fn is_word(segment: &str) -> bool {
    let is_version = |digits: &str| digits.len() <= 2 && digits.bytes().all(|b| b.is_ascii_digit());
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_');
    segment.strip_prefix('v').is_some_and(is_version)
        || segment.len() <= 32 && segment.bytes().all(is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_without_what_may_name_an_account() {
        let check = |path: &str, shown: &str| assert_eq!(masked(path), shown);
        check("/mybank/v1/payment", "/mybank/v1/payment");
        check("/v2/accounts/DE02120300000000202051/balances/", "/v2/accounts/_/balances/");
        check("/v1x/a.b/%41/user@host", "/_/_/_/_");
        check(&format!("/{}", "x".repeat(33)), "/_");
        assert_eq!(masked(&"/abcdefghi".repeat(50)).len(), LONGEST);
    }

    #[test]
    fn the_nearest_route_is_named_with_the_mount_that_is_missing() {
        let check = |path: &str, mount: &str, expected: Option<&str>| {
            let route = |route, method: &'static [Method], below: &str| KnownRoute {
                upstream: "bank",
                route,
                methods: method,
                mount,
                path: format!("{mount}{below}").into(),
            };
            let routes = [
                route("balances", &[Method::GET], "/v1/accounts/{id}/balances"),
                route("pay", &[Method::POST, Method::PUT], "/v1/payments"),
            ];
            let found = nearest_route(path, routes.into_iter()).map(|near| near.to_string());
            assert_eq!(found.as_deref(), expected, "{path}");
        };
        let pay = "bank.pay (POST, PUT /bank/v1/payments)";
        check("/bank/v1/payment", "/bank", Some(pay));
        let missing = format!("{pay}, whose mount /bank is missing in the path");
        check("/v1/payments", "/bank", Some(&missing));
        check("/v1/payment", "", Some("bank.pay (POST, PUT /v1/payments)"));
        let balances = "bank.balances (GET /bank/v1/accounts/{id}/balances), whose mount /bank is missing in the path";
        check("/v1/accounts/_/balances", "/bank", Some(balances));
        check("/favicon", "/bank", None);
    }
}
