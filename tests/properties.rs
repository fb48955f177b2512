//! Properties of what untrusted bytes reach first. The same functions are run under coverage
//! guidance by `fuzz/`; here they run on generated input, in seconds and without a nightly
//! compiler.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by panicking"
)]

#[path = "properties/answer.rs"]
mod answer;
#[path = "properties/certificate.rs"]
mod certificate;
#[path = "properties/config.rs"]
mod config;
#[path = "properties/fields.rs"]
mod fields;
#[path = "properties/target.rs"]
mod target;
#[path = "properties/token_answer.rs"]
mod token_answer;

use proptest::prelude::*;

/// Pieces that targets go wrong by, glued together in any order.
fn target_text() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "/", "a", "B", ".", "..", "%2e", "%2E", "%2f", "%5c", "%25", "%252f", "%00", "%3b", ";",
        "\\", "//", "?", "#", "%", "%4", "%41", "é", " ", "~", "v1", "=", "&", ":", "@", "\t",
    ];
    proptest::collection::vec(proptest::sample::select(PIECES), 0..12)
        .prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// Heads of what hygiene looks for, in any mixture, after a byte of switches.
fn head_text() -> impl Strategy<Value = Vec<u8>> {
    const NAMES: &[&str] = &[
        "Connection",
        "connection",
        "Keep-Alive",
        "Proxy-Authorization",
        "proxy_authorization",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "transfer_encoding",
        "Upgrade",
        "Host",
        "host_",
        "Content-Length",
        "content_length",
        "Authorization",
        "authorization",
        "Via",
        "Forwarded",
        "X-Forwarded-For",
        "x_forwarded_for",
        "X-Real-IP",
        "X-HTTP-Method",
        "x_http-method",
        "X-API-Key",
        "x_api_key",
        "X-A",
        "Cookie",
        "Accept",
        "Expect",
        "Alt-Svc",
        "Cache-Control",
        "Location",
        "Date",
    ];
    const VALUES: &[&str] = &[
        "x-a",
        "close, X-A,",
        "host, content-length",
        "authorization ,te",
        "via",
        "trailers",
        "gzip",
        "x-sum, etag, host",
        "chunked",
        "Bearer tok-123",
        "%74ok-123",
        "tok-12",
        "cookie,,\tdate",
        "",
        "1.1 bearer-proxy",
        "private",
        "h2c",
        "\u{e9}",
    ];
    let field = (proptest::sample::select(NAMES), proptest::sample::select(VALUES));
    (any::<u8>(), proptest::collection::vec(field, 0..12)).prop_map(|(switches, fields)| {
        let lines = fields.iter().map(|(name, value)| format!("{name}: {value}\n"));
        [&[switches][..], lines.collect::<String>().as_bytes()].concat()
    })
}

/// Bodies that look like token answers, with values that do not.
fn answer_text() -> impl Strategy<Value = Vec<u8>> {
    let names = ["access_token", "accessToken", "token_type", "expires_in", "error", "scope"];
    let more = ["expirationTime", "tokenValiditySec", "refresh_token", "error_description"];
    const VALUES: &[&str] = &[
        "\"canary7Gx\"",
        "\"bearer\"",
        "\"mac\"",
        "3600",
        "\"3600\"",
        "-1",
        "1e400",
        "null",
        "true",
        "\"\"",
        "[]",
        "{}",
        "\"a b\"",
        "\"a\\u0000b\"",
        "99999999999999999999",
        "\"invalid_client\"",
        "0.5",
        "1700000000000",
        "\"\\ud800\"",
    ];
    let names: Vec<&str> = names.into_iter().chain(more).collect();
    let field = (proptest::sample::select(names), proptest::sample::select(VALUES));
    let head = (any::<u8>(), any::<u8>(), "[ -~]{0,30}");
    (head, proptest::collection::vec(field, 0..6)).prop_map(|((preset, status, date), fields)| {
        let fields: Vec<String> =
            fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let body = format!("{date}\n{{{}}}", fields.join(","));
        [&[preset, status][..], body.as_bytes()].concat()
    })
}

/// Answers of an upstream, glued together from pieces that belong there and pieces that do not.
fn upstream_answer() -> impl Strategy<Value = Vec<u8>> {
    const LINES: &[&str] = &[
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 204 No Content\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
        "HTTP/1.0 200 OK\r\n",
        "HTTP/1.1 401\r\n",
        "HTTP/1.1 101 Up\r\n",
        "HTTP/1.1 200 OK\n",
        "HTTP/1.2 200 OK\r\n",
    ];
    const FIELDS: &[&str] = &[
        "Content-Length: 4\r\n",
        "Content-Length: 04\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 4, 4\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: CHUNKED\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Connection: close\r\n",
        "X: y\r\n",
        "X : y\r\n",
        "X: y\n",
        " folded\r\n",
        "X: \0\r\n",
        "X: \r\r\n",
        "\r\n",
    ];
    const BODIES: &[&str] = &[
        "body",
        "4\r\nbody\r\n0\r\n\r\n",
        "4;x=y\r\nbody\r\n0\r\nT: v\r\n\r\n",
        "2\r\nbo\r\n2 \r\ndy\r\n0\r\n\r\n",
        "4\nbody\r\n0\r\n\r\n",
        "4\r\nbodyx\r\n0\r\n\r\n",
        "0x4\r\nbody\r\n0\r\n\r\n",
        "+4\r\nbody\r\n0\r\n\r\n",
        "10000000000000004\r\nbody\r\n0\r\n\r\n",
        "4\r\nbody\r\n0\r\n",
        "0\r\nX\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    ];
    let fields = proptest::collection::vec(proptest::sample::select(FIELDS), 0..4);
    let ends = proptest::sample::select(&["\r\n", "\r\n", "\r\n", "\n", ""][..]);
    let bodies = proptest::collection::vec(proptest::sample::select(BODIES), 0..3);
    let cut = (any::<prop::sample::Index>(), 0..4u8);
    let pieces = (proptest::sample::select(LINES), fields, ends, bodies, cut);
    pieces.prop_map(|(line, fields, end, bodies, (at, dice))| {
        let mut bytes = [line, &fields.concat(), end, &bodies.concat()].concat().into_bytes();
        if dice == 0 {
            bytes.truncate(at.index(bytes.len()));
        }
        bytes
    })
}

/// Lines of the examples in any order, some of them cut.
fn config_text() -> impl Strategy<Value = String> {
    let all = [
        include_str!("../config/annotated.toml"),
        include_str!("../config/all-four.toml"),
        include_str!("../config/minimal.toml"),
    ];
    let lines: Vec<String> = all
        .into_iter()
        .flat_map(|text| text.lines())
        .map(|line| line.trim_start_matches("# ").to_owned())
        .collect();
    let line = (proptest::sample::select(lines), any::<prop::sample::Index>(), 0..8u8);
    let cut = line.prop_map(|(line, at, dice)| match dice {
        0 => line.chars().take(at.index(line.len().max(1))).collect(),
        _ => line,
    });
    proptest::collection::vec(cut, 0..25).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn targets(text in target_text()) {
        target::check(text.as_bytes());
    }

    #[test]
    fn heads(data in head_text()) {
        fields::check(&data);
    }

    #[test]
    fn token_answers(data in answer_text()) {
        token_answer::check(&data);
    }

    #[test]
    fn certificates(der in certificate_der()) {
        certificate::check(&der);
    }

    #[test]
    fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..80)) {
        target::check(&data);
        fields::check(&data);
        token_answer::check(&data);
        certificate::check(&data);
    }
}

/// Certificates with names of every kind of character, some of them damaged in one byte.
fn certificate_der() -> impl Strategy<Value = Vec<u8>> {
    let value = proptest::string::string_regex("[ -~é\u{1}#]{1,12}").unwrap();
    let attribute = (0..7_usize, 0..3_u8, value);
    let years = (1950..2100_i32, 1950..2100_i32);
    let damage = (any::<prop::sample::Index>(), any::<u8>(), 0..3_u8);
    (proptest::collection::vec(attribute, 0..4), years, any::<bool>(), damage).prop_map(
        |(attributes, years, has_names, (at, byte, dice))| {
            let mut der = certified(&attributes, years, has_names);
            if dice == 0 {
                let at = at.index(der.len());
                der[at] = byte;
            }
            der
        },
    )
}

fn certified(attributes: &[(usize, u8, String)], years: (i32, i32), has_names: bool) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, form, value) in attributes {
        let kind = match kind {
            0 => rcgen::DnType::CommonName,
            1 => rcgen::DnType::CountryName,
            2 => rcgen::DnType::LocalityName,
            3 => rcgen::DnType::StateOrProvinceName,
            4 => rcgen::DnType::OrganizationName,
            5 => rcgen::DnType::OrganizationalUnitName,
            _ => rcgen::DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99_999]),
        };
        let text = rcgen::DnValue::Utf8String(value.clone());
        let printable: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
        let value = match form {
            0 => printable.as_str().try_into().map_or(text, rcgen::DnValue::PrintableString),
            1 => value.as_str().try_into().map_or(text, rcgen::DnValue::BmpString),
            _ => text,
        };
        params.distinguished_name.push(kind, value);
    }
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 12, 31);
    if has_names {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("a.test".try_into().unwrap())];
    }
    // One key for all: making one takes longer than all the rest.
    static KEY: std::sync::LazyLock<rcgen::KeyPair> =
        std::sync::LazyLock::new(|| rcgen::KeyPair::generate().unwrap());
    params.self_signed(&*KEY).unwrap().der().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answers_of_upstreams(data in upstream_answer()) {
        answer::check(&data);
    }

    #[test]
    fn configurations(text in config_text()) {
        config::check(text.as_bytes());
    }
}
