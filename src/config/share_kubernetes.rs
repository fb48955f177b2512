//! `[share]` with `store = "kubernetes"`: the Secret and the API server.

use super::references;
use crate::diagnostics::{Item, Section};
use crate::net::Origin;
use crate::secret::StoreHttpSettings;
use crate::share::kubernetes_store::{KubernetesOptions, is_dns_label};

/// Longest name of a Secret (RFC 1123 subdomain).
const MAX_NAME: usize = 253;

/// The settings but for time-outs, with the pod's TLS; `None` if they cannot be used.
pub(super) fn read(section: &Section<'_>, http: &StoreHttpSettings) -> Option<KubernetesOptions> {
    let pod = KubernetesOptions::default();
    let server = section.item("url").map(|item| server(&item));
    let namespace = section.item("namespace").map(|item| item.parse(namespace));
    let secret = section.item("secret").map(|item| item.parse(name));
    let token = section.item("token").map(|item| references::read(&item, http));
    // Only now, so that the problems of all keys are found at once.
    Some(KubernetesOptions {
        server: transposed(server)?,
        namespace: transposed(namespace)?,
        secret: secret.unwrap_or(Some(pod.secret))?,
        token: token.unwrap_or(Some(pod.token))?,
        ..pod
    })
}

/// `None` for a key that is there and cannot be used.
fn transposed<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        Some(None) => None,
        Some(found) => Some(found),
        None => Some(None),
    }
}

fn server(item: &Item<'_>) -> Option<Origin> {
    item.parse(|text| {
        let expected = "expected https://host:port of the API server, without a path (http:// is for loopback only)";
        let uri: http::Uri = text.parse().map_err(|_| expected)?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        Origin::of(&uri).ok().filter(|_| bare).ok_or(expected)
    })
}

fn namespace(text: &str) -> Result<String, &'static str> {
    match is_dns_label(text) {
        true => Ok(text.to_owned()),
        false => Err("expected the name of a namespace: 1 to 63 of a-z, 0-9 and -"),
    }
}

fn name(text: &str) -> Result<String, &'static str> {
    match text.len() <= MAX_NAME && text.split('.').all(is_dns_label) {
        true => Ok(text.to_owned()),
        false => Err("expected the name of a Secret: a-z, 0-9, - and ."),
    }
}
