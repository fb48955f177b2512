//! A request that a route claims. The only transition is to be authorized.

use std::sync::Arc;

use super::received::Received;
use crate::proxy::policy::plan::{ListenerPlan, RoutePlan};
use crate::proxy::rejection::{Code, Rejection};
use crate::route::target::Quirks;
use crate::route::{Authority, Lookup};

/// A request and the route that claims it.
pub struct Routed {
    /// The request as it was received.
    pub received: Received,
    /// The route.
    pub route: Arc<RoutePlan>,
}

impl Routed {
    /// Finds the route that claims a request.
    ///
    /// # Errors
    /// No route claims it, or the route does not allow a part of its target.
    pub fn claim(received: Received, listener: &ListenerPlan) -> Result<Self, Rejection> {
        let host = received.host.as_ref().map_or("", Authority::host);
        let request = &received.inbound.request;
        let (method, path) = (request.method(), request.uri().path());
        let route = match listener.table.find(host, method, path) {
            Lookup::Found(route) => Arc::clone(route),
            Lookup::MethodNotAllowed(allow) => {
                let mut rejection = Rejection::new(
                    Code::Method,
                    "routes claim this path, but none of them lists this method",
                );
                rejection.allow = Some(allow);
                return Err(rejection);
            }
            Lookup::NotFound => return Err(unrouted(received.quirks)),
        };
        opted_in(received.quirks, &route)?;
        if route.case_insensitive {
            let other = listener.table.find_in_any_case(host, method, path);
            if !other.is_some_and(|other| Arc::ptr_eq(other, &route)) {
                return Err(Rejection::new(
                    Code::BadTarget,
                    "another route claims this path in another case, and to the upstream both are one",
                ));
            }
        }
        Ok(Self { received, route })
    }
}

/// The rejection of a request that no route claims. An ambiguous path is rejected for that first.
fn unrouted(quirks: Quirks) -> Rejection {
    if quirks.semicolon || quirks.encoded_slash {
        return quirk_refused(quirks);
    }
    Rejection::new(
        Code::NoRoute,
        "no route of the configuration claims this host and path; \
         `bearer-proxy explain METHOD URL` shows what would",
    )
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
