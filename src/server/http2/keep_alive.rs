//! Pings (RFC 9113 section 6.7), which find clients that no longer answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

/// Sends a ping after each interval, and gives the client as long to acknowledge it.
pub(super) struct KeepAlive {
    /// `None` if something else had taken it from the connection, which nothing does.
    pings: Option<PingPong>,
    interval: Duration,
    /// True while a ping is not acknowledged.
    waiting: bool,
    sleep: Pin<Box<Sleep>>,
}

impl KeepAlive {
    /// The first ping goes out after one interval.
    pub(super) fn new(pings: Option<PingPong>, interval: Duration) -> Self {
        Self { pings, interval, waiting: false, sleep: Box::pin(sleep(interval)) }
    }

    /// Ready when a ping was not acknowledged in time.
    pub(super) fn poll_timed_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        loop {
            // Polled before the clock, so that an acknowledgement that has arrived counts. An error is the
            // connection's, which ends by itself.
            if self.waiting && pings.poll_pong(cx).is_ready() {
                self.waiting = false;
                self.sleep.as_mut().reset(Instant::now() + self.interval);
            }
            ready!(self.sleep.as_mut().poll(cx));
            if self.waiting {
                return Poll::Ready(());
            }
            self.waiting = pings.send_ping(Ping::opaque()).is_ok();
            self.sleep.as_mut().reset(Instant::now() + self.interval);
        }
    }
}
