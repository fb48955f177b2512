//! HTTP/2 on one client connection: many requests at a time, each in a task of its own.
//!
//! This drives the h2 crate, on which hyper's own HTTP/2 server stands, because hyper's hides three
//! things that clients need: `:status 100` for a request that expects it, whether a stream was reset
//! before its request is sent on, and a time-out for a response that is not read. The limits on streams,
//! header lists, settings and CONTINUATION frames are h2's, set up here.

mod keep_alive;
mod stream;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::Builder;
use tokio::time::{Instant, sleep, timeout};

use self::keep_alive::KeepAlive;
use self::stream::StreamContext;
use super::drain::DrainHandle;
use super::head_error::RefusedHeads;
use super::inbound::{ConnectionInfo, RequestService};
use super::io::SharedIo;
use super::linger::linger;
use super::phase::{CloseReason, ConnectionPhase};
use super::settings::ConnectionSettings;
use super::shutdown::ShutdownPhase;
use super::timer::CROWDED_IDLE;
use crate::task::spawn_local;

/// Bytes that a client may send of one request before we have read any.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all requests of a connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one response that are kept for a client that does not read them.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a client may take for a last request after GOAWAY.
const LEAVE_GRACE: Duration = Duration::from_secs(1);
/// The time after which a client that read a response slowly is taken to have read it.
const SLOW_CLIENT: Duration = Duration::from_secs(10);
/// The time over which cancelled streams are counted.
const RESET_WINDOW: Duration = Duration::from_secs(10);

/// Serves HTTP/2 to the connection's end.
pub(super) async fn serve<S: RequestService>(
    io: SharedIo,
    info: Rc<ConnectionInfo>,
    service: S,
    settings: &ConnectionSettings,
    refused: &Rc<RefusedHeads>,
    handle: DrainHandle,
) -> CloseReason {
    let handshake = builder(settings).handshake::<_, Bytes>(io.clone());
    let mut connection = match timeout(settings.head_timeout, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return CloseReason::Failed(error.into()),
        Err(_) => return CloseReason::TimedOut(ConnectionPhase::Head),
    };
    let streams = Rc::new(Streams::default());
    let context = Rc::new(StreamContext {
        info,
        io: io.downgrade(),
        streams: Rc::clone(&streams),
        settings: *settings,
        refused: Rc::clone(refused),
    });
    // A header block may not be interrupted (RFC 9113 section 4.3), so a client that stops in one cannot
    // answer a ping either: pings bound the time of a head.
    let mut keep_alive = KeepAlive::new(connection.ping_pong(), settings.head_timeout / 2);
    let mut sleep = pin!(sleep(settings.idle_timeout));
    let mut goaway_at = None;
    let mut draining = false;
    let mut writes = WriteProgress::default();
    let reason = poll_fn(|cx| {
        if goaway_at.is_none() && handle.phase(cx) > ShutdownPhase::Open {
            (goaway_at, draining) = (Some(Instant::now()), true);
            connection.graceful_shutdown();
        }
        loop {
            // First, because it does all of the connection's reading and writing: what follows looks at
            // its effects.
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let (service, context) = (service.clone(), Rc::clone(&context));
                    spawn_local(stream::serve(request, respond, service, context));
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(failed(error)),
                Poll::Ready(None) => return Poll::Ready(CloseReason::Closed),
                Poll::Pending => {}
            }
            if streams.recent_resets() > settings.max_resets {
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                let _ = connection.poll_closed(cx); // writes GOAWAY, if the socket has room
                return Poll::Ready(CloseReason::Flooded);
            }
            if keep_alive.poll_timed_out(cx).is_ready() {
                return Poll::Ready(CloseReason::TimedOut(ConnectionPhase::Head));
            }
            writes.update(&io);
            // While a request is under way, its own time-outs count; its end wakes this task.
            let Some(quiet_since) = streams.quiet_since(cx) else { return Poll::Pending };
            let since = writes.last.map_or(quiet_since, |last| quiet_since.max(last));
            let due = match goaway_at {
                // A response that has ended for us is still on its way to a client that reads slowly.
                _ if writes.blocked => since + settings.send_timeout,
                Some(goaway_at) => since.max(goaway_at) + LEAVE_GRACE,
                None if handle.is_crowded() => since + settings.idle_timeout.min(CROWDED_IDLE),
                None => since + settings.idle_timeout,
            };
            if sleep.deadline() != due {
                sleep.as_mut().reset(due);
            }
            ready!(sleep.as_mut().poll(cx));
            if goaway_at.is_some() {
                return Poll::Ready(CloseReason::TimedOut(ConnectionPhase::Idle));
            }
            // A request may be on its way: GOAWAY says if it was served. Around again, to write it.
            goaway_at = Some(Instant::now());
            connection.graceful_shutdown();
        }
    })
    .await;
    drop(connection);
    let in_order =
        matches!(reason, CloseReason::Closed | CloseReason::TimedOut(ConnectionPhase::Idle));
    // A client that has answered our ping, or was quiet all the time, has read what it was sent.
    let within = |since: Option<Instant>, time| since.is_some_and(|since| since.elapsed() < time);
    let may_be_reading =
        within(writes.last, SLOW_CLIENT) || within(streams.quiet_since.get(), LEAVE_GRACE);
    if in_order && !io.is_at_end() && (!draining || may_be_reading) {
        // The kernel resets a socket that closes with unread bytes, such as a WINDOW_UPDATE, and the
        // client then loses what it has not read yet.
        linger(io).await;
    }
    reason
}

/// An orderly end is no failure (RFC 9113 section 5.4.1).
fn failed(error: h2::Error) -> CloseReason {
    match error.reason() {
        Some(Reason::NO_ERROR) => CloseReason::Closed,
        _ => CloseReason::Failed(error.into()),
    }
}

fn builder(settings: &ConnectionSettings) -> Builder {
    let mut builder = Builder::new();
    let header_list = u32::try_from(settings.max_header_bytes).unwrap_or(u32::MAX);
    builder.max_concurrent_streams(settings.max_streams).max_header_list_size(header_list);
    builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    builder.max_send_buffer_size(SEND_BUFFER);
    builder
}

/// The progress of writes that the socket had no room for. h2 takes a response long before its client
/// does.
#[derive(Default)]
struct WriteProgress {
    /// True while the socket has no room.
    blocked: bool,
    /// The last time at which bytes that had waited were taken.
    last: Option<Instant>,
}

impl WriteProgress {
    fn update(&mut self, io: &SharedIo) {
        let was_blocked = std::mem::replace(&mut self.blocked, io.is_blocked());
        if (self.blocked && io.take_moved()) || (was_blocked && !self.blocked) {
            self.last = Some(Instant::now());
        }
    }
}

/// The requests of one connection.
#[derive(Default)]
struct Streams {
    open: Cell<usize>,
    quiet_since: Cell<Option<Instant>>,
    /// The number of streams that the client cancelled since a time, counted for [`RESET_WINDOW`].
    resets: Cell<(u32, Option<Instant>)>,
    /// The connection's task, woken when the last request has ended, and when one was cancelled.
    driver: RefCell<Option<Waker>>,
}

impl Streams {
    /// The time at which the last request ended. Returns `None` while one is under way, whose end then
    /// wakes the task.
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

    /// Counts a request as under way until the guard is dropped.
    fn begin(self: &Rc<Self>) -> OpenStream {
        self.open.set(self.open.get() + 1);
        OpenStream(Rc::clone(self))
    }

    /// Counts a stream that its client has cancelled.
    fn cancelled(&self) {
        let (count, since) = match (self.recent_resets(), self.resets.get().1) {
            (0, _) | (_, None) => (0, Instant::now()),
            (count, Some(since)) => (count, since),
        };
        self.resets.set((count + 1, Some(since)));
        self.wake();
    }

    /// The number of streams that the client cancelled within [`RESET_WINDOW`].
    fn recent_resets(&self) -> u32 {
        match self.resets.get() {
            (count, Some(since)) if since.elapsed() <= RESET_WINDOW => count,
            _ => 0,
        }
    }

    fn wake(&self) {
        if let Some(driver) = self.driver.borrow_mut().take() {
            driver.wake();
        }
    }
}

/// Counts a request as under way.
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
