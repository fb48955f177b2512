//! The server of a credential: the address of its token endpoint, or the issuer whose metadata name it.

use super::url::{no_cleartext, warn_in_clear, warn_of_doubled_path};
use crate::cleartext::Cleartext;
use crate::diagnostics::{Item, Section};
use crate::net::Origin;
use crate::oauth::TokenEndpoint;
use crate::oauth::client_auth::ClientAuth;
use crate::oauth::metadata::{self, IssuerSettings};
use crate::oauth::presets::Preset;

/// `issuer`, in place of the address of the token endpoint.
pub(super) fn issuer(section: &Section<'_>, cleartext: Cleartext) -> Option<IssuerSettings> {
    let hosts = section.one_or_many("token_hosts");
    let Some(item) = section.item("issuer") else {
        if let Some(item) = section.item("token_hosts") {
            item.reject("it goes with  issuer = \"https://…\"  only");
        }
        return None;
    };
    for key in ["token_url", "base_url", "token_path"] {
        if let Some(other) = section.item(key) {
            other.reject("the metadata of issuer name the token endpoint; remove one of the two");
        }
    }
    let token_hosts = hosts.iter().filter_map(|host| host.parse(metadata::token_host)).collect();
    let (issuer, url) = item.parse(|text| {
        let url = parse_endpoint(text, cleartext)?;
        // RFC 8414 section 2.
        match text.contains('?') {
            true => Err("an issuer has no query"),
            false => Ok((text.into(), url)),
        }
    })?;
    warn_of_cleartext(&item, &url);
    Some(IssuerSettings {
        issuer,
        url,
        token_hosts,
        auth: ClientAuth::default(),
        chooses_auth: false,
        presents_certificate: false,
        revokes: false,
    })
}

/// `token_url`, or `base_url` and a path, or the address that the preset knows.
pub(super) fn endpoint(
    section: &Section<'_>,
    preset: &Preset,
    cleartext: Cleartext,
) -> Option<TokenEndpoint> {
    let (url, base, path) =
        (section.item("token_url"), section.item("base_url"), section.item("token_path"));
    match (url, base, path) {
        (Some(url), None, None) => {
            let endpoint = url.parse(|url| parse_endpoint(url, cleartext))?;
            warn_of_cleartext(&url, &endpoint);
            warn_of_doubled_path(&url, "", endpoint.path());
            Some(endpoint)
        }
        (None, Some(base), path) => below(&base, path.as_ref(), preset, cleartext),
        (Some(_), Some(base), _) => {
            base.reject("token_url is written as well; one of the two is the token endpoint");
            None
        }
        (Some(_), None, Some(path)) => {
            path.reject("token_url holds the path already; token_path goes with base_url");
            None
        }
        (None, None, Some(path)) => {
            path.reject("it is put after base_url, which is missing");
            None
        }
        (None, None, None) => known_endpoint(section, preset),
    }
}

fn known_endpoint(section: &Section<'_>, preset: &Preset) -> Option<TokenEndpoint> {
    if let Some(url) = preset.token_url {
        return TokenEndpoint::parse(url).ok();
    }
    match preset.token_path {
        Some(path) => section.missing(
            "base_url",
            &format!("write  base_url = \"https://host\"; {path} is put after it"),
        ),
        None => section.missing(
            "token_url",
            "write  token_url = \"https://host/path\", as the vendor's document names it",
        ),
    }
    None
}

fn below(
    base: &Item<'_>,
    path: Option<&Item<'_>>,
    preset: &Preset,
    cleartext: Cleartext,
) -> Option<TokenEndpoint> {
    let rooted = |path: &str| match path.starts_with('/') {
        true => Ok(path.to_owned()),
        false => Err("a path begins with a slash"),
    };
    let path = match (path, preset.token_path) {
        (Some(item), _) => item.parse(rooted)?,
        (None, Some(path)) => path.to_owned(),
        (None, None) => {
            base.reject(
                "this preset knows no token path; write token_path, or token_url in place of both",
            );
            return None;
        }
    };
    let endpoint = base.parse(|text| match text.trim_end_matches('/') {
        text if text.contains(['?', '#']) => Err("a base URL has neither query nor fragment"),
        text => parse_endpoint(&format!("{text}{path}"), cleartext),
    })?;
    warn_of_cleartext(base, &endpoint);
    let above = endpoint.path().strip_suffix(&path).unwrap_or_default();
    warn_of_doubled_path(base, above, &path);
    Some(endpoint)
}

/// Reads a token endpoint. Its own error may repeat parts of the URL, so the reason is found again
/// here.
pub(super) fn parse_endpoint(
    url: &str,
    cleartext: Cleartext,
) -> Result<TokenEndpoint, &'static str> {
    TokenEndpoint::with_cleartext(url, cleartext).map_err(|_| match () {
        () if url.starts_with("http://") => {
            let in_cluster = TokenEndpoint::with_cleartext(url, Cleartext::InCluster).is_ok();
            no_cleartext(cleartext, in_cluster)
        }
        () if !url.starts_with("https://") => "expected a URL that begins with https://",
        () if url.contains('@') => {
            "a URL may hold no user name or password; name secrets by reference"
        }
        () if url.contains('#') => "a token URL has no fragment (#…); remove it",
        () if url.contains('?') => "its query holds a secret, or it is not a valid URL",
        () => "this is not a valid URL; write https://host/path",
    })
}

pub(super) fn origin(endpoint: &TokenEndpoint) -> Option<Origin> {
    Origin::with_cleartext(endpoint.uri(), endpoint.cleartext()).ok()
}

pub(super) fn warn_of_cleartext(item: &Item<'_>, endpoint: &TokenEndpoint) {
    if origin(endpoint).is_some_and(|origin| origin.is_cleartext()) {
        warn_in_clear(item);
    }
}
