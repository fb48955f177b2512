//! The verbs and their flags.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCandidates;

use super::complete;
use crate::config;
use crate::oauth::presets;
use crate::telemetry::metrics::REVISION;

/// The cargo features that a user chooses, and whether this build has them.
const FEATURES: &[(&str, bool)] = &[
    ("demo", cfg!(feature = "demo")),
    ("keyring", cfg!(feature = "keyring")),
    ("aws", cfg!(feature = "aws")),
    ("azure", cfg!(feature = "azure")),
    ("vault", cfg!(feature = "vault")),
    ("redis", cfg!(feature = "redis")),
    ("kubernetes", cfg!(feature = "kubernetes")),
    ("pkcs12", cfg!(feature = "pkcs12")),
];

/// The text of `--version` after the program's name: version, revision and the cargo features of this
/// build. `-V` says the version alone.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let built_with: Vec<_> =
        FEATURES.iter().filter(|(_, with)| *with).map(|(name, _)| *name).collect();
    let features = if built_with.is_empty() { "none".to_owned() } else { built_with.join(" ") };
    format!("{}\nrevision: {REVISION}\nfeatures: {features}", env!("CARGO_PKG_VERSION"))
});

/// The end of `--help`; a build without the feature `demo` does not offer it.
fn after_help() -> String {
    let demo = match cfg!(feature = "demo") {
        true => "\n  bearer-proxy demo                      see it work, with four fake banks",
        false => "",
    };
    format!(
        "First steps:{demo}
  bearer-proxy init qbank                write a first bearer-proxy.toml
  bearer-proxy check --live              find out what is still wrong
  bearer-proxy run                       serve

Exit codes: 0 done, 1 failed, 2 usage, 3 check --live found a failure, 4 explain: would be refused,
69 not reachable, 71 address in use or not allowed, 78 configuration, 130 second interrupt.
Without --config: {}.",
        config::USUAL_PLACES
    )
}

/// Authenticating outbound proxy: apps speak plain HTTP to it, it adds the bearer token.
#[derive(Debug, Parser)]
#[command(
    name = "bearer-proxy",
    version,
    long_version = LONG_VERSION.as_str(),
    max_term_width = 100,
    after_help = after_help(),
)]
pub struct Args {
    /// Configuration file
    #[arg(short, long, global = true, env = "BEARER_PROXY_CONFIG", value_name = "FILE")]
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The verb
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Serve until a signal stops it (SIGTERM drains, a second one ends at once; SIGHUP reloads, without a
    /// terminal)
    Run {
        /// Program to run beside the proxy: when it ends, the proxy ends with its exit code. Its environment
        /// has BEARER_PROXY_URL, BEARER_PROXY_URL_UPSTREAM and BEARER_PROXY_ADMIN_URL
        #[arg(last = true, value_name = "CMD", value_hint = ValueHint::CommandWithArguments)]
        command: Vec<std::ffi::OsString>,
    },
    /// Check the configuration; with --live also ask each token endpoint for a token
    Check(Check),
    /// Show which route a request takes, with which scopes, and what is sent upstream
    Explain {
        /// Method, such as GET
        #[arg(add = ArgValueCandidates::new(complete::methods))]
        method: String,
        /// URL or path as an app would ask for it, such as /qbank/v1/balances/42
        #[arg(add = ArgValueCandidates::new(complete::paths))]
        url: String,
    },
    /// Show one token and what it grants: that of a running instance, else a new one; its value only
    /// with --reveal
    Token(Token),
    /// Write a first configuration for a preset
    Init(Init),
    /// List the presets, or print what one stands for
    Presets {
        /// Print this one in full
        #[arg(value_parser = preset())]
        name: Option<String>,
    },
    #[cfg(feature = "demo")]
    /// Run four fake token servers and APIs with the proxy in front of them
    Demo(Demo),
    /// Show the state of a running instance: what needs attention, tokens, upstreams, secrets' sources, and
    /// requests in flight
    Status(StatusFlags),
    /// Wait until a running instance is ready
    Wait {
        /// Admin address; by default that of the configuration, or localhost:6751
        #[arg(long, value_name = "HOST:PORT|unix:PATH")]
        admin: Option<String>,
        /// Longest time to wait
        #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
        timeout: Duration,
    },
    /// Succeed if a running instance is alive (for container health checks)
    Healthcheck {
        /// Admin address; by default that of the configuration, or localhost:6751
        #[arg(long, value_name = "HOST:PORT|unix:PATH")]
        admin: Option<String>,
    },
    /// Show what a configuration key means; without KEY, print the JSON Schema for editors
    Schema {
        /// A key or table, such as server.listen or credentials.NAME.response
        #[arg(add = ArgValueCandidates::new(complete::keys))]
        key: Option<String>,
    },
    /// Write or delete secrets in the keyring of this session
    #[command(subcommand)]
    Keyring(Keyring),
    #[cfg(windows)]
    /// Install, remove or run the Windows service
    #[command(subcommand)]
    Service(ServiceVerb),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a manual page: bearer-proxy man | man -l -
    Man {
        /// The page
        #[arg(default_value = "bearer-proxy")]
        page: ManualPage,
    },
}

/// A page of the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ManualPage {
    /// The program, section 1
    #[value(name = "bearer-proxy")]
    Program,
    /// The configuration file, section 5
    #[value(name = "bearer-proxy.toml")]
    Configuration,
}

/// Flags of `check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Also read every secret, connect to every server, and see each credential's tokens: those that
    /// a running instance holds, else new ones (one token call each)
    #[arg(long)]
    pub live: bool,
    /// With --live: ask for new tokens even where a running instance holds them
    #[arg(long, requires = "live")]
    pub fresh: bool,
    /// Output format
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: OutputFormat,
}

/// The format of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Flags of `token`.
#[derive(Debug, clap::Args)]
pub struct Token {
    /// Credential to obtain a token for
    #[arg(required_unless_present = "route", conflicts_with = "route")]
    #[arg(add = ArgValueCandidates::new(complete::credentials))]
    pub credential: Option<String>,
    /// Scopes to ask for, space-delimited
    #[arg(long, requires = "credential", default_value = "")]
    pub scopes: String,
    /// Take credential and scopes from a route
    #[arg(long, value_name = "UPSTREAM.ROUTE", add = ArgValueCandidates::new(complete::routes))]
    pub route: Option<String>,
    /// Print the token itself, and nothing else, to stdout; it is a new one
    #[arg(long)]
    pub reveal: bool,
    /// Ask for a new token even where a running instance holds one
    #[arg(long)]
    pub fresh: bool,
}

/// Flags of `status`.
#[derive(Debug, clap::Args)]
pub struct StatusFlags {
    /// Admin address; by default that of the configuration, or localhost:6751
    #[arg(long, value_name = "HOST:PORT|unix:PATH")]
    pub admin: Option<String>,
    /// Output format
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: OutputFormat,
    /// Show it again at each interval until Ctrl-C; with -o json, one document a line
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "1s", value_parser = interval)]
    pub watch: Option<Duration>,
    /// Write a support bundle: masked configuration, state, metrics and the newest log lines, without any
    /// secret or token. The file must not exist; - is stdout [default: bearer-proxy-bundle.json]
    #[arg(long, value_name = "FILE", num_args = 0..=1, value_hint = ValueHint::FilePath)]
    #[arg(default_missing_value = "bearer-proxy-bundle.json", conflicts_with_all = ["watch", "output"])]
    pub bundle: Option<PathBuf>,
}

/// Flags of `init`.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// Which token server
    #[arg(default_value = "qbank", value_parser = preset())]
    pub preset: String,
    /// File to write, or - for stdout; an existing file is never overwritten [default: the file of
    /// --config, else bearer-proxy.toml]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
}

#[cfg(feature = "demo")]
/// Flags of `demo`.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Lifetime of the fake tokens
    #[arg(long, default_value = "20s", value_parser = whole_seconds, value_name = "TIME")]
    pub lifetime: Duration,
    /// Port of the proxy, 0 for a free one [default: 6750, or a free one where that is taken]
    #[arg(long)]
    pub port: Option<u16>,
}

/// The verbs of `keyring`.
#[derive(Debug, Subcommand)]
pub enum Keyring {
    /// Write a secret, read from stdin; on a terminal it is asked for and not shown
    Set(KeyringEntry),
    /// Delete a secret
    Delete(KeyringEntry),
}

/// One entry of the keyring, as `client_secret.keyring = "NAME"` finds it.
#[derive(Debug, clap::Args)]
pub struct KeyringEntry {
    /// Its name
    pub name: String,
    /// The service it belongs to
    #[arg(long, default_value = crate::secret::SERVICE)]
    pub service: String,
}

#[cfg(windows)]
/// The verbs of `service`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ServiceVerb {
    /// Install the service; it reads the file of --config, else %ProgramData%\bearer-proxy\bearer-proxy.toml
    Install,
    /// Stop and remove the service; configuration and secrets stay
    Uninstall,
    /// Serve as the service; only Windows calls it
    Run,
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    crate::diagnostics::units::duration(text)
}

/// An interval of at least 100 ms: a shorter one would only keep the instance busy.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    match interval >= Duration::from_millis(100) {
        true => Ok(interval),
        false => Err("at least 100ms".into()),
    }
}

/// A lifetime that a token answer can state: RFC 6749's `expires_in` is a number of seconds.
#[cfg(feature = "demo")]
fn whole_seconds(text: &str) -> Result<Duration, String> {
    let life = duration(text)?;
    match life.subsec_nanos() {
        0 if !life.is_zero() => Ok(life),
        _ => Err("token answers state whole seconds, at least one".into()),
    }
}

/// One of the presets.
fn preset() -> impl TypedValueParser<Value = String> {
    let described = |preset: presets::Preset| PossibleValue::new(preset.name).help(preset.about);
    PossibleValuesParser::new(presets::all().into_iter().map(described))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn all_features_that_a_user_chooses_are_named() {
        let manifest = include_str!("../../Cargo.toml");
        let section = manifest.split("\n[features]\n").nth(1).unwrap().split("\n[").next().unwrap();
        let named =
            section.lines().filter_map(|line| line.split_once(" = [")).map(|(name, _)| name);
        // A store implies `share`.
        let chosen: Vec<_> = named.filter(|name| !["default", "share"].contains(name)).collect();
        assert_eq!(FEATURES.iter().map(|(name, _)| *name).collect::<Vec<_>>(), chosen);
    }

    #[test]
    fn the_long_version_names_revision_and_features() {
        let version = Args::command().render_long_version();
        let [first, revision, features] = version.lines().collect::<Vec<_>>()[..] else {
            panic!("{version}")
        };
        assert_eq!(first, format!("bearer-proxy {}", env!("CARGO_PKG_VERSION")));
        assert_eq!(revision, format!("revision: {REVISION}"));
        let aws = features.split([' ', ':']).any(|feature| feature == "aws");
        assert_eq!(aws, cfg!(feature = "aws"), "{features}");
    }

    #[test]
    fn all_features_of_the_manifest_are_named() {
        let manifest: toml::Table = toml::from_str(include_str!("../../Cargo.toml")).unwrap();
        let mut written: Vec<_> = manifest["features"].as_table().unwrap().keys().collect();
        // `share` is what all stores of shared tokens need: another feature brings it.
        written.retain(|name| !["default", "share"].contains(&name.as_str()));
        let mut named: Vec<_> = FEATURES.iter().map(|(name, _)| *name).collect();
        named.sort_unstable();
        assert_eq!(written, named);
    }
}
