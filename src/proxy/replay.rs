//! What is remembered of a request, so that it can be sent a second time with a newer token.
//!
//! A body is remembered only where it is already whole in memory: whatever streams is sent once. A
//! head stays with its sender anyway, so that remembering it costs nothing.

use bytes::Bytes;
use http::HeaderValue;
use http::header::AUTHORIZATION;

use crate::body::Body;
use crate::message::Request;

/// A request that can be sent again.
pub struct Kept {
    head: Box<Request>,
    body: Bytes,
}

impl Kept {
    /// Remembers a request that was sent with these bytes for its body.
    pub fn new(head: Box<Request>, body: Bytes) -> Self {
        Self { head, body }
    }

    /// The request again, its Authorization rebuilt.
    pub fn with(mut self, authorization: HeaderValue) -> Box<Request> {
        self.head.fields.insert(AUTHORIZATION, authorization);
        self.head.body = Body::full(self.body);
        self.head
    }
}
