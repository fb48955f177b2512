//! Steps that several verbs begin with: the file, its settings, a runtime.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::exit::{Exit, Reported};
use super::output::{err, errln};
use crate::config::{self, Config};

/// A current_thread runtime for the control plane.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().max_blocking_threads(8).build()?)
}

/// Loads the configuration; its problems are printed, and the verb ends with [`Exit::Config`].
pub(super) fn load(path: Option<&Path>) -> Result<Config, Reported> {
    let path = locate(path)?;
    match config::load(&path) {
        Ok(loaded) => Ok(loaded.config),
        Err(problems) => {
            err!("{}", problems.render(colors()));
            Err(Reported(Exit::Config))
        }
    }
}

/// The file that was named, or the first of the usual places.
pub(super) fn locate(path: Option<&Path>) -> Result<PathBuf, Reported> {
    if let Some(path) = path {
        return Ok(path.to_owned());
    }
    config::find_file().ok_or_else(|| {
        errln!(
            "error: no configuration found\n  looked for {}\n  \
             write a first one with `bearer-proxy init PRESET`, or name one with --config",
            config::USUAL_PLACES
        );
        Reported(Exit::Config)
    })
}

/// True if stderr takes colours; <https://no-color.org> is respected.
pub(super) fn colors() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::stderr().is_terminal()
}

/// This program as it can be called from any folder: its name where that is how it was called, else its
/// absolute path.
pub(super) fn program() -> PathBuf {
    let called = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    match called.components().count() {
        0 => env!("CARGO_PKG_NAME").into(),
        1 => called,
        _ => std::path::absolute(&called).unwrap_or(called),
    }
}

/// A path as a person pastes it into a shell.
pub(super) fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    shlex::try_quote(&path).unwrap_or(path.clone()).into_owned()
}
