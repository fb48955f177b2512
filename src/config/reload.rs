//! `[reload]`: how often files are looked at for changes.

use std::time::Duration;

use crate::diagnostics::Section;

/// The time between two looks; `None`: files are read again on SIGHUP only.
pub(super) fn read(root: &Section<'_>) -> Option<Duration> {
    let watch = root.section("reload").item("watch");
    let every = watch.and_then(|item| item.duration_or_off(Duration::from_secs(1)..));
    every.unwrap_or(Some(Duration::from_secs(5)))
}
