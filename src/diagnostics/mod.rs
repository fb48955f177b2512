//! TOML with diagnostics: reads a file section by section, finds every problem at once, and draws each
//! with its line, masked so that no secret is shown. The words of a file come from its `Vocabulary`;
//! nothing here knows what a key means.
//!
//! `Context` is one file being read, `Section` a table of it, `Item` a value with its place.
//! `mask` decides which parts of a line may be shown, [`Report`] and `render` draw the problems, and
//! [`units`] reads values that have a unit.

mod context;
mod diagnostic;
mod expand;
mod item;
mod mask;
mod render;
mod report;
mod section;
pub mod units;
mod vocabulary;

pub(crate) use context::Context;
pub use diagnostic::{Diagnostic, Severity};
pub(crate) use expand::is_variable_name;
pub(crate) use item::Item;
pub(crate) use mask::{MaskedSource, Visibility};
pub use report::Report;
pub(crate) use section::Section;
pub(crate) use vocabulary::{NAME, Vocabulary, nearest};
