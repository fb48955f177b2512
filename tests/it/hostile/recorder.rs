//! An upstream that is sockets and a strict parser of its own: it writes down what it was sent,
//! byte for byte, and answers as it is told, however wrong that is.

#![allow(dead_code, reason = "each table uses its part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use crate::support::soon;

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which connection it came on, from 1.
    pub connection: usize,
    /// Which request of that connection it is, from 1.
    pub nth: usize,
    /// The head with the empty line that ends it.
    pub head: String,
    /// The body without its framing, as far as it came.
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub whole: bool,
}

impl Seen {
    /// The request line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The path in the request line.
    pub fn path(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    /// All values of a header, in any case.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
            .collect()
    }
}

/// What is done with a request, once it is there if nothing else is said.
#[derive(Debug, Clone)]
pub enum Act {
    /// These bytes, and the connection goes on.
    Answer(Vec<u8>),
    /// These bytes, and a FIN.
    Last(Vec<u8>),
    /// These bytes, and a reset.
    Reset(Vec<u8>),
    /// These bytes, and then nothing; the connection stays open until the other side closes it.
    Hold(Vec<u8>),
    /// These bytes at once, before the body is read; then the body is read.
    Early(Vec<u8>),
    /// These bytes at once, before the body is read, and a reset.
    EarlyReset(Vec<u8>),
    /// These bytes, once told.
    When(Arc<Notify>, Vec<u8>),
}

/// Called once for each request, when its head is there.
type Script = dyn Fn(&Seen) -> Act + Send + Sync;

/// The upstream.
pub struct Recorder {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<Arc<Script>>,
    seen: watch::Sender<Vec<Seen>>,
    closed: watch::Sender<Vec<usize>>,
}

/// An answer with these words.
pub fn ok(body: &str) -> Act {
    Act::Answer(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into())
}

impl Recorder {
    /// Listens on a free port; every request is answered 200 until [`play`](Self::play) says else.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let script: Arc<Script> = Arc::new(|_| ok("ok"));
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            seen: watch::Sender::new(Vec::new()),
            closed: watch::Sender::new(Vec::new()),
        });
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                connection += 1;
                stream.set_nodelay(true).unwrap();
                let shared = Arc::clone(&accepting);
                tokio::spawn(async move {
                    let _ended = converse(stream, connection, &shared).await;
                    shared.closed.send_modify(|all| all.push(connection));
                });
            }
        });
        Self { addr, shared }
    }

    /// How requests are answered from now on; their heads decide, the script is asked once for each.
    pub fn play(&self, script: impl Fn(&Seen) -> Act + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    /// All requests so far; one whose body did not come whole is there once its connection ended.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    /// How many requests arrived so far.
    pub fn count(&self) -> usize {
        self.shared.seen.borrow().len()
    }

    /// How many requests arrived whole so far.
    pub fn whole(&self) -> usize {
        self.shared.seen.borrow().iter().filter(|seen| seen.whole).count()
    }

    /// Waits until this many requests have arrived, and gives back the last of them.
    pub async fn wait(&self, count: usize) -> Seen {
        let mut seen = self.shared.seen.subscribe();
        let enough = seen.wait_for(|all| all.len() >= count);
        soon(enough).await.unwrap()[count - 1].clone()
    }

    /// Waits until a connection has ended.
    pub async fn wait_closed(&self, connection: usize) {
        let mut closed = self.shared.closed.subscribe();
        let _ended = soon(closed.wait_for(|all| all.contains(&connection))).await.unwrap();
    }
}

/// Ends when the other side is gone, or what it sends is no HTTP.
async fn converse(mut stream: TcpStream, connection: usize, shared: &Shared) -> Option<()> {
    let mut buffer = Vec::new();
    for nth in 1.. {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            fill(&mut stream, &mut buffer).await?;
        };
        let head: Vec<u8> = buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut seen = Seen { connection, nth, head, body: Vec::new(), whole: false };
        let script = Arc::clone(&*shared.script.lock().unwrap());
        let act = script(&seen);
        if let Act::Early(bytes) | Act::EarlyReset(bytes) = &act {
            stream.write_all(bytes).await.ok()?;
        }
        if matches!(act, Act::EarlyReset(_)) {
            shared.seen.send_modify(|all| all.push(seen));
            reset(&stream);
            return None;
        }
        seen.whole = body(&mut stream, &mut buffer, &mut seen).await.is_some();
        let whole = seen.whole;
        shared.seen.send_modify(|all| all.push(seen));
        if !whole {
            return None;
        }
        match act {
            Act::Early(_) | Act::EarlyReset(_) => {}
            Act::When(told, bytes) => {
                told.notified().await;
                stream.write_all(&bytes).await.ok()?;
            }
            Act::Answer(bytes) => stream.write_all(&bytes).await.ok()?,
            Act::Last(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                stream.shutdown().await.ok()?;
                while fill(&mut stream, &mut buffer).await.is_some() {}
                return None;
            }
            Act::Reset(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                reset(&stream);
                return None;
            }
            Act::Hold(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                while fill(&mut stream, &mut buffer).await.is_some() {}
                return None;
            }
        }
    }
    None
}

fn reset(stream: &TcpStream) {
    stream.set_zero_linger().unwrap();
}

/// Reads a body; `None` where the connection ends before it does. Two ways to read it are a panic,
/// and so a failed test.
async fn body(stream: &mut TcpStream, buffer: &mut Vec<u8>, seen: &mut Seen) -> Option<()> {
    let lengths = seen.header("content-length").join("|");
    let codings = seen.header("transfer-encoding").join("|");
    match (lengths.as_str(), codings.as_str()) {
        ("", "") => Some(()),
        (length, "") => {
            let length: usize = length.parse().expect("one plain Content-Length");
            while seen.body.len() < length {
                take(stream, buffer, &mut seen.body, length).await?;
            }
            Some(())
        }
        ("", "chunked") => chunks(stream, buffer, seen).await,
        odd => panic!("framing that can be read in two ways: {odd:?}"),
    }
}

async fn take(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    into: &mut Vec<u8>,
    length: usize,
) -> Option<()> {
    if buffer.is_empty() {
        fill(stream, buffer).await?;
    }
    let part = buffer.len().min(length - into.len());
    into.extend(buffer.drain(..part));
    Some(())
}

async fn chunks(stream: &mut TcpStream, buffer: &mut Vec<u8>, seen: &mut Seen) -> Option<()> {
    loop {
        let size = line(stream, buffer).await?;
        let size = usize::from_str_radix(&size, 16).expect("a plain chunk size");
        let length = seen.body.len() + size;
        while seen.body.len() < length {
            take(stream, buffer, &mut seen.body, length).await?;
        }
        if size == 0 {
            loop {
                let trailer = line(stream, buffer).await?;
                if trailer.is_empty() {
                    return Some(());
                }
                seen.head += &format!("trailer {trailer}\r\n");
            }
        }
        assert_eq!(line(stream, buffer).await?, "", "a chunk ends with its line");
    }
}

async fn line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = buffer.windows(2).position(|two| two == b"\r\n") {
            let line: Vec<u8> = buffer.drain(..at + 2).take(at).collect();
            return Some(String::from_utf8_lossy(&line).into_owned());
        }
        fill(stream, buffer).await?;
    }
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    stream.read_buf(buffer).await.ok().filter(|count| *count > 0).map(drop)
}
