//! Checks that the URLs of token endpoints and of upstreams share: `http://`, and paths that no server has.

use crate::cleartext::Cleartext;
use crate::diagnostics::{Item, Section};
use crate::net::origin::NOT_IN_CLUSTER;

/// Warns of a path that no server has: a slash or a segment is there twice where two parts meet.
pub(super) fn warn_of_doubled_path(item: &Item<'_>, above: &str, path: &str) {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let repeats = !first.is_empty() && above.rsplit('/').next() == Some(first);
    if repeats || path.contains("//") {
        let label =
            if repeats { format!("/{first} is there twice") } else { "// in it".to_owned() };
        let hint = "write each part of the path once";
        item.warn("no server is likely to have the path that this makes", label, hint);
    }
}

/// The destinations that `http://` may have.
pub(super) fn cleartext(section: &Section<'_>) -> Cleartext {
    let choices = [("loopback", Cleartext::Loopback), ("in-cluster", Cleartext::InCluster)];
    section.choice("allow_cleartext", &choices, Cleartext::default())
}

/// The answer to an `http://` URL of another machine, with the ways out in a service mesh. `in_cluster`
/// is true if `allow_cleartext` would accept the URL.
pub(super) fn no_cleartext(cleartext: Cleartext, in_cluster: bool) -> &'static str {
    match (cleartext, in_cluster) {
        (Cleartext::Loopback, true) => {
            "http:// sends secrets in the clear: write https://, or in a service mesh \
             http://127.0.0.1:PORT, a listener of its sidecar, or allow_cleartext = \"in-cluster\""
        }
        (Cleartext::Loopback, false) => {
            "http:// sends secrets in the clear: write https://, or in a service mesh \
             http://127.0.0.1:PORT, a listener of its sidecar"
        }
        (Cleartext::InCluster, _) => NOT_IN_CLUSTER,
    }
}

/// Warns of an `http://` URL that leads beyond this machine.
pub(super) fn warn_in_clear(item: &Item<'_>) {
    let message = "secrets and tokens leave this machine in the clear";
    let hint = "write https://, unless a service mesh encrypts on the way";
    item.warn(message, "http:// within the cluster", hint);
}
