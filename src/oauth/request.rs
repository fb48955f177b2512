//! The requests of one client to its token server: token requests (RFC 6749 section 4.4.2 and 6) and
//! token revocation (RFC 7009), as bytes.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST,
    TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use zeroize::Zeroizing;

use super::assertion;
use super::client_auth::{BasicEncoding, ClientAuth};
use super::dialect::{BodyEncoding, ClientCredentials, Dialect, Grant, GrantAssertion};
use super::encode::{self, Parameters};
use super::endpoint::TokenEndpoint;
use super::jws::{AssertionError, SigningKey};
use super::scope::ScopeSet;
use super::token_exchange::TokenExchange;
use crate::sensitive::Sensitive;

/// The `client_assertion_type` of RFC 7523 section 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The `grant_type` of RFC 7523 section 2.1.
const JWT_BEARER_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The `grant_type` of RFC 8693 section 2.1.
const TOKEN_EXCHANGE_GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The `User-Agent` of requests to token servers.
const PRODUCT: &str = concat!("bearer-proxy/", env!("CARGO_PKG_VERSION"));

/// The authorization grant of a token request.
#[derive(Debug, Clone, Copy)]
pub enum GrantType<'a> {
    /// Client credentials (RFC 6749 section 4.4).
    ClientCredentials,
    /// A signed assertion (RFC 7523 section 2.1).
    JwtBearer(&'a GrantAssertion),
    /// A token of another issuer (RFC 8693).
    TokenExchange(&'a TokenExchange),
    /// The user name and password of a user (RFC 6749 section 4.3).
    Password,
    /// A refresh token of an earlier answer (RFC 6749 section 6). No scope is sent with it: the
    /// server then grants the earlier scopes, never more.
    RefreshToken(&'a Sensitive),
}

impl<'a> GrantType<'a> {
    /// The grant of the client's own token requests.
    pub fn of(dialect: &'a Dialect) -> Self {
        match &dialect.grant {
            Grant::ClientCredentials => Self::ClientCredentials,
            Grant::JwtBearer(settings) => Self::JwtBearer(settings),
            Grant::TokenExchange(settings) => Self::TokenExchange(settings),
            Grant::Password => Self::Password,
        }
    }
}

/// The token that a revocation request names.
#[derive(Debug, Clone, Copy)]
pub enum RevokedToken<'a> {
    /// An access token.
    Access(&'a Sensitive),
    /// A refresh token, and the access tokens that came from it.
    Refresh(&'a Sensitive),
}

/// The common parts of all requests of one client to one endpoint. Each method builds a new request
/// with an absolute URI; build it again for each attempt, because an assertion is good for one use.
#[derive(Debug, Clone, Copy)]
pub struct ClientRequest<'a> {
    /// The endpoint that gets the request.
    pub endpoint: &'a TokenEndpoint,
    /// The deviations of this server from RFC 6749.
    pub dialect: &'a Dialect,
    /// The client authentication method.
    pub auth: ClientAuth,
    /// The client's id and secret.
    pub client: &'a ClientCredentials,
    /// The time for the claims of an assertion.
    pub now: SystemTime,
}

impl ClientRequest<'_> {
    /// An access token request. Scopes go with the client's own grant only.
    ///
    /// # Errors
    /// The credentials do not fit the authentication method, or a parameter would be sent twice.
    pub fn token(
        &self,
        grant: GrantType<'_>,
        scopes: &ScopeSet,
    ) -> Result<Request<Bytes>, RequestError> {
        let names = &self.dialect.request;
        let scope = scopes.to_wire();
        let scope = (self.dialect.send_scope && !scope.is_empty()).then_some(scope.as_str());
        let parameter = |scope| (names.scope.as_str(), scope);
        match grant {
            GrantType::ClientCredentials => {
                let grant_type = (names.grant_type.as_str(), "client_credentials");
                let first = self.dialect.send_grant_type.then_some(grant_type);
                self.build(first.into_iter().collect(), true, scope.map(parameter))
            }
            GrantType::JwtBearer(settings) => {
                let (claim, scope) =
                    if settings.scope_claim { (scope, None) } else { (None, scope) };
                let assertion =
                    assertion::sign_grant(settings, self.endpoint, self.client, claim, self.now)?;
                let first = vec![
                    (names.grant_type.as_str(), JWT_BEARER_GRANT),
                    ("assertion", assertion.expose()),
                ];
                self.build(first, true, scope.map(parameter))
            }
            GrantType::TokenExchange(settings) => {
                let mut first = vec![(names.grant_type.as_str(), TOKEN_EXCHANGE_GRANT)];
                first.extend(self.grant_parameters());
                first.extend(settings.parameters());
                self.build(first, true, scope.map(parameter))
            }
            GrantType::Password => {
                let mut first = vec![(names.grant_type.as_str(), "password")];
                first.extend(self.grant_parameters());
                self.build(first, true, scope.map(parameter))
            }
            GrantType::RefreshToken(token) => {
                let first = vec![
                    (names.grant_type.as_str(), "refresh_token"),
                    (names.refresh_token.as_str(), token.expose()),
                ];
                self.build(first, self.dialect.authenticate_refresh, None)
            }
        }
    }

    /// A revocation request, with the same client authentication as a token request.
    ///
    /// # Errors
    /// As [`Self::token`].
    pub fn revocation(&self, token: RevokedToken<'_>) -> Result<Request<Bytes>, RequestError> {
        let (token, hint) = match token {
            RevokedToken::Access(token) => (token, "access_token"),
            RevokedToken::Refresh(token) => (token, "refresh_token"),
        };
        // RFC 7009 section 2.1 asks for a form, even where the token endpoint takes JSON.
        let dialect = Dialect {
            encoding: BodyEncoding::Form,
            get: false,
            extra_parameters: Vec::new(),
            resources: Vec::new(),
            ..self.dialect.clone()
        };
        let parameters = vec![("token", token.expose()), ("token_type_hint", hint)];
        ClientRequest { dialect: &dialect, ..*self }.build(parameters, true, None)
    }

    /// A POST of `first`, the client authentication, `scope`, and the dialect's extra parameters.
    fn build(
        &self,
        first: Parameters<'_>,
        authenticate: bool,
        scope: Option<(&str, &str)>,
    ) -> Result<Request<Bytes>, RequestError> {
        let assertion = if authenticate { self.assertion()? } else { None };
        let mut parameters = first;
        if authenticate {
            self.push_client(&mut parameters, assertion.as_ref())?;
        }
        parameters.extend(scope);
        self.push_extra(&mut parameters)?;
        if self.dialect.get {
            let mut request = Request::new(Bytes::new());
            *request.uri_mut() = self.endpoint.uri().clone();
            *request.headers_mut() = self.headers(authenticate)?;
            request.headers_mut().remove(CONTENT_TYPE);
            return Ok(request);
        }
        let body = match self.dialect.encoding {
            BodyEncoding::Form => encode::form(&parameters),
            // As in a form, no parameter makes no body: the documents of such servers show none.
            BodyEncoding::Json if parameters.is_empty() => Bytes::new(),
            BodyEncoding::Json => encode::json(&parameters).map_err(|_| RequestError::Encoding)?,
        };
        let empty = body.is_empty();
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.uri().clone();
        *request.headers_mut() = self.headers(authenticate)?;
        // hyper states no length for an empty body, and servers may refuse a POST without one.
        if empty {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Ok(request)
    }

    /// RFC 6749 section 2.3: a client uses one method of authentication per request, so that HTTP
    /// Basic leaves no trace in the body.
    fn push_client<'p>(
        &'p self,
        parameters: &mut Parameters<'p>,
        assertion: Option<&'p Sensitive>,
    ) -> Result<(), RequestError> {
        if matches!(self.auth, ClientAuth::ClientSecretBasic(_)) {
            return Ok(());
        }
        let names = &self.dialect.request;
        if self.dialect.send_client_id {
            parameters.push((&names.client_id, self.client.id.expose()));
        }
        if self.auth == ClientAuth::ClientSecretPost {
            parameters.push((&names.client_secret, self.secret()?.expose()));
        }
        if let Some(assertion) = assertion {
            parameters.push(("client_assertion_type", JWT_BEARER));
            parameters.push(("client_assertion", assertion.expose()));
        }
        Ok(())
    }

    /// RFC 6749 section 3.2: a parameter must not be given more than once. Only `resource` may be
    /// (RFC 8707 section 2).
    fn push_extra<'p>(&'p self, parameters: &mut Parameters<'p>) -> Result<(), RequestError> {
        let Dialect { extra_parameters, resources, .. } = self.dialect;
        // A grant type of the settings belongs to the client's own grant, not to a refresh.
        let grant_type = self.dialect.request.grant_type.as_str();
        let refreshes = parameters.contains(&(grant_type, "refresh_token"));
        let extra = extra_parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        parameters.extend(extra.filter(|(name, _)| !refreshes || *name != grant_type));
        let resource = resources.first().map(|_| "resource");
        let names: Vec<&str> = parameters.iter().map(|(name, _)| *name).chain(resource).collect();
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                return Err(RequestError::RepeatedParameter((*name).to_owned()));
            }
        }
        parameters.extend(resources.iter().map(|uri| ("resource", uri.as_str())));
        Ok(())
    }

    fn headers(&self, authenticate: bool) -> Result<HeaderMap, RequestError> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        // Some firewalls refuse requests without it.
        headers.insert(USER_AGENT, HeaderValue::from_static(PRODUCT));
        for (name, value) in self.dialect.extra_headers.iter().chain(&self.client.headers) {
            if FRAMING_HEADERS.contains(name) {
                return Err(RequestError::ReservedHeader(name.clone()));
            }
            headers.insert(name, value.clone());
        }
        let content_type = match self.dialect.encoding {
            BodyEncoding::Form => "application/x-www-form-urlencoded",
            BodyEncoding::Json => "application/json",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let ClientAuth::ClientSecretBasic(encoding) = self.auth
            && authenticate
        {
            headers.insert(AUTHORIZATION, self.basic(encoding)?);
        }
        Ok(headers)
    }

    /// RFC 6749 section 2.3.1: id and secret are form-encoded each, then used as user and password.
    fn basic(&self, encoding: BasicEncoding) -> Result<HeaderValue, RequestError> {
        let (id, secret) = (self.client.id.expose(), self.secret()?.expose());
        // Room for the longest encoding, so that growing leaves no copy of the secret behind.
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
        let encoded = Sensitive::new(STANDARD.encode(pair.as_bytes()));
        encoded.header("Basic ").ok_or(RequestError::Encoding)
    }

    /// A new client assertion; `None` for a client authentication without one.
    ///
    /// # Errors
    /// The key is missing, or no assertion can be signed with it.
    pub fn assertion(&self) -> Result<Option<Sensitive>, RequestError> {
        let key = match self.auth {
            ClientAuth::ClientSecretJwt(algorithm) => SigningKey::Secret(algorithm, self.secret()?),
            ClientAuth::PrivateKeyJwt(algorithm) => SigningKey::Private(algorithm, self.secret()?),
            ClientAuth::ClientAssertion => return self.secret().cloned().map(Some),
            _ => return Ok(None),
        };
        let settings = &self.dialect.assertion;
        Ok(Some(assertion::sign(settings, self.endpoint, self.client, key, self.now)?))
    }

    /// The parameters of the grant whose values are secret.
    fn grant_parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let parameters = self.client.grant_parameters.iter();
        parameters.map(|(name, value)| (name.as_str(), value.expose()))
    }

    fn secret(&self) -> Result<&Sensitive, RequestError> {
        self.client.secret.as_ref().ok_or(RequestError::NoSecret)
    }
}

/// Headers that frame the request; another value would contradict the bytes.
const FRAMING_HEADERS: [HeaderName; 5] =
    [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, HOST];

/// The reason why no request can be built; never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The authentication method needs a secret, and the client has none.
    #[error(
        "this client_auth needs a client_secret and there is none; set client_secret or \
         client_auth = \"none\""
    )]
    NoSecret,
    /// HTTP Basic without encoding cannot carry an id with a colon.
    #[error(
        "the client id holds a colon, which HTTP Basic cannot carry unencoded; set \
         basic_encoding = \"rfc6749\" or another client_auth"
    )]
    ColonInClientId,
    /// Two parameters have the same name, by extra parameters or by renamed fields.
    #[error("parameter {0:?} would be sent twice; remove or rename one")]
    RepeatedParameter(String),
    /// An extra header that the request itself defines.
    #[error("header {0} is defined by the request itself; remove the extra one")]
    ReservedHeader(HeaderName),
    /// The assertion could not be signed.
    #[error(transparent)]
    Assertion(#[from] AssertionError),
    /// A value fits neither JSON nor a header.
    #[error("a value of the token request cannot be encoded")]
    Encoding,
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::oauth::dialect::{GrantKey, GrantParameter};
    use crate::oauth::jws::{MacAlgorithm, SigningAlgorithm};
    use crate::oauth::presets::preset;

    fn client(id: &str, secret: &str) -> ClientCredentials {
        ClientCredentials {
            id: Sensitive::new(id),
            secret: Some(Sensitive::new(secret)),
            certificate: None,
            grant_key: None,
            grant_parameters: Vec::new(),
            headers: Vec::new(),
        }
    }

    fn request(
        dialect: &Dialect,
        auth: ClientAuth,
        client: &ClientCredentials,
        grant: GrantType<'_>,
    ) -> Result<Request<Bytes>, RequestError> {
        let endpoint = TokenEndpoint::parse("https://auth.example/token?tenant=1").unwrap();
        ClientRequest { endpoint: &endpoint, dialect, auth, client, now: UNIX_EPOCH }
            .token(grant, &ScopeSet::parse("b a").unwrap())
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
    fn assertions_as_grant() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let grant_key = GrantKey {
            private_key: Sensitive::new(pair.serialize_pem()),
            key_id: None,
            token_uri: None,
        };
        let me = ClientCredentials { grant_key: Some(grant_key), ..client("me", "s") };
        let start = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=ey";
        for (name, rest, claim) in [
            ("google-service-account", "", Some("b a")),
            ("docusign", "", Some("b a")),
            ("box", "&client_id=me&client_secret=s", None),
            ("salesforce-jwt", "", None),
        ] {
            let preset = preset(name).unwrap();
            let grant = GrantType::of(&preset.dialect);
            let built = request(&preset.dialect, preset.auth, &me, grant).unwrap();
            let text = text(&built);
            assert!(text.starts_with(start), "{text}");
            let (assertion, after) = text[start.len()..]
                .split_at(text[start.len()..].find('&').unwrap_or(text.len() - start.len()));
            assert_eq!(after, rest, "{name}");
            let claims = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap();
            let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
            assert_eq!(claims["scope"].as_str(), claim, "{name}");
        }
        let mut dialect = preset("docusign").unwrap().dialect;
        let Grant::JwtBearer(settings) = &mut dialect.grant else { panic!() };
        settings.scope_claim = false;
        let built = request(&dialect, ClientAuth::None, &me, GrantType::of(&dialect)).unwrap();
        assert!(text(&built).ends_with("&scope=b+a"));
        let bare = client("me", "s");
        let found = request(&dialect, ClientAuth::None, &bare, GrantType::of(&dialect));
        assert_eq!(found.unwrap_err(), RequestError::Assertion(AssertionError::NotPem));
    }

    #[test]
    fn grants_that_are_secret_parameters() {
        let with = |parameters: &[(GrantParameter, &str)]| ClientCredentials {
            grant_parameters: parameters
                .iter()
                .map(|(name, value)| (*name, Sensitive::new(*value)))
                .collect(),
            ..client("me", "s")
        };
        let exchange = TokenExchange {
            subject_token_type: "urn:ietf:params:oauth:token-type:jwt".into(),
            actor_token_type: Some("urn:x:actor".into()),
            requested_token_type: None,
        };
        let tokens =
            with(&[(GrantParameter::SubjectToken, "ey.a+b"), (GrantParameter::ActorToken, "ey.c")]);
        let dialect =
            Dialect { grant: Grant::TokenExchange(Box::new(exchange)), ..Dialect::default() };
        let built = request(&dialect, ClientAuth::None, &tokens, GrantType::of(&dialect)).unwrap();
        assert_eq!(
            text(&built),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
             &subject_token=ey.a%2Bb&actor_token=ey.c\
             &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt\
             &actor_token_type=urn%3Ax%3Aactor&client_id=me&scope=b+a"
        );
        let user = with(&[(GrantParameter::Username, "erp@x"), (GrantParameter::Password, "p&+")]);
        let dialect = Dialect { grant: Grant::Password, ..Dialect::default() };
        let auth = ClientAuth::ClientSecretPost;
        let built = request(&dialect, auth, &user, GrantType::of(&dialect)).unwrap();
        assert_eq!(
            text(&built),
            "grant_type=password&username=erp%40x&password=p%26%2B&client_id=me&client_secret=s\
             &scope=b+a"
        );
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
        let bare = ClientCredentials { secret: None, ..client("me", "") };
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
            ClientAuth::ClientSecretJwt(MacAlgorithm::Hs256),
            ClientAuth::PrivateKeyJwt(SigningAlgorithm::Es256),
            ClientAuth::ClientAssertion,
        ] {
            let found = request(&Dialect::default(), auth, &bare, GrantType::ClientCredentials);
            assert_eq!(found.unwrap_err(), RequestError::NoSecret);
        }
        let built = request(
            &Dialect::default(),
            ClientAuth::ClientSecretJwt(MacAlgorithm::Hs256),
            &client("me", "s"),
            GrantType::ClientCredentials,
        )
        .unwrap();
        let assertion = request(
            &Dialect::default(),
            ClientAuth::ClientAssertion,
            &client("me", "ey.x.y"),
            GrantType::ClientCredentials,
        )
        .unwrap();
        assert_eq!(
            text(&assertion),
            "grant_type=client_credentials&client_id=me&client_assertion_type=\
             urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
             &client_assertion=ey.x.y&scope=b+a"
        );
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

    #[test]
    fn omitted_fields_may_be_written_as_extras() {
        let mut dialect = Dialect {
            send_grant_type: false,
            send_client_id: false,
            send_scope: false,
            extra_parameters: vec![
                ("grant_type".into(), "account_credentials".into()),
                ("client_id".into(), "other".into()),
            ],
            ..Dialect::default()
        };
        let mut me = client("me", "s");
        me.headers = vec![(HeaderName::from_static("x-api-key"), HeaderValue::from_static("k"))];
        let built =
            request(&dialect, ClientAuth::ClientSecretPost, &me, GrantType::ClientCredentials);
        let built = built.unwrap();
        assert_eq!(text(&built), "client_secret=s&grant_type=account_credentials&client_id=other");
        assert_eq!(built.headers()["x-api-key"], "k");
        dialect.send_client_id = true;
        dialect.extra_parameters.pop();
        let token = Sensitive::new("r");
        let grant = GrantType::RefreshToken(&token);
        let built = request(&dialect, ClientAuth::ClientSecretPost, &me, grant).unwrap();
        let expected = "grant_type=refresh_token&refresh_token=r&client_id=me&client_secret=s";
        assert_eq!(text(&built), expected);
    }

    #[test]
    fn a_form_with_the_clients_own_proof() {
        let endpoint = TokenEndpoint::parse("https://auth.example/revoke").unwrap();
        let client = client("me", "a+b");
        let dialect = Dialect {
            encoding: BodyEncoding::Json,
            resources: vec!["https://api.example".into()],
            ..Dialect::default()
        };
        let token = Sensitive::new("t/1");
        for (auth, revoked, expected) in [
            (
                ClientAuth::ClientSecretPost,
                RevokedToken::Access(&token),
                "token=t%2F1&token_type_hint=access_token&client_id=me&client_secret=a%2Bb",
            ),
            (
                ClientAuth::ClientSecretBasic(BasicEncoding::Rfc6749),
                RevokedToken::Refresh(&token),
                "token=t%2F1&token_type_hint=refresh_token",
            ),
        ] {
            let now = UNIX_EPOCH;
            let request = ClientRequest {
                endpoint: &endpoint,
                dialect: &dialect,
                auth,
                client: &client,
                now,
            };
            let request = request.revocation(revoked).unwrap();
            assert_eq!(request.body(), expected.as_bytes());
            assert_eq!(request.uri(), "https://auth.example/revoke");
            assert_eq!(request.headers()["content-type"], "application/x-www-form-urlencoded");
        }
    }
}
