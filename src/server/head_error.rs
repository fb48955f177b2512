//! Request heads that hyper or h2 refuse before a request is made of them.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crate::listen::peer::Peer;
use crate::telemetry::throttle::Throttle;

/// The reason why hyper or h2 refused a request head. They answer it themselves, with 400, 414 or 431
/// and no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// The head is not HTTP/1.
    Malformed,
    /// The head has more lines or bytes than allowed, or a target of more than 65,534 bytes.
    TooLarge,
    /// The head is a TLS ClientHello on a listener that does not speak TLS.
    Tls,
}

/// Called for each refused head, to count it.
pub type OnHeadError = Arc<dyn Fn(HeadError) + Send + Sync>;

/// Counts and logs the refused heads of one worker.
pub(super) struct RefusedHeads {
    on_head_error: OnHeadError,
    /// One for each reason, so that a frequent one does not hide the others.
    throttles: [RefCell<Throttle>; 3],
}

impl RefusedHeads {
    /// Calls `on_head_error` for each refused head.
    pub fn new(on_head_error: OnHeadError) -> Rc<Self> {
        Rc::new(Self { on_head_error, throttles: Default::default() })
    }

    /// Counts a refused head, and logs it with `error` unless too many were logged just now.
    pub fn add(&self, reason: HeadError, error: &dyn fmt::Display, peer: &Peer) {
        (self.on_head_error)(reason);
        let [malformed, too_large, tls] = &self.throttles;
        let throttle = match reason {
            HeadError::Malformed => malformed,
            HeadError::TooLarge => too_large,
            HeadError::Tls => tls,
        };
        let Some(suppressed) = throttle.borrow_mut().allow() else { return };
        match reason {
            HeadError::Tls => tracing::warn!(
                %peer, suppressed,
                "TLS ClientHello on a listener without TLS; the client should use http://, or the \
                 listener needs a certificate (tls)"
            ),
            HeadError::TooLarge => tracing::warn!(
                %peer, %error, suppressed,
                "request head refused: its target has more than 65,534 bytes, its Content-Length is near 2^64, or it exceeds \
                 server.max_header_bytes or server.max_headers"
            ),
            HeadError::Malformed => {
                tracing::warn!(%peer, %error, suppressed, "request head refused")
            }
        }
    }
}
