//! Which requests may be sent a second time, and what that needs.
//!
//! Sending again is honest where it cannot do a thing twice: for the methods below, and for others as
//! far as their route says so. It needs the whole body in memory.

use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Method, Request};

use crate::body::Body;
use crate::proxy::policy::settings::RetryUnsafe;
use crate::token::Bearer;

/// Methods that may be sent again: GET, HEAD and OPTIONS, a subset of RFC 9110 section 9.2.1.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a request may be sent a second time.
pub fn may_repeat(method: &Method, headers: &HeaderMap, retry_unsafe: RetryUnsafe) -> bool {
    is_safe(method)
        || match retry_unsafe {
            RetryUnsafe::Never => false,
            RetryUnsafe::IdempotencyKey => headers.contains_key("idempotency-key"),
            RetryUnsafe::Always => true,
        }
}

/// A request as it was sent, for a second try.
pub struct Replay {
    head: Parts,
    body: Bytes,
    bearer: Option<Arc<Bearer>>,
}

impl Replay {
    /// Keeps a request whose whole body is this one, and the token that it carries.
    pub fn keep(request: &Request<Body>, body: Bytes, bearer: Option<Arc<Bearer>>) -> Self {
        let mut head = Request::new(()).into_parts().0;
        head.method = request.method().clone();
        head.uri = request.uri().clone();
        head.version = request.version();
        head.headers = request.headers().clone();
        // hyper keeps the case of header names there.
        head.extensions = request.extensions().clone();
        Self { head, body, bearer }
    }

    /// The token that it carries.
    pub fn bearer(&self) -> Option<&Arc<Bearer>> {
        self.bearer.as_ref()
    }

    /// The same with another token.
    pub fn set_bearer(&mut self, bearer: Arc<Bearer>) {
        self.head.headers.insert(AUTHORIZATION, bearer.header().clone());
        self.bearer = Some(bearer);
    }

    /// The request, to be sent again.
    pub fn request(&self) -> Request<Body> {
        Request::from_parts(self.head.clone(), Body::full(self.body.clone()))
    }
}
