//! Which protocol a client speaks, told from its first bytes.
//!
//! A client with prior knowledge of HTTP/2 begins with a fixed preface (RFC 9113 section 3.4), and so
//! does one that agreed on `h2` in its TLS handshake. Whatever else comes is HTTP/1. Bytes that may
//! yet become the preface are held back; any others are where hyper wants them already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes have told so far.
#[derive(Debug)]
pub(super) enum Opening {
    /// Nothing came, or these first bytes of the preface.
    Unsure(Vec<u8>),
    /// The preface came, and perhaps more: HTTP/2, once somebody takes the connection over.
    Http2(Vec<u8>),
    /// It is settled; these bytes are to be read first.
    Settled(Vec<u8>),
}

impl Opening {
    /// Reads from a stream what is not held back. HTTP/1 reads nothing of HTTP/2.
    pub(super) fn poll_read(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self {
                Self::Settled(held) if held.is_empty() => {
                    return Pin::new(stream).poll_read(cx, buf);
                }
                Self::Settled(held) => {
                    let rest = held.split_off(held.len().min(buf.remaining()));
                    buf.put_slice(held);
                    *held = rest;
                    return Poll::Ready(Ok(()));
                }
                Self::Http2(_) => return Poll::Pending,
                Self::Unsure(held) => {
                    let before = buf.filled().len();
                    ready!(Pin::new(&mut *stream).poll_read(cx, buf))?;
                    let came = buf.filled().get(before..).unwrap_or_default();
                    if held.is_empty() && !came.is_empty() && !may_be_preface(came) {
                        *self = Self::Settled(Vec::new());
                        return Poll::Ready(Ok(()));
                    }
                    let ended = came.is_empty();
                    held.extend_from_slice(came);
                    buf.set_filled(before);
                    let held = std::mem::take(held);
                    *self = match may_be_preface(&held) {
                        true if held.len() >= PREFACE.len() => Self::Http2(held),
                        true if !ended => Self::Unsure(held),
                        _ => Self::Settled(held),
                    };
                }
            }
        }
    }

    /// Whether bytes have come that were not given on.
    pub(super) fn holds_back(&self) -> bool {
        matches!(self, Self::Unsure(held) | Self::Http2(held) if !held.is_empty())
    }

    /// Whether the whole preface has come and nobody has taken the connection over.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// From now on all bytes are read, the preface first.
    pub(super) fn settle(&mut self) {
        if let Self::Http2(held) | Self::Unsure(held) = self {
            *self = Self::Settled(std::mem::take(held));
        }
    }
}

fn may_be_preface(bytes: &[u8]) -> bool {
    let shared = bytes.len().min(PREFACE.len());
    bytes.iter().take(shared).eq(PREFACE.iter().take(shared))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// What is read of these pieces as HTTP/1, and whether they turn out to be HTTP/2.
    async fn read(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut client, mut server) = duplex(1024);
        let mut opening = Opening::Unsure(Vec::new());
        let mut all = Vec::new();
        let mut bytes = [0; 64];
        for piece in pieces.iter().map(Some).chain([None]) {
            match piece {
                Some(piece) => client.write_all(piece).await.unwrap(),
                None => client.shutdown().await.unwrap(),
            }
            loop {
                let mut buf = ReadBuf::new(&mut bytes);
                let read = poll_fn(|cx| {
                    Poll::Ready(opening.poll_read(&mut server, cx, &mut buf).is_ready())
                });
                if !read.await || buf.filled().is_empty() {
                    break;
                }
                all.extend_from_slice(buf.filled());
            }
        }
        (all, opening.is_http2())
    }

    #[tokio::test]
    async fn protocols_are_told_apart_however_their_bytes_come() {
        for text in
            ["GET / HTTP/1.1\r\n\r\n", "P", "PRI", "PRI * HTTP/2.0\r\n\r\nSM\r\n\rx", "POST"]
        {
            assert_eq!(read(&[text.as_bytes()]).await, (text.as_bytes().to_vec(), false), "{text}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(read(&bytes).await, (text.as_bytes().to_vec(), false), "{text}");
        }
        let bytes: Vec<&[u8]> = PREFACE.chunks(1).collect();
        for pieces in [vec![PREFACE], bytes, vec![b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"]] {
            assert_eq!(read(&pieces).await, (vec![], true));
        }
    }
}
