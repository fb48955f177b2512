//! The limit of open files against what the settings may use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::admin::report::OpenFiles;
use crate::config::Config;
use crate::listen::descriptors::{self, RESERVED};

/// Descriptors beside connections of apps and to upstreams: admin connections, listeners, the runtime, the
/// log, token calls, and files that are read.
const OTHERS: usize = 96 + RESERVED;

/// The descriptors that the settings may use. Clones share it.
#[derive(Clone, Default)]
pub(super) struct OpenFilesNeed(Arc<AtomicU64>);

impl OpenFilesNeed {
    /// Takes the need of a configuration, and warns if the limit is below it.
    pub(super) fn check(&self, config: &Config) {
        let needed = need(config);
        self.0.store(needed, Ordering::Relaxed);
        if let Some(limit) = descriptors::limit().filter(|limit| *limit < needed) {
            tracing::warn!(
                limit,
                needed,
                "the limit of open files is below what server.max_connections and max_connections of the \
                 upstreams may need; raise it (LimitNOFILE of systemd, ulimit -n), or lower them"
            );
        }
    }

    /// The need, the limit, and what is open now.
    pub(super) fn report(&self) -> OpenFiles {
        OpenFiles {
            open: descriptors::open(),
            limit: descriptors::limit(),
            needed: self.0.load(Ordering::Relaxed),
        }
    }
}

fn need(config: &Config) -> u64 {
    let upstreams = config.proxy.upstreams.iter();
    let upstreams: usize = upstreams.map(|upstream| upstream.connection.max_connections).sum();
    let all = config.connections.max_connections.saturating_add(upstreams).saturating_add(OTHERS);
    u64::try_from(all).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_need_is_that_of_apps_and_upstreams() {
        let text = "version = 1\n[server]\nmax_connections = 100\n[credentials.a]\npreset = \"sqr\"\n\
                    client_id.env = \"A\"\nclient_secret.env = \"B\"\n[upstreams.a]\n\
                    url = \"https://a.example\"\ncredential = \"a\"\nmax_connections = 30\n\
                    routes = [{ name = \"a\", path = \"/**\", methods = [\"GET\"] }]\n";
        let loaded = crate::config::parse(text, Path::new("a.toml"), &|_| None).unwrap();
        assert_eq!(need(&loaded.config), 130 + OTHERS as u64);
    }
}
