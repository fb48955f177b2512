//! Names: those that the file gives to its own parts, and those of secrets that are kept elsewhere.

use crate::diagnostics::{Diagnostic, Item};
use crate::sensitive::looks_random;

/// Goes with a value that was masked because a secret may have been written in its place.
pub(super) const ROTATE: &str =
    "the value shown above was masked; if this file was shared, rotate the secret";

/// The form of the names of credentials, upstreams, routes and clients. They are labels of metrics,
/// parts of keys, and words on the command line.
pub(super) const NAME_FORM: &str = "expected 1 to 64 letters, digits, `-` and `_`";

/// Returns whether a text has the form of a name.
pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// Reports a key that cannot be a name.
pub(super) fn check_name(name: &str, item: &Item<'_>, what: &str) -> bool {
    let good = is_name(name);
    if !good {
        let problem = Diagnostic::error(format!("the name of {what} cannot be used"));
        item.fail_at_hidden_key(problem.label(NAME_FORM));
    }
    good
}

/// The name of a secret that is kept elsewhere, if it is well formed (`good`) and looks like a name: a
/// secret in its place would be looked up, not found, and named in messages.
pub(super) fn secret_name(
    place: &Item<'_>,
    name: &str,
    good: bool,
    message: &str,
    label: &'static str,
) -> Option<String> {
    let problem = match () {
        () if !good => Diagnostic::error(message),
        () if looks_random(name) => {
            Diagnostic::error("this looks like a secret, not like the name of one")
                .hint("a name is made of words of one case, such as QBANK_CLIENT_SECRET")
        }
        () => return Some(name.to_owned()),
    };
    place.fail(problem.label(label).note(ROTATE));
    None
}
