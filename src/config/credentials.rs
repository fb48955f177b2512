//! `[credentials.NAME]` and `[tls]`.

use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::reader::Section;
use super::units;
use crate::net::tls::{ClientCertificate, MinVersion, Roots, TlsSettings};
use crate::oauth::client_auth::{BasicEncoding, SigningAlgorithm};
use crate::oauth::dialect::BodyEncoding;
use crate::oauth::presets::{self, Preset};
use crate::oauth::{ClientAuth, Dialect, TokenEndpoint};
use crate::token::Credential;
use crate::token::credential::{Grouping, MissingScopes, Policy};

/// Settings of `[tls]`, which each connection's own start from.
pub(super) type TlsDefaults = TlsSettings;

pub(super) fn tls_defaults(section: Option<Section<'_, '_, '_>>) -> TlsDefaults {
    tls(section, &TlsSettings::default())
}

pub(super) fn tls(section: Option<Section<'_, '_, '_>>, defaults: &TlsDefaults) -> TlsSettings {
    let mut settings = defaults.clone();
    let Some(tls) = section else { return settings };
    let roots = [("system", 0), ("bundled", 1), ("only-extra", 2)];
    settings.roots = match tls.choice("roots", &roots) {
        Some(0) => Roots::System,
        Some(1) => Roots::Bundled,
        Some(_) => Roots::OnlyExtra,
        None => settings.roots,
    };
    if let Some(files) = tls.texts("extra_ca_file") {
        settings.extra_ca_files = files.into_iter().map(|file| PathBuf::from(file.value)).collect();
    }
    let versions = [("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)];
    settings.min_version = tls.choice("min_version", &versions).unwrap_or(settings.min_version);
    let certificate = tls.text("client_certificate_file");
    let key = tls.text("client_key_file");
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            settings.client_certificate = Some(ClientCertificate {
                certificate_file: certificate.value.into(),
                key_file: key.value.into(),
            });
        }
        (None, None) => {}
        _ => tls.missing(
            "client_certificate_file and client_key_file",
            "a client certificate needs both",
        ),
    }
    tls.finish();
    settings
}

pub(super) fn read(top: &Section<'_, '_, '_>, defaults: &TlsDefaults) -> Vec<Arc<Credential>> {
    if !top.has("credentials") {
        top.missing("credentials", "expected a table such as [credentials.qbank]");
    }
    let named = top.named("credentials");
    let mut all: Vec<_> = named
        .into_iter()
        .filter_map(|(name, section)| credential(&name, section, defaults))
        .map(Arc::new)
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn credential(
    name: &str,
    section: Section<'_, '_, '_>,
    defaults: &TlsDefaults,
) -> Option<Credential> {
    let names: Vec<_> = presets::NAMES.iter().map(|name| (*name, *name)).collect();
    let preset = section.choice("preset", &names).unwrap_or("rfc6749");
    let preset = presets::preset(preset)?;
    let endpoint = endpoint(&section, &preset);
    let auth = client_auth(&section, preset.auth);
    let client_id = section.reference("client_id");
    if !section.has("client_id") {
        section.missing(
            "client_id",
            "write `client_id.env = \"NAME\"` or `client_id.file = \"/path\"`",
        );
    }
    let client_secret = section.reference("client_secret");
    let needs_secret = !matches!(
        auth,
        ClientAuth::None | ClientAuth::TlsClientAuth | ClientAuth::SelfSignedTlsClientAuth
    );
    if needs_secret && !section.has("client_secret") {
        section.missing(
            "client_secret",
            "write `client_secret.file = \"/path\"` or `client_secret.env = \"NAME\"`",
        );
    }
    let dialect = dialect(&section, preset);
    let groupings = [("per_scope_set", Grouping::PerScopeSet), ("union", Grouping::Union)];
    let grouping = section.choice("tokens", &groupings).unwrap_or_default();
    let policy = policy(&section);
    let tls = tls(section.section("tls"), defaults);
    section.finish();
    Some(Credential {
        name: name.into(),
        endpoint: endpoint?,
        client_id: client_id?,
        client_secret,
        auth,
        dialect,
        tls,
        grouping,
        policy,
    })
}

fn endpoint(section: &Section<'_, '_, '_>, preset: &Preset) -> Option<TokenEndpoint> {
    let url = section.parsed("token_url", false, TokenEndpoint::parse);
    let base = section.text("base_url");
    let path = section.text("token_path");
    if section.has("token_url") {
        return url.map(|url| url.value);
    }
    let path = path.map(|path| path.value).or(preset.token_path.map(str::to_owned));
    match (base, path, preset.token_url) {
        (Some(base), Some(path), _) => {
            let joined = format!("{}{path}", base.value.trim_end_matches('/'));
            match TokenEndpoint::parse(&joined) {
                Ok(endpoint) => Some(endpoint),
                Err(error) => {
                    section.wrong(
                        &base.at,
                        base.span,
                        "`base_url` cannot be used",
                        error.to_string(),
                        false,
                    );
                    None
                }
            }
        }
        (Some(_), None, _) => {
            section.missing(
                "token_path",
                "write `token_url = \"https://…\"`, or `token_path` beside `base_url`",
            );
            None
        }
        (None, _, Some(url)) => TokenEndpoint::parse(url).ok(),
        (None, Some(_), None) => {
            section.missing(
                "base_url",
                "write `base_url = \"https://core.bank.example\"`, or a whole `token_url`",
            );
            None
        }
        (None, None, None) => {
            section.missing("token_url", "write `token_url = \"https://…\"`");
            None
        }
    }
}

fn client_auth(section: &Section<'_, '_, '_>, default: ClientAuth) -> ClientAuth {
    let encodings = [
        ("rfc6749", BasicEncoding::Rfc6749),
        ("rfc", BasicEncoding::Rfc6749),
        ("raw", BasicEncoding::Raw),
    ];
    let encoding = section.choice("basic_encoding", &encodings).unwrap_or_default();
    let algorithms = [
        ("RS256", SigningAlgorithm::Rs256),
        ("PS256", SigningAlgorithm::Ps256),
        ("ES256", SigningAlgorithm::Es256),
        ("EdDSA", SigningAlgorithm::EdDsa),
    ];
    let algorithm =
        section.choice("signing_algorithm", &algorithms).unwrap_or(SigningAlgorithm::Ps256);
    let methods = [
        ("client_secret_post", ClientAuth::ClientSecretPost),
        ("client_secret_basic", ClientAuth::ClientSecretBasic(encoding)),
        ("client_secret_jwt", ClientAuth::ClientSecretJwt),
        ("private_key_jwt", ClientAuth::PrivateKeyJwt(algorithm)),
        ("tls_client_auth", ClientAuth::TlsClientAuth),
        ("self_signed_tls_client_auth", ClientAuth::SelfSignedTlsClientAuth),
        ("none", ClientAuth::None),
    ];
    section.choice("client_auth", &methods).unwrap_or(default)
}

fn dialect(section: &Section<'_, '_, '_>, preset: Preset) -> Dialect {
    let mut dialect = preset.dialect;
    dialect.send_scope = section.boolean("send_scope").unwrap_or(dialect.send_scope);
    dialect.use_refresh_token =
        section.boolean("use_refresh_token").unwrap_or(dialect.use_refresh_token);
    dialect.authenticate_refresh =
        section.boolean("authenticate_refresh").unwrap_or(dialect.authenticate_refresh);
    dialect.require_token_type =
        section.boolean("require_token_type").unwrap_or(dialect.require_token_type);
    dialect.default_lifetime =
        section.duration("default_lifetime").unwrap_or(dialect.default_lifetime);
    if let Some(types) = section.texts("accept_token_types") {
        dialect.accept_token_types = types.into_iter().map(|one| one.value).collect();
    }
    if let Some(resources) = section.texts("resources") {
        dialect.resources = resources.into_iter().map(|one| one.value).collect();
    }
    if let Some(audience) = section.text("audience") {
        dialect.extra_parameters.push(("audience".into(), audience.value));
    }
    if !preset.client_id_fields.is_empty() || section.has("client_id_field") {
        let fields: Vec<_> = preset.client_id_fields.iter().map(|name| (*name, *name)).collect();
        if let Some(field) = section.choice("client_id_field", &fields) {
            dialect.request.client_id = field.into();
        }
    }
    if let Some(request) = section.section("request") {
        request_fields(&request, &mut dialect);
        request.finish();
    }
    if let Some(response) = section.section("response") {
        let fields = &mut dialect.response;
        let set = |key: &'static str, field: &mut String| {
            if let Some(name) = response.text(key) {
                *field = name.value;
            }
        };
        set("access_token", &mut fields.access_token);
        set("token_type", &mut fields.token_type);
        set("expires_in", &mut fields.expires_in);
        set("refresh_token", &mut fields.refresh_token);
        set("scope", &mut fields.scope);
        set("error", &mut fields.error);
        set("error_description", &mut fields.error_description);
        if let Some(name) = response.text("expires_at") {
            fields.expires_at = Some(name.value);
        }
        response.finish();
    }
    dialect
}

fn request_fields(request: &Section<'_, '_, '_>, dialect: &mut Dialect) {
    let encodings = [("form", BodyEncoding::Form), ("json", BodyEncoding::Json)];
    dialect.encoding = request.choice("encoding", &encodings).unwrap_or(dialect.encoding);
    for (name, text) in request.pairs("fields") {
        let field = match name.as_str() {
            "grant_type" => &mut dialect.request.grant_type,
            "client_id" => &mut dialect.request.client_id,
            "client_secret" => &mut dialect.request.client_secret,
            "scope" => &mut dialect.request.scope,
            "refresh_token" => &mut dialect.request.refresh_token,
            _ => {
                let label = "expected grant_type, client_id, client_secret, scope or refresh_token";
                request.wrong(&text.at, text.span, "this parameter is not known", label, false);
                continue;
            }
        };
        *field = text.value;
    }
    for name in request.texts("omit").unwrap_or_default() {
        match name.value.as_str() {
            "grant_type" => dialect.send_grant_type = false,
            "scope" => dialect.send_scope = false,
            _ => request.wrong(
                &name.at,
                name.span,
                "this parameter cannot be omitted",
                "expected grant_type or scope",
                true,
            ),
        }
    }
    for (name, text) in request.pairs("extra") {
        dialect.extra_parameters.push((name, text.value));
    }
    for (name, text) in request.pairs("headers") {
        match (HeaderName::try_from(name), HeaderValue::try_from(text.value)) {
            (Ok(name), Ok(value)) => dialect.extra_headers.push((name, value)),
            _ => request.wrong(
                &text.at,
                text.span,
                "this is no header",
                "expected a header's name and value",
                false,
            ),
        }
    }
}

fn policy(section: &Section<'_, '_, '_>) -> Policy {
    let mut policy = Policy::default();
    let refresh_at = section.parsed("refresh_at", true, |text| {
        units::share(text).and_then(|share| match (0.1..=0.95).contains(&share) {
            true => Ok(share),
            false => Err("expected a percentage between 10% and 95%".into()),
        })
    });
    policy.refresh_at = refresh_at.map_or(policy.refresh_at, |share| share.value);
    let answers = [("warn", MissingScopes::Warn)];
    policy.missing_scopes = section.choice("missing_scopes", &answers).unwrap_or_default();
    if let Some(timeouts) = section.section("timeouts") {
        policy.connect_timeout = timeouts.duration("connect").unwrap_or(policy.connect_timeout);
        policy.timeout = timeouts.duration("total").unwrap_or(policy.timeout);
        policy.wait = timeouts.duration("wait").unwrap_or(policy.wait);
        timeouts.finish();
    }
    policy
}
