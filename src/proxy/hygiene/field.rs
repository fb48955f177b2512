//! The table of fields: what each name is. What becomes of it is told in the folder's first lines.

use crate::message::Fields;
use std::ops::BitOr;

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

    /// What a name is; names are in lower case.
    pub fn of(name: impl AsRef<[u8]>) -> Self {
        match name.as_ref() {
            b"host" => Self::HOST,
            b"content-length" => Self::LENGTH,
            b"transfer-encoding" => Self::CODING,
            b"connection" => Self::CONNECTION,
            b"keep-alive"
            | b"proxy-connection"
            | b"proxy-authorization"
            | b"proxy-authenticate"
            | b"proxy-authentication-info"
            | b"http2-settings" => Self::HOP,
            b"te" => Self::TE,
            b"trailer" => Self::TRAILER,
            b"upgrade" => Self::UPGRADE,
            b"expect" => Self::EXPECT,
            b"authorization" => Self::AUTHORIZATION,
            b"x-original-url"
            | b"x-rewrite-url"
            | b"x-http-method-override"
            | b"x-http-method"
            | b"x-method-override" => Self::OVERRIDE,
            b"forwarded"
            | b"x-forwarded"
            | b"x-real-ip"
            | b"x-client-ip"
            | b"x-cluster-client-ip"
            | b"x-remote-ip"
            | b"x-remote-addr"
            | b"x-originating-ip"
            | b"x-original-host"
            | b"x-original-forwarded-for"
            | b"x-host"
            | b"x-envoy-external-address"
            | b"client-ip"
            | b"true-client-ip"
            | b"cf-connecting-ip"
            | b"fastly-client-ip"
            | b"proxy-client-ip"
            | b"wl-proxy-client-ip" => Self::FORWARDING,
            b"via" => Self::VIA,
            b"origin" => Self::ORIGIN,
            b"sec-fetch-site" => Self::FETCH_SITE,
            b"cache-control" => Self::CACHE_CONTROL,
            b"alt-svc" => Self::ALT_SVC,
            b"bearer-proxy-forwarded" => Self::OUR_WORD,
            b"x-request-id" => Self::REQUEST_ID,
            name if name.starts_with(b"x-forwarded-") => Self::FORWARDING,
            name if name.contains(&b'_') => Self::UNDERSCORE,
            _ => Self::OTHER,
        }
    }

    /// What all names of a head are: the one pass that a request without oddities costs.
    pub fn survey(headers: &Fields) -> Self {
        headers.iter().fold(Self::OTHER, |found, (name, _)| found | Self::of(name))
    }

    /// Whether the two have a kind in common.
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both together, in constants.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for Kinds {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}
