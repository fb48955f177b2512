//! The files of `deploy/` fit the program: their configurations load and mean what the place needs,
//! and versions that are written twice are the same.

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

#[test]
fn the_classic_sidecar_outlives_its_app_and_ends_within_the_grace_of_its_pod() {
    let file = "deploy/kubernetes/classic.yaml";
    let config = configuration(file, "bearer-proxy.toml");
    assert!(
        config.shutdown.lame_duck.as_secs() >= 10,
        "the app and the proxy get SIGTERM together"
    );
    let grace = read(file)
        .lines()
        .find_map(|line| line.trim().strip_prefix("terminationGracePeriodSeconds: ")?.parse().ok());
    let needed = (config.shutdown.lame_duck + config.shutdown.drain_timeout).as_secs() + 1;
    assert!(grace.is_some_and(|grace: u64| grace > needed), "{grace:?} for {needed} s");
}

#[test]
fn the_container_on_a_network_of_its_own_is_reached_there() {
    let config = configuration("deploy/container/compose.yaml", "content");
    assert!(config.proxy.listeners.iter().all(|listener| !listener.listen.is_loopback()));
}

#[test]
fn the_stop_grace_of_the_container_fits_the_drain() {
    let config = configuration("deploy/container/compose.yaml", "content");
    let grace = read("deploy/container/compose.yaml").lines().find_map(|line| {
        line.trim().strip_prefix("stop_grace_period: ")?.strip_suffix('s')?.parse().ok()
    });
    let needed = (config.shutdown.lame_duck + config.shutdown.drain_timeout).as_secs() + 1;
    assert!(grace.is_some_and(|grace: u64| grace > needed), "{grace:?} for {needed} s");
}

#[test]
fn versions_are_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    let toolchain = read("rust-toolchain.toml");
    let rust = toolchain.split('"').nth(1).unwrap();
    let check = |file: &str, expected: String| {
        assert!(read(file).contains(&expected), "{file} lacks {expected:?}");
    };
    check("deploy/container/Dockerfile", format!("ARG VERSION={version}\n"));
    check("deploy/container/Dockerfile", format!(" rust:{rust}-bookworm@sha256:"));
    check("deploy/container/Dockerfile", format!("RUSTUP_TOOLCHAIN={rust}\n"));
    for file in ["sidecar", "classic", "job", "cronjob", "component/sidecar"] {
        let image = format!("image: registry.example/bearer-proxy:{version}\n");
        check(&format!("deploy/kubernetes/{file}.yaml"), image);
    }
    check("deploy/kubernetes/example/kustomization.yaml", format!("newTag: {version}\n"));
    let chart = "deploy/helm/bearer-proxy/Chart.yaml";
    check(chart, format!("\nversion: {version}\nappVersion: \"{version}\"\n"));
    check("deploy/helm/examples/erp/Chart.yaml", format!("    version: {version}\n"));
}

#[test]
fn the_image_has_all_features_but_the_fake_banks() {
    let manifest = read("Cargo.toml");
    let features = manifest.split("\n[features]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let names = features.lines().filter_map(|line| line.split_once(" = [")).map(|(name, _)| name);
    // `share` is implied by the stores.
    let wanted: Vec<_> =
        names.filter(|name| !["default", "demo", "share"].contains(name)).collect();
    let flags = format!("--no-default-features --features {}", wanted.join(","));
    assert!(read("deploy/container/build.sh").contains(&flags), "{flags}");
}

#[test]
fn the_template_unit_is_the_unit_with_the_name_of_its_instance() {
    let unit = |text: String| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(ToOwned::to_owned).collect()
    };
    let single = read("deploy/systemd/bearer-proxy.service")
        .replace("(bearer-proxy)", "(bearer-proxy, %i)")
        .replace("/etc/bearer-proxy/bearer-proxy.toml", "/etc/bearer-proxy/%i.toml")
        .replace("RuntimeDirectory=bearer-proxy", "RuntimeDirectory=bearer-proxy/%i");
    assert_eq!(unit(read("deploy/systemd/bearer-proxy@.service")), unit(single));
}

/// Words of a text that begin like names of our metrics.
fn metric_names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let is_ours = |word: &&str| word.starts_with("bearer_proxy_") || word.starts_with("process_");
    // A histogram has its buckets under a name of their own.
    words.filter(is_ours).map(|name| name.strip_suffix("_bucket").unwrap_or(name))
}

#[test]
fn alerts_and_dashboard_know_the_metrics() {
    let reference = read("docs/src/reference/metrics.md");
    let known: Vec<_> = metric_names(&reference).collect();
    for file in ["deploy/prometheus/alerts.yaml", "deploy/grafana/bearer-proxy.json"] {
        let text = read(file);
        let names: Vec<_> = metric_names(&text).collect();
        assert!(names.len() > 20, "{file}: {names:?}");
        let unknown: Vec<_> = names.iter().filter(|name| !known.contains(name)).collect();
        assert!(unknown.is_empty(), "{file} asks for metrics that are not exported: {unknown:?}");
    }
}

#[test]
fn each_alert_is_tested_and_explained() {
    let (alerts, tests) =
        (read("deploy/prometheus/alerts.yaml"), read("deploy/prometheus/alerts_test.yaml"));
    let guide = read("docs/src/guide/operating.md");
    let names = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: Vec<_> = names.collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let mut told = tests.lines().filter(|line| line.contains(&format!("alertname: {name}")));
        assert!(told.any(|line| line.ends_with(name)), "no test in which {name} fires");
        let mut told = tests.lines().filter(|line| line.contains(&format!("alertname: {name},")));
        assert!(
            told.any(|line| line.contains("exp_alerts: []")),
            "no test in which {name} is quiet"
        );
        assert!(
            guide.contains(&format!("| `{name}` |")),
            "docs/src/guide/operating.md lacks {name}"
        );
    }
    // The first command to type, as text in backticks.
    for runbook in alerts.lines().filter(|line| line.trim().starts_with("runbook: ")) {
        assert!(runbook.contains('`'), "names no command: {runbook}");
    }
}
