//! `run`: load, build, run until told to stop.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;

use super::exit::Exit;
use super::output::err;
use super::setup::{colors, load, program, quoted, runtime};
use crate::app::App;
use crate::config::Config;
use crate::proxy::policy::settings::UpstreamSettings;
use crate::telemetry::log::{self, LogFormat};

/// Serves until a signal stops it.
pub(super) fn run(path: Option<&Path>, command: &[OsString]) -> anyhow::Result<Exit> {
    let config = load(path)?;
    let log = log::init(&config.log, colors())?;
    #[cfg(unix)]
    all_descriptors();
    // Programs that read the log get nothing else.
    let for_people = config.log.format != LogFormat::Json && std::io::stderr().is_terminal();
    let banner = for_people.then(|| Banner::new(&config));
    runtime()?.block_on(async {
        let app = match App::build(config).await {
            Ok(app) => app,
            Err(error) => {
                tracing::error!(%error, "cannot start");
                return Ok(if error.is_address() { Exit::Address } else { Exit::Config });
            }
        };
        if let Some(banner) = banner {
            err!("{}", banner.text(&app.addresses(), &app.admin_addresses()));
        }
        Ok(app.run_beside(&log, command).await.into())
    })
}

/// The lines before the log at a terminal: listeners, upstreams, and a command to try.
struct Banner {
    file: String,
    /// Mounts and where they lead.
    upstreams: String,
    /// A method and path that a route claims.
    example: Option<String>,
}

impl Banner {
    fn new(config: &Config) -> Self {
        let upstreams = &config.proxy.upstreams;
        let width = upstreams.iter().map(|upstream| upstream.mount.len()).max().unwrap_or_default();
        let line = |upstream: &UpstreamSettings| {
            let mount = if upstream.mount.is_empty() { "/" } else { &upstream.mount };
            let (origin, base_path) = (&upstream.connection.origin, &upstream.base_path);
            format!("  {mount:width$}  {origin}{base_path}\n")
        };
        let example = upstreams.iter().find_map(|upstream| {
            let route = upstream.routes.first()?;
            let path = example_path(&route.path.to_string());
            Some(format!("{} {}{path}", route.methods.first()?, upstream.mount))
        });
        let file = quoted(&config.path);
        Self { file, upstreams: upstreams.iter().map(line).collect(), example }
    }

    fn text(&self, proxy: &[Vec<SocketAddr>], admin: &[SocketAddr]) -> String {
        let urls = |addresses: &mut dyn Iterator<Item = &SocketAddr>| {
            addresses.map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let (version, program) = (env!("CARGO_PKG_VERSION"), quoted(&program()));
        let (proxy, admin) = (urls(&mut proxy.iter().flatten()), urls(&mut admin.iter()));
        let mut text = format!(
            "bearer-proxy {version} with {}\n  proxy  {proxy}\n  admin  {admin}\n{}",
            self.file, self.upstreams
        );
        if let Some(example) = &self.example {
            text += &format!("Which route a request takes:  {program} explain {example}\n");
        }
        text + "Ctrl-C stops it.\n\n"
    }
}

/// A path that a pattern matches, without the characters that mean something to a shell: `42` in each
/// place that may hold any segment.
fn example_path(pattern: &str) -> String {
    let example = |segment: &str| match segment {
        "**" => "42".to_owned(),
        segment if segment.starts_with('{') => "42".to_owned(),
        segment => segment.to_owned(),
    };
    pattern.split('/').map(example).collect::<Vec<_>>().join("/")
}

/// Most shells allow few open files at first, for programs that use select(2), and more on demand.
#[cfg(unix)]
fn all_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = rustix::process::Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}
