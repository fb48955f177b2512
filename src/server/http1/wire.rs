//! The socket of a connection, shared by what drives it and by the body of the request that is on it.
//!
//! Both run on one thread, so that the lock is never waited for; it is there because bodies may be
//! read by any task. It is held for one operation on the socket, never while somebody else's code
//! runs.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem::take;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncReadExt, AsyncWrite, ReadBuf};

use super::placed::Placed;
use crate::body::{Body, BodyError};
use crate::http1::{Framing, Step};
use crate::server::slots::Place;
use crate::server::stream::Stream;

/// What one read takes of heads, and of bodies that are short.
const SCRATCH: usize = 32 * 1024;
/// What one read asks for where a body does not come with its head: more each time.
const FIRST_READ: usize = 16 * 1024;
const LONGEST_READ: usize = 128 * 1024;
/// How much of a body that nobody wants is read over, so that its connection can go on.
const SKIPPED: usize = 64 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

thread_local! {
    /// Where bytes arrive: a connection that waits for a request holds no buffer of its own.
    static ARRIVALS: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// One connection.
pub struct Wire<I>(Mutex<Socket<I>>);

/// A socket and what was read of it.
pub struct Socket<I> {
    /// `None` once it is closed or speaks another protocol.
    stream: Option<I>,
    /// What was read and not yet looked at.
    pub input: BytesMut,
    /// What goes out before anything else.
    output: BytesMut,
    unread: Option<Unread>,
    /// Waits for the end of the request's body.
    driver: Option<Waker>,
    /// Waits for more of the request's body.
    reader: Option<Waker>,
    /// The connection's place under the limit, held until the socket closes.
    place: Option<Place>,
}

/// What is left of a request's body.
struct Unread {
    framing: Framing,
    /// Whether the client waits to be asked for it.
    expects: bool,
    /// Whether somebody may still read it.
    wanted: bool,
    /// What the next read asks for.
    read_size: usize,
}

/// What has become of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It was read to its end.
    Over,
    /// Somebody may still read it.
    Wanted,
    /// Nobody will, and its end has not come.
    Left,
}

impl<I: Stream> Wire<I> {
    /// A connection that nothing was read of.
    pub fn new(stream: I, place: Option<Place>) -> Arc<Self> {
        let (stream, input, output) = (Some(stream), BytesMut::new(), BytesMut::new());
        Arc::new(Self(Mutex::new(Socket {
            stream,
            input,
            output,
            unread: None,
            driver: None,
            reader: None,
            place,
        })))
    }

    /// The socket, for one operation.
    pub fn lock(&self) -> MutexGuard<'_, Socket<I>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the client has left; if not, the task is woken when it does. Not to be told while its
    /// request is still being read.
    pub fn is_gone(&self, cx: &mut Context<'_>) -> bool {
        let mut socket = self.lock();
        let Socket { stream: Some(stream), unread: None, .. } = &mut *socket else { return false };
        stream.poll_gone(cx).is_ready()
    }

    /// Cuts the connection, so that its end is not taken for the end of an answer.
    pub fn cut(&self) {
        self.lock().stream.iter().for_each(Stream::cut);
    }

    /// The body that follows a head; nothing where all of it has come with the head.
    pub fn body(self: &Arc<Self>, framing: Framing, expects: bool) -> Body {
        let mut socket = self.lock();
        match framing {
            Framing::Length(0) => Body::empty(),
            Framing::Length(length) if length <= socket.input.len() as u64 => {
                Body::full(socket.input.split_to(length as usize).freeze())
            }
            framing => {
                let (wanted, read_size) = (true, FIRST_READ);
                socket.unread = Some(Unread { framing, expects, wanted, read_size });
                Body::boxed(Incoming(Arc::clone(self)))
            }
        }
    }

    /// What has become of the request's body; what is left of one that nobody wants is read over, as
    /// far as it has come.
    pub fn rest(&self, cx: &mut Context<'_>) -> Rest {
        let mut socket = self.lock();
        socket.skip(cx);
        match &socket.unread {
            None => Rest::Over,
            Some(unread) if unread.wanted => {
                socket.driver = Some(cx.waker().clone());
                Rest::Wanted
            }
            Some(_) => Rest::Left,
        }
    }

    /// Whether another request can follow this one, whose answer begins now. From now on the client
    /// is not asked for its body any more, and one that was not asked for may never come.
    pub fn may_go_on(&self, cx: &mut Context<'_>) -> bool {
        let unasked = self.lock().unread.as_mut().is_some_and(|unread| take(&mut unread.expects));
        !unasked && self.rest(cx) != Rest::Left
    }

    /// Whether more has come than was looked at; where not, no memory is held for it.
    pub fn has_input(&self) -> bool {
        let mut socket = self.lock();
        if socket.input.is_empty() {
            socket.input = BytesMut::new();
        }
        !socket.input.is_empty()
    }

    /// Ends it for everybody; gives back the socket and what was read of it. Whoever waits for a body
    /// is told that no more will come.
    pub fn take(&self) -> Option<(Placed<I>, Bytes)> {
        let mut socket = self.lock();
        socket.reader.take().into_iter().for_each(Waker::wake);
        let (stream, place) = (socket.stream.take()?, socket.place.take());
        Some((Placed::new(stream, place), take(&mut socket.input).freeze()))
    }
}

impl<I: Stream> Socket<I> {
    /// Reads what has come; 0 is the end.
    pub fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        ARRIVALS.with_borrow_mut(|arrivals| {
            let mut arrived = ReadBuf::new(arrivals);
            ready!(Pin::new(stream).poll_read(cx, &mut arrived))?;
            self.input.extend_from_slice(arrived.filled());
            Poll::Ready(Ok(arrived.filled().len()))
        })
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        ready!(self.poll_ask(cx)).map_err(BodyError::new)?;
        loop {
            let Some(unread) = &mut self.unread else { return Poll::Ready(None) };
            let frame = match unread.framing.step(&mut self.input).map_err(BodyError::new)? {
                Step::Data(data) => Some(Ok(Frame::data(data))),
                Step::Trailers(trailers) => {
                    self.over();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Step::End => {
                    self.over();
                    None
                }
                Step::More => match ready!(self.poll_more(cx)).map_err(BodyError::new)? {
                    0 => Some(Err(BodyError::new("the client ended the connection first"))),
                    _ => continue,
                },
            };
            if self.unread.as_ref().is_some_and(|unread| unread.framing == Framing::Length(0)) {
                self.over();
            }
            return Poll::Ready(frame);
        }
    }

    /// Asks for the body, where the client waits for that.
    fn poll_ask(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(unread) = &mut self.unread
            && take(&mut unread.expects)
        {
            self.output.extend_from_slice(CONTINUE);
        }
        if self.output.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &self.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.output.split_to(written)),
            }
        }
        Pin::new(stream).poll_flush(cx)
    }

    /// Reads more of a body.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { stream: Some(stream), input, unread: Some(unread), .. } = self else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if input.capacity() - input.len() < unread.read_size / 4 {
            input.reserve(unread.read_size);
        }
        let room = input.capacity() - input.len();
        let read = ready!(pin!(stream.read_buf(input)).poll(cx))?;
        if read == room {
            unread.read_size = (2 * unread.read_size).min(LONGEST_READ);
        }
        Poll::Ready(Ok(read))
    }

    fn over(&mut self) {
        self.unread = None;
        self.driver.take().into_iter().for_each(Waker::wake);
    }

    /// Reads over what is left of a body that nobody wants, without waiting for it.
    fn skip(&mut self, cx: &mut Context<'_>) {
        let mut skipped = 0;
        while let Some(unread) = &mut self.unread
            && !unread.wanted
            && !unread.expects
            && skipped < SKIPPED
        {
            let step = unread.framing.step(&mut self.input);
            match step {
                Ok(Step::Data(data)) => skipped += data.len(),
                Ok(Step::Trailers(_) | Step::End) => self.over(),
                Ok(Step::More) if matches!(self.fill(cx), Poll::Ready(Ok(1..))) => {}
                Ok(Step::More) | Err(_) => return,
            }
        }
    }
}

/// The body of a request, read from its connection as it is asked for.
struct Incoming<I: Stream>(Arc<Wire<I>>);

impl<I: Stream> HttpBody for Incoming<I> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut socket = self.0.lock();
        let frame = socket.poll_frame(cx);
        if frame.is_pending() && !socket.reader.as_ref().is_some_and(|it| it.will_wake(cx.waker()))
        {
            socket.reader = Some(cx.waker().clone());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unread.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0.lock().unread {
            None => SizeHint::with_exact(0),
            Some(Unread { framing: Framing::Length(left), .. }) => SizeHint::with_exact(*left),
            Some(_) => SizeHint::default(),
        }
    }
}

impl<I: Stream> Drop for Incoming<I> {
    fn drop(&mut self) {
        let mut socket = self.0.lock();
        if let Some(unread) = &mut socket.unread {
            unread.wanted = false;
        }
        socket.driver.take().into_iter().for_each(Waker::wake);
    }
}

/// Writes to the socket, which is locked for each operation alone.
pub struct Output<'a, I>(pub &'a Wire<I>);

impl<I: Stream> Output<'_, I> {
    fn with<T>(
        &self,
        write: impl FnOnce(Pin<&mut I>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut socket = self.0.lock();
        let stream = socket.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        write(Pin::new(stream))
    }

    /// What goes out before anything else.
    pub fn first(&self, out: &mut BytesMut) {
        let mut socket = self.0.lock();
        if !socket.output.is_empty() {
            out.extend_from_slice(&take(&mut socket.output));
        }
    }
}

impl<I: Stream> AsyncWrite for Output<'_, I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write_vectored(cx, parts))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }
}
