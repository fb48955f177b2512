//! The id of a request, by which the app, the log and the upstream can name it.

use std::cell::OnceCell;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::headers::FieldClass;

/// The request's id on every response to the app, whoever made the response.
pub const BEARER_PROXY_REQUEST_ID: HeaderName = HeaderName::from_static("bearer-proxy-request-id");
/// The app's own id of a request. Responses that have none are given the request's.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request: the app's own if it is fit to be logged, else a random number of 128 bits, made
/// when it is first needed.
#[derive(Default)]
pub struct RequestId {
    value: OnceCell<HeaderValue>,
    /// Set for an id that the app sent.
    is_own: bool,
}

impl RequestId {
    /// Longest id that is accepted, in bytes.
    const MAX_BYTES: usize = 128;

    /// Takes the id from `X-Request-Id`, if it is printable and short.
    pub fn of(headers: &HeaderMap, fields: FieldClass) -> Self {
        let mut id = Self::default();
        if fields.intersects(FieldClass::REQUEST_ID)
            && let Some(own) = headers.get(X_REQUEST_ID).filter(|own| is_acceptable(own.as_bytes()))
        {
            id = Self { value: OnceCell::from(own.clone()), is_own: true };
        }
        id
    }

    /// The id as a header value.
    pub fn value(&self) -> &HeaderValue {
        self.value.get_or_init(random)
    }

    /// Tells the upstream the id in this header. An id that the app sent leaves the app's own header of this
    /// name as it is, since it may be another id of the app; one that was made here replaces it.
    pub fn attach(&self, headers: &mut HeaderMap, name: &HeaderName) {
        if self.is_own && headers.contains_key(name) {
            return;
        }
        headers.insert(name.clone(), self.value().clone());
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        // Both kinds are visible ASCII.
        self.value().to_str().unwrap_or_default()
    }
}

/// True if an app's id can stand in a log line as it is.
fn is_acceptable(id: &[u8]) -> bool {
    let printable = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    !id.is_empty() && id.len() <= RequestId::MAX_BYTES && id.iter().all(printable)
}

/// 32 hexadecimal digits.
fn random() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut number = fastrand::u128(..);
    let text: [u8; 32] = std::array::from_fn(|_| {
        let digit = DIGITS[(number & 0xf) as usize];
        number >>= 4;
        digit
    });
    HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&text))
        .unwrap_or_else(|_| HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_where_they_can_be_logged_and_made_where_not() {
        let check = |own: &'static str, taken: bool| {
            let headers = HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_static(own))]);
            let id = RequestId::of(&headers, FieldClass::classify_all(&headers));
            assert_eq!(id.as_str() == own, taken, "{own}");
            assert!(taken || id.as_str().len() == 32, "{}", id.as_str());
        };
        check("pay-4711", true);
        check("", false);
        check("two words", false);
        check("quo\"ted", false);
        let attached = |fields: &[(&'static str, &'static str)], name: &'static str| {
            let field = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            let mut headers: HeaderMap = fields.iter().map(field).collect();
            let id = RequestId::of(&headers, FieldClass::classify_all(&headers));
            id.attach(&mut headers, &HeaderName::from_static(name));
            let found: Vec<_> = headers.get_all(name).iter().cloned().collect();
            (found, id.value().clone())
        };
        let taken = [("x-request-id", "pay-1"), ("x-trace", "t-1")];
        assert_eq!(attached(&taken, "x-request-id").0, ["pay-1"]);
        assert_eq!(attached(&taken, "x-trace").0, ["t-1"], "the app's own stays");
        assert_eq!(attached(&taken[..1], "x-trace").0, ["pay-1"]);
        for (fields, name) in [
            (&[("x-request-id", "no id")][..], "x-request-id"),
            (&taken[1..], "x-trace"),
            (&[], "x-trace"),
        ] {
            let (found, made) = attached(fields, name);
            assert_eq!(found, [made], "{fields:?} {name}");
        }
        let made = RequestId::default();
        assert_eq!(made.as_str(), made.as_str());
        assert_ne!(made.as_str(), RequestId::default().as_str());
    }
}
