//! The table of fields: what each name is. What becomes of it is told in the folder's first lines.

use std::ops::BitOr;

use http::HeaderMap;

/// Kinds of fields, as a set: of one name, or of all names of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u32);

impl Kinds {
    /// Nothing is known of it, so that it travels.
    pub const OTHER: Self = Self(0);
    /// Host: replaced by the upstream's.
    pub const HOST: Self = Self(1);
    /// Content-Length: says how the message ends, and stays.
    pub const LENGTH: Self = Self(1 << 1);
    /// Connection: names the fields of this hop.
    pub const CONNECTION: Self = Self(1 << 2);
    /// Whatever else belongs to one connection, credentials for proxies among it.
    pub const HOP: Self = Self(1 << 3);
    /// TE: which trailers are welcome.
    pub const TE: Self = Self(1 << 4);
    /// Trailer: which trailers come.
    pub const TRAILER: Self = Self(1 << 5);
    /// Upgrade.
    pub const UPGRADE: Self = Self(1 << 6);
    /// Expect.
    pub const EXPECT: Self = Self(1 << 7);
    /// Authorization: ours alone goes upstream.
    pub const AUTHORIZATION: Self = Self(1 << 8);
    /// Fields by which some frameworks let a request name another method or path than it has.
    pub const OVERRIDE: Self = Self(1 << 9);
    /// Who the client is, in the words of proxies before us.
    pub const FORWARDING: Self = Self(1 << 10);
    /// Via: which proxies a message has passed.
    pub const VIA: Self = Self(1 << 11);
    /// Origin: the web page that sent a request.
    pub const ORIGIN: Self = Self(1 << 12);
    /// Sec-Fetch-Site: where that page stands.
    pub const FETCH_SITE: Self = Self(1 << 13);
    /// Cache-Control.
    pub const CACHE_CONTROL: Self = Self(1 << 14);
    /// Alt-Svc: following it would lead the app past us.
    pub const ALT_SVC: Self = Self(1 << 15);
    /// What only this program may say.
    pub const OUR_WORD: Self = Self(1 << 16);
    /// A name with `_`, which some servers take for `-`.
    pub const UNDERSCORE: Self = Self(1 << 17);
    /// Transfer-Encoding: says how the message ends on this connection; made anew for the next.
    pub const CODING: Self = Self(1 << 18);
    /// X-Request-Id: the app's name for a request.
    pub const REQUEST_ID: Self = Self(1 << 19);

    /// What a name is; names are in lower case, as those of `http::HeaderName` are.
    pub fn of(name: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        // By length first: no more than five names share one, so that an unknown name is compared
        // with a few only, and each comparison is of a length that the compiler knows.
        let kind = match name.len() {
            2 => match name {
                b"te" => Self::TE,
                _ => Self::OTHER,
            },
            3 => match name {
                b"via" => Self::VIA,
                _ => Self::OTHER,
            },
            4 => match name {
                b"host" => Self::HOST,
                _ => Self::OTHER,
            },
            6 => match name {
                b"expect" => Self::EXPECT,
                b"origin" => Self::ORIGIN,
                b"x-host" => Self::FORWARDING,
                _ => Self::OTHER,
            },
            7 => match name {
                b"alt-svc" => Self::ALT_SVC,
                b"trailer" => Self::TRAILER,
                b"upgrade" => Self::UPGRADE,
                _ => Self::OTHER,
            },
            9 => match name {
                b"client-ip" | b"forwarded" | b"x-real-ip" => Self::FORWARDING,
                _ => Self::OTHER,
            },
            10 => match name {
                b"connection" => Self::CONNECTION,
                b"keep-alive" => Self::HOP,
                _ => Self::OTHER,
            },
            11 => match name {
                b"x-client-ip" | b"x-forwarded" | b"x-remote-ip" => Self::FORWARDING,
                _ => Self::OTHER,
            },
            12 => match name {
                b"x-request-id" => Self::REQUEST_ID,
                _ => Self::OTHER,
            },
            13 => match name {
                b"authorization" => Self::AUTHORIZATION,
                b"cache-control" => Self::CACHE_CONTROL,
                b"x-http-method" | b"x-rewrite-url" => Self::OVERRIDE,
                b"x-remote-addr" => Self::FORWARDING,
                _ => Self::OTHER,
            },
            14 => match name {
                b"content-length" => Self::LENGTH,
                b"http2-settings" => Self::HOP,
                b"sec-fetch-site" => Self::FETCH_SITE,
                b"true-client-ip" => Self::FORWARDING,
                b"x-original-url" => Self::OVERRIDE,
                _ => Self::OTHER,
            },
            15 => match name {
                b"proxy-client-ip" | b"x-original-host" => Self::FORWARDING,
                _ => Self::OTHER,
            },
            16 => match name {
                b"proxy-connection" => Self::HOP,
                b"cf-connecting-ip" | b"fastly-client-ip" | b"x-originating-ip" => Self::FORWARDING,
                _ => Self::OTHER,
            },
            17 => match name {
                b"transfer-encoding" => Self::CODING,
                b"x-method-override" => Self::OVERRIDE,
                _ => Self::OTHER,
            },
            18 => match name {
                b"proxy-authenticate" => Self::HOP,
                b"wl-proxy-client-ip" => Self::FORWARDING,
                _ => Self::OTHER,
            },
            19 => match name {
                b"proxy-authorization" => Self::HOP,
                b"x-cluster-client-ip" => Self::FORWARDING,
                _ => Self::OTHER,
            },
            22 => match name {
                b"bearer-proxy-forwarded" => Self::OUR_WORD,
                b"x-http-method-override" => Self::OVERRIDE,
                _ => Self::OTHER,
            },
            24 => match name {
                b"x-envoy-external-address" | b"x-original-forwarded-for" => Self::FORWARDING,
                _ => Self::OTHER,
            },
            25 => match name {
                b"proxy-authentication-info" => Self::HOP,
                _ => Self::OTHER,
            },
            _ => Self::OTHER,
        };
        match kind {
            Self::OTHER if name.starts_with(b"x-forwarded-") => Self::FORWARDING,
            Self::OTHER if name.contains(&b'_') => Self::UNDERSCORE,
            kind => kind,
        }
    }

    /// What all names of a head are: the one pass that a request without oddities costs.
    pub fn survey(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::OTHER, |found, name| found | Self::of(name))
    }

    /// Whether the two have a kind in common.
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both together, in constants.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These but for the others, in constants.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Kinds {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All names that are known, once more, so that none stands under a wrong length.
    const KNOWN: [(Kinds, &[&str]); 18] = [
        (Kinds::HOST, &["host"]),
        (Kinds::LENGTH, &["content-length"]),
        (Kinds::CONNECTION, &["connection"]),
        (
            Kinds::HOP,
            &[
                "keep-alive",
                "proxy-connection",
                "proxy-authorization",
                "proxy-authenticate",
                "proxy-authentication-info",
                "http2-settings",
            ],
        ),
        (Kinds::TE, &["te"]),
        (Kinds::TRAILER, &["trailer"]),
        (Kinds::UPGRADE, &["upgrade"]),
        (Kinds::EXPECT, &["expect"]),
        (Kinds::AUTHORIZATION, &["authorization"]),
        (
            Kinds::OVERRIDE,
            &[
                "x-original-url",
                "x-rewrite-url",
                "x-http-method-override",
                "x-http-method",
                "x-method-override",
            ],
        ),
        (
            Kinds::FORWARDING,
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
        (Kinds::VIA, &["via"]),
        (Kinds::ORIGIN, &["origin"]),
        (Kinds::FETCH_SITE, &["sec-fetch-site"]),
        (Kinds::CACHE_CONTROL, &["cache-control"]),
        (Kinds::ALT_SVC, &["alt-svc"]),
        (Kinds::CODING, &["transfer-encoding"]),
        (Kinds::REQUEST_ID, &["x-request-id"]),
    ];

    #[test]
    fn names_are_known() {
        let check = |name: &str, expected: Kinds| assert_eq!(Kinds::of(name), expected, "{name}");
        for (kind, names) in KNOWN {
            for name in names {
                check(name, kind);
                let open = name.starts_with("x-forwarded-");
                check(&format!("{name}y"), if open { kind } else { Kinds::OTHER });
                let other = name.replacen(|_: char| true, "y", 1);
                let unlike = if name.contains('_') { Kinds::UNDERSCORE } else { Kinds::OTHER };
                check(&other, unlike);
            }
        }
        check("bearer-proxy-forwarded", Kinds::OUR_WORD);
        for name in ["", "a", "accept", "user-agent", "content-type", "cookie", "x-forwarder-for"] {
            check(name, Kinds::OTHER);
        }
        for name in ["_", "content_length", "x_forwarded_for", "user_id"] {
            check(name, Kinds::UNDERSCORE);
        }
    }

    #[test]
    fn a_survey_is_all_kinds_together() {
        let head =
            crate::proxy::headers::testing::head(&[("host", "a"), ("via", "b"), ("accept", "c")]);
        assert_eq!(Kinds::survey(&head), Kinds::HOST | Kinds::VIA);
        assert_eq!(Kinds::survey(&HeaderMap::new()), Kinds::OTHER);
    }
}
