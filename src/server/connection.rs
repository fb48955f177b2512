//! One client connection: its first bytes say which protocol is spoken on it.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tokio::time::sleep;

use super::drain::DrainHandle;
use super::head_error::{HeadError, RefusedHeads};
use super::inbound::{ConnectionInfo, RequestService};
use super::io::SharedIo;
use super::linger::linger;
use super::phase::CloseReason;
use super::settings::ConnectionSettings;
use super::timer::{ConnectionTimer, should_close_for_drain};
use super::{http1, http2};

/// The first bytes of a client with prior knowledge of HTTP/2 (RFC 9113 section 3.4), and of one that
/// negotiated `h2` in its TLS handshake.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The content type of a TLS handshake record: the first byte of a ClientHello (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Bytes that the first read of a connection asks for. Most heads fit, so that detecting the protocol
/// costs no read of its own.
const FIRST_READ: usize = 4 * 1024;

/// Serves one connection to its end.
pub(super) async fn serve<S: RequestService>(
    io: SharedIo,
    info: Rc<ConnectionInfo>,
    service: S,
    settings: &ConnectionSettings,
    refused: &Rc<RefusedHeads>,
    handle: DrainHandle,
) -> CloseReason {
    let protocol = match detect_protocol(&io, settings, &handle).await {
        Ok(protocol) => protocol,
        Err(reason) => {
            io.close().await;
            return reason;
        }
    };
    if protocol == Protocol::Http2 {
        // Boxed, so that the many connections without HTTP/2 need no room for it.
        return Box::pin(http2::serve(io, info, service, settings, refused, handle)).await;
    }
    let connection = Rc::clone(&info);
    let reason = http1::serve(io.clone(), info, service, settings, &handle).await;
    if let CloseReason::BadHead(reason, error) = &reason {
        // TLS libraries report hyper's plain 400 as "wrong version number".
        let reason = if protocol == Protocol::Tls { HeadError::Tls } else { *reason };
        refused.add(reason, error, &connection.peer);
        // hyper has answered, and reads nothing more.
        if !io.is_at_end() {
            Box::pin(linger(io)).await;
        }
    }
    reason
}

/// The protocol that the first bytes of a connection belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// HTTP/1, or bytes that hyper refuses.
    Http1,
    Http2,
    /// TLS, although the listener does not speak it.
    Tls,
}

impl Protocol {
    /// Returns `None` while the bytes are only the beginning of HTTP/2's preface.
    fn detect(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [] => None,
            [TLS_HANDSHAKE, ..] => Some(Self::Tls),
            bytes if bytes.starts_with(HTTP2_PREFACE) => Some(Self::Http2),
            bytes if HTTP2_PREFACE.starts_with(bytes) => None,
            _ => Some(Self::Http1),
        }
    }
}

/// Reads a connection's first bytes within its time-outs. They stay to be read.
async fn detect_protocol(
    io: &SharedIo,
    settings: &ConnectionSettings,
    handle: &DrainHandle,
) -> Result<Protocol, CloseReason> {
    let mut timer = ConnectionTimer::new(settings);
    let mut sleep = pin!(sleep(settings.idle_timeout));
    let mut grace = None;
    poll_fn(|cx| {
        // Registered before the read: a phase that begins meanwhile wakes the task again.
        let phase = handle.phase(cx);
        // The socket is read before the clock and the phase decide: a head that has arrived is answered.
        loop {
            match io.poll_early(cx, FIRST_READ) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(CloseReason::Closed)),
                Poll::Ready(Ok(_)) => {
                    if let Some(protocol) = io.with_early(Protocol::detect) {
                        return Poll::Ready(Ok(protocol));
                    }
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(CloseReason::Failed(error.into())));
                }
                Poll::Pending => break,
            }
        }
        if should_close_for_drain(phase, io, &mut grace, cx) {
            return Poll::Ready(Err(CloseReason::Closed));
        }
        timer.poll_expired(io, handle.is_crowded(), sleep.as_mut(), cx).map(Err)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_apart_however_the_first_bytes_are_cut() {
        let check = |bytes: &[u8], expected: Option<Protocol>| {
            assert_eq!(Protocol::detect(bytes), expected, "{bytes:?}");
        };
        check(b"", None);
        for length in 1..HTTP2_PREFACE.len() {
            check(&HTTP2_PREFACE[..length], None);
        }
        check(HTTP2_PREFACE, Some(Protocol::Http2));
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Some(Protocol::Http2));
        for bytes in [&b"POST"[..], b"PU", b"PRI * HTTP/1.1", b"G", b"\r\n", b"PRX"] {
            check(bytes, Some(Protocol::Http1));
        }
        check(b"\x16\x03\x01", Some(Protocol::Tls));
    }
}
