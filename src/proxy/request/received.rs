//! A request as it came in: its head is well-formed, addressed to us, and readable in one way only.
//! It can do nothing but be routed.

use http::header::{EXPECT, HOST};
use http::{HeaderMap, Method, Request, Version};
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

/// A request whose head has been read and found to be for us.
pub struct Received {
    /// The request.
    pub inbound: Box<ScopedRequest>,
    /// How its body is delimited.
    pub body_length: BodyLength,
    /// The host it is addressed to; HTTP/1.0 need not say.
    pub host: Option<Authority>,
    /// Whether it came over TLS.
    pub tls: bool,
    /// What its target holds that servers read differently.
    pub quirks: Quirks,
}

impl Received {
    /// Reads the head of a request that arrived at a listener.
    ///
    /// # Errors
    /// Whatever is odd is refused before anything is matched: RFC 9112 sections 3.2 and 6.
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
        let host = addressed_to_us(request, listener)?;
        if fields.intersects(FieldClass::ORIGIN | FieldClass::FETCH_SITE) {
            from_no_foreign_page(request.headers(), listener)?;
        }
        if fields.intersects(FieldClass::EXPECT) {
            expects_what_we_know(request)?;
        }
        let quirks = read_target(request, limits)?;
        Ok(Self { inbound, body_length, host, tls: listener.tls, quirks })
    }
}

/// RFC 9112 section 3.2: one valid Host with HTTP/1.1, which an absolute target overrides whatever it
/// says (section 3.2.2); RFC 9110 section 7.4: 421 for others' hosts.
fn addressed_to_us(
    request: &Request<Body>,
    listener: &ListenerPlan,
) -> Result<Option<Authority>, Rejection> {
    let bad = |detail: &'static str| Rejection::new(Code::BadRequest, detail);
    if *request.method() == Method::CONNECT {
        return Err(Rejection::new(
            Code::BadTarget,
            "CONNECT is not served: this is no forward proxy",
        ));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let header = match (hosts.next(), hosts.next()) {
        (Some(value), None) => Some(
            Authority::parse(value.as_bytes())
                .map_err(|_| bad("the Host header is not a valid host"))?,
        ),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(bad("more than one Host header")),
    };
    if !matches!(request.uri().scheme_str(), None | Some("http" | "https")) {
        return Err(Rejection::new(Code::BadTarget, "the target's scheme is not http or https"));
    }
    let target = match request.uri().authority() {
        Some(authority) => Some(
            Authority::parse(authority.as_str().as_bytes())
                .map_err(|_| bad("the target's authority is not a valid host"))?,
        ),
        None => None,
    };
    // RFC 9112 section 3.2 asks HTTP/1.1 for a Host, whatever the target; HTTP/1.0 apps may not know
    // it, and HTTP/2 has `:authority`.
    let silent = header.is_none() && target.is_none();
    match request.version() {
        Version::HTTP_10 if silent => return Ok(None),
        Version::HTTP_11 if header.is_none() => {
            return Err(bad("a request needs exactly one Host header"));
        }
        _ if silent => return Err(bad("a request needs an authority")),
        _ => {}
    }
    let foreign = || {
        Rejection::new(
            Code::ForeignHost,
            "the request is addressed to a host that this listener does not answer to; \
             if an HTTP proxy variable points here, exclude localhost with NO_PROXY, \
             and if apps use this name on purpose, add it to server.allowed_hosts",
        )
    };
    if request.version() == Version::HTTP_2
        && header.as_ref().is_some_and(|host| !listener.hosts.allows(host))
    {
        return Err(foreign());
    }
    if request.version() == Version::HTTP_2
        && header.is_some()
        && target.is_some()
        && header != target
    {
        // RFC 9113 section 8.3.1.
        return Err(bad("the Host header and :authority differ"));
    }
    let authority = target.or(header);
    if !authority.as_ref().is_some_and(|authority| listener.hosts.allows(authority)) {
        return Err(foreign());
    }
    Ok(authority)
}

/// Localhost is no boundary of trust: a browser brings every page of the web there.
fn from_no_foreign_page(headers: &HeaderMap, listener: &ListenerPlan) -> Result<(), Rejection> {
    match foreign_page(headers, &listener.origins) {
        None => Ok(()),
        Some(name) => Err(Rejection::new(
            Code::CrossSite,
            format!("a web page sent this request ({name}); see server.allowed_origins"),
        )),
    }
}

/// RFC 9110 section 10.1.1: there is one expectation, and HTTP/1.0 knows none.
fn expects_what_we_know(request: &Request<Body>) -> Result<(), Rejection> {
    let known = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if request.version() == Version::HTTP_10 || request.headers().get_all(EXPECT).iter().all(known)
    {
        return Ok(());
    }
    Err(Rejection::new(Code::Expectation, "Expect says something else than 100-continue"))
}

fn read_target(request: &Request<Body>, limits: &RequestLimits) -> Result<Quirks, Rejection> {
    let Some(target) = request.uri().path_and_query() else {
        return Err(Rejection::new(Code::BadTarget, "the request target has no path"));
    };
    if target.as_str().len() > limits.max_uri_bytes {
        return Err(Rejection::new(
            Code::UriTooLong,
            format!("the target exceeds server.max_uri, {} bytes", limits.max_uri_bytes),
        ));
    }
    let target = Target::read(target.as_str())
        .map_err(|error| Rejection::new(Code::BadTarget, error.to_string()))?;
    Ok(target.quirks)
}
