//! TOML with diagnostics: reads a file section by section, finds every problem at once, and draws each
//! with its line, masked so that no secret is shown. It knows nothing of what the keys mean.
//!
//! `section` reads tables and values, `mask` decides what may be shown, [`problem`] and `render` are
//! how problems look, [`units`] are values with a unit.

mod expand;
mod mask;
pub mod problem;
mod render;
pub(crate) mod section;
pub mod units;

pub(crate) use expand::is_variable_name;
pub(crate) use mask::{MaskedSource, Visibility};
pub(crate) use problem::Diagnostic;
pub use problem::{Problem, Problems, Severity};
pub(crate) use section::{Context, Item, REFERENCES, Section, Text, nearest};
