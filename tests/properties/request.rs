//! What holds of every head of a request that is served: another parser reads it alike, it ends in one
//! way, and its body can be read in one way only.

use bearer_proxy::http1::Framing;
use bearer_proxy::server::flaw::Flaw;
use bearer_proxy::server::http1::head;
use bytes::BytesMut;
use http::Version;

const MAX_FIELDS: usize = 64;

/// Reads a head as the program does, and compares it with what hyper's parser makes of it.
pub fn check(data: &[u8]) {
    let mut input = BytesMut::from(data);
    let Some(head) = head::read(&mut input, MAX_FIELDS) else { return };
    let length = data.len() - input.len();
    if head.request.extensions.get::<Flaw>().is_some() {
        assert!(
            !head.asked.keep_alive && head.framing == Framing::Length(0),
            "a flaw is passed by"
        );
        return;
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut other = httparse::Request::new(&mut fields);
    let parsed = other.parse(data).expect("hyper's parser refuses what is served");
    assert_eq!(parsed, httparse::Status::Complete(length));
    let request = &head.request;
    assert_eq!(other.method, Some(request.method.as_str()));
    let target = other.path.unwrap();
    assert!(!target.contains(['#', ' ']), "{target}");
    let authority = request.uri.authority().map_or("", |authority| authority.as_str());
    let path = request.uri.path_and_query().map_or("", |path| path.as_str());
    assert!(target.contains(authority), "{target}");
    assert!(target.ends_with(path) || path == "/" || path.starts_with("/?"), "{target} {path}");
    let minor = if request.version == Version::HTTP_11 { 1 } else { 0 };
    assert_eq!(other.version, Some(minor));
    let ours: Vec<_> = request.fields.iter().collect();
    assert_eq!(ours.len(), other.headers.len());
    for (ours, other) in ours.iter().zip(&*other.headers) {
        assert_eq!(ours.0, other.name.to_ascii_lowercase().as_bytes());
        assert_eq!(ours.1, other.value);
    }
    let count =
        |name: &str| other.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).count();
    match (count("transfer-encoding"), count("content-length")) {
        (0, 0) => assert_eq!(head.framing, Framing::Length(0)),
        (0, 1) => assert!(matches!(head.framing, Framing::Length(_))),
        (1, 0) => assert!(head.framing == Framing::Chunked && minor == 1),
        _ => panic!("a body that ends in two ways is served"),
    }
}
