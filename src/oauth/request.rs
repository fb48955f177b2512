//! Grant, dialect and credentials as the bytes of a token request (RFC 6749 section 4.4.2).

use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use zeroize::Zeroizing;

use super::assertion::{self, AssertionError};
use super::client_auth::{BasicEncoding, ClientAuth};
use super::dialect::{BodyEncoding, ClientCredentials, Dialect};
use super::encode::{self, Parameters};
use super::endpoint::TokenEndpoint;
use super::scope::ScopeSet;
use crate::sensitive::Sensitive;

/// RFC 7523 section 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What is shown in exchange for a token.
#[derive(Debug, Clone, Copy)]
pub enum GrantType<'a> {
    /// The client's own right (RFC 6749 section 4.4).
    ClientCredentials,
    /// A refresh token of an earlier answer (RFC 6749 section 6). No scope is sent with it: the
    /// server then grants what it granted before, never more.
    RefreshToken(&'a Sensitive),
}

/// Builds one token request with an absolute URI. Call it anew for each try: assertions are good for
/// one use only.
///
/// # Errors
/// Where the credentials do not fit the way the client is to prove itself.
pub fn build(
    endpoint: &TokenEndpoint,
    dialect: &Dialect,
    auth: ClientAuth,
    client: &ClientCredentials,
    grant: GrantType<'_>,
    scopes: &ScopeSet,
    now: SystemTime,
) -> Result<Request<Bytes>, RequestError> {
    let auth = proof_needed(dialect, grant).then_some(auth);
    let scope = scopes.to_wire();
    let scoped =
        matches!(grant, GrantType::ClientCredentials) && dialect.send_scope && !scope.is_empty();
    let scope = scoped.then_some((dialect.request.scope.as_str(), scope.as_str()));
    with_proof(endpoint, dialect, auth, client, grant_parameters(dialect, grant), scope, now)
}

/// A POST of these parameters, of those that prove who the client is, of one more, and of the
/// dialect's own.
pub(super) fn with_proof(
    endpoint: &TokenEndpoint,
    dialect: &Dialect,
    auth: Option<ClientAuth>,
    client: &ClientCredentials,
    before: Parameters<'_>,
    more: Option<(&str, &str)>,
    now: SystemTime,
) -> Result<Request<Bytes>, RequestError> {
    let assertion = assertion(endpoint, dialect, auth, client, now)?;
    let mut parameters = before;
    if let Some(auth) = auth {
        client_parameters(&mut parameters, dialect, auth, client, assertion.as_ref())?;
    }
    parameters.extend(more);
    further_parameters(&mut parameters, dialect)?;
    let mut request = Request::new(body(dialect.encoding, &parameters)?);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.uri().clone();
    *request.headers_mut() = headers(dialect, auth, client)?;
    Ok(request)
}

fn proof_needed(dialect: &Dialect, grant: GrantType<'_>) -> bool {
    matches!(grant, GrantType::ClientCredentials) || dialect.authenticate_refresh
}

fn grant_parameters<'a>(dialect: &'a Dialect, grant: GrantType<'a>) -> Parameters<'a> {
    let names = &dialect.request;
    match grant {
        GrantType::ClientCredentials if !dialect.send_grant_type => Vec::new(),
        GrantType::ClientCredentials => vec![(&names.grant_type, "client_credentials")],
        GrantType::RefreshToken(token) => {
            vec![(&names.grant_type, "refresh_token"), (&names.refresh_token, token.expose())]
        }
    }
}

/// RFC 6749 section 2.3: a client uses one method of authentication per request, so with Basic
/// nothing of it goes into the body.
fn client_parameters<'a>(
    parameters: &mut Parameters<'a>,
    dialect: &'a Dialect,
    auth: ClientAuth,
    client: &'a ClientCredentials,
    assertion: Option<&'a Sensitive>,
) -> Result<(), RequestError> {
    if matches!(auth, ClientAuth::ClientSecretBasic(_)) {
        return Ok(());
    }
    parameters.push((&dialect.request.client_id, client.id.expose()));
    if auth == ClientAuth::ClientSecretPost {
        parameters.push((&dialect.request.client_secret, secret(client)?.expose()));
    }
    if let Some(assertion) = assertion {
        parameters.push(("client_assertion_type", JWT_BEARER));
        parameters.push(("client_assertion", assertion.expose()));
    }
    Ok(())
}

/// RFC 6749 section 3.2: a parameter must not be given more than once. Only `resource` may be
/// (RFC 8707 section 2).
fn further_parameters<'a>(
    parameters: &mut Parameters<'a>,
    dialect: &'a Dialect,
) -> Result<(), RequestError> {
    parameters.extend(dialect.extra_parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    let resource = dialect.resources.first().map(|_| "resource");
    let names: Vec<&str> = parameters.iter().map(|(name, _)| *name).chain(resource).collect();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(RequestError::RepeatedParameter((*name).to_owned()));
        }
    }
    parameters.extend(dialect.resources.iter().map(|uri| ("resource", uri.as_str())));
    Ok(())
}

fn body(encoding: BodyEncoding, parameters: &Parameters<'_>) -> Result<Bytes, RequestError> {
    match encoding {
        BodyEncoding::Form => Ok(encode::form(parameters)),
        BodyEncoding::Json => encode::json(parameters).map_err(|_| RequestError::Encoding),
    }
}

fn headers(
    dialect: &Dialect,
    auth: Option<ClientAuth>,
    client: &ClientCredentials,
) -> Result<HeaderMap, RequestError> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in &dialect.extra_headers {
        if reserved(name) {
            return Err(RequestError::ReservedHeader(name.clone()));
        }
        headers.insert(name, value.clone());
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(dialect.encoding)));
    if let Some(ClientAuth::ClientSecretBasic(encoding)) = auth {
        headers.insert(AUTHORIZATION, basic(encoding, client)?);
    }
    Ok(headers)
}

fn content_type(encoding: BodyEncoding) -> &'static str {
    match encoding {
        BodyEncoding::Form => "application/x-www-form-urlencoded",
        BodyEncoding::Json => "application/json",
    }
}

/// Headers that frame the request; another value would contradict the bytes.
fn reserved(name: &HeaderName) -> bool {
    [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, HOST].contains(name)
}

/// RFC 6749 section 2.3.1: id and secret are form-encoded each, then used as user and password.
fn basic(encoding: BasicEncoding, client: &ClientCredentials) -> Result<HeaderValue, RequestError> {
    let (id, secret) = (client.id.expose(), secret(client)?.expose());
    let mut pair = Zeroizing::new(String::with_capacity((id.len() + secret.len()) * 3 + 1));
    match encoding {
        BasicEncoding::Rfc6749 => {
            encode::push_percent(&mut pair, id);
            pair.push(':');
            encode::push_percent(&mut pair, secret);
        }
        // RFC 7617 section 2: the first colon ends the user.
        BasicEncoding::Raw if id.contains(':') => return Err(RequestError::ColonInClientId),
        BasicEncoding::Raw => {
            pair.push_str(id);
            pair.push(':');
            pair.push_str(secret);
        }
    }
    Sensitive::new(STANDARD.encode(pair.as_bytes())).header("Basic ").ok_or(RequestError::Encoding)
}

fn assertion(
    endpoint: &TokenEndpoint,
    dialect: &Dialect,
    auth: Option<ClientAuth>,
    client: &ClientCredentials,
    now: SystemTime,
) -> Result<Option<Sensitive>, RequestError> {
    let key = match auth {
        Some(ClientAuth::ClientSecretJwt) => assertion::SigningKey::Secret(secret(client)?),
        Some(ClientAuth::PrivateKeyJwt(algorithm)) => {
            assertion::SigningKey::Private(algorithm, secret(client)?)
        }
        _ => return Ok(None),
    };
    Ok(Some(assertion::sign(&dialect.assertion, endpoint, &client.id, key, now)?))
}

fn secret(client: &ClientCredentials) -> Result<&Sensitive, RequestError> {
    client.secret.as_ref().ok_or(RequestError::NoSecret)
}

/// Why no token request can be built; never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// The way the client proves itself needs a secret, and there is none.
    NoSecret,
    /// HTTP Basic without encoding cannot carry an id with a colon.
    ColonInClientId,
    /// Two parameters have the same name, by extra parameters or by renamed fields.
    RepeatedParameter(String),
    /// An extra header that the request itself defines.
    ReservedHeader(HeaderName),
    /// The assertion could not be signed.
    Assertion(AssertionError),
    /// A value fits neither JSON nor a header.
    Encoding,
}

impl From<AssertionError> for RequestError {
    fn from(error: AssertionError) -> Self {
        Self::Assertion(error)
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSecret => f.write_str(
                "this client_auth needs a client_secret and there is none; set client_secret or \
                 client_auth = \"none\"",
            ),
            Self::ColonInClientId => f.write_str(
                "the client id holds a colon, which HTTP Basic cannot carry unencoded; set \
                 basic_encoding = \"rfc6749\" or another client_auth",
            ),
            Self::RepeatedParameter(name) => {
                write!(f, "parameter {name:?} would be sent twice; remove or rename one")
            }
            Self::ReservedHeader(name) => {
                write!(f, "header {name} is defined by the request itself; remove the extra one")
            }
            Self::Assertion(error) => error.fmt(f),
            Self::Encoding => f.write_str("a value of the token request cannot be encoded"),
        }
    }
}

impl std::error::Error for RequestError {}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::oauth::client_auth::SigningAlgorithm;
    use crate::oauth::presets::preset;

    fn client(id: &str, secret: &str) -> ClientCredentials {
        ClientCredentials { id: Sensitive::new(id), secret: Some(Sensitive::new(secret)) }
    }

    fn request(
        dialect: &Dialect,
        auth: ClientAuth,
        client: &ClientCredentials,
        grant: GrantType<'_>,
    ) -> Result<Request<Bytes>, RequestError> {
        let endpoint = TokenEndpoint::parse("https://auth.example/token?tenant=1").unwrap();
        build(&endpoint, dialect, auth, client, grant, &ScopeSet::parse("b a").unwrap(), UNIX_EPOCH)
    }

    fn text(request: &Request<Bytes>) -> &str {
        std::str::from_utf8(request.body()).unwrap()
    }

    #[test]
    fn bodies_of_the_presets() {
        for (name, expected) in [
            (
                "rfc6749",
                "grant_type=client_credentials&client_id=me&client_secret=a%2Bb%25+%26%3A&scope=b+a",
            ),
            (
                "qbank",
                "grant_type=client_credentials&client_id=me&client_secret=a%2Bb%25+%26%3A&scope=b+a",
            ),
            (
                "json",
                r#"{"grant_type":"client_credentials","client_id":"me","client_secret":"a+b% &:","scope":"b a"}"#,
            ),
            (
                "sqr",
                r#"{"grant_type":"client_credentials","client_id":"me","client_secret":"a+b% &:"}"#,
            ),
            ("core-banking", r#"{"clientId":"me","clientSecret":"a+b% &:"}"#),
            (
                "datacrunch",
                r#"{"grant_type":"client_credentials","client_id":"me","client_secret":"a+b% &:"}"#,
            ),
        ] {
            let preset = preset(name).unwrap();
            let built = request(
                &preset.dialect,
                preset.auth,
                &client("me", "a+b% &:"),
                GrantType::ClientCredentials,
            )
            .unwrap();
            assert_eq!(text(&built), expected, "{name}");
            assert_eq!(built.method(), Method::POST);
            assert_eq!(built.uri(), "https://auth.example/token?tenant=1");
            assert_eq!(built.headers()[ACCEPT], "application/json");
            let kind = if expected.starts_with('{') {
                "application/json"
            } else {
                "application/x-www-form-urlencoded"
            };
            assert_eq!(built.headers()[CONTENT_TYPE], kind);
            assert!(!built.headers().contains_key(AUTHORIZATION));
        }
    }

    #[test]
    fn refreshes() {
        let token = Sensitive::new("r+1");
        let grant = GrantType::RefreshToken(&token);
        let datacrunch = preset("datacrunch").unwrap().dialect;
        for (dialect, auth, expected) in [
            (
                &datacrunch,
                ClientAuth::ClientSecretPost,
                r#"{"grant_type":"refresh_token","refresh_token":"r+1"}"#,
            ),
            (
                &datacrunch,
                ClientAuth::ClientSecretBasic(BasicEncoding::Rfc6749),
                r#"{"grant_type":"refresh_token","refresh_token":"r+1"}"#,
            ),
            (
                &Dialect::default(),
                ClientAuth::ClientSecretPost,
                "grant_type=refresh_token&refresh_token=r%2B1&client_id=me&client_secret=s",
            ),
        ] {
            let built = request(dialect, auth, &client("me", "s"), grant).unwrap();
            assert_eq!(text(&built), expected);
            assert!(!built.headers().contains_key(AUTHORIZATION));
        }
    }

    #[test]
    fn basic_headers() {
        use BasicEncoding::{Raw, Rfc6749};
        for (encoding, id, secret, expected) in [
            (Rfc6749, "me", "s", Ok("me:s")),
            (Rfc6749, "a:b", "p +%&", Ok("a%3Ab:p%20%2B%25%26")),
            (Raw, "me", "p +%&:", Ok("me:p +%&:")),
            (Raw, "a:b", "s", Err(RequestError::ColonInClientId)),
        ] {
            let auth = ClientAuth::ClientSecretBasic(encoding);
            let found = request(
                &Dialect::default(),
                auth,
                &client(id, secret),
                GrantType::ClientCredentials,
            );
            let found = found.map(|built| {
                let value = &built.headers()[AUTHORIZATION];
                assert!(value.is_sensitive());
                assert_eq!(text(&built), "grant_type=client_credentials&scope=b+a");
                let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
                String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
            });
            assert_eq!(found, expected.map(str::to_owned));
        }
    }

    #[test]
    fn other_proofs() {
        let bare = ClientCredentials { id: Sensitive::new("me"), secret: None };
        for auth in
            [ClientAuth::None, ClientAuth::TlsClientAuth, ClientAuth::SelfSignedTlsClientAuth]
        {
            let built =
                request(&Dialect::default(), auth, &bare, GrantType::ClientCredentials).unwrap();
            assert_eq!(text(&built), "grant_type=client_credentials&client_id=me&scope=b+a");
        }
        for auth in [
            ClientAuth::ClientSecretPost,
            ClientAuth::ClientSecretBasic(BasicEncoding::Raw),
            ClientAuth::ClientSecretJwt,
            ClientAuth::PrivateKeyJwt(SigningAlgorithm::Es256),
        ] {
            let found = request(&Dialect::default(), auth, &bare, GrantType::ClientCredentials);
            assert_eq!(found.unwrap_err(), RequestError::NoSecret);
        }
        let built = request(
            &Dialect::default(),
            ClientAuth::ClientSecretJwt,
            &client("me", "s"),
            GrantType::ClientCredentials,
        )
        .unwrap();
        assert!(text(&built).starts_with(
            "grant_type=client_credentials&client_id=me&client_assertion_type=\
             urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=ey"
        ));
    }

    #[test]
    fn extras() {
        let dialect = Dialect {
            extra_parameters: vec![("audience".into(), "https://x".into())],
            extra_headers: vec![(ACCEPT, HeaderValue::from_static("*/*"))],
            resources: vec!["https://a".into(), "https://b".into()],
            ..Dialect::default()
        };
        let me = client("me", "s");
        let go = |dialect: &Dialect| {
            request(dialect, ClientAuth::None, &me, GrantType::ClientCredentials)
        };
        let built = go(&dialect).unwrap();
        assert_eq!(
            text(&built),
            "grant_type=client_credentials&client_id=me&scope=b+a&audience=https%3A%2F%2Fx\
             &resource=https%3A%2F%2Fa&resource=https%3A%2F%2Fb"
        );
        assert_eq!(built.headers()[ACCEPT], "*/*");
        let twice = |name: &str| Dialect {
            extra_parameters: vec![(name.into(), "x".into())],
            resources: vec!["https://a".into()],
            ..Dialect::default()
        };
        for name in ["scope", "client_id", "resource"] {
            assert_eq!(go(&twice(name)).unwrap_err(), RequestError::RepeatedParameter(name.into()));
        }
        let mut renamed = Dialect::default();
        renamed.request.client_id = "scope".into();
        assert_eq!(go(&renamed).unwrap_err(), RequestError::RepeatedParameter("scope".into()));
        let framed = Dialect {
            extra_headers: vec![(HOST, HeaderValue::from_static("x"))],
            ..Dialect::default()
        };
        assert_eq!(go(&framed).unwrap_err(), RequestError::ReservedHeader(HOST));
    }
}
