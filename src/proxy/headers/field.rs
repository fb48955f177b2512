//! The table of header fields: the class of each name. The folder's first lines say what happens to
//! each class.

use bitflags::bitflags;
use http::HeaderMap;

bitflags! {
    /// Classes of header fields: that of one name, or those of all names in a head. The empty set
    /// stands for a name with no special meaning, which is forwarded.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct FieldClass: u32 {
        /// Host: replaced by the upstream's.
        const HOST = 1;
        /// Content-Length: says how the message ends, and stays.
        const LENGTH = 1 << 1;
        /// Connection: names the fields of this hop.
        const CONNECTION = 1 << 2;
        /// Other fields of one connection, credentials for proxies among them.
        const HOP = 1 << 3;
        /// TE: says whether trailers are accepted.
        const TE = 1 << 4;
        /// Trailer: announces the trailers of a message.
        const TRAILER = 1 << 5;
        /// Upgrade: offers other protocols.
        const UPGRADE = 1 << 6;
        /// Expect: asks for 100 Continue.
        const EXPECT = 1 << 7;
        /// Authorization: only the proxy's own goes upstream.
        const AUTHORIZATION = 1 << 8;
        /// Fields by which some frameworks let a request name another method or path than it has.
        const OVERRIDE = 1 << 9;
        /// Fields in which earlier proxies describe the client.
        const FORWARDING = 1 << 10;
        /// Via: lists the proxies that a message has passed.
        const VIA = 1 << 11;
        /// Origin: the web page that sent a request.
        const ORIGIN = 1 << 12;
        /// Sec-Fetch-Site: how that page is related to the target.
        const FETCH_SITE = 1 << 13;
        /// Cache-Control.
        const CACHE_CONTROL = 1 << 14;
        /// Alt-Svc: following it would lead the app past this proxy.
        const ALT_SVC = 1 << 15;
        /// Headers that only this proxy may set: `Bearer-Proxy-Forwarded`.
        const RESERVED = 1 << 16;
        /// A name with `_`, with `http-` before it or with `-` behind it, which servers that pass fields
        /// on as variables may take for another.
        const FOLDED = 1 << 17;
        /// Transfer-Encoding: says how the message ends on this connection; made anew for the next.
        const CODING = 1 << 18;
        /// X-Request-Id: the app's name for a request.
        const REQUEST_ID = 1 << 19;
        /// DPoP and DPoP-Nonce: proofs of possession, which only the proxy makes.
        const PROOF = 1 << 20;
    }
}

impl FieldClass {
    /// The class of a name, which is in lower case, as each `http::HeaderName` is.
    pub fn classify(name: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        // By length first: at most five names share one, so that an unknown name is compared with
        // few, and each comparison is of a length that the compiler knows.
        let class = match (name.len(), name) {
            (2, b"te") => Self::TE,
            (3, b"via") => Self::VIA,
            (4, b"dpop") => Self::PROOF,
            (4, b"host") => Self::HOST,
            (6, b"expect") => Self::EXPECT,
            (6, b"origin") => Self::ORIGIN,
            (6, b"x-host") => Self::FORWARDING,
            (7, b"alt-svc") => Self::ALT_SVC,
            (7, b"trailer") => Self::TRAILER,
            (7, b"upgrade") => Self::UPGRADE,
            (9, b"client-ip" | b"forwarded" | b"x-real-ip") => Self::FORWARDING,
            (10, b"connection") => Self::CONNECTION,
            (10, b"dpop-nonce") => Self::PROOF,
            (10, b"keep-alive") => Self::HOP,
            (11, b"x-client-ip" | b"x-forwarded" | b"x-remote-ip") => Self::FORWARDING,
            (12, b"x-request-id") => Self::REQUEST_ID,
            (13, b"authorization") => Self::AUTHORIZATION,
            (13, b"cache-control") => Self::CACHE_CONTROL,
            (13, b"x-http-method" | b"x-rewrite-url") => Self::OVERRIDE,
            (13, b"x-remote-addr") => Self::FORWARDING,
            (14, b"content-length") => Self::LENGTH,
            (14, b"http2-settings") => Self::HOP,
            (14, b"sec-fetch-site") => Self::FETCH_SITE,
            (14, b"true-client-ip") => Self::FORWARDING,
            (14, b"x-original-url") => Self::OVERRIDE,
            (15, b"proxy-client-ip" | b"x-original-host") => Self::FORWARDING,
            (16, b"proxy-connection") => Self::HOP,
            (16, b"cf-connecting-ip" | b"fastly-client-ip" | b"x-originating-ip") => {
                Self::FORWARDING
            }
            (17, b"transfer-encoding") => Self::CODING,
            (17, b"x-method-override") => Self::OVERRIDE,
            (18, b"proxy-authenticate") => Self::HOP,
            (18, b"wl-proxy-client-ip") => Self::FORWARDING,
            (19, b"proxy-authorization") => Self::HOP,
            (19, b"x-cluster-client-ip") => Self::FORWARDING,
            (22, b"bearer-proxy-forwarded") => Self::RESERVED,
            (22, b"x-http-method-override") => Self::OVERRIDE,
            (24, b"x-envoy-external-address" | b"x-original-forwarded-for") => Self::FORWARDING,
            (25, b"proxy-authentication-info") => Self::HOP,
            _ => Self::empty(),
        };
        if !class.is_empty() {
            class
        } else if name.starts_with(b"x-forwarded-") {
            Self::FORWARDING
        } else if name.contains(&b'_') || name.starts_with(b"http-") || name.ends_with(b"-") {
            Self::FOLDED
        } else {
            class
        }
    }

    /// The classes of all names in a head, found in one pass.
    pub fn classify_all(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::empty(), |found, name| found | Self::classify(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All names that are known, once more, so that none stands under a wrong length.
    const KNOWN: [(FieldClass, &[&str]); 19] = [
        (FieldClass::HOST, &["host"]),
        (FieldClass::LENGTH, &["content-length"]),
        (FieldClass::CONNECTION, &["connection"]),
        (
            FieldClass::HOP,
            &[
                "keep-alive",
                "proxy-connection",
                "proxy-authorization",
                "proxy-authenticate",
                "proxy-authentication-info",
                "http2-settings",
            ],
        ),
        (FieldClass::TE, &["te"]),
        (FieldClass::TRAILER, &["trailer"]),
        (FieldClass::UPGRADE, &["upgrade"]),
        (FieldClass::EXPECT, &["expect"]),
        (FieldClass::AUTHORIZATION, &["authorization"]),
        (
            FieldClass::OVERRIDE,
            &[
                "x-original-url",
                "x-rewrite-url",
                "x-http-method-override",
                "x-http-method",
                "x-method-override",
            ],
        ),
        (
            FieldClass::FORWARDING,
            &[
                "forwarded",
                "x-forwarded",
                "x-forwarded-for",
                "x-forwarded-",
                "x-forwarded-client_cert",
                "x-real-ip",
                "x-client-ip",
                "x-cluster-client-ip",
                "x-remote-ip",
                "x-remote-addr",
                "x-originating-ip",
                "x-original-host",
                "x-original-forwarded-for",
                "x-host",
                "x-envoy-external-address",
                "client-ip",
                "true-client-ip",
                "cf-connecting-ip",
                "fastly-client-ip",
                "proxy-client-ip",
                "wl-proxy-client-ip",
            ],
        ),
        (FieldClass::VIA, &["via"]),
        (FieldClass::ORIGIN, &["origin"]),
        (FieldClass::FETCH_SITE, &["sec-fetch-site"]),
        (FieldClass::CACHE_CONTROL, &["cache-control"]),
        (FieldClass::ALT_SVC, &["alt-svc"]),
        (FieldClass::CODING, &["transfer-encoding"]),
        (FieldClass::REQUEST_ID, &["x-request-id"]),
        (FieldClass::PROOF, &["dpop", "dpop-nonce"]),
    ];

    #[test]
    fn names_are_known() {
        let check = |name: &str, expected: FieldClass| {
            assert_eq!(FieldClass::classify(name), expected, "{name}")
        };
        for (class, names) in KNOWN {
            for name in names {
                check(name, class);
                let open = name.starts_with("x-forwarded-");
                check(&format!("{name}y"), if open { class } else { FieldClass::empty() });
                let other = name.replacen(|_: char| true, "y", 1);
                let folds = name.contains('_') || name.ends_with('-');
                let unlike = if folds { FieldClass::FOLDED } else { FieldClass::empty() };
                check(&other, unlike);
            }
        }
        check("bearer-proxy-forwarded", FieldClass::RESERVED);
        for name in ["", "a", "accept", "user-agent", "content-type", "cookie", "x-forwarder-for"] {
            check(name, FieldClass::empty());
        }
        for name in
            ["_", "content_length", "x_forwarded_for", "user_id", "http-authorization", "via-"]
        {
            check(name, FieldClass::FOLDED);
        }
    }

    #[test]
    fn a_survey_is_all_kinds_together() {
        let head =
            crate::proxy::headers::testing::head(&[("host", "a"), ("via", "b"), ("accept", "c")]);
        assert_eq!(FieldClass::classify_all(&head), FieldClass::HOST | FieldClass::VIA);
        assert_eq!(FieldClass::classify_all(&HeaderMap::new()), FieldClass::empty());
    }
}
