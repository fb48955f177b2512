//! Requests that may be sent a second time, and the copy that this needs.
//!
//! A request may be sent again if that cannot repeat an effect: with a safe method, or with another
//! if its route allows it. The copy needs the whole body in memory.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request};

use crate::body::Body;
use crate::proxy::policy::settings::RetryUnsafe;
use crate::token::Bearer;

/// True if a method is safe, and may always be sent again: GET, HEAD or OPTIONS, a subset of the
/// safe methods of RFC 9110 section 9.2.1.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// True if a request may be sent a second time, by its method and the condition of its route.
pub fn may_repeat(method: &Method, headers: &HeaderMap, retry_unsafe: RetryUnsafe) -> bool {
    is_safe(method)
        || match retry_unsafe {
            RetryUnsafe::Never => false,
            RetryUnsafe::IdempotencyKey => headers.contains_key("idempotency-key"),
            RetryUnsafe::Always => true,
        }
}

/// A copy of a request for a second try.
pub struct Replay {
    head: Parts,
    body: Bytes,
    retries: Retries,
}

/// The occasions on which a request may be sent a second time.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// After a failure, or a rejected token: it cannot repeat an effect.
    pub repeat: bool,
    /// After a response that asks for a nonce, since the upstream has not acted on it.
    pub nonce: bool,
}

impl Retries {
    /// True if there is any.
    pub fn any(self) -> bool {
        self.repeat || self.nonce
    }
}

impl Replay {
    /// Copies a request with its whole body.
    pub fn keep(request: &Request<Body>, body: Bytes, retries: Retries) -> Self {
        let mut head = Request::new(()).into_parts().0;
        head.method = request.method().clone();
        head.uri = request.uri().clone();
        head.version = request.version();
        head.headers = request.headers().clone();
        // hyper keeps the case of header names in the extensions.
        head.extensions = request.extensions().clone();
        Self { head, body, retries }
    }

    /// True if it may be sent again after a failure, or with a newer token.
    pub fn may_repeat(&self) -> bool {
        self.retries.repeat
    }

    /// Takes the one permission to send it again with a nonce.
    pub fn take_nonce_retry(&mut self) -> bool {
        std::mem::take(&mut self.retries.nonce)
    }

    /// Takes the permission to send it again after a failure, or with a newer token.
    pub fn take_repeat(&mut self) -> bool {
        std::mem::take(&mut self.retries.repeat)
    }

    /// Attaches another token.
    pub fn attach(&mut self, bearer: &Bearer) {
        bearer.attach(&mut self.head.headers);
    }

    /// The request to send again.
    pub fn request(&self) -> Request<Body> {
        Request::from_parts(self.head.clone(), Body::full(self.body.clone()))
    }
}
