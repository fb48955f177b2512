//! Messages on their way through: a request or an answer with its fields and body, whichever version
//! of HTTP it came in and goes out by.
//!
//! Like the types of the `http` crate, to which they turn at the edge where HTTP/2 is spoken; only
//! that their [`Fields`] stay in the bytes that they were read from.

mod fields;

use http::{Extensions, Method, StatusCode, Uri, Version};

use crate::body::Body;

pub use fields::{FieldError, Fields, Lines, text};

/// A request.
#[derive(Debug)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// Of what.
    pub uri: Uri,
    /// The version it came in.
    pub version: Version,
    /// Its fields.
    pub fields: Fields,
    /// What is known of it beside its bytes.
    pub extensions: Extensions,
    /// What it carries.
    pub body: Body,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// How the request went.
    pub status: StatusCode,
    /// The version it came in.
    pub version: Version,
    /// Its fields.
    pub fields: Fields,
    /// What is known of it beside its bytes.
    pub extensions: Extensions,
    /// What it carries.
    pub body: Body,
}

impl Request {
    /// A request for `/`, to be made into another.
    pub fn new(method: Method, uri: Uri) -> Self {
        let (version, fields) = (Version::HTTP_11, Fields::new());
        let (extensions, body) = (Extensions::new(), Body::empty());
        Self { method, uri, version, fields, extensions, body }
    }
}

impl Default for Request {
    /// `GET /` without anything.
    fn default() -> Self {
        Self::new(Method::GET, Uri::default())
    }
}

impl Response {
    /// An answer without fields.
    pub fn new(status: StatusCode, body: Body) -> Self {
        let (version, fields) = (Version::HTTP_11, Fields::new());
        Self { status, version, fields, extensions: Extensions::new(), body }
    }
}

impl From<http::Request<Body>> for Request {
    fn from(request: http::Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        let http::request::Parts { method, uri, version, headers, extensions, .. } = parts;
        Self { method, uri, version, fields: headers.into(), extensions, body }
    }
}

impl From<Request> for http::Request<Body> {
    fn from(request: Request) -> Self {
        let mut converted = Self::new(request.body);
        *converted.method_mut() = request.method;
        *converted.uri_mut() = request.uri;
        *converted.version_mut() = request.version;
        *converted.headers_mut() = request.fields.into();
        *converted.extensions_mut() = request.extensions;
        converted
    }
}

impl From<http::Response<Body>> for Response {
    fn from(response: http::Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let http::response::Parts { status, version, headers, extensions, .. } = parts;
        Self { status, version, fields: headers.into(), extensions, body }
    }
}

impl From<Response> for http::Response<Body> {
    fn from(response: Response) -> Self {
        let mut converted = Self::new(response.body);
        *converted.status_mut() = response.status;
        *converted.version_mut() = response.version;
        *converted.headers_mut() = response.fields.into();
        *converted.extensions_mut() = response.extensions;
        converted
    }
}
