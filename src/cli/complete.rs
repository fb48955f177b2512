//! The values that a shell offers for arguments: what the configuration names, and what the program knows.

use std::ffi::OsString;
use std::path::PathBuf;

use clap_complete::engine::CompletionCandidate;

use crate::config::{self, Config, schema};
use crate::proxy::policy::settings::{RouteSettings, UpstreamSettings};

/// The credentials of the configuration.
pub(super) fn credentials() -> Vec<CompletionCandidate> {
    from_config(|config| config.credentials.iter().map(|one| one.name.to_string()).collect())
}

/// The routes of the configuration, as UPSTREAM.ROUTE.
pub(super) fn routes() -> Vec<CompletionCandidate> {
    from_routes(|upstream, route| format!("{}.{}", upstream.connection.name, route.name))
}

/// The paths of the routes of the configuration, as an app asks for them.
pub(super) fn paths() -> Vec<CompletionCandidate> {
    from_routes(|upstream, route| format!("{}{}", upstream.mount, route.path))
}

/// The methods of RFC 9110 section 9 that apps use, and PATCH (RFC 5789).
pub(super) fn methods() -> Vec<CompletionCandidate> {
    candidates(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
}

/// The keys of the configuration.
pub(super) fn keys() -> Vec<CompletionCandidate> {
    candidates(schema::keys().into_iter().map(|key| key.path))
}

fn candidates(values: impl IntoIterator<Item = impl Into<OsString>>) -> Vec<CompletionCandidate> {
    values.into_iter().map(CompletionCandidate::new).collect()
}

fn from_routes(
    name: impl Fn(&UpstreamSettings, &RouteSettings) -> String,
) -> Vec<CompletionCandidate> {
    from_config(|config| {
        let upstreams = config.proxy.upstreams.iter();
        let named = upstreams.flat_map(|upstream| {
            upstream.routes.iter().map(|route| name(upstream, route)).collect::<Vec<_>>()
        });
        named.collect()
    })
}

/// The names that `names` finds in the configuration. Without a configuration, or with a wrong one, there
/// are no candidates: `check` reports its problems.
fn from_config(names: impl FnOnce(&Config) -> Vec<String>) -> Vec<CompletionCandidate> {
    let loaded = named_file().or_else(config::find_file).map(|file| config::load(&file));
    loaded.and_then(Result::ok).map_or_else(Vec::new, |loaded| candidates(names(&loaded.config)))
}

/// The file that the command line to be completed names with `--config`, or the environment. The engine
/// gives the values of other arguments to no one, so this looks at the words themselves.
fn named_file() -> Option<PathBuf> {
    let words: Vec<_> = std::env::args_os().collect();
    let after = words.windows(2).find(|pair| pair[0] == "--config" || pair[0] == "-c");
    let inside = words.iter().find_map(|word| word.to_str()?.strip_prefix("--config="));
    let named = after.map(|pair| pair[1].clone()).or_else(|| inside.map(Into::into));
    named.or_else(|| std::env::var_os("BEARER_PROXY_CONFIG")).map(PathBuf::from)
}
