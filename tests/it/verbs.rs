//! The verbs a person types: what they print, where, and the exit code, as a shell sees them.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use bearer_proxy::sandbox::{Persona, Sandbox};
use tempfile::TempDir;

use crate::forwarding::sidecar;
use crate::support::{Proxy, config, soon};

/// How a verb ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the program in `dir` until it ends.
pub async fn verb(dir: &Path, args: &[&str]) -> Ended {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
    command.args(args).current_dir(dir).env_remove("BEARER_PROXY_CONFIG").env("HOME", dir);
    command.env_remove("XDG_CONFIG_HOME").stdin(std::process::Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    let Output { status, stdout, stderr } = soon(ended).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = status.code().unwrap_or(-1);
    let ended = Ended { code, stdout: text(stdout), stderr: text(stderr) };
    assert!(!ended.stderr.contains("panicked"), "{args:?}: {}", ended.stderr);
    ended
}

#[tokio::test]
async fn a_first_configuration_is_written_checked_and_explained() {
    let dir = TempDir::new().unwrap();
    let check = |args: &'static [&'static str], code, stdout, stderr| {
        let dir = dir.path().to_owned();
        async move {
            let ended = verb(&dir, args).await;
            assert_eq!(ended.code, code, "{args:?}: {}{}", ended.stdout, ended.stderr);
            assert!(ended.stdout.contains(stdout), "{args:?}: {}", ended.stdout);
            assert!(ended.stderr.contains(stderr), "{args:?}: {}", ended.stderr);
        }
    };
    check(&["check"], 78, "", "no configuration found").await;
    check(&["init", "nonsense"], 2, "", "known: rfc6749").await;
    check(&["init", "sqr"], 0, "", "").await;
    check(&["init", "sqr"], 1, "", "exists").await;
    check(&["check"], 0, "bearer-proxy.toml: ok, 1 credential", "").await;
    check(&["explain", "post", "/sqr/v1/user-status"], 0, "read:users", "").await;
    check(&["explain", "GET", "/nowhere"], 0, "404 no_route", "").await;
    check(&["explain", "GET", "/a//b"], 0, "400 bad_target", "").await;
    check(&["presets"], 0, "core-banking", "").await;
    check(&["presets", "qbank"], 0, "https://auth.qbankconnect.com/token", "").await;
    check(&["completions", "bash"], 0, "bearer-proxy", "").await;
    check(&["man"], 0, ".TH bearer-proxy 1", "").await;
    check(&["schema", "server.workers"], 0, "workers = 1    # the default", "").await;
    check(&["schema", "workers"], 2, "", "did you mean `server.workers`?").await;
    check(&["schema"], 0, "\"$schema\"", "").await;
    check(&["--help"], 0, "First steps", "").await;
    check(&["--version"], 0, env!("CARGO_PKG_VERSION"), "").await;
    check(&["frobnicate"], 2, "", "unrecognized").await;
    check(&["check", "--config", "/nowhere.toml"], 78, "", "/nowhere.toml").await;
}

#[tokio::test]
async fn a_reader_who_has_read_enough_is_no_failure() {
    let dir = TempDir::new().unwrap();
    let check = async |args: &'static [&'static str], code| {
        let (_, nobody) = std::io::pipe().unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
        command.args(args).current_dir(dir.path()).env_remove("BEARER_PROXY_CONFIG");
        command.env_remove("XDG_CONFIG_HOME").stdin(std::process::Stdio::null());
        command.stdout(nobody.try_clone().unwrap()).stderr(nobody);
        let ended = tokio::task::spawn_blocking(move || command.status().unwrap());
        assert_eq!(soon(ended).await.unwrap().code(), Some(code), "{args:?}");
    };
    check(&["init", "qbank"], 0).await;
    check(&["init", "qbank"], 1).await;
    check(&["check"], 0).await;
    check(&["check", "-o", "json"], 0).await;
    check(&["check", "--live"], 3).await;
    check(&["check", "--live", "-o", "json"], 3).await;
    check(&["check", "--config", "/nowhere.toml"], 78).await;
    check(&["explain", "GET", "/qbank/v1/balances/1"], 0).await;
    check(&["presets"], 0).await;
    check(&["presets", "qbank"], 0).await;
    check(&["completions", "zsh"], 0).await;
    check(&["man"], 0).await;
    check(&["schema"], 0).await;
    check(&["token", "nobody"], 2).await;
    check(&["token", "qbank"], 1).await;
    check(&["status", "--admin", "127.0.0.1:9"], 69).await;
    check(&["frobnicate"], 2).await;
    check(&["--help"], 0).await;
}

#[tokio::test]
async fn a_running_instance_answers_wait_status_and_healthcheck() {
    let (sandbox, proxy, _secrets) = soon(sidecar(Duration::from_secs(60))).await;
    let (dir, admin) = (TempDir::new().unwrap(), proxy.admin_addr.to_string());
    assert_eq!(verb(dir.path(), &["wait", "--admin", &admin]).await.code, 0);
    assert_eq!(verb(dir.path(), &["healthcheck", "--admin", &admin]).await.code, 0);
    let status = verb(dir.path(), &["status", "--admin", &admin]).await;
    assert_eq!(status.code, 0);
    assert!(status.stdout.contains(": ready\n"), "{}", status.stdout);
    assert!(status.stdout.contains("balances.read"), "{}", status.stdout);
    let json = verb(dir.path(), &["status", "--admin", &admin, "-o", "json"]).await.stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["ready"], true);
    for bank in sandbox.banks() {
        assert!(!status.stdout.contains(bank.auth.client_secret()));
    }
}

#[tokio::test]
async fn what_is_not_ready_or_not_there_ends_with_69() {
    let sandbox = Sandbox::start(Duration::from_secs(60)).await.unwrap();
    sandbox.bank(Persona::Sqr).auth.set_down(true);
    let secrets = TempDir::new().unwrap();
    let mut proxy = Proxy::start(&config(&sandbox, &secrets)).await;
    let (dir, admin) = (TempDir::new().unwrap(), proxy.admin_addr.to_string());
    let wait = ["wait", "--timeout", "300ms", "--admin", &admin];
    let ended = verb(dir.path(), &wait).await;
    assert_eq!(ended.code, 69, "{}", ended.stderr);
    assert!(ended.stderr.contains("not ready"), "{}", ended.stderr);
    proxy.signal(rustix::process::Signal::INT);
    soon(proxy.wait_exit()).await;
    for verb_name in ["status", "healthcheck"] {
        let ended = verb(dir.path(), &[verb_name, "--admin", &admin]).await;
        assert_eq!(ended.code, 69, "{verb_name}: {}", ended.stderr);
        assert!(ended.stderr.contains("is it running?"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn who_may_use_a_route_is_explained() {
    let dir = TempDir::new().unwrap();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/minimal.toml"));
    let check = async |clients: &str, route: &str, expected: &str| {
        let text = text.as_deref().unwrap().replace("scopes = [", &format!("{route}scopes = ["));
        std::fs::write(dir.path().join("bearer-proxy.toml"), format!("{text}\n{clients}")).unwrap();
        let ended = verb(dir.path(), &["explain", "GET", "/v1/balances/42"]).await;
        let line = ended.stdout.lines().find(|line| line.starts_with("  clients"));
        assert_eq!(line.unwrap_or_default(), expected, "{}{}", ended.stdout, ended.stderr);
    };
    let two = "[clients.erp]\nlocal_key = { header = \"X-Local-Key\", value.env = \"ERP_KEY\" }\n\
               [clients.batch]\npeer_uids = [1000]\n";
    check("", "", "").await;
    check(two, "", "  clients     erp, batch").await;
    check(two, "clients = [\"batch\"], ", "  clients     batch").await;
    check(two, "clients = \"anyone\", ", "  clients     anyone").await;
    let ended = verb(dir.path(), &["check"]).await;
    assert!(ended.stdout.contains("1 route, 2 clients"), "{}", ended.stdout);
}
