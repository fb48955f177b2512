//! Answers of all kinds, and what is made of them.

use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;
use crate::oauth::presets::preset;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

fn ok(dialect: &Dialect, body: &str) -> Result<IssuedToken, TokenError> {
    parse(dialect, &ScopeSet::default(), StatusCode::OK, &HeaderMap::new(), body.as_bytes())
}

/// A form answer with its content type.
fn form(status: StatusCode, body: &str) -> Result<IssuedToken, TokenError> {
    let kind = [("content-type", "Application/X-WWW-Form-URLencoded; charset=UTF-8")];
    let none = ScopeSet::default();
    parse(&Dialect::default(), &none, status, &headers(&kind), body.as_bytes())
}

fn core_banking() -> Dialect {
    preset("core-banking").unwrap().dialect
}

#[test]
fn plain_answer() {
    let body = "\u{feff}{\"access_token\":\"a.b-c_d~e+f/g==\",\"token_type\":\"bEARER\",\"expires_in\":3600,\
                \"scope\":\"read:users write:logs\",\"refresh_token\":\"r\",\"other\":{\"x\":[1]}}";
    let head = headers(&[("date", "Sun, 06 Nov 1994 08:49:37 GMT")]);
    let token = parse(
        &Dialect::default(),
        &ScopeSet::default(),
        StatusCode::CREATED,
        &head,
        body.as_bytes(),
    )
    .unwrap();
    assert_eq!(token.access_token.expose(), "a.b-c_d~e+f/g==");
    assert_eq!(token.expires_in, Some(Duration::from_secs(3600)));
    assert_eq!(token.scope, Some(ScopeSet::parse("write:logs read:users").unwrap()));
    assert_eq!(token.refresh_token, None, "the dialect does not use it");
    assert_eq!(token.date, Some(UNIX_EPOCH + Duration::from_secs(784_111_777)));
    assert!(!format!("{token:?}").contains("a.b-c"));
}

#[test]
fn lives() {
    for (stated, expected) in [
        ("3600", Ok(3600)),
        ("\"3600\"", Ok(3600)),
        ("\" 3600 \"", Ok(3600)),
        ("3600.0", Ok(3600)),
        ("\"3600.0\"", Ok(3600)),
        ("3.6e3", Ok(3600)),
        ("1", Ok(1)),
        ("0", Err(())),
        ("-1", Err(())),
        ("\"-1\"", Err(())),
        ("3599.97", Ok(3599)),
        ("\"3599.5\"", Ok(3599)),
        ("0.5", Err(())),
        ("true", Err(())),
        ("\"soon\"", Err(())),
        ("\"1e3\"", Err(())),
        ("\"inf\"", Err(())),
        ("[3600]", Err(())),
    ] {
        let body = format!("{{\"access_token\":\"t\",\"expires_in\":{stated}}}");
        let found = ok(&Dialect::default(), &body);
        match expected {
            Ok(seconds) => {
                assert_eq!(found.unwrap().expires_in, Some(Duration::from_secs(seconds)));
            }
            Err(()) => {
                let number = stated.trim_matches('"').parse().ok();
                let expected = MalformedResponse::Lifetime(number);
                assert_eq!(found, Err(TokenError::Malformed(expected)), "{stated}");
            }
        }
    }
    for absent in ["null", "\"\""] {
        let body = format!("{{\"access_token\":\"t\",\"expires_in\":{absent}}}");
        assert_eq!(ok(&Dialect::default(), &body).unwrap().expires_in, None);
    }
    let huge = ok(&Dialect::default(), "{\"access_token\":\"t\",\"expires_in\":1e300}").unwrap();
    assert_eq!(huge.expires_in, Some(MAX_DURATION));
}

#[test]
fn core_banking_times() {
    let end = Some(StatedExpiry::At(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
    let unreadable = Some(StatedExpiry::Unreadable);
    for (rest, expires_in, expires_at) in [
        (r#""expirationTime":1800000000,"tokenValiditySec":900"#, Some(900), end),
        (r#""expirationTime":1800000000000,"tokenValiditySec":"900""#, Some(900), end),
        (r#""expirationTime":"1800000000000""#, None, end),
        (r#""expirationTime":"1800000000""#, None, end),
        (r#""expirationTime":"2027-01-15T08:00:00Z""#, None, end),
        (r#""expirationTime":"soon","tokenValiditySec":900"#, Some(900), unreadable),
        (r#""expirationTime":0,"tokenValiditySec":900"#, Some(900), unreadable),
        (r#""expirationTime":null,"tokenValiditySec":900"#, Some(900), None),
        (r#""tokenValiditySec":900"#, Some(900), None),
    ] {
        let body = format!(r#"{{"accessToken":"t","tokenType":"Bearer",{rest}}}"#);
        let token = ok(&core_banking(), &body).unwrap();
        assert_eq!(token.expires_in, expires_in.map(Duration::from_secs), "{rest}");
        assert_eq!(token.expires_at, expires_at, "{rest}");
    }
    for bad in ["0", "-5", "\"soon\"", "true", "{}"] {
        let body = format!(r#"{{"accessToken":"t","expirationTime":{bad}}}"#);
        let found = ok(&core_banking(), &body);
        assert_eq!(found, Err(TokenError::Malformed(MalformedResponse::Expiry)), "{bad}");
    }
}

/// Some servers write a date into the field that RFC 6749 has for seconds.
#[test]
fn a_date_in_expires_in() {
    let mut dialect = Dialect::default();
    dialect.response.expires_at = Some(FieldPath::name("expires_in"));
    let body = r#"{"access_token":"t","expires_in":"2027-01-15T08:00:00Z"}"#;
    let token = ok(&dialect, body).unwrap();
    let end = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    assert_eq!((token.expires_in, token.expires_at), (None, Some(StatedExpiry::At(end))));
}

#[test]
fn unusable_answers() {
    let long = format!("{{\"access_token\":\"{}\"}}", "a".repeat(16 * 1024 + 1));
    for (body, expected) in [
        ("", MalformedResponse::Empty),
        (" \r\n", MalformedResponse::Empty),
        ("\u{feff}", MalformedResponse::Empty),
        ("<html>", MalformedResponse::Html { status: 200, is_declared: false }),
        ("access_token=t&token_type=bearer", MalformedResponse::FormEncoded),
        ("t", MalformedResponse::NotJson),
        ("a b=c", MalformedResponse::NotJson),
        ("7", MalformedResponse::NotAnObject),
        ("{\"access_token\":\"t\"", MalformedResponse::NotJson),
        ("[]", MalformedResponse::NotAnObject),
        ("\"t\"", MalformedResponse::NotAnObject),
        ("{}", MalformedResponse::NoAccessToken),
        ("{\"accessToken\":\"t\"}", MalformedResponse::NoAccessToken),
        ("{\"access_token\":null}", MalformedResponse::NoAccessToken),
        ("{\"access_token\":7}", MalformedResponse::NoAccessToken),
        ("{\"access_token\":\"\"}", MalformedResponse::NoAccessToken),
        ("{\"access_token\":\"a b\"}", MalformedResponse::AccessToken),
        ("{\"access_token\":\"a\\r\\nX: y\"}", MalformedResponse::AccessToken),
        ("{\"access_token\":\"a\\tb\"}", MalformedResponse::AccessToken),
        ("{\"access_token\":\"t \"}", MalformedResponse::AccessToken),
        ("{\"access_token\":\"a\\u007fb\"}", MalformedResponse::AccessToken),
        ("{\"access_token\":\"\\ud800\"}", MalformedResponse::NoAccessToken),
        ("{\"access_token\":\"ü\"}", MalformedResponse::AccessToken),
        (long.as_str(), MalformedResponse::AccessTokenTooLong),
        ("{\"access_token\":\"t\",\"token_type\":\"mac\"}", MalformedResponse::TokenType),
        ("{\"access_token\":\"t\",\"token_type\":1}", MalformedResponse::TokenType),
    ] {
        let found = ok(&Dialect::default(), body);
        assert_eq!(found, Err(TokenError::Malformed(expected)), "{body}");
    }
    let longest = format!("{{\"access_token\":\"{}\"}}", "a".repeat(16 * 1024));
    assert!(ok(&Dialect::default(), &longest).is_ok());
    let raised = Dialect { max_token_bytes: 16 * 1024 + 1, ..Dialect::default() };
    assert!(ok(&raised, &long).is_ok());
}

#[test]
fn tokens_are_visible_ascii() {
    for token in ["00Dx!AR8AQ.x", "v^1.1#i^1#p^3", "sb|x", "a=b", "==", "a,b;c", "!~", "{\"}"] {
        let body = serde_json::json!({ "access_token": token }).to_string();
        let found = ok(&Dialect::default(), &body).unwrap();
        assert_eq!(found.access_token.expose(), token);
    }
}

#[test]
fn nested_fields() {
    let mut dialect = Dialect { use_refresh_token: true, ..Dialect::default() };
    let names = &mut dialect.response;
    names.access_token = FieldPath::parse("/data/access_token").unwrap();
    names.expires_in = FieldPath::parse("/data/life/0").unwrap();
    names.scope = FieldPath::parse("/data/scopes").unwrap();
    names.refresh_token = FieldPath::parse("/refresh").unwrap();
    names.error = FieldPath::parse("/error/code").unwrap();
    let body = r#"{"data":{"access_token":"t","life":["60"],"scopes":["a"]},"refresh":"r"}"#;
    let token = ok(&dialect, body).unwrap();
    assert_eq!(token.access_token.expose(), "t");
    assert_eq!(token.expires_in, Some(Duration::from_secs(60)));
    assert_eq!(token.scope, Some(ScopeSet::parse("a").unwrap()));
    assert_eq!(token.refresh_token, Some(Sensitive::new("r")));
    let found = ok(&dialect, r#"{"access_token":"t"}"#);
    assert_eq!(found, Err(TokenError::Malformed(MalformedResponse::NoAccessToken)));
    let error = ok(&dialect, r#"{"error":{"code":"invalid_client"}}"#).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidClient));
}

#[test]
fn defects_of_unread_fields_do_no_harm() {
    for field in [&b"\"x\":\"\xff\xfe\""[..], b"\"\xe4\":1", b"\"x\":\"\\ud800\"", b"\"x\":1e999"] {
        let body = [b"{\"access_token\":\"t\",", field, b"}"].concat();
        let (none, head) = (ScopeSet::default(), HeaderMap::new());
        let token = parse(&Dialect::default(), &none, StatusCode::OK, &head, &body).unwrap();
        assert_eq!(token.access_token.expose(), "t");
    }
    let body = b"{\"access_token\":\"t\xff\"}";
    let (none, head) = (ScopeSet::default(), HeaderMap::new());
    let found = parse(&Dialect::default(), &none, StatusCode::OK, &head, body);
    assert_eq!(found, Err(TokenError::Malformed(MalformedResponse::AccessToken)));
}

#[test]
fn forms_are_read_where_the_content_type_says_so() {
    let token = form(
        StatusCode::OK,
        "access_token=a%2Bb%7C&token_type=bearer&expires_in=3600&scope=repo%2Cuser+gist\r\n",
    );
    let token = token.unwrap();
    assert_eq!(token.access_token.expose(), "a+b|");
    assert_eq!(token.expires_in, Some(Duration::from_secs(3600)));
    assert_eq!(token.scope, Some(ScopeSet::parse("repo user gist").unwrap()));
    assert_eq!(form(StatusCode::OK, r#"{"access_token":"t"}"#).unwrap().access_token.len(), 1);
    for (status, body, code) in [
        (400, "error=invalid_client&error_description=no+such", ErrorCode::InvalidClient),
        (200, "error=invalid_scope", ErrorCode::InvalidScope),
    ] {
        let error = form(StatusCode::from_u16(status).unwrap(), body).unwrap_err();
        assert_eq!(error.code(), Some(code));
    }
    let found = form(StatusCode::OK, "hello");
    assert_eq!(found, Err(TokenError::Malformed(MalformedResponse::NoAccessToken)));
}

#[test]
fn coded_answers() {
    use std::io::Write as _;

    let body = br#"{"access_token":"t"}"#;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).unwrap();
    let coded = encoder.finish().unwrap();
    let head = headers(&[("content-encoding", "gzip")]);
    let (dialect, none) = (Dialect::default(), ScopeSet::default());
    assert!(parse(&dialect, &none, StatusCode::OK, &head, &coded).is_ok());
    assert!(is_whole(&head, &coded) && !is_whole(&head, &coded[..coded.len() - 1]));
    let brotli = headers(&[("content-encoding", "br")]);
    let error = parse(&dialect, &none, StatusCode::OK, &brotli, b"\x0b").unwrap_err();
    assert!(error.to_string().contains("(br)"), "{error}");
}

#[test]
fn whole_objects() {
    let none = HeaderMap::new();
    for whole in ["{}", " {\"a\":{}}\r\n", "\u{feff}{}"] {
        assert!(is_whole(&none, whole.as_bytes()), "{whole}");
    }
    for part in ["", "{", "{\"a\":{}", "7", "[]", "{} x", "a=b"] {
        assert!(!is_whole(&none, part.as_bytes()), "{part}");
    }
}

#[test]
fn token_types() {
    let accepting = Dialect { accept_token_types: vec!["JWT".into()], ..Dialect::default() };
    let demanding = Dialect { require_token_type: true, ..Dialect::default() };
    let plain = Dialect::default();
    let bound = Dialect { token_type: TokenType::Dpop, ..Dialect::default() };
    let lenient = Dialect { accept_token_types: vec!["DPoP".into()], ..Dialect::default() };
    for (dialect, rest, good) in [
        (&plain, "", true),
        (&plain, r#","token_type":null"#, true),
        (&plain, r#","token_type":"""#, true),
        (&plain, r#","token_type":"jwt""#, false),
        (&accepting, r#","token_type":"jwt""#, true),
        (&accepting, r#","token_type":"BEARER""#, true),
        (&demanding, "", false),
        (&demanding, r#","token_type":"""#, false),
        (&demanding, r#","token_type":"Bearer""#, true),
        (&plain, r#","token_type":"DPoP""#, false),
        (&lenient, r#","token_type":"DPoP""#, false),
        (&bound, r#","token_type":"DPoP""#, true),
        (&bound, r#","token_type":"dpop""#, true),
        (&bound, r#","token_type":"Bearer""#, false),
        (&bound, "", false),
    ] {
        let body = format!(r#"{{"access_token":"t"{rest}}}"#);
        assert_eq!(ok(dialect, &body).is_ok(), good, "{body}");
    }
}

#[test]
fn granted_scopes() {
    for (stated, expected) in [
        ("\"a b\"", Some("a b")),
        ("\"a  a\\tb\"", Some("a b")),
        ("[\"a\",\"b\",7]", Some("a b")),
        ("\"a ü\"", Some("a")),
        ("\"b,a\"", Some("a b")),
        ("\"b, a\"", Some("a b")),
        ("\"a,,b,\"", Some("a b")),
        ("\"[a, b]\"", Some("a b")),
        ("\"[\\\"a\\\",\\\"b\\\"]\"", Some("a b")),
        ("[\"b\",\"a\"]", Some("a b")),
        ("[\"b a\"]", Some("a b")),
        ("[\"b,a\"]", Some("a b")),
        ("[]", None),
        ("\"\"", None),
        ("null", None),
        ("7", None),
    ] {
        let body = format!("{{\"access_token\":\"t\",\"scope\":{stated}}}");
        let scope = ok(&Dialect::default(), &body).unwrap().scope;
        assert_eq!(scope, expected.map(|list| ScopeSet::parse(list).unwrap()), "{stated}");
    }
    // A requested scope may have a comma.
    let requested = ScopeSet::parse("a,b").unwrap();
    let granted = scopes(&Value::from("a,b c,d"), &requested);
    assert_eq!(granted, Some(ScopeSet::parse("a,b c d").unwrap()));
}

#[test]
fn refresh_tokens() {
    let dialect = preset("datacrunch").unwrap().dialect;
    for (stated, expected) in
        [("\"r 1\"", Some("r 1")), ("\"\"", None), ("7", None), ("\"r\\n\"", None), ("null", None)]
    {
        let body = format!("{{\"access_token\":\"t\",\"refresh_token\":{stated}}}");
        let token = ok(&dialect, &body).unwrap();
        assert_eq!(token.refresh_token.as_ref().map(Sensitive::expose), expected);
    }
}

#[test]
fn failures() {
    for (status, body, expected) in [
        (
            400,
            r#"{"error":"invalid_scope","error_description":"x"}"#,
            Some(ErrorCode::InvalidScope),
        ),
        (401, r#"{"error":"invalid_client"}"#, Some(ErrorCode::InvalidClient)),
        (200, r#"{"error":"invalid_client"}"#, Some(ErrorCode::InvalidClient)),
        (400, "error=invalid_client&x=1", Some(ErrorCode::InvalidClient)),
        (400, "x=hunter2", None),
        (400, r#"{"error":"hunter2"}"#, Some(ErrorCode::Other)),
        (400, r#"{"error":{"code":"x"}}"#, None),
        (302, r#"{"error":"invalid_client"}"#, None),
        (302, r#"{"access_token":"t"}"#, None),
        (500, "<html>hunter2</html>", None),
        (503, "", None),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let error = parse(
            &Dialect::default(),
            &ScopeSet::default(),
            status,
            &HeaderMap::new(),
            body.as_bytes(),
        )
        .unwrap_err();
        let response = error.response().unwrap();
        assert_eq!((response.status, response.code), (status, expected), "{body}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

#[test]
fn when_to_come_back() {
    let now = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    for (head, expected) in [
        (vec![], None),
        (vec![("retry-after", "120")], Some(120)),
        (vec![("retry-after", " 0 ")], Some(0)),
        (vec![("retry-after", "-1")], None),
        (vec![("retry-after", "soon")], None),
        (vec![("retry-after", "99999999999999999999999")], Some(MAX_DURATION.as_secs())),
        (vec![("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")], None),
        (vec![now, ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")], Some(60)),
        (vec![now, ("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")], Some(0)),
    ] {
        let error = parse(
            &Dialect::default(),
            &ScopeSet::default(),
            StatusCode::SERVICE_UNAVAILABLE,
            &headers(&head),
            b"",
        )
        .unwrap_err();
        assert_eq!(error.retry_after(), expected.map(Duration::from_secs), "{head:?}");
    }
}

proptest! {
    #[test]
    fn nothing_panics_or_leaks(
        status in 100u16..1000,
        wrapper in 0usize..4,
        noise in prop::collection::vec(any::<u8>(), 0..64),
        marker in "zq[0-9]{6}zq",
    ) {
        let status = StatusCode::from_u16(status).unwrap();
        let body = match wrapper {
            0 => [noise.as_slice(), marker.as_bytes()].concat(),
            1 => format!("{{\"error\":\"{marker}\",\"error_description\":\"{marker}\"}}").into_bytes(),
            2 => format!("{{\"access_token\":\"{marker} {marker}\",\"token_type\":\"{marker}\"}}").into_bytes(),
            _ => format!("{{\"access_token\":\"t\",\"token_type\":\"{marker}\",\"expires_in\":\"{marker}\"}}").into_bytes(),
        };
        let mut head = HeaderMap::new();
        if let Ok(value) = http::HeaderValue::from_bytes(&noise) {
            head.insert(RETRY_AFTER, value.clone());
            head.insert(DATE, value);
        }
        for dialect in [Dialect::default(), core_banking()] {
            if let Err(error) = parse(&dialect, &ScopeSet::default(), status, &head, &body) {
                let shown = format!("{error} {error:?} {:?}", error.hint());
                prop_assert!(!shown.contains(&marker), "{}", shown);
            }
        }
    }

    #[test]
    fn arbitrary_json_is_read_or_refused(text in "[\\[\\]{}\":,a-z0-9.eE+-]{0,80}") {
        let _ = ok(&Dialect::default(), &text);
        let _ = ok(&core_banking(), &format!("{{\"accessToken\":\"t\",\"expirationTime\":{text}}}"));
    }
}
