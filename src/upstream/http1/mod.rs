//! One HTTP/1 connection to an upstream, driven by the request that is on it: no task of its own and
//! no channel between, one write for a request and one read for an answer that are small.
//!
//! [`head`] is the pure part, heads as bytes; [`sending`] writes a request's body, [`answer`] reads
//! an answer's. What can be read in two ways is refused, never repaired.

mod answer;
mod head;
mod switched;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use http::StatusCode;
use http::header::UPGRADE;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use self::answer::Answer;
use self::head::Head;
pub use self::switched::Switched;
use super::expect::Expectation;
use crate::body::{Body, BodyError};
use crate::http1::{Framing, SendFailure, Sending};
use crate::message::{Request, Response};

/// What one read asks for at first, and the buffer that a connection keeps while it is idle.
const READ_AT_FIRST: usize = 16 * 1024;
/// What one read asks for once an answer has turned out to be long.
const READ_AT_MOST: usize = 128 * 1024;

/// A connection between two requests.
pub struct Connection<S> {
    stream: S,
    input: BytesMut,
    output: BytesMut,
    read_size: usize,
    /// From then on it is not used again.
    pub retire_at: Instant,
    /// When its last answer ended.
    pub free_since: Instant,
}

/// An answer, and its connection where that is free again already.
pub struct Answered<S> {
    /// As it came; its body streams.
    pub response: Box<Response>,
    /// There if the whole answer came with its head. Else it comes [`Home`], if it may be used again.
    pub connection: Option<Box<Connection<S>>>,
}

/// Where connections come back to once the bodies on them have ended.
pub type Home<S> = mpsc::Sender<Box<Connection<S>>>;

/// Why an exchange failed.
#[derive(Debug)]
pub enum Failure {
    /// The socket failed.
    Broken(io::Error),
    /// The connection ended without a word.
    Closed,
    /// The request's body failed, or is not as long as its head said.
    Request(BodyError),
    /// What came is no valid head; what is wrong with it.
    Invalid(&'static str),
    /// A switch of protocols that nobody asked for (RFC 9110 section 15.2.2).
    UnaskedUpgrade,
    /// The end of the answer can be read in two ways (RFC 9112 section 6.3).
    AmbiguousLength,
}

/// A failed exchange, and whether a byte of the request had left.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub failure: Failure,
    /// Whether some of the request may have been read.
    pub touched: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    /// A connection that nothing was sent on.
    pub fn new(stream: S, retire_at: Instant) -> Box<Self> {
        let (input, output) = Default::default();
        let (read_size, free_since) = (READ_AT_FIRST, Instant::now());
        Box::new(Self { stream, input, output, read_size, retire_at, free_since })
    }

    /// Whether it is as its last answer left it: neither ended, nor with bytes that nobody asked for.
    /// No system call is made where the runtime has heard nothing of the socket.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer).is_pending()
    }

    /// Sends a request and waits for the head of its answer. Dropping the future closes the
    /// connection.
    ///
    /// # Errors
    /// Why there is no answer, and whether any byte had left.
    pub(in crate::upstream) async fn exchange(
        mut self: Box<Self>,
        request: &mut Request,
        expectation: Option<&Expectation>,
        home: &Home<S>,
    ) -> Result<Answered<S>, Failed> {
        self.output.clear();
        let coding = head::write(request, &mut self.output);
        let mut sending = Sending::new(std::mem::take(&mut request.body), coding);
        let interim = |status| {
            if let Some(expectation) = expectation
                && status == StatusCode::CONTINUE
            {
                expectation.release();
            }
        };
        let head = poll_fn(|cx| self.poll_head(cx, &mut sending, request, interim)).await;
        let head = head.map_err(|failure| Failed { failure, touched: sending.is_touched() })?;
        Ok(self.answered(head, sending, home))
    }

    /// Sends on, while it waits for the head of the final answer: the upstream may answer before it
    /// has read all.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        sending: &mut Sending,
        request: &Request,
        interim: impl Fn(StatusCode),
    ) -> Poll<Result<Head, Failure>> {
        let mut unsent = None;
        if !sending.is_done()
            && let Poll::Ready(Err(failure)) =
                sending.poll(cx, Pin::new(&mut self.stream), &mut self.output)
        {
            match failure {
                // It may have answered before it closed.
                SendFailure::Broken(error) if sending.is_touched() => {
                    unsent = Some(Failure::Broken(error));
                }
                SendFailure::Broken(error) => return Poll::Ready(Err(Failure::Broken(error))),
                SendFailure::Body(error) => return Poll::Ready(Err(Failure::Request(error))),
            }
        }
        loop {
            let asked = || request.fields.get(UPGRADE);
            match head::read(&mut self.input, &request.method, asked) {
                Ok(Some(head)) if head.is_interim() => {
                    interim(head.response.status);
                    continue;
                }
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(failure) => return Poll::Ready(Err(failure)),
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if !self.input.is_empty() => {
                    return Poll::Ready(Err(Failure::Invalid("its head ends early")));
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(unsent.unwrap_or(Failure::Closed))),
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(unsent.unwrap_or(Failure::Broken(error))));
                }
                Poll::Pending => {
                    return unsent.map_or(Poll::Pending, |failure| Poll::Ready(Err(failure)));
                }
            }
        }
    }

    fn answered(mut self: Box<Self>, head: Head, sending: Sending, home: &Home<S>) -> Answered<S> {
        if head.is_switch() {
            return switched(*self, head.response);
        }
        let Head { mut response, framing, keep_alive } = head;
        let whole = match framing {
            Framing::Length(length) if length <= self.input.len() as u64 => {
                Some(self.input.split_to(length as usize).freeze())
            }
            _ => None,
        };
        let mut connection = None;
        response.body = match whole {
            Some(whole) if sending.is_done() => {
                let free = keep_alive && self.input.is_empty();
                self.rest();
                connection = free.then_some(self);
                Body::full(whole)
            }
            Some(whole) => {
                let home = keep_alive.then(|| home.clone());
                tokio::task::spawn_local(self.finish(sending, home));
                Body::full(whole)
            }
            None => {
                let home = keep_alive.then(|| home.clone());
                Body::boxed(Answer::new(self, sending, framing, home))
            }
        };
        Answered { response, connection }
    }

    /// Sends the rest of a request whose answer has ended already, and comes home.
    async fn finish(mut self: Box<Self>, mut sending: Sending, home: Option<Home<S>>) {
        let sent = poll_fn(|cx| sending.poll(cx, Pin::new(&mut self.stream), &mut self.output));
        if sent.await.is_ok() {
            self.come_home(home);
        }
    }

    /// Ready for another request, unless it brought more than was asked for.
    fn come_home(mut self: Box<Self>, home: Option<Home<S>>) {
        if let Some(home) = home
            && self.input.is_empty()
        {
            self.rest();
            // Where the pool is gone, so is the connection.
            let _ = home.send(self);
        }
    }

    /// From now on it waits for a request, without the memory of a long one.
    fn rest(&mut self) {
        (self.read_size, self.free_since) = (READ_AT_FIRST, Instant::now());
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.is_empty() && buffer.capacity() > READ_AT_FIRST {
                *buffer = BytesMut::new();
            }
        }
    }

    /// Reads once, as many bytes as there is room for; 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < self.read_size / 4 {
            self.input.reserve(self.read_size);
        }
        let room = self.input.capacity() - self.input.len();
        let read = ready!(pin!(self.stream.read_buf(&mut self.input)).poll(cx))?;
        if read == room {
            self.read_size = (2 * self.read_size).min(READ_AT_MOST);
        }
        Poll::Ready(Ok(read))
    }
}

/// The stream goes with the answer, and with it what has come of the other protocol.
fn switched<S>(connection: Connection<S>, mut response: Box<Response>) -> Answered<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let switched = Switched::new(connection.stream, connection.input.freeze());
    response.extensions.insert(switched);
    Answered { response, connection: None }
}

impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}
