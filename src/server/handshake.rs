//! The TLS handshake of one client connection, within a time-out that shutdown shortens.

use std::io;
use std::time::Duration;

use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client_stream::ClientStream;
use super::drain::DrainHandle;
use crate::listen::PeerCertificate;

/// How long a handshake may still take when the server shuts down.
const LEAVE_GRACE: Duration = Duration::from_millis(500);

/// Accepts a handshake within `limit`, and parses the client's certificate, if it presents one.
pub(super) async fn handshake<I: ClientStream>(
    acceptor: TlsAcceptor,
    stream: I,
    limit: Duration,
    handle: &DrainHandle,
) -> io::Result<(TlsStream<I>, Option<Box<PeerCertificate>>)> {
    let leaving = async {
        handle.finishing().await;
        sleep(LEAVE_GRACE).await;
    };
    let stream = tokio::select! {
        biased;
        accepted = acceptor.accept(stream) => accepted?,
        () = sleep(limit) => return Err(io::ErrorKind::TimedOut.into()),
        () = leaving => return Err(io::ErrorKind::TimedOut.into()),
    };
    let presented = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let Some(presented) = presented else { return Ok((stream, None)) };
    let certificate = PeerCertificate::read(presented).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "the client's certificate is unreadable")
    })?;
    Ok((stream, Some(Box::new(certificate))))
}
