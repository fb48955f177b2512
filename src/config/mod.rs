//! TOML in, typed settings out. Knows everyone's settings types; nobody below knows it.
//!
//! [`load`] reads a file and gives either a [`Config`] or every problem at once, each with its place.

mod credentials;
pub mod model;
pub mod problem;
mod reader;
mod resolve;
pub mod units;
mod upstreams;

use std::path::{Path, PathBuf};

pub use model::Config;
pub use problem::{Problem, Problems};

/// A configuration that can be used, and what `check` notes about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Notes: nothing that prevents running.
    pub notes: Problems,
}

/// Reads a file.
///
/// # Errors
/// Every problem of the file, or the one that it cannot be read.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, path, &|name| std::env::var(name).ok()),
        Err(error) => {
            let problem = Problem {
                note: false,
                title: format!("{} cannot be read: {error}", path.display()),
                at: String::new(),
                span: 0..0,
                label: "expected a readable UTF-8 file".into(),
                help: None,
                visible: false,
            };
            Err(Problems::new(path, "", Vec::new(), vec![problem]))
        }
    }
}

/// Reads a text; `env` gives the values of variables that it names.
///
/// # Errors
/// Every problem of the text.
pub fn parse(
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    resolve::resolve(text, path, env)
}

/// The first configuration in the usual places.
pub fn find_file() -> Option<PathBuf> {
    const NAME: &str = "bearer-proxy.toml";
    let user = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    let places = [
        Some(PathBuf::from(NAME)),
        user.map(|user| user.join("bearer-proxy").join(NAME)),
        Some(PathBuf::from("/etc/bearer-proxy").join(NAME)),
    ];
    places.into_iter().flatten().find(|place| place.is_file())
}

#[cfg(test)]
mod tests;
