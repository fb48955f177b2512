//! Who may look in: on loopback this machine's programs but no web page that a browser on it shows;
//! beyond loopback anybody, but at probes and metrics only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use http::uri::Authority;
use http::{Request, Version};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// From where an admin listener can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This machine only; names that are not its own are refused, which stops DNS rebinding.
    Loopback(IpAddr),
    /// Others too, under any name.
    Remote,
}

/// Why a request may not look in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessError {
    /// No Host, several, or one that is none (RFC 9112 section 3.2).
    BadHost,
    /// A Host that is not ours.
    ForeignHost,
    /// A web page of another site asks.
    CrossSite,
}

impl Reach {
    /// That of a Unix socket: its clients name this machine.
    pub const SOCKET: Self = Self::Loopback(IpAddr::V4(Ipv4Addr::LOCALHOST));

    /// That of a listener bound to this address.
    pub fn of(bound: SocketAddr) -> Self {
        match bound.ip().to_canonical() {
            ip if ip.is_loopback() => Self::Loopback(ip),
            _ => Self::Remote,
        }
    }

    /// Whether the request may look in at all.
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

/// The name the request is for; HTTP/1.0 may leave it out.
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
