//! A request on its way: its head and the pieces of its body, written as they come.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;

use super::Failure;
use super::head::{decimal, write, write_field};
use crate::body::{Body, BodyError};

/// What of a request has not been written.
pub struct Sending {
    body: Body,
    coding: Coding,
    /// A piece of the body; it goes out after what is in the connection's output.
    piece: Bytes,
    /// It goes out after the piece.
    tail: &'static [u8],
    ended: bool,
    flushed: bool,
    touched: bool,
}

/// How the end of the body is told (RFC 9112 section 6).
enum Coding {
    /// By its length; so many bytes are left.
    Length(u64),
    Chunked,
}

impl Sending {
    /// Writes the head and takes the body.
    pub fn start(request: &mut Request<Body>, output: &mut BytesMut) -> Self {
        let told = write(request, output).map(|value| decimal(value.as_bytes()));
        let known = request.body().size_hint().exact();
        let coding = match told.flatten().or(known) {
            Some(length) => {
                if length > 0 || told.is_some() {
                    let _ = write!(output.writer(), "content-length: {length}\r\n");
                }
                Coding::Length(length)
            }
            None => {
                output.extend_from_slice(b"transfer-encoding: chunked\r\n");
                Coding::Chunked
            }
        };
        output.extend_from_slice(b"\r\n");
        let ended = matches!(coding, Coding::Length(0));
        let (piece, tail) = (Bytes::new(), &[][..]);
        let body = std::mem::take(request.body_mut());
        Self { body, coding, piece, tail, ended, flushed: false, touched: false }
    }

    /// Whether all of it was written.
    pub fn is_done(&self) -> bool {
        self.flushed
    }

    /// Whether some of it was written.
    pub fn is_touched(&self) -> bool {
        self.touched
    }

    /// Writes what can be written; ready when that is all.
    ///
    /// # Errors
    /// The socket, or the body.
    pub fn poll<S: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut stream: Pin<&mut S>,
        output: &mut BytesMut,
    ) -> Poll<Result<(), Failure>> {
        loop {
            let waits =
                !self.ended && self.piece.is_empty() && self.poll_piece(cx, output)?.is_pending();
            if output.is_empty() && self.piece.is_empty() && self.tail.is_empty() {
                if waits || self.ended {
                    ready!(stream.as_mut().poll_flush(cx)).map_err(Failure::Broken)?;
                    self.flushed = self.ended;
                    return if self.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
                }
                continue;
            }
            let parts = [&**output, &*self.piece, self.tail].map(IoSlice::new);
            let written = ready!(stream.as_mut().poll_write_vectored(cx, &parts));
            match written.map_err(Failure::Broken)? {
                0 => return Poll::Ready(Err(Failure::Broken(io::ErrorKind::WriteZero.into()))),
                written => self.wrote(written, output),
            }
        }
    }

    fn wrote(&mut self, written: usize, output: &mut BytesMut) {
        self.touched = true;
        let of_output = written.min(output.len());
        output.advance(of_output);
        let of_piece = (written - of_output).min(self.piece.len());
        self.piece.advance(of_piece);
        self.tail = &self.tail[written - of_output - of_piece..];
    }

    /// Takes the next piece of the body, and what frames it.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut BytesMut,
    ) -> Result<Poll<()>, Failure> {
        if !self.tail.is_empty() {
            return Ok(Poll::Ready(()));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return Ok(Poll::Pending);
        };
        match frame.transpose().map_err(Failure::Request)?.map(Frame::into_data) {
            Some(Ok(data)) => self.take(data, output)?,
            Some(Err(frame)) => self.end(frame.trailers_ref(), output)?,
            None => self.end(None, output)?,
        }
        Ok(Poll::Ready(()))
    }

    fn take(&mut self, data: Bytes, output: &mut BytesMut) -> Result<(), Failure> {
        match &mut self.coding {
            Coding::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or_else(|| Failure::Request(BodyError::new("longer than its length")))?;
                self.ended = *left == 0;
            }
            // A chunk of no bytes would be the last.
            Coding::Chunked if data.is_empty() => {}
            Coding::Chunked => {
                let _ = write!(output.writer(), "{:X}\r\n", data.len());
                self.ended = self.body.is_end_stream();
                self.tail = if self.ended { b"\r\n0\r\n\r\n" } else { b"\r\n" };
            }
        }
        self.piece = data;
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, output: &mut BytesMut) -> Result<(), Failure> {
        match self.coding {
            Coding::Length(0) => {}
            Coding::Length(_) => {
                return Err(Failure::Request(BodyError::new("shorter than its length")));
            }
            Coding::Chunked => {
                output.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    write_field(name, value, output);
                }
                output.extend_from_slice(b"\r\n");
            }
        }
        self.ended = true;
        Ok(())
    }
}
