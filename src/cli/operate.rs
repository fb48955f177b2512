//! `status`, `wait` and `healthcheck`: questions to a running instance, over its admin listener.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::args::{At, OutputFormat, Status, Wait};
use super::exit::Exit;
use super::output::{errln, out, outln};
use super::setup::runtime;
use crate::admin::settings::AdminSettings;
use crate::config;
use crate::listen::settings::Listen;

/// Time for one question.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;
/// Pause between two questions of `wait`.
const PAUSE: Duration = Duration::from_millis(100);

/// Shows the tokens of a running instance.
pub fn status(path: Option<&Path>, flags: &Status) -> anyhow::Result<Exit> {
    let address = admin_address(path, &flags.at, Page::Control);
    match ask(&address, "/status") {
        Ok((200, body)) if flags.output == OutputFormat::Json => outln!("{}", body.trim_end())?,
        Ok((200, body)) => {
            let status = serde_json::from_str(&body).context("/status is no JSON")?;
            out!("{}", summary(&address, &status))?;
        }
        Ok((code, body)) => {
            errln!("error: {address} answers /status with {code}: {}", body.trim_end());
            return Ok(Exit::Failed);
        }
        Err(error) => return Ok(unreachable(&address, &error)),
    }
    Ok(Exit::Done)
}

/// The page `/status` for a person: one line for the instance, one for each token.
fn summary(address: &str, status: &Value) -> String {
    let flag = |name: &str| status[name].as_bool().unwrap_or_default();
    let condition = match (flag("draining"), flag("ready")) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let version = status["version"].as_str().unwrap_or("of an unknown version");
    let mut text = format!("bearer-proxy {version} at {address}: {condition}\n");
    for token in status["tokens"].as_array().into_iter().flatten() {
        text += &token_line(token);
    }
    text
}

/// One token: whose, with which scopes, and how it stands.
fn token_line(token: &Value) -> String {
    let word = |name: &str| token[name].as_str();
    let scopes: Vec<&str> =
        token["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let scopes = if scopes.is_empty() { "(no scopes)".to_owned() } else { scopes.join(" ") };
    let mut line = format!("  {}  {scopes}  ", word("credential").unwrap_or("?"));
    line += match token["usable"].as_bool() {
        Some(true) => "usable",
        _ => "NOT USABLE",
    };
    let facts =
        [("until", "expires"), ("renewal", "refresh_due"), ("failing since", "failing_since")];
    for (what, name) in facts {
        line += &word(name).map(|value| format!(", {what} {value}")).unwrap_or_default();
    }
    line += &word("last_error").map(|error| format!(" ({error})")).unwrap_or_default();
    line + &oddities(token) + "\n"
}

/// What is said of a token only where it is so.
fn oddities(token: &Value) -> String {
    let mut text = String::new();
    for (flag, meaning) in
        [("lazy", "lazy"), ("contended", "contended: another instance revokes it")]
    {
        if token[flag] == true {
            text += &format!(", {meaning}");
        }
    }
    for scope in token["missing_scopes"].as_array().into_iter().flatten().filter_map(Value::as_str)
    {
        text += &format!(", without {scope}");
    }
    text += &token["budget_left"]
        .as_u64()
        .map(|left| format!(", {left} calls left"))
        .unwrap_or_default();
    text
}

/// Succeeds if a running instance is alive.
pub fn healthcheck(path: Option<&Path>, at: &At) -> anyhow::Result<Exit> {
    let address = admin_address(path, at, Page::Probe);
    match ask(&address, "/livez") {
        Ok((200, _)) => Ok(Exit::Done),
        Ok((status, _)) => {
            errln!("error: {address} answers /livez with {status}");
            Ok(Exit::Failed)
        }
        Err(error) => Ok(unreachable(&address, &error)),
    }
}

/// Waits until a running instance is ready.
pub fn wait(path: Option<&Path>, flags: &Wait) -> anyhow::Result<Exit> {
    let address = admin_address(path, &flags.at, Page::Probe);
    let runtime = runtime()?;
    let deadline = Instant::now() + flags.timeout;
    loop {
        let answer = ask(&address, "/readyz");
        if matches!(answer, Ok((200, _))) {
            return Ok(Exit::Done);
        }
        if Instant::now() + PAUSE > deadline {
            match answer {
                Ok((_, body)) => errln!("error: {address} is not ready: {}", body.trim_end()),
                Err(error) => errln!("error: {address} cannot be reached: {error:#}"),
            }
            return Ok(Exit::Unreachable);
        }
        runtime.block_on(async { tokio::time::sleep(PAUSE).await });
    }
}

fn unreachable(address: &str, error: &anyhow::Error) -> Exit {
    errln!(
        "error: no running instance answers at {address}: {error:#}\n  \
         is it running? its log names the admin listener; ask another one with --admin HOST:PORT or unix:PATH\n  \
         does it run with another file? name it with --config; in a container set BEARER_PROXY_CONFIG, which all verbs read"
    );
    Exit::Unreachable
}

/// The named address, the configuration's, or the default one: where the page is shown.
fn admin_address(path: Option<&Path>, at: &At, page: Page) -> String {
    if let Some(address) = &at.admin {
        return address.clone();
    }
    let configured = path
        .map(Path::to_owned)
        .or_else(config::find_file)
        .and_then(|file| config::load(&file).ok());
    configured
        .and_then(|loaded| address_of(&loaded.config.admin, page))
        .unwrap_or_else(|| "localhost:6751".into())
}

/// The admin address where a page is shown; of several, one that only this machine reaches, since
/// others do not show all. `None` where there is none.
pub(super) fn address_of(admin: &AdminSettings, page: Page) -> Option<String> {
    let (first, second) = match page {
        Page::Probe => (&admin.listen, &admin.control),
        Page::Control => (&admin.control, &admin.listen),
    };
    let listeners = if first.is_empty() { second } else { first };
    let local = listeners.iter().find(|listen| listen.is_loopback());
    Some(match local.or(listeners.first())? {
        Listen::Tcp(address) if address.ip().is_unspecified() => {
            format!("localhost:{}", address.port())
        }
        Listen::All(port) => format!("localhost:{port}"),
        listen => listen.to_string(),
    })
}

/// Which of the two admin listeners shows a page.
#[derive(Debug, Clone, Copy)]
pub(super) enum Page {
    Probe,
    Control,
}

/// One GET to the admin listener: its status and body.
pub(super) fn ask(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    match address.strip_prefix("unix:") {
        Some(file) => {
            let stream = UnixStream::connect(file)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            ask_over(stream, path)
        }
        None => {
            let addresses = address.to_socket_addrs().context("the address cannot be resolved")?;
            let stream = connect(addresses)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            ask_over(stream, path)
        }
    }
}

fn ask_over(mut stream: impl Read + Write, path: &str) -> anyhow::Result<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.context("the answer is no HTTP")?, body.to_owned()))
}

fn connect(addresses: impl Iterator<Item = std::net::SocketAddr>) -> anyhow::Result<TcpStream> {
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error.into()),
        None => bail!("the name has no address"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_odd_about_a_token_is_said() {
        let token = json!({ "credential": "bank", "scopes": ["a"], "usable": true, "lazy": false,
            "contended": true, "missing_scopes": ["b"], "budget_left": 3 });
        let line = token_line(&token);
        let odd = "usable, contended: another instance revokes it, without b, 3 calls left\n";
        assert!(line.ends_with(odd), "{line}");
        assert_eq!(oddities(&json!({ "budget_left": null })), "");
    }
}
