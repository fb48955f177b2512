//! The life of one HTTP/1 client connection: a request is read, answered, and the next one awaited.
//!
//! This is a codec of our own, where HTTP/2 is hyper's. hyper's reader repairs what a payment must
//! not hang on (bare line feeds, repeated lengths, fragments), shows nothing of it, and keeps 8 KiB
//! for each idle connection; [`head`] refuses instead, and `wire` holds no buffer while nobody
//! speaks. One task reads, asks the service and writes: one read and one write for a request and an
//! answer that are small, no channel between.

mod date;
pub mod head;
mod placed;
mod takeover;
#[cfg(test)]
mod tests;
mod timer;
mod wire;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::time::{Sleep, sleep};
use tower::Service;

use self::head::{Asked, Head, Way};
use self::timer::Timer;
use self::wire::{Output, Rest, Wire};
use super::activity::{Activity, Phase};
use super::drain::{Drain, Member, Stage};
use super::flaw::Flaw;
use super::linger::linger;
use super::serve::{ConnectionInfo, Ended, Inbound};
use super::settings::ConnectionLimits;
use super::slots::Place;
use super::stream::Stream;
use crate::body::Body;
use crate::http1::{Coding, HeadEnd, SendFailure, Sending, Stream as Switched};
use crate::message::{Request, Response};

pub(super) use self::placed::Placed;
pub use self::takeover::Takeover;

/// What a client with prior knowledge of HTTP/2 begins with (RFC 9113 section 3.4), and one that agreed
/// on `h2` in its TLS handshake.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a connection that has brought no request yet may still bring its first one when all are
/// told to finish: its client connected a moment ago, to send one.
pub(super) const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(500);

/// Bytes of a buffer for heads that is kept for the next answer.
const KEPT_OUTPUT: usize = 16 * 1024;

thread_local! {
    /// Where heads are written: a connection that waits for a request holds no buffer of its own.
    static OUTPUT: Cell<BytesMut> = Cell::default();
}

/// What a connection turned out to be.
pub(super) enum Outcome<I> {
    /// HTTP/1, and it has ended.
    Ended(Ended),
    /// HTTP/2: its socket, and the preface with what came after it.
    Http2(Placed<I>, Bytes),
}

/// How a conversation ended.
enum End {
    /// In order. The client may still be sending.
    Closed { unread: bool },
    /// The client speaks HTTP/2.
    Http2,
    /// Another protocol is spoken from here on.
    Switched(Option<Takeover>),
    /// Otherwise.
    Broken(Ended),
}

/// Serves HTTP/1 to its end; gives up where the client speaks HTTP/2.
pub(super) async fn serve<I, S>(
    (stream, place): (I, Option<Place>),
    info: &Rc<ConnectionInfo>,
    service: &S,
    limits: &ConnectionLimits,
    member: &Member,
) -> Outcome<I>
where
    I: Stream,
    S: Service<Inbound, Response = Response, Error = Infallible> + Clone,
{
    let (wire, activity) = (Wire::new(stream, place), Activity::default());
    let last = Last { wire: &wire, activity: &activity };
    let (info, service, drain) = (Rc::clone(info), service.clone(), member.drain());
    let (wire, activity) = (&wire, &activity);
    let conversation = Conversation { wire, activity, info, service, limits, drain };
    let end = {
        let mut conversation = pin!(conversation.run());
        let mut timer = pin!(Timer::new(limits));
        let mut grace = None;
        poll_fn(|cx| {
            let stage = member.stage(cx);
            // Looked at first: a head that has begun to arrive is still read and answered.
            if let Poll::Ready(end) = conversation.as_mut().poll(cx) {
                return Poll::Ready(end);
            }
            if is_due(stage, activity, &mut grace, cx) {
                return Poll::Ready(End::Closed { unread: false });
            }
            let overdue = timer.as_mut().poll_overdue(wire, activity, member.is_crowded(), cx);
            overdue.map(End::Broken)
        })
        .await
    };
    drop(last);
    match (end, wire.take()) {
        (End::Http2, Some((stream, read))) => Outcome::Http2(stream, read),
        (End::Switched(takeover), Some((stream, read))) => {
            if let Some(takeover) = takeover {
                takeover.hand_over(Switched::new(stream, read));
            }
            Outcome::Ended(Ended::Closed)
        }
        (End::Closed { unread }, Some((stream, _))) => {
            close(stream, unread).await;
            Outcome::Ended(Ended::Closed)
        }
        (End::Broken(ended), _) => Outcome::Ended(ended),
        (_, None) => Outcome::Ended(Ended::Closed),
    }
}

/// Whether a connection is to close now: all are told to finish, and nothing can be read from it.
fn is_due(
    stage: Stage,
    activity: &Activity,
    grace: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> bool {
    if stage != Stage::Finishing || activity.phase() != Phase::Idle {
        return false;
    }
    activity.was_used() || {
        let grace = grace.get_or_insert_with(|| Box::pin(sleep(FIRST_REQUEST_GRACE)));
        grace.as_mut().poll(cx).is_ready()
    }
}

/// Closes a connection so that what it was sent last arrives: a socket that is closed with unread
/// bytes is reset.
async fn close<I: Stream>(mut stream: Placed<I>, unread: bool) {
    if unread || poll_fn(|cx| Poll::Ready(stream.has_bytes(cx))).await {
        Box::pin(linger(stream)).await;
    } else if I::SAYS_END {
        Box::pin(stream.say_end()).await;
    }
}

/// Looks at a connection at its end, however it came.
struct Last<'a, I: Stream> {
    wire: &'a Wire<I>,
    activity: &'a Activity,
}

impl<I: Stream> Drop for Last<'_, I> {
    fn drop(&mut self) {
        if self.activity.is_open_ended() {
            self.wire.cut();
        }
    }
}

/// What a client's next words are.
enum Next {
    /// A request.
    Head(Head),
    /// The preface of HTTP/2.
    Http2,
    /// The end.
    End,
}

/// What has come of what a client says next.
enum Begun {
    /// Nothing that could be told from anything else.
    Nothing,
    /// Some of a request.
    Head,
    /// The preface of HTTP/2.
    Http2,
}

/// Requests and answers in turn.
struct Conversation<'a, I: Stream, S> {
    wire: &'a Arc<Wire<I>>,
    activity: &'a Activity,
    info: Rc<ConnectionInfo>,
    service: S,
    limits: &'a ConnectionLimits,
    drain: Rc<Drain>,
}

impl<I, S> Conversation<'_, I, S>
where
    I: Stream,
    S: Service<Inbound, Response = Response, Error = Infallible>,
{
    async fn run(mut self) -> End {
        loop {
            let head = match self.next().await {
                Ok(Next::Head(head)) => head,
                Ok(Next::Http2) => return End::Http2,
                Ok(Next::End) => return End::Closed { unread: false },
                Err(error) => return End::Broken(Ended::Failed(error.into())),
            };
            let Head { mut request, framing, expects, asked } = head;
            if let Some(flaw) = request.extensions.get::<Flaw>() {
                tracing::debug!(peer = %self.info.peer, %flaw, "a request is not served");
            }
            request.body = self.wire.body(framing, expects);
            let response = self.ask(request).await;
            match self.answer(response, asked).await {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(SendFailure::Broken(error)) => {
                    return End::Broken(Ended::Failed(error.into()));
                }
                Err(SendFailure::Body(error)) => return End::Broken(Ended::Failed(error.into())),
            }
        }
    }

    /// Waits for the next request's head.
    async fn next(&self) -> io::Result<Next> {
        let mut seen = None;
        poll_fn(|cx| self.poll_next(cx, &mut seen)).await
    }

    /// A head that does not come whole is read again when its end has come: `seen` looks for that.
    fn poll_next(
        &self,
        cx: &mut Context<'_>,
        seen: &mut Option<HeadEnd>,
    ) -> Poll<io::Result<Next>> {
        let mut socket = self.wire.lock();
        loop {
            match self.begun(&mut socket.input) {
                Begun::Http2 => return Poll::Ready(Ok(Next::Http2)),
                Begun::Head if seen.as_mut().is_none_or(|seen| seen.is_over(&socket.input)) => {
                    if let Some(head) = self.head(&mut socket.input) {
                        return Poll::Ready(Ok(Next::Head(head)));
                    }
                    *seen = Some(HeadEnd::default());
                }
                Begun::Head | Begun::Nothing => {}
            }
            if ready!(socket.fill(cx))? == 0 {
                return Poll::Ready(Ok(Next::End));
            }
            if self.activity.phase() == Phase::Idle {
                self.activity.enter(Phase::Head);
            }
        }
    }

    fn begun(&self, input: &mut BytesMut) -> Begun {
        if !self.activity.was_used()
            && PREFACE.starts_with(&input[..input.len().min(PREFACE.len())])
        {
            return if input.len() < PREFACE.len() { Begun::Nothing } else { Begun::Http2 };
        }
        // A line before the request is forgiven (RFC 9112 section 2.2).
        while input.starts_with(b"\r\n") {
            input.advance(2);
        }
        if matches!(**input, [] | [b'\r']) { Begun::Nothing } else { Begun::Head }
    }

    /// The head that has come, unless more of it is to come.
    fn head(&self, input: &mut BytesMut) -> Option<Head> {
        let (limits, came) = (self.limits, input.len());
        let head = head::read(input, limits.max_headers);
        let length = if head.is_some() { came - input.len() } else { came };
        let too_large = length > limits.max_header_bytes;
        if too_large { Some(head::flawed(Box::default(), Flaw::HeadTooLarge)) } else { head }
    }

    /// Waits for the service's answer.
    async fn ask(&mut self, request: Box<Request>) -> Response {
        let safe = matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS);
        self.activity.set_used();
        self.activity.enter(if safe { Phase::BusySafe } else { Phase::Busy });
        let inbound = Inbound { request, connection: Rc::clone(&self.info) };
        let Ok(()) = poll_fn(|cx| self.service.poll_ready(cx)).await;
        let Ok(response) = self.service.call(inbound).await;
        // From here on, writing tells whether the client is there.
        self.activity.enter(Phase::Busy);
        response
    }

    /// Sends an answer; gives back how the connection ends with it, if it does.
    async fn answer(
        &self,
        mut response: Response,
        mut asked: Asked,
    ) -> Result<Option<End>, SendFailure> {
        let more = poll_fn(|cx| Poll::Ready(self.wire.may_go_on(cx))).await;
        asked.keep_alive &= more && !self.drain.is_leaving();
        let mut out = OUTPUT.take();
        let mut output = Output(self.wire);
        output.first(&mut out);
        let Way { coding, keep_alive } = head::write(&mut response, asked, &mut out);
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            let takeover = response.extensions.remove();
            self.send(Sending::new(Body::empty(), coding), &mut out, &mut output).await?;
            return Ok(Some(End::Switched(takeover)));
        }
        self.activity.set_open_ended(coding == Coding::UntilClose);
        let body = std::mem::take(&mut response.body);
        self.send(Sending::new(body, coding), &mut out, &mut output).await?;
        self.activity.set_open_ended(false);
        if out.capacity() <= KEPT_OUTPUT {
            OUTPUT.set(out);
        }
        let rest = self.rest().await;
        if !keep_alive || rest == Rest::Left {
            let unread = asked.astray || rest == Rest::Left || self.wire.has_input();
            return Ok(Some(End::Closed { unread }));
        }
        self.activity.enter(if self.wire.has_input() { Phase::Head } else { Phase::Idle });
        Ok(None)
    }

    async fn send(
        &self,
        mut sending: Sending,
        out: &mut BytesMut,
        output: &mut Output<'_, I>,
    ) -> Result<(), SendFailure> {
        poll_fn(|cx| {
            let sent = sending.poll(cx, Pin::new(&mut *output), out);
            let progress = sending.take_progress();
            self.activity.sent(progress.moved, progress.stuck);
            sent
        })
        .await
    }

    /// What has become of the request's body, once nobody reads it any more. One that is still being
    /// sent when its answer has ended has the time of a head to end.
    async fn rest(&self) -> Rest {
        poll_fn(|cx| match self.wire.rest(cx) {
            Rest::Wanted => {
                if self.activity.phase() != Phase::Head {
                    self.activity.enter(Phase::Head);
                }
                Poll::Pending
            }
            rest => Poll::Ready(rest),
        })
        .await
    }
}
