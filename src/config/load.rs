//! Finds, reads and parses a configuration file; every problem of it at once.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::file;
use super::model::Config;
use crate::diagnostics::{Context, Diagnostic, MaskedSource, Problem, Problems, Visibility};

/// Larger files are no configuration; reading one whole would only waste memory.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A configuration that may be used, and what is worth saying about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Warnings and notes; they keep nothing from starting.
    pub notes: Problems,
}

/// Reads and checks a file, with `${…}` filled in from the environment of this process.
///
/// # Errors
/// Every problem of the file at once.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let unread = |why| Diagnostic::new(format!("the configuration cannot be read: {why}"));
    let bytes = read_file(path).map_err(|why| Problems::of_file(path, unread(why)))?;
    let text = String::from_utf8(bytes).map_err(|error| not_utf8(path, &error))?;
    parse(&text, path, &|name| std::env::var(name).ok())
}

/// Names the first byte that is no UTF-8; what stands before it has the same offsets either way.
fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Problems {
    let at = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let diagnostic = Diagnostic::new("the configuration is not UTF-8")
        .label("this byte belongs to another encoding")
        .hint("save the file as UTF-8, without converting it twice");
    Problems::new(
        path,
        vec![diagnostic.place("", at..at + 1, &MaskedSource::new(&text), &Visibility::KnownKeys)],
    )
}

/// Checks a text; `path` is what problems call it, `env` is what `${…}` is filled in from.
///
/// # Errors
/// Every problem of the text at once.
pub fn parse(
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    let source = MaskedSource::new(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(Problems::new(
            path,
            errors.iter().map(|error| syntax(&source, error)).collect(),
        ));
    }
    let context = Context::new(source, env, &root);
    let config = file::config(&context, root.get_ref(), path);
    let problems = Problems::new(path, context.finish());
    match config {
        Some(config) if problems.errors() == 0 => Ok(Loaded { config, notes: problems }),
        _ => Err(problems),
    }
}

/// The first configuration in the usual places.
pub fn find_file() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let user = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let folders = [
        Some(PathBuf::from(".")),
        user.or(home).map(|dir| dir.join("bearer-proxy")),
        Some(PathBuf::from("/etc/bearer-proxy")),
    ];
    folders
        .into_iter()
        .flatten()
        .map(|dir| dir.join("bearer-proxy.toml"))
        .find(|file| file.is_file())
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_FILE_BYTES {
        return Err("it is larger than 4 MiB".into());
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

/// A syntax error. Nothing is known about what stands where, so that every value is masked.
fn syntax(source: &MaskedSource<'_>, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    Diagnostic::new("this is no TOML").label(error.message()).place(
        "",
        span,
        source,
        &Visibility::KnownKeys,
    )
}
