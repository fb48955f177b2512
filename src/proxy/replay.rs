//! What is remembered of a request, so that it can be sent a second time with a newer token.
//!
//! A body is remembered only where it is already whole in memory: whatever streams is sent once.

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use crate::body::Body;

/// A request that can be sent again.
pub struct Kept {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Kept {
    /// Remembers a request whose body is these bytes.
    pub fn new<B>(request: &Request<B>, body: Bytes) -> Box<Self> {
        Box::new(Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            body,
        })
    }

    /// The request again, as it was.
    pub fn again(&self) -> Box<Request<Body>> {
        let mut request = Box::new(Request::new(Body::full(self.body.clone())));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// The request again, its Authorization rebuilt.
    pub fn with(&self, authorization: HeaderValue) -> Box<Request<Body>> {
        let mut request = self.again();
        request.headers_mut().insert(AUTHORIZATION, authorization);
        request
    }
}
