//! What is said to a client whose head cannot be read.
//!
//! hyper answers such a head by itself, with a bare status and before anybody sees a request. The
//! app is to read there what it reads in every refusal (`proxy::answer`): that nothing was
//! forwarded, and a code.

use std::str;

/// What hyper says, and what we say instead.
struct Refusal {
    line: &'static str,
    status: u16,
    code: &'static str,
    title: &'static str,
    detail: &'static str,
}

/// With codes and titles as in the table of the README.
const REFUSALS: [Refusal; 3] = [
    Refusal {
        line: "HTTP/1.1 400 Bad Request",
        status: 400,
        code: "bad_request",
        title: "The request is malformed",
        detail: "the head is not valid HTTP/1.1",
    },
    Refusal {
        line: "HTTP/1.1 414 URI Too Long",
        status: 414,
        code: "uri_too_long",
        title: "The request target is too long",
        detail: "the target exceeds what any configuration allows",
    },
    Refusal {
        line: "HTTP/1.1 431 Request Header Fields Too Large",
        status: 431,
        code: "headers_too_large",
        title: "The request's head is too large",
        detail: "the head exceeds server.max_headers or server.max_header_bytes",
    },
];

/// The fields of an answer that hyper makes by itself; any other answer has more.
const BARE: [&str; 3] = ["connection: ", "content-length: 0", "date: "];

/// What is written in place of an answer of hyper's own; `None` for whatever else is written.
pub(super) fn in_place_of(written: &[u8]) -> Option<Vec<u8>> {
    if !written.starts_with(b"HTTP/1.1 4") {
        return None;
    }
    let head = str::from_utf8(written).ok()?.strip_suffix("\r\n\r\n")?;
    let (line, fields) = head.split_once("\r\n")?;
    let refusal = REFUSALS.iter().find(|refusal| refusal.line == line)?;
    let is_bare = |field: &str| BARE.iter().any(|bare| field.starts_with(bare));
    let date = fields.split("\r\n").find(|field| field.starts_with("date: "));
    fields.split("\r\n").all(is_bare).then(|| refusal.answer(date.unwrap_or("date: ")))
}

impl Refusal {
    fn answer(&self, date: &str) -> Vec<u8> {
        let Self { line, status, code, title, detail } = self;
        let id = format!("{:032x}", fastrand::u128(..));
        let document = format!(
            "{{\"code\":\"{code}\",\"detail\":\"{detail}\",\"forwarded\":\"no\",\
             \"request_id\":\"{id}\",\"status\":{status},\"title\":\"{title}\",\
             \"type\":\"urn:bearer-proxy:problem:{code}\"}}\n"
        );
        let head = format!(
            "{line}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
             bearer-proxy-forwarded: no\r\n\
             proxy-status: bearer-proxy; error=http_request_error; details=\"{code}\"\r\n\
             x-request-id: {id}\r\nconnection: close\r\ncontent-length: {}\r\n{date}\r\n\r\n",
            document.len()
        );
        (head + &document).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_titles_are_those_of_the_readme() {
        for Refusal { code, status, title, .. } in REFUSALS {
            let row = format!("| `{code}` | {status} | {title} | ");
            assert!(include_str!("../../README.md").contains(&row), "{row}");
        }
    }

    #[test]
    fn only_bare_answers_are_replaced() {
        let check = |written: &str, replaced: bool| {
            assert_eq!(in_place_of(written.as_bytes()).is_some(), replaced, "{written:?}");
        };
        let bare = "connection: close\r\ncontent-length: 0\r\ndate: today\r\n\r\n";
        check(&format!("HTTP/1.1 400 Bad Request\r\n{bare}"), true);
        check(&format!("HTTP/1.1 414 URI Too Long\r\n{bare}"), true);
        check(&format!("HTTP/1.1 404 Not Found\r\n{bare}"), false);
        check(&format!("HTTP/1.1 400 Bad Request\r\nvia: 1.1 a\r\n{bare}"), false);
        check(&format!("HTTP/1.1 400 Bad Request\r\n{bare}more"), false);
        check("HTTP/1.1 400 Bad Request\r\n", false);
    }
}
