//! What is remembered of a request, so that it can be sent a second time with a newer token.
//!
//! A body is remembered only where it is already whole in memory: whatever streams is sent once. A
//! head stays with its sender anyway, so that remembering it costs nothing.

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};

use crate::body::Body;

/// A request that can be sent again.
pub struct Kept {
    head: Box<Request<Body>>,
    body: Bytes,
}

impl Kept {
    /// Remembers a request that was sent with these bytes for its body.
    pub fn new(head: Box<Request<Body>>, body: Bytes) -> Self {
        Self { head, body }
    }

    /// The request again, its Authorization rebuilt.
    pub fn with(mut self, authorization: HeaderValue) -> Box<Request<Body>> {
        self.head.headers_mut().insert(AUTHORIZATION, authorization);
        *self.head.body_mut() = Body::full(self.body);
        self.head
    }
}
