//! An HTTP/2 client that is a socket and frames (RFC 9113 section 4), so that stories can send what
//! no library would. Of what comes back it reads frames and bodies; heads stay as they are packed.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

/// Frame types.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

/// Flags.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// One connection, greeted.
pub struct Frames {
    stream: TcpStream,
    next: u32,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What came back on one stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Whether a head came.
    pub head: bool,
    /// The body.
    pub body: Vec<u8>,
    /// Whether it ended in order.
    pub ended: bool,
    /// The reason of RST_STREAM or GOAWAY, or `u32::MAX` for a connection that ended without.
    pub refused: Option<u32>,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Connects with prior knowledge.
pub async fn frames(addr: SocketAddr) -> Frames {
    let stream = soon(TcpStream::connect(addr)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut frames = Frames { stream, next: 1 };
    frames.bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    frames.frame(SETTINGS, 0, 0, b"").await;
    frames
}

/// A head of fields as they are, packed without compression.
pub fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let length = text.len();
            if length < 127 {
                block.push(u8::try_from(length).unwrap());
            } else {
                block.push(127);
                let mut rest = length - 127;
                while rest > 127 {
                    block.push(u8::try_from(rest & 127).unwrap() | 128);
                    rest >>= 7;
                }
                block.push(u8::try_from(rest).unwrap());
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

impl Frames {
    /// Sends bytes as they are; whether they are taken shows in what comes back.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        let _refused = soon(self.stream.write_all(bytes)).await;
    }

    /// Sends one frame.
    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.bytes(&[&head, payload].concat()).await;
    }

    /// Sends a request with this head, and a body if there is one; gives the stream.
    pub async fn send(&mut self, fields: &[(&str, &str)], body: Option<&[u8]>) -> u32 {
        let stream = self.next;
        self.next += 2;
        let flags = END_HEADERS | if body.is_none() { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, stream, &head(fields)).await;
        if let Some(body) = body {
            self.frame(DATA, END_STREAM, stream, body).await;
        }
        stream
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        soon(async {
            let mut header = [0; 9];
            self.stream.read_exact(&mut header).await.ok()?;
            let [a, b, c, kind, flags, id @ ..] = header;
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Frame { kind, flags, stream: u32::from_be_bytes(id), payload })
        })
        .await
    }

    /// All that comes back on a stream.
    pub async fn reply(&mut self, stream: u32) -> Reply {
        let mut reply = Reply::default();
        loop {
            let Some(frame) = self.next().await else {
                reply.refused.get_or_insert(u32::MAX);
                return reply;
            };
            let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
            match frame.kind {
                HEADERS if frame.stream == stream => reply.head = true,
                DATA if frame.stream == stream => reply.body.extend_from_slice(&frame.payload),
                RST_STREAM if frame.stream == stream => {
                    reply.refused = Some(number(&frame.payload));
                    return reply;
                }
                GOAWAY => reply.refused = Some(number(&frame.payload[4..8])),
                SETTINGS if frame.flags == 0 => self.frame(SETTINGS, 1, 0, b"").await,
                PING if frame.flags == 0 => self.frame(PING, 1, 0, &frame.payload).await,
                _ => continue,
            }
            let on_stream = frame.stream == stream && frame.kind <= HEADERS;
            if on_stream && frame.flags & END_STREAM != 0 {
                reply.ended = true;
                return reply;
            }
        }
    }
}
