//! Access to admin listeners. On loopback: programs of this machine, but no web page in a browser on it.
//! Beyond loopback: everyone, but only probes and metrics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use http::uri::Authority;
use http::{Request, Version};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The network that an admin listener can be reached from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This machine only. Foreign host names are refused, which stops DNS rebinding.
    Loopback(IpAddr),
    /// Other machines too, under any name.
    Remote,
}

/// A request has no access to an admin listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessError {
    /// The Host field is missing, repeated or invalid (RFC 9112 section 3.2).
    BadHost,
    /// The Host is not this machine.
    ForeignHost,
    /// A web page of another site sent the request.
    CrossSite,
}

impl Reach {
    /// The reach of a Unix socket: its clients name this machine.
    pub const SOCKET: Self = Self::Loopback(IpAddr::V4(Ipv4Addr::LOCALHOST));

    /// The reach of a listener bound to this address.
    pub fn of(bound: SocketAddr) -> Self {
        match bound.ip().to_canonical() {
            ip if ip.is_loopback() => Self::Loopback(ip),
            _ => Self::Remote,
        }
    }

    /// Checks that the request has access.
    ///
    /// # Errors
    /// The reason for refusing it.
    pub fn admit<B>(self, request: &Request<B>) -> Result<(), AccessError> {
        let Self::Loopback(bound) = self else { return Ok(()) };
        let authority = authority(request)?;
        if authority.as_ref().is_some_and(|authority| !is_ours(authority.host(), bound)) {
            return Err(AccessError::ForeignHost);
        }
        if is_cross_site(request.headers(), authority.as_ref()) {
            return Err(AccessError::CrossSite);
        }
        Ok(())
    }
}

/// The authority of a request; `None` for HTTP/1.0 without Host.
fn authority<B>(request: &Request<B>) -> Result<Option<Authority>, AccessError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, _) if request.version() < Version::HTTP_11 => return Ok(None),
        _ => return Err(AccessError::BadHost),
    };
    let host = Authority::try_from(host.as_bytes()).map_err(|_| AccessError::BadHost)?;
    // RFC 9112 section 3.2.2: the authority of an absolute target wins over Host.
    Ok(Some(request.uri().authority().cloned().unwrap_or(host)))
}

fn is_ours(host: &str, bound: IpAddr) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip == bound || ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST)
}

fn is_cross_site(headers: &HeaderMap, own: Option<&Authority>) -> bool {
    let harmless = |site: &HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    let ours = |origin: &HeaderValue| {
        let named = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        named.is_some() && named == own.map(Authority::as_str)
    };
    !headers.get_all(FETCH_SITE).iter().all(harmless) || !headers.get_all(ORIGIN).iter().all(ours)
}
