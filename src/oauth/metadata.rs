//! Metadata of an authorization server (RFC 8414, OpenID Connect Discovery 1.0): where it is, and what of it
//! a client of the configuration may use. It can narrow what the configuration allows, and never widen it.

use http::Uri;
use http::uri::Authority;
use serde::Deserialize;

use super::client_auth::{BasicEncoding, ClientAuth};
use super::endpoint::TokenEndpoint;

/// An issuer, and what of its metadata is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IssuerSettings {
    /// The issuer identifier as the configuration writes it, which the metadata must repeat byte for byte.
    pub issuer: Box<str>,
    /// The same as a URL.
    pub url: TokenEndpoint,
    /// Hosts, with a port that is not 443, that its endpoints may have beside the issuer's own.
    pub token_hosts: Vec<String>,
    /// The client authentication that the configuration states, or the preset's.
    pub auth: ClientAuth,
    /// True if the metadata choose between `client_secret_post` and `client_secret_basic`, because the
    /// configuration states neither.
    pub chooses_auth: bool,
    /// True if connections present a client certificate that proves the client or binds its tokens: then
    /// `mtls_endpoint_aliases` count (RFC 8705 section 5).
    pub presents_certificate: bool,
    /// True if tokens are revoked at the `revocation_endpoint`.
    pub revokes: bool,
}

/// What a client uses of the metadata of its issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMetadata {
    /// `token_endpoint`, or its alias for client certificates.
    pub token: TokenEndpoint,
    /// `revocation_endpoint`, or its alias; `None` if tokens are not revoked.
    pub revocation: Option<TokenEndpoint>,
    /// The client authentication to use.
    pub auth: ClientAuth,
}

/// The members of the document that are read.
#[derive(Deserialize)]
struct Document {
    issuer: Option<String>,
    token_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    mtls_endpoint_aliases: Option<Aliases>,
}

#[derive(Deserialize)]
struct Aliases {
    token_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
}

/// Metadata that cannot be used, in words that repeat nothing of them but the host of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// The body is no JSON object of this kind.
    #[error("the metadata are no JSON object with members of the types of RFC 8414")]
    NotMetadata,
    /// The issuer is absent or another one (RFC 8414 section 3.3).
    #[error(
        "the issuer of the metadata is not the configured one: both must be equal byte for byte"
    )]
    OtherIssuer,
    /// An endpoint is absent.
    #[error("the metadata have no {0}")]
    Missing(&'static str),
    /// An endpoint is no URL with https, or with the http that `allow_cleartext` permits.
    #[error("{0} of the metadata is no https:// URL without user name and fragment")]
    NotSecure(&'static str),
    /// An endpoint is of a host that is neither the issuer's nor listed.
    #[error(
        "{name} of the metadata is at {host}, which is neither the issuer's host nor in token_hosts"
    )]
    ForeignHost {
        /// The member.
        name: &'static str,
        /// Its host and port.
        host: String,
    },
    /// The client authentication is not supported.
    #[error("the server does not list client_auth {0} (token_endpoint_auth_methods_supported)")]
    Method(&'static str),
    /// The signing algorithm is not supported.
    #[error(
        "the server does not list signing_algorithm {0} \
         (token_endpoint_auth_signing_alg_values_supported)"
    )]
    Algorithm(&'static str),
}

impl MetadataError {
    /// The remedy, where one is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::OtherIssuer => Some(
                "compare issuer with the member issuer of the metadata, also a slash at the end",
            ),
            Self::ForeignHost { .. } => {
                Some("write that host into token_hosts, if the vendor's document names it")
            }
            Self::Method(_) | Self::Algorithm(_) => {
                Some("take one that the metadata list, and that the client is registered for")
            }
            Self::Missing(_) | Self::NotSecure(_) | Self::NotMetadata => None,
        }
    }
}

impl IssuerSettings {
    /// The paths of the document at the issuer's host, to be tried in turn: RFC 8414 section 3.1, which
    /// inserts the well-known part before the issuer's path, and OpenID Connect Discovery 1.0 section 4,
    /// which appends it.
    pub fn locations(&self) -> [Option<TokenEndpoint>; 2] {
        let path = self.url.path().trim_end_matches('/');
        let inserted = format!("/.well-known/oauth-authorization-server{path}");
        let appended = format!("{path}/.well-known/openid-configuration");
        [inserted, appended].map(|path| {
            let uri = self.url.uri();
            let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
            let url = format!("{scheme}://{authority}{path}");
            TokenEndpoint::with_cleartext(&url, self.url.cleartext()).ok()
        })
    }

    /// Reads the document of this issuer.
    ///
    /// # Errors
    /// The document is not this issuer's, or names what the configuration does not allow.
    pub fn read(&self, body: &[u8]) -> Result<ServerMetadata, MetadataError> {
        let document: Document =
            serde_json::from_slice(body).map_err(|_| MetadataError::NotMetadata)?;
        if document.issuer.as_deref() != Some(&self.issuer) {
            return Err(MetadataError::OtherIssuer);
        }
        let aliases = document.mtls_endpoint_aliases.filter(|_| self.presents_certificate);
        let (alias, revocation_alias) = aliases
            .map_or((None, None), |aliases| (aliases.token_endpoint, aliases.revocation_endpoint));
        let token = match (alias, document.token_endpoint) {
            (Some(alias), _) => self.endpoint("mtls_endpoint_aliases.token_endpoint", &alias)?,
            (None, Some(url)) => self.endpoint("token_endpoint", &url)?,
            (None, None) => return Err(MetadataError::Missing("token_endpoint")),
        };
        let revocation = match (self.revokes, revocation_alias.or(document.revocation_endpoint)) {
            (false, _) => None,
            (true, Some(url)) => Some(self.endpoint("revocation_endpoint", &url)?),
            (true, None) => return Err(MetadataError::Missing("revocation_endpoint")),
        };
        let auth = self.auth(document.token_endpoint_auth_methods_supported.as_deref())?;
        let algorithms = document.token_endpoint_auth_signing_alg_values_supported;
        if let Some(algorithm) = auth.signing_algorithm()
            && algorithms.is_some_and(|listed| listed.iter().all(|one| one != algorithm))
        {
            return Err(MetadataError::Algorithm(algorithm));
        }
        Ok(ServerMetadata { token, revocation, auth })
    }

    /// An endpoint that the configuration allows.
    fn endpoint(&self, name: &'static str, url: &str) -> Result<TokenEndpoint, MetadataError> {
        let endpoint = TokenEndpoint::with_cleartext(url, self.url.cleartext())
            .map_err(|_| MetadataError::NotSecure(name))?;
        // TLS must not be lost on the way from the issuer to its endpoints, nor a certificate with it.
        let secure = |uri: &Uri| uri.scheme_str() == Some("https");
        let must_be = self.presents_certificate || secure(self.url.uri());
        if must_be && !secure(endpoint.uri()) {
            return Err(MetadataError::NotSecure(name));
        }
        let host = host(endpoint.uri());
        let allowed = host == self::host(self.url.uri())
            || host.as_ref().is_some_and(|host| self.token_hosts.contains(host));
        match allowed {
            true => Ok(endpoint),
            false => Err(MetadataError::ForeignHost { name, host: host.unwrap_or_default() }),
        }
    }

    /// The client authentication: the configured one, which must be listed if there is a list. Without a
    /// configured one it is the preset's if that is listed, and else the other one of
    /// `client_secret_post` and `client_secret_basic`; without a list it is `client_secret_basic` (RFC
    /// 8414 section 2).
    fn auth(&self, listed: Option<&[String]>) -> Result<ClientAuth, MetadataError> {
        let is_listed =
            |auth: ClientAuth| listed.is_some_and(|all| all.iter().any(|one| one == auth.name()));
        let basic = ClientAuth::ClientSecretBasic(BasicEncoding::Rfc6749);
        if is_listed(self.auth) {
            return Ok(self.auth);
        }
        match (self.chooses_auth, listed) {
            (false, None) => Ok(self.auth),
            // Another issuer's assertion is sent as private_key_jwt is (RFC 7523 section 2.2).
            (false, Some(_)) if self.auth == ClientAuth::ClientAssertion => Ok(self.auth),
            (false, Some(_)) => Err(MetadataError::Method(self.auth.name())),
            (true, None) => Ok(basic),
            (true, Some(_)) => [basic, ClientAuth::ClientSecretPost]
                .into_iter()
                .find(|auth| is_listed(*auth))
                .ok_or(MetadataError::Method(self.auth.name())),
        }
    }
}

/// The host of a URL in lower case, with a port that is not the default one.
fn host(uri: &Uri) -> Option<String> {
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    host_of(uri.authority()?, default)
}

/// The host of an authority in lower case, with a port other than this one.
fn host_of(authority: &Authority, default: u16) -> Option<String> {
    let host = authority.host().to_ascii_lowercase();
    Some(match authority.port_u16().filter(|port| *port != default) {
        Some(port) => format!("{host}:{port}"),
        None => host,
    })
}

/// A host of `token_hosts`, with a port if that is not 443.
///
/// # Errors
/// The text is more or less than a host.
pub fn token_host(text: &str) -> Result<String, &'static str> {
    let wrong = "expected a host, such as \"mtls.bank.example\", with a port if that is not 443";
    let authority: Authority = text.parse().map_err(|_| wrong)?;
    let plain = !text.contains(['@', '*', '/']) && !authority.host().is_empty();
    plain.then(|| host_of(&authority, 443)).flatten().ok_or(wrong)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::jws::SigningAlgorithm;
    use super::*;

    fn issuer(text: &str) -> IssuerSettings {
        IssuerSettings {
            issuer: text.into(),
            url: TokenEndpoint::parse(text).unwrap(),
            token_hosts: vec!["mtls.bank.example".into(), "auth.bank.example:8443".into()],
            auth: ClientAuth::ClientSecretPost,
            chooses_auth: false,
            presents_certificate: false,
            revokes: false,
        }
    }

    #[test]
    fn the_document_is_where_both_standards_put_it() {
        let check = |text: &str, expected: [&str; 2]| {
            let found = issuer(text).locations().map(|place| place.unwrap().uri().to_string());
            assert_eq!(found, expected, "{text}");
        };
        check(
            "https://bank.example",
            [
                "https://bank.example/.well-known/oauth-authorization-server",
                "https://bank.example/.well-known/openid-configuration",
            ],
        );
        check(
            "https://bank.example:8443/realms/erp/",
            [
                "https://bank.example:8443/.well-known/oauth-authorization-server/realms/erp",
                "https://bank.example:8443/realms/erp/.well-known/openid-configuration",
            ],
        );
    }

    const ISSUER: &str = "https://bank.example/a";

    fn document(change: Value) -> Vec<u8> {
        let mut all = json!({ "issuer": ISSUER, "token_endpoint": "https://bank.example/token" });
        for (name, value) in change.as_object().unwrap() {
            all[name] = value.clone();
        }
        all.to_string().into_bytes()
    }

    #[test]
    fn endpoints_never_widen_what_is_allowed() {
        let check = |change: Value, expected: Result<&str, &str>| {
            let found = issuer(ISSUER).read(&document(change.clone()));
            let found = found.map(|found| found.token.to_string());
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                _ => panic!("{change}: {found:?}"),
            }
        };
        check(json!({}), Ok("https://bank.example/token"));
        check(json!({ "issuer": "https://bank.example/a/" }), Err("byte for byte"));
        check(json!({ "issuer": null }), Err("byte for byte"));
        check(json!({ "token_endpoint": null }), Err("have no token_endpoint"));
        check(json!({ "token_endpoint": 7 }), Err("no JSON object"));
        let endpoint = |url: &str, expected| check(json!({ "token_endpoint": url }), expected);
        endpoint("http://bank.example/token", Err("no https://"));
        endpoint("http://127.0.0.1/token", Err("no https://"));
        endpoint("https://user@bank.example/token", Err("no https://"));
        endpoint("https://evil.example/token", Err("is at evil.example, which is neither"));
        endpoint("https://bank.example:444/token", Err("is at bank.example:444"));
        endpoint("https://x.bank.example/token", Err("is at x.bank.example"));
        endpoint("https://BANK.example:443/t", Ok("https://BANK.example:443/t"));
        endpoint("https://mtls.bank.example/t", Ok("https://mtls.bank.example/t"));
        endpoint("https://auth.bank.example:8443/t", Ok("https://auth.bank.example:8443/t"));
        assert_eq!(issuer(ISSUER).read(b"<html>"), Err(MetadataError::NotMetadata));
    }

    #[test]
    fn aliases_count_with_a_client_certificate_alone() {
        let aliases = json!({ "mtls_endpoint_aliases": {
            "token_endpoint": "https://mtls.bank.example/token",
            "revocation_endpoint": "https://mtls.bank.example/revoke",
        }, "revocation_endpoint": "https://bank.example/revoke" });
        let read = |presents_certificate, revokes| {
            let settings = IssuerSettings { presents_certificate, revokes, ..issuer(ISSUER) };
            let found = settings.read(&document(aliases.clone())).unwrap();
            (found.token.to_string(), found.revocation.map(|url| url.to_string()))
        };
        assert_eq!(read(false, false), ("https://bank.example/token".into(), None));
        let revoke = Some("https://mtls.bank.example/revoke".into());
        assert_eq!(read(true, true), ("https://mtls.bank.example/token".into(), revoke));
        let settings = IssuerSettings { revokes: true, ..issuer(ISSUER) };
        let missing = MetadataError::Missing("revocation_endpoint");
        assert_eq!(settings.read(&document(json!({}))), Err(missing));
        let foreign =
            json!({ "mtls_endpoint_aliases": { "token_endpoint": "https://x.example/t" } });
        let settings = IssuerSettings { presents_certificate: true, ..issuer(ISSUER) };
        assert!(settings.read(&document(foreign)).is_err());
    }

    #[test]
    fn methods_and_algorithms_must_be_listed_where_there_is_a_list() {
        let check = |auth, chooses_auth, change: Value, expected: Result<&str, &str>| {
            let settings = IssuerSettings { auth, chooses_auth, ..issuer(ISSUER) };
            let found = settings.read(&document(change.clone())).map(|found| found.auth.name());
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(*found, expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                _ => panic!("{change}: {found:?}"),
            }
        };
        let methods = |all: &[&str]| json!({ "token_endpoint_auth_methods_supported": all });
        let (post, jwt) =
            (ClientAuth::ClientSecretPost, ClientAuth::PrivateKeyJwt(SigningAlgorithm::Es256));
        check(post, false, json!({}), Ok("client_secret_post"));
        check(
            post,
            false,
            methods(&["client_secret_basic"]),
            Err("client_auth client_secret_post"),
        );
        check(post, true, json!({}), Ok("client_secret_basic"));
        check(post, true, methods(&["client_secret_basic"]), Ok("client_secret_basic"));
        let both = ["client_secret_basic", "client_secret_post"];
        check(post, true, methods(&both), Ok("client_secret_post"));
        check(post, true, methods(&["private_key_jwt"]), Err("client_auth"));
        let listed = |algorithms: &[&str]| {
            json!({
                "token_endpoint_auth_methods_supported": ["private_key_jwt"],
                "token_endpoint_auth_signing_alg_values_supported": algorithms,
            })
        };
        check(jwt, false, listed(&["RS256", "ES256"]), Ok("private_key_jwt"));
        check(jwt, false, listed(&["RS256"]), Err("signing_algorithm ES256"));
    }

    #[test]
    fn hosts_are_hosts() {
        assert_eq!(token_host("MTLS.bank.example"), Ok("mtls.bank.example".into()));
        assert_eq!(token_host("a.example:443"), Ok("a.example".into()));
        assert_eq!(token_host("a.example:8443"), Ok("a.example:8443".into()));
        for wrong in ["", "*.bank.example", "https://a.example", "a.example/x", "u@a.example"] {
            assert!(token_host(wrong).is_err(), "{wrong}");
        }
    }
}
