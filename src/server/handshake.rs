//! The TLS handshake of one client connection, within a time limit that shutdown shortens.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{self, Poll};
use std::time::Duration;

use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client_stream::ClientStream;
use super::drain::{DrainHandle, ShutdownPhase};
use crate::listen::PeerCertificate;

/// How long a handshake may still take when the server shuts down.
const LEAVE_GRACE: Duration = Duration::from_millis(500);

/// Shakes hands within a time, and reads whom the client's certificate names.
pub(super) async fn handshake<I: ClientStream>(
    acceptor: TlsAcceptor,
    stream: I,
    limit: Duration,
    member: &DrainHandle,
) -> io::Result<(TlsStream<I>, Option<Box<PeerCertificate>>)> {
    let mut shaken = pin!(acceptor.accept(stream));
    let mut late = pin!(sleep(limit));
    let mut leaving = None;
    let mut is_late = |cx: &mut task::Context<'_>| {
        if member.stage(cx) == ShutdownPhase::Finishing {
            let grace = leaving.get_or_insert_with(|| Box::pin(sleep(LEAVE_GRACE)));
            if grace.as_mut().poll(cx).is_ready() {
                return true;
            }
        }
        late.as_mut().poll(cx).is_ready()
    };
    let stream = poll_fn(|cx| match shaken.as_mut().poll(cx) {
        Poll::Pending if is_late(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        progress => progress,
    })
    .await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = match shown {
        None => None,
        Some(shown) => Some(Box::new(PeerCertificate::read(shown).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the client's certificate is unreadable")
        })?)),
    };
    Ok((stream, certificate))
}
