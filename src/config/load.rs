//! Finds, reads and parses a configuration file; every problem of it at once.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::file;
use super::model::Config;
use super::vocabulary::VOCABULARY;
use crate::admin::settings::AdminSettings;
use crate::diagnostics::{Context, Diagnostic, MaskedSource, Report, Visibility};
use crate::shortage::io_words;

/// Larger files are no configuration; reading one whole would only waste memory.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// A configuration that may be used, and its warnings.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Warnings and notes; they keep nothing from starting.
    pub notes: Report,
}

/// Reads and checks a file, with `${…}` filled in from the environment of this process.
///
/// # Errors
/// Every problem of the file at once.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let bytes = read_file(path).map_err(|why| {
        let problem = Diagnostic::error(format!("the configuration cannot be read: {why}"));
        Report::new(path, vec![problem])
    })?;
    let text = String::from_utf8(bytes).map_err(|error| not_utf8(path, &error))?;
    parse(&text, path, &|name| std::env::var(name).ok())
}

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reports the first byte that is not UTF-8; the text before it has the same offsets either way.
fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Report {
    let at = error.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(error.as_bytes());
    let problem = Diagnostic::error("the configuration is not UTF-8")
        .label("this byte belongs to another encoding")
        .hint("save the file as UTF-8, without converting it twice");
    Report::new(path, vec![not_toml(problem, at..at + 1, &MaskedSource::new(&text))])
}

/// Places a problem in a file that is not TOML: no value of it is known, and every value is masked.
fn not_toml(
    problem: Diagnostic,
    span: std::ops::Range<usize>,
    source: &MaskedSource<'_>,
) -> Diagnostic {
    problem.place(String::new(), span, source, &Visibility::Words(&VOCABULARY))
}

/// Checks a text; `path` is the name that problems call it by, and `env` fills in `${…}`.
///
/// # Errors
/// Every problem of the text at once.
pub fn parse(
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Report> {
    let source = MaskedSource::new(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let syntax = |error: &toml::de::Error| {
            let problem = Diagnostic::error("this is not TOML").label(error.message());
            not_toml(problem, error.span().unwrap_or(0..0), &source)
        };
        return Err(Report::new(path, errors.iter().map(syntax).collect()));
    }
    let context = Context::new(source, env, &VOCABULARY, root.get_ref());
    let config = file::config(&context, path);
    let report = Report::new(path, context.finish());
    match config {
        Some(mut config) if report.errors() == 0 => {
            config.sha256 = sha256(text).into();
            Ok(Loaded { config, notes: report })
        }
        _ => Err(report),
    }
}

/// The text of a file as it may be shown: without comments, and with a mask in place of each value that may
/// be a secret. Where it cannot be read, the reason.
pub fn masked(path: &Path) -> String {
    let bytes = match read_file(path) {
        Ok(bytes) => bytes,
        Err(why) => return format!("it cannot be read: {why}"),
    };
    let text = String::from_utf8_lossy(&bytes);
    let source = MaskedSource::new(&text);
    let (root, errors) = DeTable::parse_recoverable(&text);
    if !errors.is_empty() {
        return source.whole(&Visibility::Words(&VOCABULARY));
    }
    let env = |name: &str| std::env::var(name).ok();
    let context = Context::new(source, &env, &VOCABULARY, root.get_ref());
    file::config(&context, path);
    context.finish_masked()
}

/// The admin settings of a file, as far as they can be read: whatever else is wrong with the file, an
/// instance that was started before may still be asked.
pub fn load_admin(path: &Path) -> Option<AdminSettings> {
    let mut text = String::from_utf8_lossy(&read_file(path).ok()?).into_owned();
    if !DeTable::parse_recoverable(&text).1.is_empty() {
        // What stands after the mistake may be lost with it: the table alone.
        text = table(&text, "[admin]");
    }
    let (root, _) = DeTable::parse_recoverable(&text);
    let env = |name: &str| std::env::var(name).ok();
    let context = Context::new(MaskedSource::new(&text), &env, &VOCABULARY, root.get_ref());
    Some(file::admin(&context))
}

/// The lines of a table: its header and what follows, up to the next header.
fn table(text: &str, header: &str) -> String {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(header));
    let header = lines.next();
    let body = lines.take_while(|line| !line.starts_with('['));
    header.into_iter().chain(body).map(|line| format!("{line}\n")).collect()
}

/// Where [`find_file`] looks, in this order.
#[cfg(unix)]
pub const USUAL_PLACES: &str =
    "./bearer-proxy.toml, $XDG_CONFIG_HOME/bearer-proxy/, /etc/bearer-proxy/";
/// Where [`find_file`] looks, in this order.
#[cfg(windows)]
pub const USUAL_PLACES: &str =
    r".\bearer-proxy.toml, %XDG_CONFIG_HOME%\bearer-proxy\, %ProgramData%\bearer-proxy\";

/// The folder of the system.
#[cfg(unix)]
fn system_folder() -> Option<PathBuf> {
    Some("/etc/bearer-proxy".into())
}

/// The folder of the system.
#[cfg(windows)]
fn system_folder() -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os("ProgramData")?).join("bearer-proxy"))
}

/// The configuration of the Windows service, if no other one is named.
#[cfg(windows)]
pub fn service_file() -> Option<PathBuf> {
    Some(system_folder()?.join("bearer-proxy.toml"))
}

/// The first configuration in the usual places.
pub fn find_file() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let user = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let folders = [
        Some(PathBuf::from(".")),
        user.or(home).map(|dir| dir.join("bearer-proxy")),
        system_folder(),
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
    std::fs::read(path).map_err(|error| io_words(&error).into_owned())
}
