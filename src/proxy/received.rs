//! A request as it came in: its head is well-formed, addressed to us, and readable in one way only.
//! It can do nothing but be routed.

use http::header::{EXPECT, HOST};
use http::{Method, Version};
use http_body::Body as _;

use super::hygiene::{self, Framing, Kinds};
use super::plan::ListenerPlan;
use super::rejection::{Code, Rejection};
use crate::layer::page::foreign_page;
use crate::message::{Fields, Request};
use crate::proxy::settings::RequestLimits;
use crate::route::target::{Quirks, Target};
use crate::route::{Authority, Lookup};
use crate::server::flaw::Flaw;

use super::plan::RoutePlan;
use super::routed::Routed;

/// A request whose head has been read and found to be for us.
pub struct Received {
    /// In a box, since it is handed from state to state.
    pub(super) request: Box<Request>,
    pub(super) framing: Framing,
    /// What kinds of fields its head holds.
    pub(super) fields: Kinds,
    pub(super) host: Option<Authority>,
    /// Whether it came over TLS.
    pub(super) tls: bool,
    quirks: Quirks,
}

impl Received {
    /// Reads the head of a request that arrived at a listener; `fields` are the kinds it holds.
    ///
    /// # Errors
    /// Whatever is odd is refused before anything is matched: RFC 9112 sections 3.2 and 6.
    pub fn read(
        mut request: Box<Request>,
        fields: Kinds,
        listener: &ListenerPlan,
        limits: &RequestLimits,
    ) -> Result<Self, Rejection> {
        if let Some(flaw) = request.extensions.get::<Flaw>() {
            return Err(flawed(*flaw));
        }
        let mut framing = Framing::None;
        if fields.any(Kinds::LENGTH | Kinds::CODING) {
            framing = hygiene::request_framing(request.version, &request.fields)
                .map_err(|error| Rejection::new(Code::BadRequest, error.to_string()))?;
        }
        if request.version == Version::HTTP_2 {
            hygiene::rejoin_cookies(&mut request.fields);
            if framing == Framing::None && !request.body.is_end_stream() {
                framing = Framing::Chunked;
            }
        }
        if let Framing::Length(length) = framing
            && length > limits.max_request_body
        {
            return Err(too_large(limits));
        }
        let host = addressed_to_us(&request, listener)?;
        if fields.any(Kinds::ORIGIN | Kinds::FETCH_SITE) {
            from_no_foreign_page(&request.fields, listener)?;
        }
        if fields.any(Kinds::EXPECT) {
            expects_what_we_know(&request)?;
        }
        let quirks = read_target(&request, limits)?;
        Ok(Self { request, framing, fields, host, tls: listener.tls, quirks })
    }

    /// Finds the route that claims it.
    ///
    /// # Errors
    /// Where none does, or the one that does lacks an opt-in the target needs.
    pub fn route(self, listener: &ListenerPlan) -> Result<Routed, Rejection> {
        let host = self.host.as_ref().map_or("", Authority::host);
        let path = self.request.uri.path();
        let route = match listener.table.find(host, &self.request.method, path) {
            Lookup::Found(route) => std::sync::Arc::clone(route),
            Lookup::MethodNotAllowed(allow) => {
                let mut rejection = Rejection::new(
                    Code::Method,
                    "routes claim this path, but none of them lists this method",
                );
                rejection.allow = Some(allow);
                return Err(rejection);
            }
            Lookup::NotFound => return Err(self.unrouted()),
        };
        opted_in(self.quirks, &route)?;
        if route.case_insensitive {
            let other = listener.table.find_in_any_case(host, &self.request.method, path);
            if !other.is_some_and(|other| std::sync::Arc::ptr_eq(other, &route)) {
                return Err(Rejection::new(
                    Code::BadTarget,
                    "another route claims this path in another case, and to the upstream both are one",
                ));
            }
        }
        Ok(Routed::new(self, route))
    }

    /// An ambiguous path that nobody claims is ambiguous first.
    fn unrouted(&self) -> Rejection {
        if self.quirks.semicolon || self.quirks.encoded_slash {
            return quirk_refused(self.quirks);
        }
        Rejection::new(
            Code::NoRoute,
            "no route of the configuration claims this host and path; \
             `bearer-proxy explain METHOD URL` shows what would",
        )
    }
}

fn flawed(flaw: Flaw) -> Rejection {
    let code = match flaw {
        Flaw::Fragment => Code::BadTarget,
        Flaw::TooManyFields | Flaw::HeadTooLarge => Code::HeadersTooLarge,
        Flaw::TargetTooLong => Code::UriTooLong,
        _ => Code::BadRequest,
    };
    Rejection::new(code, flaw.to_string())
}

pub(super) fn too_large(limits: &RequestLimits) -> Rejection {
    Rejection::new(
        Code::BodyTooLarge,
        format!("the body exceeds server.max_request_body, {} bytes", limits.max_request_body),
    )
}

/// RFC 9112 section 3.2: one valid Host with HTTP/1.1; RFC 9110 section 7.4: 421 for others' hosts.
fn addressed_to_us(
    request: &Request,
    listener: &ListenerPlan,
) -> Result<Option<Authority>, Rejection> {
    let bad = |detail: &'static str| Rejection::new(Code::BadRequest, detail);
    if request.method == Method::CONNECT {
        return Err(Rejection::new(
            Code::BadTarget,
            "CONNECT is not served: this is no forward proxy",
        ));
    }
    let mut hosts = request.fields.get_all(&HOST);
    let header = match (hosts.next(), hosts.next()) {
        (Some(value), None) => {
            Some(Authority::parse(value).map_err(|_| bad("the Host header is not a valid host"))?)
        }
        (None, _) => None,
        (Some(_), Some(_)) => return Err(bad("more than one Host header")),
    };
    if !matches!(request.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Rejection::new(Code::BadTarget, "the target's scheme is not http or https"));
    }
    let target = match request.uri.authority() {
        Some(authority) => Some(
            Authority::parse(authority.as_str().as_bytes())
                .map_err(|_| bad("the target's authority is not a valid host"))?,
        ),
        None => None,
    };
    // RFC 9112 section 3.2 asks HTTP/1.1 for a Host, whatever the target; HTTP/1.0 apps may not know
    // it, and HTTP/2 has `:authority`.
    let silent = header.is_none() && target.is_none();
    match request.version {
        Version::HTTP_10 if silent => return Ok(None),
        Version::HTTP_11 if header.is_none() => {
            return Err(bad("a request needs exactly one Host header"));
        }
        _ if silent => return Err(bad("a request needs an authority")),
        _ => {}
    }
    if !matches!(request.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Rejection::new(Code::BadTarget, "the target's scheme is not http or https"));
    }
    for authority in header.iter().chain(&target) {
        if !listener.hosts.allows(authority) {
            return Err(Rejection::new(
                Code::ForeignHost,
                "the request is addressed to a host that this listener does not answer to; \
                 if an HTTP proxy variable points here, exclude localhost with NO_PROXY, \
                 and if apps use this name on purpose, add it to server.allowed_hosts",
            ));
        }
    }
    if header.is_some() && target.is_some() && header != target {
        return Err(bad("the Host header and the target's authority differ"));
    }
    Ok(target.or(header))
}

/// Localhost is no boundary of trust: a browser brings every page of the web there.
fn from_no_foreign_page(headers: &Fields, listener: &ListenerPlan) -> Result<(), Rejection> {
    match foreign_page(headers, &listener.origins) {
        None => Ok(()),
        Some(name) => Err(Rejection::new(
            Code::CrossSite,
            format!("a web page sent this request ({name}); see server.allowed_origins"),
        )),
    }
}

/// RFC 9110 section 10.1.1: there is one expectation, and HTTP/1.0 knows none.
fn expects_what_we_know(request: &Request) -> Result<(), Rejection> {
    let known = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
    if request.version == Version::HTTP_10 || request.fields.get_all(&EXPECT).all(known) {
        return Ok(());
    }
    Err(Rejection::new(Code::Expectation, "Expect says something else than 100-continue"))
}

fn read_target(request: &Request, limits: &RequestLimits) -> Result<Quirks, Rejection> {
    let Some(target) = request.uri.path_and_query() else {
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

fn opted_in(quirks: Quirks, route: &RoutePlan) -> Result<(), Rejection> {
    let refused = (quirks.semicolon && !route.allow_semicolon)
        || (quirks.encoded_slash && !route.allow_encoded_slash);
    if refused { Err(quirk_refused(quirks)) } else { Ok(()) }
}

fn quirk_refused(quirks: Quirks) -> Rejection {
    let detail = if quirks.semicolon {
        "the path holds `;`, which servers read differently; a route may set allow_semicolon"
    } else {
        "the path holds an encoded slash, which servers read differently; \
         a route may set allow_encoded_slash"
    };
    Rejection::new(Code::BadTarget, detail)
}
