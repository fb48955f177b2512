//! Where client secrets come from.
//!
//! A configuration names secrets by [`Reference`], never by value. A reference is read anew at each
//! token fetch, so that a rotated secret needs no restart. One variant per source.

use std::path::PathBuf;

/// Where one secret (or client id) is to be read from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// An environment variable of this process.
    Env(String),
    /// A file holding the value and nothing else; one trailing newline is not part of it.
    File(PathBuf),
}
