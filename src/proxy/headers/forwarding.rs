//! Pure: adds this hop to the fields in which earlier proxies describe the client (RFC 7239, and the
//! older fields that most servers read).

use std::net::IpAddr;

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

use super::field::FieldClass;
use super::list::{folded, remove_where};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The hop that a request came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop<'a> {
    /// The client's address; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// The host that the request is addressed to, in canonical form.
    pub host: Option<&'a str>,
    /// Set if the request came over TLS.
    pub tls: bool,
}

/// Adds the hop to the lists. Fields that are not lists are removed, since they do not tell which proxy
/// set them.
pub fn append(headers: &mut HeaderMap, hop: Hop<'_>) {
    remove_where(headers, claims);
    let client = hop.client.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
    let proto = if hop.tls { "https" } else { "http" };
    extend(headers, FOR, &client);
    extend(headers, FORWARDED, &element(hop, proto));
    for (name, value) in [(HOST, hop.host), (PROTO, Some(proto))] {
        if let Some(value) = value.and_then(|text| HeaderValue::from_str(text).ok())
            && !headers.contains_key(&name)
        {
            headers.append(name, value);
        }
    }
}

/// True if a field describes the client, but is not one of the lists that the hop is added to.
fn claims(name: &HeaderName) -> bool {
    let listed = || [FORWARDED, FOR, HOST, PROTO].contains(name);
    match FieldClass::classify(name) {
        FieldClass::FORWARDING => !listed(),
        // Servers may take such a name for another.
        FieldClass::FOLDED => FieldClass::classify(folded(name)) == FieldClass::FORWARDING,
        _ => false,
    }
}

/// The hop as an element of `Forwarded` (RFC 7239 section 4); an IPv6 address is quoted and in brackets
/// (section 6).
fn element(hop: Hop<'_>, proto: &str) -> String {
    let client = match hop.client {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
        None => "unknown".to_owned(),
    };
    let host = hop.host.map(|host| format!(";host=\"{host}\"")).unwrap_or_default();
    format!("for={client}{host};proto={proto}")
}

/// Adds a member to a list and joins its lines, since some servers read one line only.
fn extend(headers: &mut HeaderMap, name: HeaderName, member: &str) {
    let mut joined = Vec::new();
    for line in headers.get_all(&name) {
        joined.extend_from_slice(line.as_bytes());
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(member.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::headers::testing::{head, lines};

    #[test]
    fn our_hop_is_added_to_the_lists() {
        let check = |fields: &[(&str, &str)], hop: Hop<'_>, expected: &[&str]| {
            let mut headers = head(fields);
            append(&mut headers, hop);
            assert_eq!(lines(&headers), expected, "{fields:?}");
        };
        let v4 = Hop { client: "10.0.0.7".parse().ok(), host: Some("erp.local"), tls: false };
        check(
            &[],
            v4,
            &[
                "forwarded: for=10.0.0.7;host=\"erp.local\";proto=http",
                "x-forwarded-for: 10.0.0.7",
                "x-forwarded-host: erp.local",
                "x-forwarded-proto: http",
            ],
        );
        let v6 = Hop { client: "::1".parse().ok(), host: None, tls: true };
        check(
            &[
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-for", "2.2.2.2"),
                ("forwarded", "for=1.1.1.1"),
                ("x-forwarded-host", "a"),
                ("x-real-ip", "1.1.1.1"),
                ("x_real_ip", "1.1.1.1"),
                ("x_forwarded_for", "1.1.1.1"),
                ("x-forwarded-user", "root"),
                ("accept", "a"),
            ],
            v6,
            &[
                "accept: a",
                "forwarded: for=1.1.1.1, for=\"[::1]\";proto=https",
                "x-forwarded-for: 1.1.1.1, 2.2.2.2, ::1",
                "x-forwarded-host: a",
                "x-forwarded-proto: https",
            ],
        );
        check(
            &[],
            Hop { client: None, ..v6 },
            &[
                "forwarded: for=unknown;proto=https",
                "x-forwarded-for: unknown",
                "x-forwarded-proto: https",
            ],
        );
    }
}
