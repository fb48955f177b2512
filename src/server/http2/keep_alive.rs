//! Pings (RFC 9113 section 6.7) that find out whether the client of a connection still answers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

/// Asks a client at an interval whether it is there, and gives it as long to answer.
pub(super) struct KeepAlive {
    /// `None` if it was taken before, which nobody does.
    pings: Option<PingPong>,
    interval: Duration,
    /// Whether a ping has been sent and not been answered.
    waiting: bool,
    sleep: Pin<Box<Sleep>>,
}

impl KeepAlive {
    /// The first ping goes out after one interval.
    pub(super) fn new(pings: Option<PingPong>, interval: Duration) -> Self {
        Self { pings, interval, waiting: false, sleep: Box::pin(sleep(interval)) }
    }

    /// Ready when a ping was not answered in time.
    pub(super) fn poll_timed_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        loop {
            // An error is the connection's, which ends by itself.
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
