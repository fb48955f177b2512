//! A message on its way: its head and the pieces of its body, written as they come.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;

use crate::body::{Body, BodyError};
use crate::message::Fields;

/// Bytes of a piece of a body that is copied behind the head before it, or the size of its chunk.
const SHORT: usize = 2048;

/// Bytes of chunks that go out together.
const GATHERED: usize = 64 * 1024;

/// What of a message has not been written.
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
    progress: Progress,
}

/// What came of the latest attempts to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether anything was written since the last look.
    pub moved: bool,
    /// Whether the other side has no room for what is left.
    pub stuck: bool,
}

/// How the end of a body is told (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// By its length; so many bytes are left.
    Length(u64),
    /// By a last chunk, and perhaps trailers.
    Chunked {
        /// Whether the other side welcomes them.
        trailers: bool,
    },
    /// By the end of the connection: an answer to HTTP/1.0.
    UntilClose,
}

/// Why a message was not sent to its end.
#[derive(Debug)]
pub enum SendFailure {
    /// The socket failed.
    Broken(io::Error),
    /// The body failed, or is not as long as its head said.
    Body(BodyError),
}

impl Sending {
    /// A message whose head, with the fields that frame its body, is in the output already.
    pub fn new(body: Body, coding: Coding) -> Self {
        let ended = coding == Coding::Length(0);
        let (piece, tail, progress) = (Bytes::new(), &[][..], Progress::default());
        Self { body, coding, piece, tail, ended, flushed: false, touched: false, progress }
    }

    /// Whether all of it was written.
    pub fn is_done(&self) -> bool {
        self.flushed
    }

    /// Whether some of it was written.
    pub fn is_touched(&self) -> bool {
        self.touched
    }

    /// How it went since the last look.
    pub fn take_progress(&mut self) -> Progress {
        let stuck = self.progress.stuck;
        std::mem::replace(&mut self.progress, Progress { moved: false, stuck })
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
    ) -> Poll<Result<(), SendFailure>> {
        loop {
            let waits = self.gather(cx, output)?.is_pending();
            if output.is_empty() && self.piece.is_empty() && self.tail.is_empty() {
                if waits || self.ended {
                    let flushed = stream.as_mut().poll_flush(cx);
                    self.progress.stuck = flushed.is_pending();
                    ready!(flushed).map_err(SendFailure::Broken)?;
                    self.flushed = self.ended;
                    return if self.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
                }
                continue;
            }
            self.flatten(output);
            let parts = [&**output, &*self.piece, self.tail];
            let written = match parts {
                [only, [], []] | [[], only, []] => stream.as_mut().poll_write(cx, only),
                _ => stream.as_mut().poll_write_vectored(cx, &parts.map(IoSlice::new)),
            };
            self.progress.stuck = written.is_pending();
            match ready!(written).map_err(SendFailure::Broken)? {
                0 => return Poll::Ready(Err(SendFailure::Broken(io::ErrorKind::WriteZero.into()))),
                written => self.wrote(written, output),
            }
        }
    }

    /// Takes the next piece of the body, where there is none to write. Chunks that have come already go
    /// out together, as those of a body with a length come together.
    fn gather(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut BytesMut,
    ) -> Result<Poll<()>, SendFailure> {
        while !self.ended && self.piece.is_empty() {
            if self.poll_piece(cx, output)?.is_pending() {
                return Ok(Poll::Pending);
            }
            let chunked = matches!(self.coding, Coding::Chunked { .. });
            if !chunked || output.len() + self.piece.len() > GATHERED {
                break;
            }
            output.extend_from_slice(&std::mem::take(&mut self.piece));
            output.extend_from_slice(std::mem::take(&mut self.tail));
        }
        Ok(Poll::Ready(()))
    }

    /// Puts what is short into one piece: one costs the kernel less than two, and more than copying.
    fn flatten(&mut self, output: &mut BytesMut) {
        if !output.is_empty() && self.piece.len() <= SHORT {
            output.extend_from_slice(&std::mem::take(&mut self.piece));
            output.extend_from_slice(std::mem::take(&mut self.tail));
        }
    }

    fn wrote(&mut self, written: usize, output: &mut BytesMut) {
        (self.touched, self.progress.moved) = (true, true);
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
    ) -> Result<Poll<()>, SendFailure> {
        if !self.tail.is_empty() {
            return Ok(Poll::Ready(()));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return Ok(Poll::Pending);
        };
        match frame.transpose().map_err(SendFailure::Body)?.map(Frame::into_data) {
            Some(Ok(data)) => self.take(data, output)?,
            Some(Err(frame)) => self.end(frame.trailers_ref(), output)?,
            None => self.end(None, output)?,
        }
        Ok(Poll::Ready(()))
    }

    fn take(&mut self, data: Bytes, output: &mut BytesMut) -> Result<(), SendFailure> {
        match &mut self.coding {
            Coding::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or_else(|| SendFailure::Body(BodyError::new("longer than its length")))?;
                self.ended = *left == 0;
            }
            Coding::UntilClose => {}
            // A chunk of no bytes would be the last.
            Coding::Chunked { .. } if data.is_empty() => {}
            Coding::Chunked { .. } => {
                let _ = write!(output.writer(), "{:X}\r\n", data.len());
                self.ended = self.body.is_end_stream();
                self.tail = if self.ended { b"\r\n0\r\n\r\n" } else { b"\r\n" };
            }
        }
        self.piece = data;
        Ok(())
    }

    fn end(
        &mut self,
        trailers: Option<&HeaderMap>,
        output: &mut BytesMut,
    ) -> Result<(), SendFailure> {
        match self.coding {
            Coding::Length(0) | Coding::UntilClose => {}
            Coding::Length(_) => {
                return Err(SendFailure::Body(BodyError::new("shorter than its length")));
            }
            Coding::Chunked { trailers: welcome } => {
                output.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.filter(|_| welcome).into_iter().flatten() {
                    Fields::write_line(name.as_ref(), value.as_bytes(), output);
                }
                output.extend_from_slice(b"\r\n");
            }
        }
        self.ended = true;
        Ok(())
    }
}
