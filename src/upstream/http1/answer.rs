//! An answer's body, read from its connection as it is asked for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, Home};
use crate::body::BodyError;
use crate::http1::{Framing, Sending, Step};

/// An answer's body and the connection it comes on.
pub struct Answer<S> {
    connection: Option<Box<Connection<S>>>,
    sending: Option<Sending>,
    framing: Framing,
    home: Option<Home<S>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Answer<S> {
    /// The body that follows a head; the connection goes home after it, if it has one.
    pub fn new(
        connection: Box<Connection<S>>,
        sending: Sending,
        framing: Framing,
        home: Option<Home<S>>,
    ) -> Self {
        let sending = (!sending.is_done()).then_some(sending);
        Self { connection: Some(connection), sending, framing, home }
    }

    /// Sends on what is left of the request, while its answer is read.
    fn send(&mut self, cx: &mut Context<'_>) {
        let (Some(sending), Some(connection)) = (&mut self.sending, &mut self.connection) else {
            return;
        };
        let stream = Pin::new(&mut connection.stream);
        match sending.poll(cx, stream, &mut connection.output) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.sending = None,
            Poll::Ready(Err(_)) => (self.sending, self.home) = (None, None),
        }
    }

    fn end(&mut self) {
        let (Some(connection), home) = (self.connection.take(), self.home.take()) else { return };
        match self.sending.take() {
            Some(sending) => {
                tokio::task::spawn_local(connection.finish(sending, home));
            }
            None => connection.come_home(home),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> HttpBody for Answer<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        this.send(cx);
        loop {
            let Some(connection) = &mut this.connection else { return Poll::Ready(None) };
            match this.framing.step(&mut connection.input) {
                Ok(Step::Data(data)) => {
                    if this.framing == Framing::Length(0) {
                        this.end();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Step::Trailers(trailers)) => {
                    this.end();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Step::End) => this.end(),
                Ok(Step::More) => match ready!(connection.poll_read(cx)) {
                    Ok(1..) => {}
                    Ok(0) if this.framing == Framing::UntilClose => this.connection = None,
                    Ok(0) => return this.cut("the connection ended first"),
                    Err(error) => return this.cut(error),
                },
                Err(why) => return this.cut(why),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }
}

impl<S> Answer<S> {
    /// Nothing more can come of this connection.
    fn cut(
        &mut self,
        why: impl Into<crate::body::BoxError>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.connection = None;
        Poll::Ready(Some(Err(BodyError::new(why))))
    }
}
