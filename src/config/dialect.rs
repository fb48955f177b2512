//! The dialect of a token server: its preset, and the keys of a credential that change it.

use std::collections::HashSet;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::references;
use crate::diagnostics::{Diagnostic, Item, Section};
use crate::oauth::dialect::{AssertionSettings, BodyEncoding, Grant};
use crate::oauth::jws::CertificateHeaders;
use crate::oauth::{ClientAuth, Dialect, FieldPath, Preset};
use crate::proxy::policy::settings::HeaderText;
use crate::secret::{Reference, StoreHttpSettings};

/// The dialect, and the headers of token requests whose values are secret.
pub(super) fn read(
    section: &Section<'_>,
    preset: &Preset,
    auth: Option<ClientAuth>,
    http: &StoreHttpSettings,
) -> (Dialect, Vec<(HeaderName, Reference)>) {
    let mut dialect = preset.dialect.clone();
    client_id_field(section, preset, &mut dialect);
    dialect.send_scope = section.bool("send_scope", dialect.send_scope);
    dialect.use_refresh_token = section.bool("use_refresh_token", dialect.use_refresh_token);
    dialect.authenticate_refresh =
        section.bool("authenticate_refresh", dialect.authenticate_refresh);
    dialect.require_token_type = section.bool("require_token_type", dialect.require_token_type);
    if let Some(item) = section.item("accept_token_types") {
        let types = item.list().unwrap_or_default();
        dialect.accept_token_types = types.iter().filter_map(Item::text).collect();
    }
    token_bounds(section, &mut dialect);
    if let Some(audience) = section.text("audience") {
        dialect.extra_parameters.push(("audience".into(), audience));
    }
    resources(section, &mut dialect);
    dialect.assertion = assertion(&section.section("assertion"), &dialect.assertion);
    let secret_headers = request(&section.section("request"), &mut dialect, http);
    response(&section.section("response"), &mut dialect);
    if dialect.get {
        get_has_no_parameters(section, &mut dialect, auth);
    }
    unique_parameters(section, &dialect, auth);
    (dialect, secret_headers)
}

/// The dialect of a token that is not requested: it has no scopes, so that all routes share it.
pub(super) fn of_static_token(section: &Section<'_>) -> Dialect {
    let mut dialect = Dialect { send_scope: false, ..Dialect::default() };
    token_bounds(section, &mut dialect);
    dialect
}

/// The longest token, and the life of one that states none.
fn token_bounds(section: &Section<'_>, dialect: &mut Dialect) {
    // Beyond 256 KiB no server accepts a header.
    let token_sizes = 1024..=256 * 1024;
    dialect.max_token_bytes = section.size("max_token_bytes", token_sizes, dialect.max_token_bytes);
    let lifetimes = Duration::from_secs(1)..=Duration::from_secs(86_400);
    dialect.default_lifetime =
        section.duration("default_lifetime", lifetimes, dialect.default_lifetime);
}

/// A GET has no body, and no parameter goes into a URL, which is logged on many ways. So what a request
/// would say by parameters is refused.
fn get_has_no_parameters(section: &Section<'_>, dialect: &mut Dialect, auth: Option<ClientAuth>) {
    (dialect.send_grant_type, dialect.send_client_id, dialect.send_scope) = (false, false, false);
    let in_header = matches!(auth, Some(ClientAuth::None | ClientAuth::ClientSecretBasic(_)));
    let certificate =
        matches!(auth, Some(ClientAuth::TlsClientAuth | ClientAuth::SelfSignedTlsClientAuth));
    let empty = dialect.extra_parameters.is_empty() && dialect.resources.is_empty();
    let plain = dialect.grant == Grant::ClientCredentials && !dialect.use_refresh_token;
    if auth.is_some() && !(plain && empty && (in_header || certificate)) {
        let problem = Diagnostic::error("a token request by GET has no parameters");
        let hint = "leave out grant, audience, resource, request.extra and use_refresh_token, and set \
                    client_auth to \"none\", \"client_secret_basic\" or \"tls_client_auth\"";
        section.fail(problem.label("request.method is GET").hint(hint));
    }
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

/// RFC 8707 section 2: an absolute URI without a fragment.
fn resources(section: &Section<'_>, dialect: &mut Dialect) {
    if let (Some(_), Some(many)) = (section.item("resource"), section.item("resources")) {
        many.reject("resource is written as well; write all of them here");
    }
    let items = [section.one_or_many("resource"), section.one_or_many("resources")].concat();
    let resource = |text: &str| match text.split_once(':') {
        Some((scheme, rest))
            if !scheme.is_empty() && !rest.is_empty() && !text.contains(['#', ' ']) =>
        {
            Ok(text.into())
        }
        _ => Err("expected an absolute URI without a fragment (RFC 8707 section 2)"),
    };
    dialect.resources.extend(items.iter().filter_map(|item| item.parse(resource)));
}

fn assertion(section: &Section<'_>, base: &AssertionSettings) -> AssertionSettings {
    let lifetimes = Duration::from_secs(60)..=Duration::from_secs(300);
    AssertionSettings {
        audience: section.text("audience").or_else(|| base.audience.clone()),
        key_id: section.text("key_id").or_else(|| base.key_id.clone()),
        lifetime: section.duration("lifetime", lifetimes, base.lifetime),
        certificate_headers: certificate_headers(section, base.certificate_headers),
    }
}

fn certificate_headers(section: &Section<'_>, base: CertificateHeaders) -> CertificateHeaders {
    let Some(item) = section.item("certificate_headers") else { return base };
    let known = [("x5t#S256", false), ("x5c", true)];
    let items = item.list().unwrap_or_default();
    let chosen: Vec<_> = items.iter().filter_map(|item| item.choice(&known)).collect();
    if items.is_empty() {
        item.reject("name x5t#S256, x5c or both");
    }
    CertificateHeaders { x5t_s256: chosen.contains(&false), x5c: chosen.contains(&true) }
}

fn request(
    section: &Section<'_>,
    dialect: &mut Dialect,
    http: &StoreHttpSettings,
) -> Vec<(HeaderName, Reference)> {
    let encodings = [("form", BodyEncoding::Form), ("json", BodyEncoding::Json)];
    dialect.encoding = section.choice("encoding", &encodings, dialect.encoding);
    dialect.get = section.choice("method", &[("POST", false), ("GET", true)], dialect.get);
    let fields = section.section("fields");
    let request = &mut dialect.request;
    rename(&fields, "grant_type", &mut request.grant_type);
    rename(&fields, "client_id", &mut request.client_id);
    rename(&fields, "client_secret", &mut request.client_secret);
    rename(&fields, "scope", &mut request.scope);
    rename(&fields, "refresh_token", &mut request.refresh_token);
    for item in section.list("omit") {
        match item.choice(&[("grant_type", 0), ("scope", 1), ("client_id", 2)]) {
            Some(0) => dialect.send_grant_type = false,
            Some(1) => dialect.send_scope = false,
            Some(_) => dialect.send_client_id = false,
            None => {}
        }
    }
    for (name, item) in section.section("extra").entries() {
        extra_parameter(name, &item, dialect);
    }
    let mut secret_headers = Vec::new();
    for (name, item) in section.section("headers").entries() {
        let text = match item.is_table() {
            true => header_text(&item, http),
            false => item.parse(header_value).map(HeaderText::Value),
        };
        match header_name(&name, &item).zip(text) {
            Some((name, HeaderText::Value(value))) => dialect.extra_headers.push((name, value)),
            Some((name, HeaderText::Secret(reference))) => secret_headers.push((name, reference)),
            None => {}
        }
    }
    secret_headers
}

/// `{ value = "…" }`, or a reference.
pub(super) fn header_text(item: &Item<'_>, http: &StoreHttpSettings) -> Option<HeaderText> {
    match item.section()?.without_text().entries().as_slice() {
        [(key, value)] if key == "value" => value.parse(header_value).map(HeaderText::Value),
        _ => references::read(item, http).map(HeaderText::Secret),
    }
}

/// Parameters of token requests whose values are secret.
const SECRET_PARAMETERS: [&str; 7] = [
    "actor_token",
    "assertion",
    "client_assertion",
    "client_secret",
    "password",
    "refresh_token",
    "subject_token",
];

fn extra_parameter(name: String, item: &Item<'_>, dialect: &mut Dialect) {
    if SECRET_PARAMETERS.contains(&name.as_str()) {
        item.reject("a secret may not be written into this file; see client_secret");
        return;
    }
    dialect.extra_parameters.extend(item.text().map(|text| (name, text)));
}

/// The text of a header.
pub(super) fn header_value(text: &str) -> Result<HeaderValue, &'static str> {
    HeaderValue::from_str(text).map_err(|_| "a header holds no control characters")
}

/// Headers that frame the message, steer the connection, or carry credentials.
const OURS: [&str; 11] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "dpop",
    "host",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// True for a header that this program writes itself, so that no setting may set it.
pub(super) fn is_ours(header: &HeaderName) -> bool {
    OURS.contains(&header.as_str())
}

/// The name of a header that may be set: not one that frames the message or steers the connection.
pub(super) fn header_name(name: &str, item: &Item<'_>) -> Option<HeaderName> {
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        let problem = Diagnostic::error("this is not the name of a header");
        item.fail_at_hidden_key(problem.label("expected letters, digits and `-`"));
        return None;
    };
    if is_ours(&header) {
        let problem = Diagnostic::error(format!("`{header}` cannot be set"));
        item.fail_at_key(problem.label("bearer-proxy writes it"));
        return None;
    }
    Some(header)
}

fn response(section: &Section<'_>, dialect: &mut Dialect) {
    let fields = &mut dialect.response;
    let places = [
        ("access_token", &mut fields.access_token),
        ("token_type", &mut fields.token_type),
        ("expires_in", &mut fields.expires_in),
        ("refresh_token", &mut fields.refresh_token),
        ("scope", &mut fields.scope),
        ("error", &mut fields.error),
        ("error_description", &mut fields.error_description),
    ];
    for (key, place) in places {
        if let Some(path) = section.parse(key, FieldPath::parse) {
            *place = path;
        }
    }
    if let Some(path) = section.parse("expires_at", FieldPath::parse) {
        fields.expires_at = Some(path);
    }
}

fn rename(section: &Section<'_>, key: &str, field: &mut String) {
    let name = section.parse(key, |text| match text {
        "" => Err("the name of a field is empty"),
        text => Ok(text.to_owned()),
    });
    if let Some(name) = name {
        *field = name;
    }
}

/// RFC 6749 section 3.2: parameters must not be included more than once.
fn unique_parameters(section: &Section<'_>, dialect: &Dialect, auth: Option<ClientAuth>) {
    let request = &dialect.request;
    // HTTP Basic leaves no trace in the body.
    let in_body = !matches!(auth, Some(ClientAuth::ClientSecretBasic(_)));
    let ours = [
        (&request.grant_type, dialect.send_grant_type),
        (&request.client_id, dialect.send_client_id && in_body),
        (&request.client_secret, in_body),
        (&request.scope, dialect.send_scope),
    ];
    let mut seen = HashSet::new();
    let sent = ours.into_iter().filter(|(_, sent)| *sent).map(|(name, _)| name);
    let sent = sent.map(String::as_str).chain(dialect.grant.parameters().iter().copied());
    let mut names = sent.chain(dialect.extra_parameters.iter().map(|(name, _)| name.as_str()));
    if names.any(|name| !seen.insert(name)) {
        section.fail(
            Diagnostic::error("two parameters of the token request have the same name")
                .label("see audience, request.fields and request.extra")
                .hint("RFC 6749 section 3.2 allows each once; request.omit leaves ours out"),
        );
    }
}
