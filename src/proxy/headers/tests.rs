//! What passes and what does not: tables first, then properties of whatever comes.

use proptest::prelude::*;

use http::Version;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    TE, TRANSFER_ENCODING, VIA,
};

use super::testing::{head, lines};
use super::*;

/// A request's head after cleaning, without our Via.
fn cleaned(fields: &[(&str, &str)], policy: &HeaderPolicy) -> (HeaderMap, Sanitized) {
    let mut headers = head(fields);
    let found = FieldClass::classify_all(&headers);
    let cleaned = sanitize_request(&mut headers, found, Version::HTTP_11, policy);
    (without_our_via(headers), cleaned)
}

fn without_our_via(mut headers: HeaderMap) -> HeaderMap {
    let mut via: Vec<_> = headers.get_all(VIA).iter().cloned().collect();
    let ours = via.pop().unwrap();
    assert!(ours == "1.1 bearer-proxy" || ours == "1.1 bearer-proxy (00000000)");
    headers.remove(VIA);
    for line in via {
        headers.append(VIA, line);
    }
    headers
}

fn reserving(names: &[&'static str]) -> HeaderPolicy {
    let reserved = names.iter().map(|name| HeaderName::from_static(name)).collect();
    HeaderPolicy { reserved, ..HeaderPolicy::default() }
}

#[test]
fn requests_are_cleaned() {
    let check = |fields: &[(&str, &str)], expected: &[&str]| {
        let (headers, _) = cleaned(fields, &HeaderPolicy::default());
        assert_eq!(lines(&headers), expected, "{fields:?}");
    };
    check(&[("accept", "a"), ("content-length", "1")], &["accept: a", "content-length: 1"]);
    check(
        &[
            ("connection", "X-A,, x-b,close"),
            ("connection", "\tx-c "),
            ("connection", "no name, \u{e9}"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("x-c", "1"),
            ("x-d", "1"),
        ],
        &["x-d: 1"],
    );
    check(
        &[("connection", "host, content-length"), ("host", "h"), ("content-length", "1")],
        &["content-length: 1", "host: h"],
    );
    check(&[("connection", "authorization"), ("authorization", "Basic x")], &[]);
    check(
        &[
            ("authorization", "Basic x"),
            ("authorization", "Basic y"),
            ("proxy-authorization", "y"),
            ("proxy_authorization", "y"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("http2-settings", "x"),
            ("keep-alive", "x"),
            ("keep_alive", "x"),
            ("proxy-connection", "x"),
            ("proxy_connection", "x"),
            ("expect", "100-continue"),
            ("transfer-encoding", "chunked"),
            ("transfer_encoding", "chunked"),
        ],
        &[],
    );
    check(
        &[
            ("x-original-url", "/"),
            ("x_original_url", "/"),
            ("x-rewrite-url", "/"),
            ("x-http-method", "PUT"),
            ("x-method-override", "PUT"),
            ("x-http-method-override", "PUT"),
            ("x-http_method-override", "PUT"),
        ],
        &[],
    );
    check(
        &[
            ("x-forwarded-for", "1"),
            ("x_forwarded_for", "1"),
            ("x-forwarded_proto", "1"),
            ("x-forwarded-user", "1"),
            ("forwarded", "for=x"),
            ("x-real-ip", "1"),
            ("x_real_ip", "1"),
            ("x-client-ip", "1"),
            ("true-client-ip", "1"),
            ("client_ip", "1"),
            ("x-originating-ip", "1"),
            ("wl-proxy-client-ip", "1"),
            ("x-original-host", "evil.example"),
        ],
        &[],
    );
    check(
        &[("content_length", "1"), ("host_", "1"), ("x_custom", "1"), ("http-x", "1")],
        &["http-x: 1", "x_custom: 1"],
    );
    check(
        &[
            ("authorization_", "1"),
            ("authorization--", "1"),
            ("http_authorization", "1"),
            ("http-authorization", "1"),
            ("http_proxy_authorization_", "1"),
            ("proxy-authorization_", "1"),
            ("http_x_original_url", "1"),
        ],
        &[],
    );
    check(&[("via", "1.0 fred")], &["via: 1.0 fred"]);
}

#[test]
fn a_route_may_keep_what_is_stripped() {
    let fields = [
        ("x-http-method", "PUT"),
        ("x_http_method", "PUT"),
        ("x-real-ip", "1"),
        ("te", "trailers"),
    ];
    let check = |policy: &HeaderPolicy, expected: &[&str]| {
        assert_eq!(lines(&cleaned(&fields, policy).0), expected);
    };
    let default = HeaderPolicy::default();
    check(&default, &[]);
    let overrides = HeaderPolicy { keep_overrides: true, ..default.clone() };
    check(&overrides, &["x-http-method: PUT", "x_http_method: PUT"]);
    check(&HeaderPolicy { keep_forwarding: true, ..default.clone() }, &["x-real-ip: 1"]);
    let trailers = AllowedTrailers::new([HeaderName::from_static("x-sum")]);
    check(&HeaderPolicy { trailers, ..default }, &["te: trailers"]);
}

#[test]
fn what_we_write_or_read_cannot_be_written_by_the_app() {
    let check = |names: &[&'static str], fields: &[(&str, &str)], expected: &[&str]| {
        assert_eq!(lines(&cleaned(fields, &reserving(names)).0), expected, "{fields:?}");
    };
    let fields = [("x-api-key", "1"), ("x_api_key", "2"), ("x-api_key", "3"), ("x-api", "4")];
    check(&["x-api-key"], &fields, &["x-api: 4"]);
    check(&["x_api-key"], &fields, &["x-api: 4"]);
    let fields = [("http_x_api_key", "1"), ("x-api-key_", "2"), ("http-x-api-key", "3")];
    check(&["x-api-key"], &fields, &[]);
    check(&["http_x_api_key"], &[("x-api-key", "1"), ("x-api-key_", "2")], &[]);
}

#[test]
fn trailers_are_welcome_where_we_let_them_through() {
    let check = |te: &str, kind: &str, expected: bool| {
        let fields = [("te", te), ("connection", "te"), ("content-type", kind)];
        let (headers, _) = cleaned(&fields, &HeaderPolicy::default());
        let found = headers.get(TE).map(|value| value.to_str().unwrap());
        assert_eq!(found, expected.then_some("trailers"), "{te} {kind}");
    };
    check("trailers", "application/grpc", true);
    check("gzip;q=0.5, Trailers", "application/grpc+proto", true);
    check("gzip", "application/grpc", false);
    check("trailers", "application/json", false);
}

#[test]
fn the_apps_authorization_is_handed_over() {
    let check = |fields: &[(&str, &str)], expected: Option<&str>| {
        let (_, cleaned) = cleaned(fields, &HeaderPolicy::default());
        assert_eq!(cleaned.authorization, expected.map(|text| text.parse().unwrap()), "{fields:?}");
    };
    check(&[], None);
    check(&[("authorization", "Basic x")], Some("Basic x"));
    check(&[("authorization", "Basic x"), ("connection", "Authorization")], None);
}

#[test]
fn loops_are_seen() {
    let check = |via: &str, pseudonym: &str, expected: bool| {
        let mut headers = head(&[("via", "1.1 fred"), ("via", via)]);
        let policy = HeaderPolicy {
            via: Via::new(Pseudonym::parse(pseudonym).unwrap(), 0xab),
            ..HeaderPolicy::default()
        };
        let found = FieldClass::classify_all(&headers);
        let looped = sanitize_request(&mut headers, found, Version::HTTP_2, &policy).looped;
        assert_eq!(looped, expected, "{via}");
        let last = headers.get_all(VIA).iter().next_back().unwrap();
        assert_eq!(last, &format!("2 {pseudonym} (000000ab)"));
    };
    check("1.1 bearer-proxy", "bearer-proxy", true);
    check("1.0 fred, 1.1 Bearer-Proxy (x)", "bearer-proxy", true);
    check("HTTP/1.1\t bearer-proxy(x)", "bearer-proxy", true);
    check("1.1 other", "bearer-proxy", false);
    check("1.1 not-bearer-proxy", "bearer-proxy", false);
    check("1.1 bearer-proxy", "bearer-proxy-2", false);
    check("1.1 bearer-proxy (000000ab)", "bearer-proxy", true);
    check("1.1 bearer-proxy (000000ac)", "bearer-proxy", false);
    check("1.1 bearer-proxy (000000ac), 2 bearer-proxy(000000ab)", "bearer-proxy", true);
    check("1.1 bearer-proxy (ab)", "bearer-proxy", true);
    check("1.1 bearer-proxy (000000ac", "bearer-proxy", true);
    check("1.1 other (000000ab)", "bearer-proxy", false);
    check("1.1 bearer-proxy, 1.1 bearer-proxy-2", "bearer-proxy-2", true);
    for bad in ["", "a b", "a,b", "a(b)", "\u{e9}"] {
        assert_eq!(Pseudonym::parse(bad), None, "{bad}");
    }
}

#[test]
fn answers_are_cleaned() {
    let check = |fields: &[(&str, &str)], expected: &[&str]| {
        let mut headers = head(fields);
        sanitize_response(
            &mut headers,
            Version::HTTP_11,
            &HeaderPolicy::default(),
            Some(b"tok-123"),
        );
        assert_eq!(lines(&without_our_via(headers)), expected, "{fields:?}");
    };
    check(&[], &["cache-control: private"]);
    check(&[("cache-control", "max-age=1")], &["cache-control: max-age=1"]);
    check(
        &[("cache-control", "public"), ("connection", "cache-control")],
        &["cache-control: private"],
    );
    check(
        &[
            ("connection", "x-hop, content-length, date"),
            ("content-length", "3"),
            ("x-hop", "1"),
            ("alt-svc", "h3"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("proxy-connection", "close"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
            ("bearer-proxy-forwarded", "no"),
        ],
        &["cache-control: private", "content-length: 3"],
    );
    check(
        &[
            ("cache-control", "no-store"),
            ("date", "today"),
            ("server", "bank"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("via", "1.1 edge"),
            ("www-authenticate", "Bearer"),
        ],
        &[
            "cache-control: no-store",
            "date: today",
            "server: bank",
            "set-cookie: a",
            "set-cookie: b",
            "via: 1.1 edge",
            "www-authenticate: Bearer",
        ],
    );
}

#[test]
fn an_echoed_token_is_redacted_line_by_line() {
    let mut headers = head(&[("x-echo", "Bearer tok-123"), ("x-echo", "tok-12"), ("age", "1")]);
    sanitize_response(&mut headers, Version::HTTP_11, &HeaderPolicy::default(), Some(b"tok-123"));
    let expected = ["age: 1", "cache-control: private", "x-echo: [redacted]", "x-echo: tok-12"];
    assert_eq!(lines(&without_our_via(headers)), expected);
    let mut headers = head(&[("location", "/a?t=%74ok%2d123"), ("x-share", "%%20100%")]);
    sanitize_response(&mut headers, Version::HTTP_11, &HeaderPolicy::default(), Some(b"tok-123"));
    assert_eq!(
        lines(&without_our_via(headers))[1..],
        ["location: [redacted]", "x-share: %%20100%"]
    );
    let mut headers = head(&[("content-length", "12"), ("x-a", "123")]);
    sanitize_response(&mut headers, Version::HTTP_11, &HeaderPolicy::default(), Some(b"12"));
    assert_eq!(lines(&without_our_via(headers))[1..], ["content-length: 12", "x-a: [redacted]"]);
}

#[test]
fn trailers_pass_by_name() {
    let more = AllowedTrailers::new([HeaderName::from_static("x-sum")]);
    let came = head(&[
        ("authorization", "Bearer x"),
        ("content-length", "1"),
        ("grpc-status", "0"),
        ("grpc-message", "it was tok-123"),
        ("host", "evil"),
        ("transfer-encoding", "chunked"),
        ("x-sum", "1"),
        ("x_sum", "1"),
    ]);
    let left = filter_trailers(came.clone(), &more, Some(b"tok-123"), false);
    assert_eq!(lines(&left), ["grpc-message: [redacted]", "grpc-status: 0", "x-sum: 1"]);
    let left = filter_trailers(came, &AllowedTrailers::default(), None, false);
    assert_eq!(lines(&left), ["grpc-message: it was tok-123", "grpc-status: 0"]);
}

#[test]
fn metadata_of_grpc_passes_as_trailers() {
    let check = |name: &str, grpc: bool, expected: bool| {
        let came = head(&[(name, "1"), (name, "tok-123")]);
        let left = filter_trailers(came, &AllowedTrailers::default(), Some(b"tok-123"), grpc);
        let both = [format!("{name}: 1"), format!("{name}: [redacted]")];
        assert_eq!(lines(&left), both[..if expected { 2 } else { 0 }], "{name}");
    };
    for name in ["x-sum", "user-id", "user_id", "retry-info-bin", "google.rpc.status-bin"] {
        check(name, true, true);
        check(name, false, false);
    }
    check("grpc-status", true, true);
    check("grpc-status", false, true);
    for name in [
        "authorization",
        "authentication-info",
        "connection",
        "content-length",
        "content_length",
        "cookie",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy_authorization",
        "proxy-status",
        "set-cookie",
        "set_cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "www-authenticate",
        "www_authenticate",
        "x-forwarded-for",
    ] {
        check(name, true, false);
    }
}

#[test]
fn grpc_is_told_by_its_content_type() {
    let check = |kind: &str, expected: bool| {
        assert_eq!(is_grpc(&head(&[("content-type", kind)])), expected, "{kind}");
    };
    assert!(!is_grpc(&HeaderMap::new()));
    for kind in ["application/grpc", "Application/gRPC+proto", "application/grpc; a=b"] {
        check(kind, true);
    }
    for kind in ["application/json", "application/grp", "", "text/application/grpc", "\u{e9}"] {
        check(kind, false);
    }
}

#[test]
fn a_websocket_is_asked_for_in_one_way() {
    let check = |fields: &[(&str, &str)], expected: bool| {
        assert_eq!(asks_for_websocket(&head(fields)), expected, "{fields:?}");
    };
    let (connection, upgrade) = ("connection", "upgrade");
    check(&[], false);
    check(&[(connection, "upgrade"), (upgrade, "websocket")], true);
    check(&[(connection, "keep-alive, Upgrade"), (upgrade, "WebSocket")], true);
    check(&[(connection, "keep-alive"), (connection, "UPGRADE"), (upgrade, "websocket")], true);
    check(&[(upgrade, "websocket")], false);
    check(&[(connection, "upgrade")], false);
    check(&[(connection, "close"), (upgrade, "websocket")], false);
    check(&[(connection, "upgrades, x upgrade"), (upgrade, "websocket")], false);
    for other in [
        "",
        "h2c",
        "websocket, h2c",
        "h2c, websocket",
        "websocket/13",
        "web socket",
        "websocket, websocket",
    ] {
        check(&[(connection, "upgrade"), (upgrade, other)], false);
    }
    check(&[(connection, "upgrade"), (upgrade, "websocket"), (upgrade, "websocket")], false);
    check(&[(connection, "upgrade"), (upgrade, "websocket"), (upgrade, "h2c")], false);
    check(&[(connection, "upgrade"), (upgrade, "websocket"), (upgrade, "")], false);
}

#[test]
fn cookies_are_joined_again() {
    let check = |crumbs: &[&str], expected: &[&str]| {
        let fields: Vec<_> = crumbs.iter().map(|crumb| ("cookie", *crumb)).collect();
        let mut headers = head(&fields);
        rejoin_cookies(&mut headers);
        let found: Vec<_> =
            headers.get_all(COOKIE).iter().map(|line| line.to_str().unwrap()).collect();
        assert_eq!(found, expected);
    };
    check(&[], &[]);
    check(&["a=b"], &["a=b"]);
    check(&["a=b", "c=d", "e=f; g=h"], &["a=b; c=d; e=f; g=h"]);
}

#[test]
fn a_length_beside_a_transfer_coding_is_removed() {
    let check = |fields: &[(&str, &str)], expected: bool| {
        let (request, _) = cleaned(fields, &HeaderPolicy::default());
        let mut answer = head(fields);
        sanitize_response(&mut answer, Version::HTTP_11, &HeaderPolicy::default(), None);
        for headers in [request, answer] {
            assert_eq!(headers.contains_key(CONTENT_LENGTH), expected, "{fields:?}");
            assert!(!headers.contains_key(TRANSFER_ENCODING), "{fields:?}");
        }
    };
    let (length, coding) = ("content-length", "transfer-encoding");
    check(&[(length, "1")], true);
    check(&[(length, "x")], true);
    check(&[(length, "1"), (coding, "chunked")], false);
    check(&[(coding, "gzip"), (length, "1"), (length, "1")], false);
    check(&[(coding, "chunked"), ("connection", "transfer-encoding"), (length, "1")], false);
}

#[test]
fn every_upgrade_is_of_this_hop() {
    for offer in ["h2c", "websocket", "TLS/1.0, HTTP/2.0"] {
        let fields = [("connection", "upgrade"), ("upgrade", offer), ("accept", "a")];
        assert_eq!(lines(&cleaned(&fields, &HeaderPolicy::default()).0), ["accept: a"], "{offer}");
    }
}

#[test]
fn a_short_token_is_found_wherever_it_stands() {
    let check = |bytes: &str, token: &str, expected: bool| {
        assert_eq!(contains_token(bytes.as_bytes(), token.as_bytes()), expected, "{bytes} {token}");
    };
    check("abc", "abc", true);
    check("xabcx", "abc", true);
    check("ababc", "abc", true);
    check("ab", "abc", false);
    check("abab", "abc", false);
    check("%61%62%63", "abc", true);
    check("a%62c", "abc", true);
    check("%61bx", "abc", false);
    check("a%2", "%2", true);
    check("abc", "", false);
    check("", "", false);
}

#[test]
fn trailers_are_announced_as_they_come() {
    let fields = [("trailer", "Authorization, ETag"), ("trailer", "Content-Length, Grpc-Status")];
    let (headers, _) = cleaned(&fields, &HeaderPolicy::default());
    assert_eq!(lines(&headers), ["trailer: etag", "trailer: grpc-status"]);
    let grpc = [("trailer", "Authorization, X-Sum"), ("content-type", "application/grpc")];
    let (headers, _) = cleaned(&grpc, &HeaderPolicy::default());
    assert_eq!(lines(&headers), ["content-type: application/grpc", "trailer: x-sum"]);
    let (headers, _) = cleaned(&[("trailer", "Authorization")], &HeaderPolicy::default());
    assert!(headers.is_empty());
}

#[test]
fn steering_fields_cannot_be_allowed_as_trailers() {
    let check = |name: &'static str, expected: bool| {
        assert_eq!(AllowedTrailers::may_allow(&HeaderName::from_static(name)), expected, "{name}");
    };
    for name in ["x-checksum", "grpc-status", "signature"] {
        check(name, true);
    }
    for name in
        ["authorization", "host", "set-cookie", "content-length", "te", "x_a", "cache-control"]
    {
        check(name, false);
    }
}

/// Heads of what matters here, in any mixture.
fn any_head() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![
        3 => Just("connection".to_owned()),
        6 => prop::sample::select(vec![
            "x-a", "x-b", "x_a", "host", "authorization", "content-length", "te", "trailer",
            "keep-alive", "proxy-authorization", "accept", "via", "x-real-ip", "forwarded",
            "x-http-method", "content_length", "transfer-encoding", "proxy_authorization", "transfer_encoding", "cookie",
        ]).prop_map(str::to_owned),
        1 => "[a-z_-]{1,12}",
    ];
    let value = prop_oneof![
        "(x-a|X-B|host|close|te|authorization|content-length|via|cookie|,| |trailers|etag){0,5}",
        "[ -~]{0,12}",
    ];
    prop::collection::vec((name, value), 0..12)
}

fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let names = lines.flat_map(|line| line.split(','));
    names.filter_map(|name| name.trim().parse().ok()).collect()
}

proptest! {
    #[test]
    fn no_request_carries_on_what_is_of_this_hop(fields in any_head()) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (before, (after, _)) = (head(&fields), cleaned(&fields, &reserving(&["x-a"])));
        for gone in ["connection", "keep-alive", "proxy-authorization", "proxy_authorization", "upgrade",
            "transfer-encoding", "transfer_encoding", "content_length", "authorization", "x-real-ip",
            "forwarded", "x-http-method", "x-a", "x_a"] {
            prop_assert!(!after.contains_key(gone), "{}", gone);
        }
        for name in nominated(&before) {
            let overridden = name == CONTENT_LENGTH && before.contains_key(TRANSFER_ENCODING);
            let stays = !overridden && [HOST, CONTENT_LENGTH].contains(&name);
            prop_assert_eq!(after.contains_key(&name), stays && before.contains_key(&name), "{}", name);
        }
        for stays in [HOST, CONTENT_LENGTH] {
            let overridden = stays == CONTENT_LENGTH && before.contains_key(TRANSFER_ENCODING);
            let count = if overridden { 0 } else { before.get_all(&stays).iter().count() };
            prop_assert_eq!(after.get_all(&stays).iter().count(), count);
        }
    }

    #[test]
    fn cleaning_twice_is_cleaning_once(fields in any_head()) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (once, _) = cleaned(&fields, &HeaderPolicy::default());
        let mut twice = once.clone();
        let found = FieldClass::classify_all(&twice);
        sanitize_request(&mut twice, found, Version::HTTP_11, &HeaderPolicy::default());
        prop_assert_eq!(without_our_via(twice), once);
    }

    #[test]
    fn no_answer_carries_on_what_is_of_that_hop(fields in any_head(), token in "[a-z]{1,3}") {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let before = head(&fields);
        let mut after = before.clone();
        sanitize_response(&mut after, Version::HTTP_11, &HeaderPolicy::default(), Some(token.as_bytes()));
        let after = without_our_via(after);
        for gone in ["connection", "keep-alive", "proxy-authorization", "te", "upgrade", "alt-svc"] {
            prop_assert!(!after.contains_key(gone), "{}", gone);
        }
        for name in nominated(&before).iter().filter(|name| **name != CACHE_CONTROL) {
            let overridden = *name == CONTENT_LENGTH && before.contains_key(TRANSFER_ENCODING);
            let stays = !overridden && [HOST, CONTENT_LENGTH].contains(name);
            prop_assert_eq!(after.contains_key(name), stays && before.contains_key(name), "{}", name);
        }
        let unlike = |(name, value): (&HeaderName, &HeaderValue)| {
            matches!(name.as_str(), "content-length" | "cache-control" | "trailer")
                || value == "[redacted]"
                || !contains_token(value.as_bytes(), token.as_bytes())
        };
        prop_assert!(after.iter().all(unlike));
    }

    #[test]
    fn no_trailer_authenticates_frames_or_routes(fields in any_head()) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let left = filter_trailers(head(&fields), &AllowedTrailers::default(), None, false);
        prop_assert_eq!(FieldClass::classify_all(&left), FieldClass::empty());
        let left = filter_trailers(head(&fields), &AllowedTrailers::default(), None, true);
        for name in left.keys() {
            let folded = super::list::folded(name);
            prop_assert_eq!(FieldClass::classify(&folded), FieldClass::empty(), "{}", name);
            prop_assert!(!folded.starts_with(b"proxy-") && folded != b"cookie", "{}", name);
        }
    }

    #[test]
    fn a_query_keeps_all_but_access_tokens(query in "(access_token|a|%61ccess_token|=|&|;|x){0,8}") {
        match query::without_access_token(&query) {
            Some(left) => {
                prop_assert!(!query::has_access_token(&left));
                prop_assert!(query::has_access_token(&query) || left == query);
            }
            None => prop_assert!(query.is_empty() || query::has_access_token(&query)),
        }
    }
}
