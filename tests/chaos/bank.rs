//! Banks that are sockets: they count what arrives, look at its token, and fail as the dice say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::World;
use super::fault::Fault;

/// A token server that is not always there: `/NAME` issues tokens that tell their bank and scope, and
/// live for a few seconds.
pub async fn tokens(seed: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut number = 0;
        let mut dice = fastrand::Rng::with_seed(seed);
        while let Ok((mut stream, _)) = listener.accept().await {
            number += 1;
            let mood = dice.u32(0..10);
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                let Some(head) = head(&mut stream, &mut buffer).await else { return };
                let Some(form) = body(&mut stream, &mut buffer, &head).await else { return };
                let bank = head.split(['/', ' ']).nth(2).unwrap_or_default();
                let form = String::from_utf8_lossy(&form).into_owned();
                let scope = form.split("scope=").nth(1).unwrap_or_default();
                let scope = scope.split('&').next().unwrap_or_default();
                let json = match mood {
                    0 => return,
                    1 => r#"{"access_token":"half"#.to_owned(),
                    _ => format!(
                        r#"{{"access_token":"{bank}-{scope}-{number}","token_type":"bearer","expires_in":4}}"#
                    ),
                };
                let status = if mood == 2 { "503 Not now" } else { "200 OK" };
                let length = json.len();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
                let _gone = stream.write_all(format!("{head}{json}").as_bytes()).await;
            });
        }
    });
    addr
}

/// A bank of this name.
pub async fn start(name: &'static str, world: Arc<World>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let world = Arc::clone(&world);
            tokio::spawn(async move { converse(stream, name, addr, &world).await });
        }
    });
    addr
}

async fn converse(
    mut stream: TcpStream,
    name: &str,
    addr: SocketAddr,
    world: &World,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let head = head(&mut stream, &mut buffer).await?;
        let id = arrived(&head, name, addr, world)?;
        let arrival = world.arrived[id].fetch_add(1, Relaxed) + 1;
        if head.starts_with("POST") && arrival > 1 {
            world.wrong(format!("{id}: a POST arrived {arrival} times"));
        }
        let fault = Fault::drawn(world.seed, id, arrival);
        if fault == (Fault::Ended { early: true, reset: true }) {
            stream.set_zero_linger().unwrap();
        }
        if matches!(fault, Fault::Ended { early: true, .. }) {
            return None;
        }
        let early = matches!(fault, Fault::Early | Fault::EarlyReset);
        if early {
            stream.write_all(&whole(200, "", id)).await.ok()?;
        }
        if fault == Fault::EarlyReset {
            stream.set_zero_linger().unwrap();
            return None;
        }
        body(&mut stream, &mut buffer, &head).await?;
        if !early {
            act(&mut stream, fault, id).await?;
        }
    }
}

/// Looks at the head of a request: what it asks for, and that its token is for just that.
fn arrived(head: &str, name: &str, addr: SocketAddr, world: &World) -> Option<usize> {
    let mut words = head.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let (_, rest) = path.split_once('/')?;
    let (scope, id) = rest.split_once('/')?;
    let tokens: Vec<_> = fields(head, "authorization").collect();
    let ours = tokens.len() == 1 && tokens[0].starts_with(&format!("Bearer {name}-{scope}-"));
    let host: Vec<_> = fields(head, "host").collect();
    let sound = matches!((method, scope), ("GET", "read") | ("POST", "pay"));
    if !ours || host != [addr.to_string().as_str()] || !sound {
        world.wrong(format!("at bank {name}: {head}"));
    }
    id.parse().ok()
}

/// What is done once a request is there; `None` ends the connection.
async fn act(stream: &mut TcpStream, fault: Fault, id: usize) -> Option<()> {
    let ok = whole(200, "", id);
    let bytes = match fault {
        Fault::None | Fault::Early | Fault::EarlyReset => ok,
        Fault::Slow => {
            tokio::time::sleep(Duration::from_millis(3)).await;
            ok
        }
        Fault::Chunked => chunked(id),
        Fault::Informed => [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(20), ok].concat(),
        Fault::Poisoned => [ok, whole(200, "", usize::MAX)].concat(),
        Fault::Closing { announced: true } => whole(200, "Connection: close\r\n", id),
        Fault::Closing { announced: false } => ok,
        Fault::Failure => whole(503, "", id),
        Fault::Challenge => whole(401, "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n", id),
        Fault::Scope => whole(403, "WWW-Authenticate: Bearer error=\"insufficient_scope\"\r\n", id),
        Fault::Half { chunked: true, .. } => half(chunked(id)),
        Fault::Half { .. } | Fault::Stalled => half(ok),
        Fault::Ended { .. } | Fault::Silence => Vec::new(),
        Fault::HalfHead => b"HTTP/1.1 200 OK\r\nContent-Le".into(),
        Fault::Garbage => b"\x15\x03\x01\x00\x02\x02\x16 not at all\r\n\r\n".into(),
        Fault::Ambiguous => {
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .into()
        }
        Fault::Upgrade => b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".into(),
        Fault::Headers => {
            let many = "X-Many: y\r\n".repeat(257);
            format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n").into()
        }
    };
    stream.write_all(&bytes).await.ok()?;
    match fault {
        Fault::Half { reset: true, .. } | Fault::Ended { reset: true, .. } => {
            stream.set_zero_linger().unwrap();
            None
        }
        Fault::Half { .. } | Fault::Ended { .. } | Fault::HalfHead | Fault::Closing { .. } => None,
        // The other side has to end it.
        Fault::Stalled | Fault::Silence => {
            while stream.read_u8().await.is_ok() {}
            None
        }
        _ => Some(()),
    }
}

/// The words that tell whose answer it is.
fn words(id: usize) -> String {
    format!("id:{id}:{}", "x".repeat(id % 997))
}

fn whole(status: u16, fields: &str, id: usize) -> Vec<u8> {
    let body = words(id);
    let length = body.len();
    format!("HTTP/1.1 {status} Told\r\n{fields}Content-Length: {length}\r\n\r\n{body}").into()
}

fn chunked(id: usize) -> Vec<u8> {
    let body = words(id);
    let (first, rest) = body.split_at(body.len() / 2);
    let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    format!("{head}{}{}0\r\n\r\n", chunk(first), chunk(rest)).into()
}

/// An answer without its last byte.
fn half(mut answer: Vec<u8>) -> Vec<u8> {
    answer.pop();
    answer
}

async fn head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..at + 4).collect();
            return String::from_utf8(head).ok();
        }
        stream.read_buf(buffer).await.ok().filter(|count| *count > 0)?;
    }
}

/// Reads a body, and not a byte of what comes after it.
async fn body(stream: &mut TcpStream, buffer: &mut Vec<u8>, head: &str) -> Option<Vec<u8>> {
    const LAST: &[u8] = b"0\r\n\r\n";
    let chunked = fields(head, "transfer-encoding").next().is_some();
    let length = fields(head, "content-length").next().map_or(Some(0), |text| text.parse().ok())?;
    loop {
        let end = match chunked {
            true => {
                buffer.windows(LAST.len()).position(|some| some == LAST).map(|at| at + LAST.len())
            }
            false => Some(length),
        };
        if let Some(end) = end.filter(|end| buffer.len() >= *end) {
            return Some(buffer.drain(..end).collect());
        }
        stream.read_buf(buffer).await.ok().filter(|count| *count > 0)?;
    }
}

fn fields<'a>(head: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let all = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    all.filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
