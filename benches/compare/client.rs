//! One client of the load: what it writes, and how it knows that an answer has ended.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::{Body, Job};

/// How much of a body a chunk holds.
pub const CHUNK: usize = 16 * 1024;
/// How every chunked body here ends: bodies are of one letter, so that nothing else looks like it.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A connection that is opened when there is something to ask.
pub struct Client {
    address: SocketAddr,
    close: bool,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    /// One that is not connected yet; with `close` it is connected anew for each request.
    pub fn new(address: SocketAddr, close: bool) -> Self {
        Self { address, close, stream: None, buffer: Vec::with_capacity(64 * 1024) }
    }

    /// Whether the answer is a 200 that came to its end.
    pub async fn ask(&mut self, request: &[u8]) -> bool {
        let answer = self.exchange(request).await;
        if self.close || answer.is_err() {
            self.stream = None;
        }
        answer.unwrap_or(false)
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<bool> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let fresh = TcpStream::connect(self.address).await?;
                fresh.set_nodelay(true)?;
                empty.insert(fresh)
            }
        };
        stream.write_all(request).await?;
        read_answer(stream, &mut self.buffer).await
    }
}

/// Whether it is a 200, once it has been read to its end.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<bool> {
    buffer.clear();
    let end = loop {
        more(stream, buffer).await?;
        if let Some(at) = memmem::find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let good = head.starts_with("http/1.1 200");
    if head.contains("\r\ntransfer-encoding: chunked") {
        buffer.drain(..end);
        read_chunks(stream, buffer).await?;
        return Ok(good);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize =
        length.and_then(|text| text.trim().parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let mut left = length.saturating_sub(buffer.len() - end);
    while left > 0 {
        buffer.clear();
        left = left.saturating_sub(more(stream, buffer).await?);
    }
    Ok(good)
}

/// Reads on until the last chunk, keeping only what may be its beginning.
pub async fn read_chunks(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    while !buffer.ends_with(LAST_CHUNK) {
        buffer.drain(..buffer.len().saturating_sub(LAST_CHUNK.len()));
        more(stream, buffer).await?;
    }
    Ok(())
}

/// Reads what there is; an error where nothing more comes.
pub async fn more(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<usize> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}

/// A request of this job as bytes.
pub fn request(path: &str, job: &Job) -> Vec<u8> {
    let close = if job.close { "connection: close\r\n" } else { "" };
    let fields = format!("host: localhost\r\nuser-agent: load/1\r\naccept: */*\r\n{close}");
    match job.post {
        None => format!("GET {path} HTTP/1.1\r\n{fields}\r\n").into_bytes(),
        Some(Body { size, chunked: false }) => {
            let head = format!("POST {path} HTTP/1.1\r\n{fields}content-length: {size}\r\n\r\n");
            [head.into_bytes(), vec![b'x'; size]].concat()
        }
        Some(Body { size, chunked: true }) => {
            let head =
                format!("POST {path} HTTP/1.1\r\n{fields}transfer-encoding: chunked\r\n\r\n");
            [head.into_bytes(), chunks(size), LAST_CHUNK.to_vec()].concat()
        }
    }
}

/// So many bytes in chunks, but for the last.
pub fn chunks(size: usize) -> Vec<u8> {
    let mut framed = Vec::with_capacity(size + size / 512);
    let mut left = size;
    while left > 0 {
        let part = left.min(CHUNK);
        framed.extend_from_slice(format!("{part:x}\r\n").as_bytes());
        framed.resize(framed.len() + part, b'x');
        framed.extend_from_slice(b"\r\n");
        left -= part;
    }
    framed
}

/// Connections that were used once and are then held open.
pub struct Idle(#[expect(dead_code, reason = "held open")] Vec<std::net::TcpStream>);

impl Idle {
    /// Opens them, one after the other.
    pub fn open(address: SocketAddr, path: &str, count: usize) -> io::Result<Self> {
        let mut all = Vec::with_capacity(count);
        let mut answer = [0; 4096];
        for _ in 0..count {
            let mut stream = ask_once(address, path)?;
            if !stream.read(&mut answer).is_ok_and(|_| answer.starts_with(b"HTTP/1.1 200")) {
                return Err(io::Error::other("an idle connection got no 200"));
            }
            all.push(stream);
        }
        Ok(Self(all))
    }

    /// Asks on each and reads nothing of the answers.
    pub fn unread(address: SocketAddr, path: &str, count: usize) -> io::Result<Self> {
        (0..count).map(|_| ask_once(address, path)).collect::<io::Result<_>>().map(Self)
    }
}

fn ask_once(address: SocketAddr, path: &str) -> io::Result<std::net::TcpStream> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())?;
    Ok(stream)
}
