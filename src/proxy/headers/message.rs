//! Pure properties of a whole head.

use http::header::{CONNECTION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, UPGRADE};

use super::list::members;

/// True if a request asks for the WebSocket protocol (RFC 6455 section 4.2.1): one line of Upgrade
/// that offers nothing else, and a line of Connection that names `upgrade`. Any other Upgrade is an
/// offer that a server may ignore (RFC 9110 section 7.8), as Java's clients offer `h2c` with every
/// connection, and is removed with the other fields of one connection.
pub fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let single = headers.get_all(UPGRADE).iter().count() == 1;
    let mut offers = members(headers, UPGRADE);
    single
        && offers.next().is_some_and(|offer| offer.eq_ignore_ascii_case(b"websocket"))
        && offers.next().is_none()
        && members(headers, CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"))
}

/// True if a message belongs to a gRPC call: its Content-Type begins with `application/grpc`, in any
/// case (RFC 9110 section 8.3.1), which includes named message formats such as
/// `application/grpc+proto`.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let start = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().get(..GRPC.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// Joins the lines of Cookie. HTTP/2 may split the field for the sake of compression; HTTP/1.1
/// allows one line (RFC 9113 section 8.2.3).
pub fn rejoin_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Lines that are valid header values are valid when joined.
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}
