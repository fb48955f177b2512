//! Pure rules for the header fields and trailers of a message: which are forwarded, removed, replaced or
//! added, in both directions.
//!
//! | fields | to the upstream | to the app |
//! | --- | --- | --- |
//! | fields that a line of `Connection` names, except `Host` and `Content-Length` | removed | removed |
//! | `Connection`, `Keep-Alive`, `Proxy-Connection`, `Transfer-Encoding`, `Upgrade`, `HTTP2-Settings` | removed; a WebSocket handshake has its own put back | removed |
//! | `Content-Length` | removed beside `Transfer-Encoding` | removed beside `Transfer-Encoding` |
//! | `Proxy-Authorization`, `Proxy-Authenticate`, `Proxy-Authentication-Info` | removed | removed |
//! | `TE` | `trailers`, where the route lists trailers or the request is gRPC | removed |
//! | `Trailer`, and trailers | only those on the allow-list | only those on the allow-list |
//! | the same, of gRPC calls | all except those that frame, route or authenticate | all except those that frame, route or authenticate |
//! | `Authorization` | replaced by the proxy's (`incoming_authorization`) | as it is |
//! | `DPoP`, `DPoP-Nonce` | removed; the proxy's own proof is attached where the credential has `dpop` | as they are; removed where the credential has `dpop` |
//! | `Expect` | `100-continue`, if there is a body; anything else: 417 | as it is |
//! | `X-Original-URL`, `X-Rewrite-URL`, `X-HTTP-Method-Override`, `X-HTTP-Method`, `X-Method-Override` | removed (`allow_override_headers`) | as they are |
//! | `Forwarded`, `X-Forwarded-*`, `X-Real-IP`, `X-Client-IP`, `True-Client-IP` and their like | removed (`forwarding_headers`) | as they are |
//! | local keys of `[clients]` | removed | as they are |
//! | names of `set_headers` | replaced by the configured values | as they are |
//! | any of the above, and `Host`, `Content-Length`, with `_` for `-`, `HTTP_` before or `_` behind it | removed | as they are |
//! | `Via` | the proxy's name added; if it names this process: 508 | the proxy's name added |
//! | `Alt-Svc`, `Bearer-Proxy-Forwarded` | as they are | removed |
//! | `Cache-Control` | as it is | `private` is added if there is none |
//! | `Location`, `Content-Location`, `Link`, `Refresh` that lead into the upstream | as they are | rewritten by [`rewrite`] |
//! | `Path` and `Domain` of `Set-Cookie` | | rewritten where the upstream's settings say so |
//! | a value that contains the token, percent-encoded or not | | `[redacted]` |
//! | all others, such as `Date`, `Server`, `WWW-Authenticate` | as it is | as it is |
//!
//! The names of a head are classified once ([`FieldClass`]); a head that holds nothing to remove is
//! not changed. The proxy's own Authorization is attached after all this, so that `Connection:
//! authorization` cannot remove it. A 407 of an upstream passes like any status, but without its
//! challenge: an app must not answer one.

pub mod body_length;
pub mod challenge;
pub mod field;
pub mod forwarding;
mod list;
mod message;
pub mod query;
mod redact;
pub mod rewrite;
mod sanitize;
mod trailer;
mod via;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use body_length::{BodyLength, BodyLengthError, request_body_length};
pub use field::FieldClass;
pub use message::{asks_for_websocket, is_grpc, rejoin_cookies};
pub use redact::{contains_token, redact_token};
pub use sanitize::{HeaderPolicy, ReservedNames, Sanitized, sanitize_request, sanitize_response};
pub use trailer::{AllowedTrailers, filter_trailers};
pub use via::{Pseudonym, Via};
