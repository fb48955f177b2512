//! A request as it was received: its head is well-formed, addressed to this proxy and unambiguous.
//! The only transition is to be routed.

use http::header::{EXPECT, HOST};
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::Body as _;

use super::scope::ScopedRequest;
use crate::body::Body;
use crate::proxy::headers::{self, BodyLength, FieldClass};
use crate::proxy::limits::web_origin::foreign_page;
use crate::proxy::policy::plan::ListenerPlan;
use crate::proxy::policy::settings::RequestLimits;
use crate::proxy::rejection::{Code, Rejection};
use crate::route::Authority;
use crate::route::target::{Quirks, Target};

const NO_PATH: &str = "the request target has no path";

/// A request whose head has been checked.
pub struct Received {
    /// The request.
    pub inbound: Box<ScopedRequest>,
    /// The length of its body, as its head announces it.
    pub body_length: BodyLength,
    /// The host that it is addressed to; `None` with HTTP/1.0 only.
    pub host: Option<Authority>,
    /// Set if it came over TLS.
    pub tls: bool,
    /// The parts of its path that servers read differently.
    pub quirks: Quirks,
}

impl Received {
    /// Checks the head of a request that arrived at a listener.
    ///
    /// # Errors
    /// The head is malformed or ambiguous (RFC 9112 sections 3.2 and 6), or a limit is exceeded.
    pub fn read(
        mut inbound: Box<ScopedRequest>,
        listener: &ListenerPlan,
        limits: &RequestLimits,
    ) -> Result<Self, Rejection> {
        let ScopedRequest { request, fields, .. } = &mut *inbound;
        let mut body_length = BodyLength::None;
        if fields.intersects(FieldClass::LENGTH | FieldClass::CODING) {
            body_length = headers::request_body_length(request.version(), request.headers())
                .map_err(|error| Rejection::new(Code::BadRequest, error.to_string()))?;
        }
        if request.version() == Version::HTTP_2 {
            headers::rejoin_cookies(request.headers_mut());
            if body_length == BodyLength::None && !request.body().is_end_stream() {
                body_length = BodyLength::Unknown;
            }
        }
        if let BodyLength::Known(length) = body_length
            && length > limits.max_request_body
        {
            return Err(Rejection::body_too_large(limits.max_request_body));
        }
        let host = addressed_host(request, listener)?;
        if fields.intersects(FieldClass::ORIGIN | FieldClass::FETCH_SITE) {
            reject_foreign_page(request.headers(), listener)?;
        }
        if fields.intersects(FieldClass::EXPECT) {
            check_expectation(request)?;
        }
        let quirks = read_target(request, limits)?;
        Ok(Self { inbound, body_length, host, tls: listener.tls, quirks })
    }
}

/// Checks that a request is addressed to a host of the listener, and returns that host. HTTP/1.1
/// needs one valid Host (RFC 9112 section 3.2), which the authority of an absolute target overrides
/// (section 3.2.2). Other hosts are rejected with 421 (RFC 9110 section 7.4).
pub(super) fn addressed_host<B>(
    request: &Request<B>,
    listener: &ListenerPlan,
) -> Result<Option<Authority>, Rejection> {
    let bad = |detail: &'static str| Rejection::new(Code::BadRequest, detail);
    let foreign = |host: &Authority| {
        let host = host.host();
        let detail = format!(
            "the request is addressed to {host}, to which this listener does not answer; \
             if an HTTP proxy variable points here, exclude localhost with NO_PROXY, \
             and if apps use this name on purpose, add it to server.allowed_hosts"
        );
        Rejection::new(Code::ForeignHost, detail)
    };
    if *request.method() == Method::CONNECT {
        let detail = "CONNECT is not served: this is no forward proxy";
        return Err(Rejection::new(Code::BadTarget, detail));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, further) = (hosts.next(), hosts.next());
    if further.is_some() {
        return Err(bad("more than one Host header"));
    }
    let host = host
        .map(|value| Authority::parse(value.as_bytes()))
        .transpose()
        .map_err(|_| bad("the Host header is not a valid host"))?;
    if !matches!(request.uri().scheme_str(), None | Some("http" | "https")) {
        return Err(Rejection::new(Code::BadTarget, "the target's scheme is not http or https"));
    }
    let target = request.uri().authority();
    let target = target
        .map(|authority| Authority::parse(authority.as_str().as_bytes()))
        .transpose()
        .map_err(|_| bad("the target's authority is not a valid host"))?;
    let is_http2 = request.version() == Version::HTTP_2;
    match (&host, &target) {
        // HTTP/1.0 does not know Host.
        (None, None) if request.version() == Version::HTTP_10 => return Ok(None),
        (None, _) if request.version() == Version::HTTP_11 => {
            return Err(bad("a request needs exactly one Host header"));
        }
        (None, None) => return Err(bad("a request needs an authority")),
        (Some(host), _) if is_http2 && !listener.hosts.allows(host) => return Err(foreign(host)),
        // RFC 9113 section 8.3.1.
        (Some(host), Some(target)) if is_http2 && host != target => {
            return Err(bad("the Host header and :authority differ"));
        }
        _ => {}
    }
    match target.or(host) {
        Some(authority) if listener.hosts.allows(&authority) => Ok(Some(authority)),
        Some(authority) => Err(foreign(&authority)),
        None => Err(bad("a request needs an authority")),
    }
}

/// Rejects requests of web pages. Localhost is not a boundary of trust: a browser lets any page of
/// the web send requests there.
fn reject_foreign_page(headers: &HeaderMap, listener: &ListenerPlan) -> Result<(), Rejection> {
    match foreign_page(headers, &listener.origins) {
        None => Ok(()),
        Some(name) => Err(Rejection::new(
            Code::CrossSite,
            format!("a web page sent this request ({name}); see server.allowed_origins"),
        )),
    }
}

/// Rejects expectations other than `100-continue`, the only one that exists (RFC 9110 section 10.1.1).
/// HTTP/1.0 has none, and the header is ignored.
fn check_expectation(request: &Request<Body>) -> Result<(), Rejection> {
    let known = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if request.version() == Version::HTTP_10 || request.headers().get_all(EXPECT).iter().all(known)
    {
        return Ok(());
    }
    Err(Rejection::new(Code::Expectation, "Expect says something else than 100-continue"))
}

/// Reads the target, and puts the canonical path in place of the received one where they differ.
pub(super) fn read_target<B>(
    request: &mut Request<B>,
    limits: &RequestLimits,
) -> Result<Quirks, Rejection> {
    let Some(target) = request.uri().path_and_query() else {
        return Err(Rejection::new(Code::BadTarget, NO_PATH));
    };
    if target.as_str().len() > limits.max_uri_bytes {
        return Err(Rejection::new(
            Code::UriTooLong,
            format!("the target exceeds server.max_uri, {} bytes", limits.max_uri_bytes),
        ));
    }
    let bad = |detail: String| Rejection::new(Code::BadTarget, detail);
    let Target { path, query, quirks } =
        Target::read(target.as_str()).map_err(|error| bad(error.to_string()))?;
    if path != request.uri().path() {
        let canonical = match query {
            Some(query) => format!("{path}?{query}"),
            None => path.into_owned(),
        };
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(canonical.parse().map_err(|_| bad(NO_PATH.into()))?);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad(NO_PATH.into()))?;
    }
    Ok(quirks)
}
