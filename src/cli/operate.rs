//! `status`, `wait` and `healthcheck`: questions to a running instance, over its admin listener.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::args::OutputFormat;
use super::exit::Exit;
use super::output::{errln, out, outln};
use super::setup::runtime;
use crate::admin::settings::AdminSettings;
use crate::config;
use crate::listen::settings::Listen;

/// Time for one question.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Pause between two questions of `wait`.
const PAUSE: Duration = Duration::from_millis(100);

/// Shows the tokens of a running instance.
pub(super) fn status(
    path: Option<&Path>,
    admin: Option<String>,
    output: OutputFormat,
) -> anyhow::Result<Exit> {
    let address = admin_address(path, admin, Page::Control);
    match ask(&address, "/status") {
        Ok((200, body)) if output == OutputFormat::Json => outln!("{}", body.trim_end())?,
        Ok((200, body)) => {
            let status = serde_json::from_str(&body).context("/status is not JSON")?;
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

/// The page `/status` for a person: one line for the instance, for each token, for each upstream, and for
/// each request in flight, the oldest first.
fn summary(address: &str, status: &Value) -> String {
    let flag = |name: &str| status[name].as_bool().unwrap_or_default();
    let condition = match (flag("draining"), flag("ready")) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let version = status["version"].as_str().unwrap_or("of an unknown version");
    let mut text = format!("bearer-proxy {version} at {address}: {condition}\n");
    let each = |name: &str| status[name].as_array().map(Vec::as_slice).unwrap_or_default();
    each("tokens").iter().for_each(|token| text += &token_line(token));
    each("upstreams").iter().for_each(|upstream| text += &upstream_line(upstream));
    each("requests").iter().for_each(|request| text += &request_line(request));
    text
}

/// One upstream: its connections, its last answer, and what failed since.
fn upstream_line(upstream: &Value) -> String {
    let word = |name: &str| upstream[name].as_str();
    let mut line = format!(
        "  upstream {}  connections: {} open, {} idle",
        word("name").unwrap_or("?"),
        upstream["connections_open"],
        upstream["connections_idle"],
    );
    line += &word("last_success").map(|at| format!(", last answer {at}")).unwrap_or_default();
    let error = &upstream["last_error"];
    if let (Some(at), Some(detail)) = (error["at"].as_str(), error["detail"].as_str()) {
        line += &format!(", last error {at}: {detail}");
    }
    line + "\n"
}

/// One request in flight: its age, what it waits for, and its id.
fn request_line(request: &Value) -> String {
    let word = |name: &str| request[name].as_str().unwrap_or_default();
    format!(
        "  request {}  {:.1} s  {}  {} {}.{}\n",
        word("request_id"),
        request["age_s"].as_f64().unwrap_or_default(),
        word("phase"),
        word("method"),
        word("upstream"),
        word("route"),
    )
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

/// The remarks on a token that is lazy, contended, without a scope, or short of calls.
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
pub(super) fn healthcheck(path: Option<&Path>, admin: Option<String>) -> anyhow::Result<Exit> {
    let address = admin_address(path, admin, Page::Probe);
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
pub(super) fn wait(
    path: Option<&Path>,
    admin: Option<String>,
    timeout: Duration,
) -> anyhow::Result<Exit> {
    let address = admin_address(path, admin, Page::Probe);
    let deadline = Instant::now() + timeout;
    runtime()?.block_on(async {
        loop {
            let answer = get(&address, "/readyz").await;
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
            tokio::time::sleep(PAUSE).await;
        }
    })
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
fn admin_address(path: Option<&Path>, admin: Option<String>, page: Page) -> String {
    if let Some(address) = admin {
        return address;
    }
    // The file may be broken by now, and the instance runs on with what it read before.
    let configured = path
        .map(Path::to_owned)
        .or_else(config::find_file)
        .and_then(|file| config::load_admin(&file));
    configured.and_then(|admin| address_of(&admin, page)).unwrap_or_else(|| "localhost:6751".into())
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
    runtime()?.block_on(get(address, path))
}

async fn get(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let answer = async {
        match address.strip_prefix("unix:") {
            Some(file) => get_over(UnixStream::connect(file).await?, path).await,
            None => get_over(TcpStream::connect(address).await?, path).await,
        }
    };
    tokio::time::timeout(PATIENCE, answer).await.context("no answer in time")?
}

async fn get_over<S>(stream: S, path: &str) -> anyhow::Result<(u16, String)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The connection's own error is the request's error too.
    let driver = tokio::spawn(connection);
    let request = Request::get(path).header(HOST, "localhost").body(Empty::<Bytes>::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body =
        Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| anyhow!(error))?;
    driver.abort();
    Ok((head.status.as_u16(), String::from_utf8(body.to_bytes().into())?))
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
