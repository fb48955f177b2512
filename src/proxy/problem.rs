//! Turns rejections into responses, so that no layer above can fail.
//!
//! Such a response is a problem document (RFC 9457) and has the headers `Bearer-Proxy-Forwarded` and
//! `Proxy-Status` (RFC 9209). The id of the request is in the headers that every response has.

use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response};

use super::rejection::{Code, Rejection};
use crate::body::Body;

/// Says whether the request was forwarded: `no`, `yes` or `unknown`.
pub const FORWARDED: HeaderName = HeaderName::from_static("bearer-proxy-forwarded");
/// The header of RFC 9209.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The response for a rejection.
pub fn problem(rejection: &Rejection, request_id: &str) -> Response<Body> {
    let code = rejection.code;
    let mut response = Response::new(Body::full(document(rejection, request_id)));
    *response.status_mut() = code.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(FORWARDED, HeaderValue::from_static(rejection.forwarded.as_str()));
    for (name, value) in
        [(PROXY_STATUS, Some(proxy_status(rejection))), (ALLOW, rejection.allow.clone())]
    {
        if let Some(value) = value.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(name, value);
        }
    }
    if let Some(wait) = rejection.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
    }
    if closes_connection(code) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The value of Proxy-Status, with the status of an egress proxy that refused (RFC 9209 section 2.1.4).
fn proxy_status(rejection: &Rejection) -> String {
    let code = rejection.code;
    let connect = rejection.connect.as_ref();
    let error = connect.map_or(code.proxy_error(), |failure| failure.proxy_error);
    match connect.and_then(|failure| failure.egress_answer.as_deref()) {
        None => format!("bearer-proxy; error={error}; details=\"{}\"", code.as_str()),
        Some(answer) => format!(
            "bearer-proxy; error={error}; received-status={}; details=\"{}: the egress proxy \
             answered {answer}\"",
            answer.get(..3).unwrap_or_default(),
            code.as_str(),
        ),
    }
}

/// True if the client connection is closed after a rejection: the rest of what the client sends
/// cannot be trusted, or is not worth reading.
fn closes_connection(code: Code) -> bool {
    matches!(
        code,
        Code::BadRequest
            | Code::BadTarget
            | Code::UriTooLong
            | Code::BodyTooLarge
            | Code::RequestTimeout
            | Code::RequestAborted
            | Code::ClientLeft
            | Code::HeadersTooLarge
            | Code::Expectation
    )
}

fn document(rejection: &Rejection, request_id: &str) -> Vec<u8> {
    let code = rejection.code;
    let document = serde_json::json!({
        "type": format!("urn:bearer-proxy:problem:{}", code.as_str()),
        "title": code.title(),
        "status": code.status().as_u16(),
        "detail": rejection.detail,
        "code": code.as_str(),
        "forwarded": rejection.forwarded.as_str(),
        "request_id": request_id,
    });
    let mut bytes = serde_json::to_vec(&document).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::rejection::ConnectFailure;
    use crate::upstream::Forwarded;
    use http_body_util::BodyExt;
    use std::time::Duration;

    #[test]
    fn what_an_egress_proxy_said_is_passed_on() {
        let check = |egress_answer: Option<&str>, expected: &str| {
            let egress_answer = egress_answer.map(str::to_owned);
            let failure = ConnectFailure {
                proxy_error: "destination_unavailable",
                hint: None,
                egress_answer,
                is_local: false,
            };
            let rejection = Rejection::new(Code::Connect, "").about_connect(failure);
            assert_eq!(problem(&rejection, "abc").headers()["proxy-status"], expected);
        };
        check(None, "bearer-proxy; error=destination_unavailable; details=\"connect\"");
        check(
            Some("407 Log In"),
            "bearer-proxy; error=destination_unavailable; received-status=407; \
             details=\"connect: the egress proxy answered 407 Log In\"",
        );
    }

    #[tokio::test]
    async fn a_refusal_is_a_problem_document() {
        let rejection = Rejection::new(Code::TokenUnavailable, "no token yet")
            .forwarded(Forwarded::No)
            .retry_after(Duration::from_millis(1200));
        let response = problem(&rejection, "abc");
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["bearer-proxy-forwarded"], "no");
        assert_eq!(
            response.headers()["proxy-status"],
            "bearer-proxy; error=proxy_internal_error; details=\"token_unavailable\""
        );
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(document["code"], "token_unavailable");
        assert_eq!(document["forwarded"], "no");
        assert_eq!(document["request_id"], "abc");
        assert_eq!(document["status"], 503);
    }
}
