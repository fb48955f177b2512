//! Names: those that the file gives to its own parts, and those of secrets that are kept elsewhere.

use crate::diagnostics::{Diagnostic, Item};
use crate::sensitive::looks_random;

/// Goes with a value that was masked because a secret may have been written in its place.
pub(super) const ROTATE: &str =
    "the value shown above was masked; if this file was shared, rotate the secret";
/// Whether a name can be a metric label, a part of a key, and be typed on a command line.
pub(super) fn check_name(name: &str, item: &Item<'_>, what: &str) -> bool {
    let good = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if !good {
        let diagnostic = Diagnostic::new(format!("the name of {what} cannot be used"));
        item.fail_at_hidden_key(diagnostic.label("expected 1 to 64 letters, digits, `-` and `_`"));
    }
    good
}

/// A name that is well formed and looks like one: a secret in its place would be looked up, not
/// found, and spoken of.
pub(super) fn named(
    place: &Item<'_>,
    name: &str,
    good: bool,
    message: &str,
    label: &'static str,
) -> Option<String> {
    if !good {
        place.fail(Diagnostic::new(message).label(label).note(ROTATE));
        return None;
    }
    if looks_random(name) {
        let diagnostic = Diagnostic::new("this looks like a secret, not like the name of one");
        let hint = "a name is made of words of one case, such as QBANK_CLIENT_SECRET";
        place.fail(diagnostic.label(label).hint(hint).note(ROTATE));
        return None;
    }
    Some(name.to_owned())
}
