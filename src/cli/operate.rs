//! Questions to a running instance, over its admin listener; `wait` and `healthcheck`, which ask one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::exit::Exit;
use super::output::errln;
use super::setup::runtime;
use crate::admin::settings::AdminSettings;
use crate::config;
use crate::listen::settings::Listen;
use crate::task;

/// Time for one question.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest answer that is read: a bundle has all metrics and 500 lines of the log.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Pause between two questions of `wait`.
const PAUSE: Duration = Duration::from_millis(100);

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

/// Says that there is no answer, and what that may mean.
pub(super) fn unreachable(address: &str, error: &anyhow::Error) -> Exit {
    errln!(
        "error: no running instance answers at {address}: {error:#}\n  \
         is it running? its log names the admin listener; ask another one with --admin HOST:PORT or unix:PATH\n  \
         does it run with another file? name it with --config; in a container set BEARER_PROXY_CONFIG, which all verbs read"
    );
    Exit::Unreachable
}

/// The named address, the configuration's, or the default one: where the page is shown.
pub(super) fn admin_address(path: Option<&Path>, admin: Option<String>, page: Page) -> String {
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

/// One GET to the admin listener.
pub(super) async fn get(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let answer = async {
        match address.strip_prefix("unix:") {
            #[cfg(unix)]
            Some(file) => get_over(tokio::net::UnixStream::connect(file).await?, path).await,
            _ => get_over(TcpStream::connect(address).await?, path).await,
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
    let driver = task::spawn(async move { drop(connection.await) });
    let request = Request::get(path).header(HOST, "localhost").body(Empty::<Bytes>::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body =
        Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| anyhow!(error))?;
    driver.abort();
    Ok((head.status.as_u16(), String::from_utf8(body.to_bytes().into())?))
}
