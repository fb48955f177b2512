//! How a token server is spoken to: the preset, and what a credential changes of it.

use std::collections::HashSet;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::oauth::dialect::{AssertionSettings, BodyEncoding};
use crate::oauth::{Dialect, Preset};

use crate::diagnostics::{Diagnostic, Item, Section};

pub(super) fn read(section: &Section<'_>, preset: &Preset) -> Dialect {
    let mut dialect = preset.dialect.clone();
    client_id_field(section, preset, &mut dialect);
    dialect.send_scope = section.bool("send_scope", dialect.send_scope);
    dialect.use_refresh_token = section.bool("use_refresh_token", dialect.use_refresh_token);
    dialect.authenticate_refresh =
        section.bool("authenticate_refresh", dialect.authenticate_refresh);
    dialect.require_token_type = section.bool("require_token_type", dialect.require_token_type);
    if let Some(item) = section.item("accept_token_types") {
        dialect.accept_token_types = words(&item);
    }
    default_lifetime(section, &mut dialect);
    if let Some(audience) = section.item("audience").and_then(|item| item.text()) {
        dialect.extra_parameters.push(("audience".into(), audience.as_str().into()));
    }
    resources(section, &mut dialect);
    dialect.assertion =
        assertion(&section.section("assertion", "assertion of a credential"), &dialect.assertion);
    request(&section.section("request", "request of a credential"), &mut dialect);
    response(&section.section("response", "response of a credential"), &mut dialect);
    unique_parameters(section, &dialect);
    dialect
}

/// The one field that a vendor's document spells in two ways. Both are never sent, nor tried in turn.
fn client_id_field(section: &Section<'_>, preset: &Preset, dialect: &mut Dialect) {
    let Some(item) = section.item("client_id_field") else { return };
    if preset.client_id_fields.is_empty() {
        item.reject("this preset settles the field; write  request.fields = { client_id = \"…\" }");
        return;
    }
    let choices: Vec<_> = preset.client_id_fields.iter().map(|field| (*field, *field)).collect();
    if let Some(field) = item.choice(&choices) {
        dialect.request.client_id = field.into();
    }
}

fn default_lifetime(section: &Section<'_>, dialect: &mut Dialect) {
    let Some(item) = section.item("default_lifetime") else { return };
    let Some(life) = item.duration() else { return };
    match (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&life) {
        true => dialect.default_lifetime = life,
        false => item.reject("expected \"1s\" to \"24h\""),
    }
}

fn words(item: &Item<'_>) -> Vec<String> {
    item.texts().into_iter().map(|text| text.as_str().to_owned()).collect()
}

/// RFC 8707 section 2: an absolute URI without a fragment.
fn resources(section: &Section<'_>, dialect: &mut Dialect) {
    let (one, many) = (section.item("resource"), section.item("resources"));
    if let (Some(_), Some(many)) = (&one, &many) {
        many.reject("resource is written as well; write all of them here");
    }
    let Some(items) = one.or(many).and_then(|item| item.one_or_many()) else { return };
    for text in items.iter().filter_map(Item::text) {
        let absolute = text
            .as_str()
            .split_once(':')
            .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
        match absolute && !text.as_str().contains(['#', ' ']) {
            true => dialect.resources.push(text.as_str().into()),
            false => {
                text.item.reject("expected an absolute URI without a fragment (RFC 8707 section 2)")
            }
        }
    }
}

fn assertion(section: &Section<'_>, base: &AssertionSettings) -> AssertionSettings {
    let text =
        |key| section.item(key).and_then(|item| item.text()).map(|text| text.as_str().to_owned());
    let settings = AssertionSettings {
        audience: text("audience").or_else(|| base.audience.clone()),
        key_id: text("key_id").or_else(|| base.key_id.clone()),
        lifetime: section.duration("lifetime", base.lifetime),
    };
    if !(60..=300).contains(&settings.lifetime.as_secs()) {
        section.fail(
            Diagnostic::new("an assertion cannot live that long")
                .label("expected a lifetime of \"60s\" to \"300s\""),
        );
    }
    section.finish();
    settings
}

fn request(section: &Section<'_>, dialect: &mut Dialect) {
    let encodings = [("form", BodyEncoding::Form), ("json", BodyEncoding::Json)];
    dialect.encoding = section.choice("encoding", &encodings, dialect.encoding);
    let fields = section.section("fields", "request.fields");
    let request = &mut dialect.request;
    rename(&fields, "grant_type", &mut request.grant_type);
    rename(&fields, "client_id", &mut request.client_id);
    rename(&fields, "client_secret", &mut request.client_secret);
    rename(&fields, "scope", &mut request.scope);
    rename(&fields, "refresh_token", &mut request.refresh_token);
    fields.finish();
    for item in section.item("omit").and_then(|item| item.list()).unwrap_or_default() {
        match item.choice(&[("grant_type", true), ("scope", false)]) {
            Some(true) => dialect.send_grant_type = false,
            Some(false) => dialect.send_scope = false,
            None => {}
        }
    }
    for (name, item) in section.section("extra", "request.extra").entries() {
        extra_parameter(name, &item, dialect);
    }
    for (name, item) in section.section("headers", "request.headers").entries() {
        extra_header(&name, &item, dialect);
    }
    section.finish();
}

fn extra_parameter(name: String, item: &Item<'_>, dialect: &mut Dialect) {
    if ["client_secret", "client_assertion", "password", "refresh_token"].contains(&name.as_str()) {
        item.reject("a secret may not be written into this file; see client_secret");
        return;
    }
    if let Some(text) = item.text() {
        dialect.extra_parameters.push((name, text.as_str().to_owned()));
    }
}

fn extra_header(name: &str, item: &Item<'_>, dialect: &mut Dialect) {
    let Some(name) = header_name(name, item) else { return };
    let Some(text) = item.text() else { return };
    match HeaderValue::from_str(text.as_str()) {
        Ok(value) => dialect.extra_headers.push((name, value)),
        Err(_) => item.reject("a header holds no control characters"),
    }
}

/// A header that may be set: none that says how the message or the connection is to be read.
pub(super) fn header_name(name: &str, item: &Item<'_>) -> Option<HeaderName> {
    const OURS: [&str; 10] = [
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        item.fail_at_hidden_key(
            Diagnostic::new("this is no header name").label("expected letters, digits and `-`"),
        );
        return None;
    };
    if OURS.contains(&header.as_str()) {
        item.fail_at_key(
            Diagnostic::new(format!("`{header}` cannot be set")).label("bearer-proxy writes it"),
        );
        return None;
    }
    Some(header)
}

fn response(section: &Section<'_>, dialect: &mut Dialect) {
    let fields = &mut dialect.response;
    rename(section, "access_token", &mut fields.access_token);
    rename(section, "token_type", &mut fields.token_type);
    rename(section, "expires_in", &mut fields.expires_in);
    let mut expires_at = fields.expires_at.clone().unwrap_or_default();
    rename(section, "expires_at", &mut expires_at);
    fields.expires_at = Some(expires_at).filter(|name| !name.is_empty());
    rename(section, "refresh_token", &mut fields.refresh_token);
    rename(section, "scope", &mut fields.scope);
    rename(section, "error", &mut fields.error);
    rename(section, "error_description", &mut fields.error_description);
    section.finish();
}

fn rename(section: &Section<'_>, key: &'static str, field: &mut String) {
    let Some(item) = section.item(key) else { return };
    let Some(text) = item.text() else { return };
    match text.as_str().is_empty() {
        true => item.reject("the name of a field is empty"),
        false => text.as_str().clone_into(field),
    }
}

/// RFC 6749 section 3.2: parameters must not be included more than once.
fn unique_parameters(section: &Section<'_>, dialect: &Dialect) {
    let request = &dialect.request;
    let ours = [&request.grant_type, &request.client_id, &request.client_secret, &request.scope];
    let mut seen = HashSet::new();
    let names = ours.into_iter().chain(dialect.extra_parameters.iter().map(|(name, _)| name));
    if names.into_iter().any(|name| !seen.insert(name.as_str())) {
        let diagnostic = Diagnostic::new("two parameters of the token request have the same name");
        section.fail(
            diagnostic
                .label("see audience, request.fields and request.extra")
                .hint("RFC 6749 section 3.2 allows each once"),
        );
    }
}
