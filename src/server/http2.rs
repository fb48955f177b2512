//! The life of one HTTP/2 client connection: many requests at a time, each in a task of its own.
//!
//! This drives the h2 crate, on which hyper's own HTTP/2 server stands, because hyper's hides three
//! things that a client must not do without here: `:status 100` for a request that expects it, whether
//! a stream was reset before its request is sent on, and a time-out for an answer that is not taken.
//! Bounds on streams, header lists, settings and CONTINUATION frames are h2's, set up here.

mod keep_alive;
mod stream;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::Builder;
use http::Response;
use tokio::time::{Instant, sleep_until, timeout};
use tower::Service;

use self::keep_alive::KeepAlive;
use super::connection::{CloseReason, ConnectionInfo, Inbound, RefusedHeads};
use super::drain::{DrainHandle, ShutdownPhase};
use super::io::SharedIo;
use super::linger::linger;
use super::phase::{CROWDED_IDLE, ConnectionPhase};
use super::settings::ConnectionSettings;
use crate::body::Body;

/// Bytes that a client may send of one request before we have taken any.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same, of all requests of a connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one answer that are kept for a client which does not take them.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a client may take for a last request after it was told that we leave.
const LEAVE_GRACE: Duration = Duration::from_secs(1);
/// Time after which a client that took an answer slowly is taken to have read it.
const SLOW_CLIENT: Duration = Duration::from_secs(10);
/// The time over which cancelled streams are counted.
const RESET_WINDOW: Duration = Duration::from_secs(10);

/// Serves one connection to its end.
pub(super) async fn serve<S>(
    io: SharedIo,
    info: Rc<ConnectionInfo>,
    service: S,
    limits: &ConnectionSettings,
    refused: &Rc<RefusedHeads>,
    member: DrainHandle,
) -> CloseReason
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
{
    let handshake = builder(limits).handshake::<_, Bytes>(io.clone());
    let mut connection = match timeout(limits.head_timeout, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return CloseReason::Failed(error.into()),
        Err(_) => return CloseReason::TimedOut(ConnectionPhase::Head),
    };
    let streams = Rc::new(Streams::default());
    // A header block may not be interrupted (RFC 9113 section 4.3), so that a client which stops in one
    // cannot answer a ping either: pings bound the time of a head.
    let mut keep_alive = KeepAlive::new(connection.ping_pong(), limits.head_timeout / 2);
    let mut sleep = pin!(sleep_until(Instant::now() + limits.idle_timeout));
    let (mut leaving, mut told) = (None, false);
    // h2 takes an answer before its client does: when what waited for the client last moved.
    let (mut moved, mut waited) = (None, false);
    let ended = poll_fn(|cx| {
        if leaving.is_none() && member.stage(cx) > ShutdownPhase::Open {
            (leaving, told) = (Some(Instant::now()), true);
            connection.graceful_shutdown();
        }
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let (service, context) = (
                        service.clone(),
                        stream::StreamContext {
                            info: Rc::clone(&info),
                            io: io.downgrade(),
                            streams: Rc::clone(&streams),
                            limits: *limits,
                            refused: Rc::clone(refused),
                        },
                    );
                    tokio::task::spawn_local(stream::serve(request, respond, service, context));
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(failed(error)),
                Poll::Ready(None) => return Poll::Ready(CloseReason::Closed),
                Poll::Pending => {}
            }
            if streams.resets.borrow().count(Instant::now()) > limits.max_resets {
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                let _ = connection.poll_closed(cx); // says so, as far as the socket has room
                return Poll::Ready(CloseReason::Flooded);
            }
            if keep_alive.poll_timed_out(cx).is_ready() {
                return Poll::Ready(CloseReason::TimedOut(ConnectionPhase::Head));
            }
            let idle = match member.is_crowded() && leaving.is_none() {
                true => limits.idle_timeout.min(CROWDED_IDLE),
                false => limits.idle_timeout,
            };
            let waits = io.is_blocked();
            if (waits && io.take_moved()) || (waited && !waits) {
                moved = Some(Instant::now());
            }
            waited = waits;
            let Some(quiet) = streams.quiet_since(cx) else { return Poll::Pending };
            let last = moved.map_or(quiet, |moved| quiet.max(moved));
            let due = match leaving {
                // What was answered is still on its way to a client that takes it slowly.
                _ if waits => last + limits.send_timeout,
                Some(told) => last.max(told) + LEAVE_GRACE,
                None => last + idle,
            };
            if sleep.deadline() != due {
                sleep.as_mut().reset(due);
            }
            ready!(sleep.as_mut().poll(cx));
            if leaving.is_some() {
                return Poll::Ready(CloseReason::TimedOut(ConnectionPhase::Idle));
            }
            // A request may be on its way: GOAWAY tells the client whether it was served.
            leaving = Some(Instant::now());
            connection.graceful_shutdown();
        }
    })
    .await;
    drop(connection);
    let in_order =
        matches!(ended, CloseReason::Closed | CloseReason::TimedOut(ConnectionPhase::Idle));
    // A client that has answered our ping, or was quiet all the time, has read what it was sent.
    let late = |since: Option<Instant>, time| since.is_some_and(|since| since.elapsed() < time);
    let slow = late(moved, SLOW_CLIENT) || late(streams.quiet_since.get(), LEAVE_GRACE);
    if in_order && !io.is_at_end() && (!told || slow) {
        // A socket that closes with unread bytes, such as a WINDOW_UPDATE, is reset by the kernel, and
        // the reset takes with it what the client has not read yet.
        linger(io).await;
    }
    ended
}

/// RFC 9113 section 5.4.1: an orderly end is no failure.
fn failed(error: h2::Error) -> CloseReason {
    match error.reason() {
        Some(Reason::NO_ERROR) => CloseReason::Closed,
        _ => CloseReason::Failed(error.into()),
    }
}

fn builder(limits: &ConnectionSettings) -> Builder {
    let mut builder = Builder::new();
    let header_list = u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX);
    builder.max_concurrent_streams(limits.max_streams).max_header_list_size(header_list);
    builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    builder.max_send_buffer_size(SEND_BUFFER);
    builder
}

/// The requests of one connection.
#[derive(Default)]
struct Streams {
    open: Cell<usize>,
    quiet_since: Cell<Option<Instant>>,
    resets: RefCell<Resets>,
    /// Woken when no request is under way any more, and when one was cancelled.
    driver: RefCell<Option<Waker>>,
}

impl Streams {
    /// Since when no request is under way; if one is, the task is woken when none is any more.
    fn quiet_since(&self, cx: &Context<'_>) -> Option<Instant> {
        if self.open.get() == 0 {
            let since = self.quiet_since.get().unwrap_or_else(Instant::now);
            self.quiet_since.set(Some(since));
            return Some(since);
        }
        let mut driver = self.driver.borrow_mut();
        if !driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *driver = Some(cx.waker().clone());
        }
        None
    }

    /// Counts a request as under way until what this returns is dropped.
    fn begin(self: &Rc<Self>) -> OpenStream {
        self.open.set(self.open.get() + 1);
        OpenStream(Rc::clone(self))
    }

    /// Counts a stream that its client has cancelled.
    fn cancelled(&self) {
        self.resets.borrow_mut().add(Instant::now());
        self.wake();
    }

    fn wake(&self) {
        if let Some(driver) = self.driver.borrow_mut().take() {
            driver.wake();
        }
    }
}

/// While it lives, a request is under way.
struct OpenStream(Rc<Streams>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        let streams = &self.0;
        streams.open.set(streams.open.get() - 1);
        if streams.open.get() == 0 {
            streams.quiet_since.set(Some(Instant::now()));
            streams.wake();
        }
    }
}

/// Counts the streams that a client cancelled of late.
#[derive(Default)]
struct Resets {
    count: u32,
    since: Option<Instant>,
}

impl Resets {
    fn add(&mut self, now: Instant) {
        if self.since.is_none_or(|since| now.duration_since(since) > RESET_WINDOW) {
            *self = Self { count: 0, since: Some(now) };
        }
        self.count += 1;
    }

    fn count(&self, now: Instant) -> u32 {
        match self.since {
            Some(since) if now.duration_since(since) <= RESET_WINDOW => self.count,
            _ => 0,
        }
    }
}
