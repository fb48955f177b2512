//! `status`, `wait` and `healthcheck`: questions to a running instance, over its admin listener.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::args::{At, Wait};
use super::exit::Exit;
use super::runtime;
use crate::config;
use crate::server::settings::Listen;

/// Time for one question.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest answer that is read.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;
/// Pause between two questions of `wait`.
const PAUSE: Duration = Duration::from_millis(100);

/// Shows the tokens of a running instance.
pub fn status(path: Option<&Path>, at: &At) -> anyhow::Result<Exit> {
    let address = admin_address(path, at);
    match ask(&address, "/status") {
        Ok((_, body)) => {
            println!("{}", body.trim_end());
            Ok(Exit::Done)
        }
        Err(error) => Ok(unreachable(&address, &error)),
    }
}

/// Succeeds if a running instance is alive.
pub fn healthcheck(path: Option<&Path>, at: &At) -> anyhow::Result<Exit> {
    let address = admin_address(path, at);
    match ask(&address, "/livez") {
        Ok((200, _)) => Ok(Exit::Done),
        Ok((status, _)) => {
            eprintln!("error: {address} answers /livez with {status}");
            Ok(Exit::Failed)
        }
        Err(error) => Ok(unreachable(&address, &error)),
    }
}

/// Waits until a running instance is ready.
pub fn wait(path: Option<&Path>, flags: &Wait) -> anyhow::Result<Exit> {
    let address = admin_address(path, &flags.at);
    let runtime = runtime()?;
    let deadline = Instant::now() + flags.timeout;
    loop {
        let answer = ask(&address, "/readyz");
        if matches!(answer, Ok((200, _))) {
            return Ok(Exit::Done);
        }
        if Instant::now() + PAUSE > deadline {
            match answer {
                Ok((_, body)) => eprintln!("error: {address} is not ready: {}", body.trim_end()),
                Err(error) => eprintln!("error: {address} cannot be reached: {error:#}"),
            }
            return Ok(Exit::Unreachable);
        }
        runtime.block_on(tokio::time::sleep(PAUSE));
    }
}

fn unreachable(address: &str, error: &anyhow::Error) -> Exit {
    eprintln!(
        "error: no running instance answers at {address}: {error:#}\n  \
         is it running? its log names the admin listener; ask another one with --admin HOST:PORT"
    );
    Exit::Unreachable
}

/// The named address, the configuration's, or the default one.
fn admin_address(path: Option<&Path>, at: &At) -> String {
    if let Some(address) = &at.admin {
        return address.clone();
    }
    let configured = path
        .map(Path::to_owned)
        .or_else(config::find_file)
        .and_then(|file| config::load(&file).ok())
        .and_then(|loaded| loaded.config.admin.listen);
    match configured {
        Some(Listen::Tcp(address)) if address.ip().is_unspecified() => {
            format!("localhost:{}", address.port())
        }
        Some(listen) => listen.to_string(),
        None => "localhost:6751".into(),
    }
}

/// One GET to the admin listener: its status and body.
pub(super) fn ask(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let addresses = address.to_socket_addrs().context("the address cannot be resolved")?;
    let mut stream = connect(addresses)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
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
