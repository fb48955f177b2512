//! Names that the user gives to credentials, upstreams, routes and clients.

use crate::diagnostics::{Fault, Item};

/// Whether a name can be a metric label, a part of a key, and be typed on a command line.
pub(super) fn check_name(name: &str, item: &Item<'_>, what: &str) -> bool {
    let good = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if !good {
        let fault = Fault::new(format!("the name of {what} cannot be used"));
        item.fail_at_hidden_key(fault.label("expected 1 to 64 letters, digits, `-` and `_`"));
    }
    good
}
