//! The files of `deploy/` fit the program: their configurations load and mean what the place needs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by panicking"
)]

use std::fs;
use std::path::Path;

use bearer_proxy::config::{Config, parse};
use bearer_proxy::listen::settings::Listen;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The configuration in a YAML file: the block scalar after this key.
fn configuration(file: &str, key: &str) -> Config {
    let text = read(file);
    let mut lines = text.lines().skip_while(|line| line.trim() != format!("{key}: |"));
    let first = lines.next().unwrap_or_else(|| panic!("{file} has no {key}"));
    let indent = |line: &str| line.len() - line.trim_start().len();
    let block = lines.take_while(|line| line.is_empty() || indent(line) > indent(first));
    let block: String = block.map(|line| format!("{}\n", line.trim_start())).collect();
    match parse(&block, Path::new(file), &|name| Some(name.to_owned())) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{file}\n{problems}"),
    }
}

#[test]
fn the_sidecar_serves_its_pod_and_is_probed_over_both_families() {
    let config = configuration("deploy/kubernetes/sidecar.yaml", "bearer-proxy.toml");
    let apps: Vec<_> = config.proxy.listeners.iter().map(|listener| &listener.listen).collect();
    assert_eq!(apps, [&Listen::Localhost(6750)], "apps take 127.0.0.1 or ::1 first");
    assert_eq!(config.admin.listen, [Listen::All(6751)]);
    // Beyond loopback probes and metrics alone are shown: `status`, `check --live` and `token` need more.
    assert!(matches!(config.admin.control[..], [Listen::Unix(_)]), "{:?}", config.admin.control);
}
