//! The connection to a credential's endpoints.

use std::time::Duration;

use super::credential::Credential;
use crate::net::Origin;
use crate::net::connect::{ConnectSettings, Connector};
use crate::net::tls::{Alpn, ClientIdentity, TlsCache, TlsSettings};
use crate::oauth::TokenEndpoint;
use crate::secret::EgressProxy;
use crate::x509::TlsSetupError;

/// Largest answer that is read, in bytes.
pub(super) const MAX_RESPONSE_BYTES: usize = 1024 * 1024;
/// Time that sent bytes may stay unacknowledged before the connection counts as dead.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// A connector to one of the credential's endpoints. It presents `identity`, the client certificate as
/// it was loaded for this call.
///
/// # Errors
/// The TLS settings cannot be used.
pub fn connector(
    credential: &Credential,
    endpoint: &TokenEndpoint,
    identity: Option<&ClientIdentity>,
) -> Result<Connector, TlsSetupError> {
    let origin = Origin::with_cleartext(endpoint.uri(), endpoint.cleartext())
        .map_err(|error| TlsSetupError::new(error.message))?;
    let timeout = credential.policy.connect_timeout;
    let settings = ConnectSettings { timeout, tcp_user_timeout: TCP_USER_TIMEOUT };
    // Not read a second time: the files may have been renewed since.
    let tls = TlsSettings { client_certificate: None, ..credential.tls.clone() };
    let connector = Connector::new(&TlsCache::default(), origin, &tls, Alpn::Both, settings)?
        .via_proxy(credential.egress.as_ref().map(EgressProxy::tunnel_proxy))?;
    Ok(match identity {
        Some(identity) => connector.with_identity(identity),
        None => connector,
    })
}
