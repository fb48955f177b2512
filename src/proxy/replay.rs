//! What is remembered of a request, so that it can be sent a second time with a newer token.
//!
//! Only requests without a body are remembered: whatever streams is sent once.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body::Body as _;

use crate::body::Body;

/// The head of a request that had no body.
pub struct Kept {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Kept {
    /// Remembers a request, unless it has a body.
    pub fn of(request: &Request<Body>) -> Option<Self> {
        request.body().is_end_stream().then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    /// The request again, its Authorization rebuilt.
    pub fn with(self, authorization: HeaderValue) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request.headers_mut().insert(AUTHORIZATION, authorization);
        request
    }
}
