//! Secrets from stores, played by what others wrote: moto as AWS with its signatures verified, a Key
//! Vault that Microsoft's Python client accepts, gnome-keyring on a D-Bus session of its own, OpenBao.
//!
//! `.ci/stores` installs them. Where they are not, these stories say so and pass.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
#[cfg(any(feature = "aws", feature = "azure"))]
mod fake;
#[cfg(feature = "keyring")]
mod keyring;
#[cfg(feature = "vault")]
mod openbao;
#[cfg(feature = "vault")]
mod vault;

use std::io::Write;
use std::process::{Command, Stdio};

use bearer_proxy::sandbox::{Bank, Persona};

use crate::support::{Proxy, client, soon};

/// A tool that `.ci/stores` names; said aloud where it does not.
#[allow(clippy::print_stderr, reason = "a story that is skipped says so")]
fn tool(variable: &str) -> Option<String> {
    let named = std::env::var(variable).ok();
    if named.is_none() {
        eprintln!("skipped: {variable} is not set; see .ci/stores");
    }
    named
}

/// A configuration whose client id and secret are where `id` and `secret` say.
fn config(bank: &Bank, head: &str, id: &str, secret: &str) -> String {
    format!(
        r#"version = 1
server.listen = "127.0.0.1:0"
admin.listen = "127.0.0.1:0"
log.level = "trace"
{head}
[credentials.bank]
preset = "qbank"
token_url = "{}"
client_id.{id}
client_secret.{secret}

[upstreams.bank]
url = "{}"
credential = "bank"
routes = [{{ name = "balances", path = "/v1/balances/{{id}}", methods = ["GET"], scopes = ["balances.read"] }}]
"#,
        bank.auth.token_url(),
        bank.api.base_url(),
    )
}

/// A bank with tokens of two seconds.
async fn bank() -> Bank {
    Bank::start(Persona::QBank, std::time::Duration::from_secs(2)).await.unwrap()
}

/// How a verb ended.
struct Ended {
    code: i32,
    /// Stdout, then stderr.
    said: String,
}

/// Runs a verb with nothing but these variables, and this on its stdin.
async fn verb(args: &[&str], environment: &[(&str, &str)], input: &str) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearer-proxy"));
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin").envs(environment.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let ended = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // A verb that reads nothing may have ended already.
        let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    let output = soon(ended).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    Ended { code: output.status.code().unwrap_or(-1), said: String::from_utf8(said).unwrap() }
}

/// Obtains one token in an environment, from a file with this configuration.
async fn token(config: &str, environment: &[(&str, &str)]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bearer-proxy.toml");
    std::fs::write(&file, config).unwrap();
    let home = [("HOME", dir.path().to_str().unwrap())];
    let environment = [&home, environment].concat();
    let args = ["token", "bank", "--scopes", "balances.read", "--config", file.to_str().unwrap()];
    verb(&args, &environment, "").await
}

/// The client id as a reference that any store can stand beside.
#[cfg(feature = "vault")]
fn echoed_id(bank: &Bank) -> String {
    format!("exec = [\"/bin/echo\", \"{}\"]", bank.auth.client_id())
}

/// Obtains a token with this configuration, or finds why there is none, and no secret in what is said.
#[cfg(feature = "vault")]
async fn check(config: &str, expected: Result<(), &str>) {
    let ended = token(config, &[]).await;
    match expected {
        Ok(()) => assert_eq!(ended.code, 0, "{}", ended.said),
        Err(why) => {
            assert_eq!(ended.code, 1, "{}", ended.said);
            assert!(ended.said.contains(why), "{why}\n{}", ended.said);
            assert!(!ended.said.contains("canary"), "{}", ended.said);
        }
    }
}

/// The bank takes a new secret and then only that; the proxy finds it by itself, without a failed
/// request.
async fn rotate(bank: &Bank, proxy: &Proxy, put: impl FnOnce(&str)) {
    let mut app = client(proxy.addr).await;
    assert_eq!(app.get("/v1/balances/42").await.status, 200);
    let new = "rotated-canary+/%";
    put(new);
    bank.auth.accept_secrets([new.to_owned()]);
    proxy.wait_log(|line| line.contains("client secret is accepted").then_some(())).await;
    assert_eq!(app.get("/v1/balances/42").await.status, 200);
    assert!(!proxy.log().contains("canary"), "{}", proxy.log());
}
