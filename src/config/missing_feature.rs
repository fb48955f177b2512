//! Settings that need a cargo feature which this build lacks.

use crate::diagnostics::{Diagnostic, Item};

/// Refuses an item at its key: `title` says what this build cannot do.
pub(super) fn refuse(item: &Item<'_>, title: impl Into<String>, feature: &str) {
    let hint = format!("take the container image, or build with  cargo build --features {feature}");
    let label = format!("it lacks the feature `{feature}`");
    item.fail_at_key(Diagnostic::error(title).label(label).hint(hint));
}
