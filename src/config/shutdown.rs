//! `[shutdown]`: how the program stops.

use crate::diagnostics::Section;
use crate::server::settings::ShutdownSettings;

pub(super) fn read(root: &Section<'_>) -> ShutdownSettings {
    let (section, default) = (root.section("shutdown"), ShutdownSettings::default());
    ShutdownSettings {
        lame_duck: section.duration("lame_duck", .., default.lame_duck),
        drain_timeout: section.duration("drain_timeout", .., default.drain_timeout),
    }
}
