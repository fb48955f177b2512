//! A request that a route claims. The only transition is to be authorized.

use std::sync::Arc;

use http::Method;

use super::received::Received;
use crate::proxy::policy::plan::{ListenerPlan, RoutePlan};
use crate::proxy::rejection::{Code, Rejection};
use crate::route::target::{QuirkSet, Quirks};
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
        let request = &received.inbound.request;
        let (method, path) = (request.method(), request.uri().path());
        let route = find(listener, received.host.as_ref(), method, path, &received.quirks)
            .inspect_err(|rejection| {
                if rejection.code == Code::NoRoute {
                    received.inbound.scope.record(|record| record.unclaimed(path));
                }
            })?;
        Ok(Self { received, route })
    }
}

/// Finds the route of a listener that claims a host, method and canonical path.
pub(super) fn find(
    listener: &ListenerPlan,
    host: Option<&Authority>,
    method: &Method,
    path: &str,
    quirks: &Quirks,
) -> Result<Arc<RoutePlan>, Rejection> {
    let host = host.map_or("", Authority::host);
    let route = match listener.table.find(host, method, path, |one, other| one.is_like(other)) {
        Lookup::Found(route) => Arc::clone(route),
        Lookup::MethodNotAllowed { allow, rules } => {
            let mut rejection = Rejection::new(Code::Method, wrong_method(&rules));
            rejection.allow = Some(allow);
            return Err(rejection);
        }
        Lookup::Ambiguous(route) => {
            let quirk = refused(quirks, route.allowed_quirks);
            return Err(quirk.unwrap_or_else(|| Rejection::new(Code::BadTarget, AMBIGUOUS)));
        }
        Lookup::NotFound => return Err(unrouted(quirks)),
    };
    if let Some(quirk) = refused(quirks, route.allowed_quirks) {
        return Err(quirk);
    }
    if route.case_insensitive {
        let other = listener.table.find_in_any_case(host, method, path);
        if !other.is_some_and(|other| Arc::ptr_eq(other, &route)) {
            return Err(Rejection::new(
                Code::BadTarget,
                "another route claims this path in another case, and to the upstream both are one",
            ));
        }
    }
    Ok(route)
}

/// The detail for a path that routes claim with other methods: names the first routes, with the methods
/// that they list.
fn wrong_method(routes: &[&Arc<RoutePlan>]) -> String {
    const NAMED: usize = 5;
    let claim = |route: &&Arc<RoutePlan>| {
        let methods: Vec<_> = route.methods.iter().map(Method::as_str).collect();
        format!("{} ({})", route.name, methods.join(", "))
    };
    let named: Vec<_> = routes.iter().take(NAMED).map(claim).collect();
    let more = if routes.len() > NAMED { " and others" } else { "" };
    let named = named.join(", ");
    format!("routes claim this path, but none of them lists this method: {named}{more}")
}

/// The detail of a rejected path that a route claims, and another route in another interpretation.
const AMBIGUOUS: &str = "some servers decode, merge or strip parts of this path, and then \
     another route claims it";

/// The rejection of a request that no route claims. An ambiguous path is rejected for that first.
fn unrouted(quirks: &Quirks) -> Rejection {
    refused(quirks, QuirkSet::empty()).unwrap_or_else(|| {
        Rejection::new(
            Code::NoRoute,
            "no route of the configuration claims this host and path; \
             `bearer-proxy explain METHOD URL` shows what would",
        )
    })
}

fn refused(quirks: &Quirks, allowed: QuirkSet) -> Option<Rejection> {
    let quirk = quirks.refused(allowed)?;
    Some(Rejection::new(Code::BadTarget, quirk.to_string()))
}
