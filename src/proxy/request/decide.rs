//! The decisions about a request that its head alone settles, for `explain`: by the same functions that
//! decide about a real request.

use std::sync::Arc;

use http::Request;
use http::uri::PathAndQuery;

use super::authorized::outbound_target;
use super::received::{addressed_host, read_target};
use super::routed;
use crate::proxy::policy::plan::{ListenerPlan, Plan, RoutePlan};
use crate::proxy::rejection::{Code, Rejection};

/// A request that would be forwarded.
pub struct Decision {
    /// The route that claims it.
    pub route: Arc<RoutePlan>,
    /// Its target as the upstream gets it.
    pub outbound: PathAndQuery,
}

/// Decides about a request that arrives at a listener. Its client and its token are not looked at.
///
/// # Errors
/// The rejection that the app would get.
pub fn decide<B>(
    plan: &Plan,
    listener: &ListenerPlan,
    mut request: Request<B>,
) -> Result<Decision, Rejection> {
    let host = addressed_host(&request, listener)?;
    let quirks = read_target(&mut request, &plan.limits)?;
    let (method, path) = (request.method(), request.uri().path());
    let route = routed::find(listener, host.as_ref(), method, path, &quirks)?;
    let upstream = plan.upstreams.get(route.upstream);
    let upstream =
        upstream.ok_or_else(|| Rejection::new(Code::Internal, "the route has no upstream"))?;
    let outbound = outbound_target(&request, &route, upstream)?;
    Ok(Decision { route, outbound })
}
