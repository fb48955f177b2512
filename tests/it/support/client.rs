//! A client that is a socket and nothing else: what a story writes is what the program reads.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::soon;

/// What a client writes to: TCP, a Unix socket, TLS.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {
    /// The TCP connection below, where there is one.
    fn tcp(&self) -> Option<&TcpStream>;
}

impl Socket for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Socket for UnixStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self.get_ref().0)
    }
}

/// One connection.
pub struct Client {
    stream: Box<dyn Socket>,
    /// Bytes that came after the last answer.
    buffer: Vec<u8>,
    /// The address, for the Host header.
    addr: SocketAddr,
}

/// One answer, read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names as they came and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
}

/// Connects to `addr`.
pub async fn client(addr: SocketAddr) -> Client {
    let stream = soon(TcpStream::connect(addr)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    Client::over(stream, addr)
}

/// A server that is a socket and nothing else, for upstreams that no fake imitates.
pub struct RawServer {
    /// Where it listens.
    pub addr: SocketAddr,
    listener: TcpListener,
}

/// Listens on a free port.
pub async fn raw_server() -> RawServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    RawServer { addr: listener.local_addr().unwrap(), listener }
}

impl RawServer {
    /// The next connection, seen from this side.
    pub async fn accept(&self) -> Client {
        let (stream, peer) = soon(self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client::over(stream, peer)
    }
}

impl Client {
    /// Speaks over any socket; `addr` is what its requests name as Host.
    pub fn over(stream: impl Socket + 'static, addr: SocketAddr) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new(), addr }
    }

    /// Reads the head of one message, as text, with the empty line that ends it.
    pub async fn read_head(&mut self) -> String {
        soon(self.try_read_head()).await.expect("the connection closed before a head")
    }

    /// Reads exactly this many bytes, for instance of a body.
    pub async fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        soon(self.exactly(count)).await
    }

    /// The head of an answer; `None` if the connection ends before it does.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                return Some(text(&self.take(at + 4)));
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Whether the body after this head ends in order: by its length, by its last chunk, or, where
    /// nothing else tells, by a FIN.
    pub async fn body_is_whole(&mut self, head: &str) -> bool {
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: Option<usize> = length.map(|text| text.parse().unwrap());
        loop {
            match length {
                Some(length) if self.buffer.len() >= length => return true,
                None if head.contains("chunked") && self.buffer.ends_with(b"\r\n0\r\n\r\n") => {
                    return true;
                }
                _ => {}
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return length.is_none() && !head.contains("chunked"),
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Ends the connection with a reset, as a program that is killed.
    pub fn reset(self) {
        self.stream.tcp().unwrap().set_zero_linger().unwrap();
    }

    /// Closes the sending half: a FIN.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// GET on this connection.
    pub async fn get(&mut self, target: &str) -> Answer {
        self.request("GET", target, &[], b"").await
    }

    /// Any request whose body has a Content-Length, and its answer.
    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.addr);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        self.send([head.as_bytes(), b"\r\n", body].concat()).await;
        self.read(method).await
    }

    /// Reads one answer to a request with this method; 1xx answers are answers of their own.
    pub async fn read(&mut self, method: &str) -> Answer {
        soon(self.try_read(method)).await.expect("the connection closed before an answer")
    }

    /// Reads one answer; `None` if the connection ends before it begins.
    pub async fn try_read(&mut self, method: &str) -> Option<Answer> {
        let head = self.try_read_head().await?;
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("header {line:?}"));
            (name.to_owned(), value.trim().to_owned())
        };
        let mut answer = Answer { status, headers: lines.map(field).collect(), body: Vec::new() };
        answer.body = self.read_body(method, &answer).await;
        Some(answer)
    }

    async fn try_read_head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                return Some(text(&self.take(at + 4)));
            }
            if !self.fill().await {
                assert!(self.buffer.is_empty(), "half a head: {}", text(&self.buffer));
                return None;
            }
        }
    }

    /// Reads until the other side closes and returns what came.
    pub async fn read_to_close(&mut self) -> Vec<u8> {
        while soon(self.fill()).await {}
        std::mem::take(&mut self.buffer)
    }

    /// Reads to the end of the connection; a reset is an error.
    pub async fn read_to_end(&mut self) -> std::io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.buffer);
        soon(self.stream.read_to_end(&mut rest)).await.map(|_| rest)
    }

    /// RFC 9112 section 6.3, in its order.
    async fn read_body(&mut self, method: &str, answer: &Answer) -> Vec<u8> {
        if method == "HEAD" || answer.status < 200 || matches!(answer.status, 204 | 304) {
            return Vec::new();
        }
        if answer.header("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            return self.read_chunks().await;
        }
        match answer.header("content-length") {
            Some(length) => self.exactly(length.parse().unwrap()).await,
            None => self.read_to_close().await,
        }
    }

    async fn read_chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk {line:?}"));
            if size == 0 {
                // Trailers, if any, end with an empty line.
                while !self.line().await.is_empty() {}
                return body;
            }
            body.extend(self.exactly(size).await);
            assert_eq!(self.line().await, "", "a chunk ends with its line");
        }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                return text(&self.take(at + 2)[..at]);
            }
            assert!(self.fill().await, "the connection closed within a line");
        }
    }

    async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill().await, "{} of {count} bytes, then closed", self.buffer.len());
        }
        self.take(count)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Reads some more; false at the end. A reset is an end too.
    async fn fill(&mut self) -> bool {
        self.stream.read_buf(&mut self.buffer).await.is_ok_and(|count| count > 0)
    }
}

impl Answer {
    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        text(&self.body)
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error} in a body of status {}: {}", self.status, self.text())
        })
    }
}

fn find(within: &[u8], wanted: &[u8]) -> Option<usize> {
    within.windows(wanted.len()).position(|window| window == wanted)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn both_ends_of_a_socket_can_be_played_by_hand() {
    let server = raw_server().await;
    let mut asking = client(server.addr).await;
    asking.send("PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").await;
    let mut answering = server.accept().await;
    assert!(answering.read_head().await.starts_with("PUT /x HTTP/1.1\r\n"));
    assert_eq!(answering.read_bytes(2).await, b"hi");
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    answering.send(format!("{head}3;x=y\r\nabc\r\n0\r\nTrailer: x\r\n\r\n")).await;
    answering.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(asking.read("PUT").await.text(), "abc");
    assert_eq!(asking.read("PUT").await.status, 204);
    drop(answering);
    assert_eq!(asking.read_to_close().await, b"");
}
