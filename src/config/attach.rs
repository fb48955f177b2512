//! `attach`: the header that carries the tokens of a credential to upstreams.

use http::HeaderName;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE};

use crate::diagnostics::Section;
use crate::proxy::headers::FieldClass;
use crate::token::TokenHeader;

pub(super) fn read(section: &Section<'_>) -> TokenHeader {
    let default = TokenHeader::default();
    TokenHeader {
        name: section.parse("header", header_name).unwrap_or(default.name),
        scheme: section.parse("scheme", scheme).unwrap_or(default.scheme),
    }
}

/// Authorization, or a header without a meaning of its own.
fn header_name(text: &str) -> Result<HeaderName, &'static str> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| "expected the name of a header: letters, digits and `-`")?;
    let plain = FieldClass::classify(name.as_str()).is_empty()
        && !matches!(name, COOKIE | CONTENT_TYPE)
        && !super::dialect::is_ours(&name);
    match plain || name == AUTHORIZATION {
        true => Ok(name),
        false => Err("this header has a meaning of its own, and no token may stand in it"),
    }
}

/// A scheme as RFC 9110 section 11.1 writes it, with the blank that follows; empty for none.
fn scheme(text: &str) -> Result<Box<str>, &'static str> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match text {
        "" => Ok("".into()),
        text if text.bytes().all(token) => Ok(format!("{text} ").into()),
        _ => Err("expected one word, such as \"Bearer\" or \"Token\", or \"\" for none"),
    }
}
