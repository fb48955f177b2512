//! The identity of a shared token: all that determines it, from the settings of its credential.

use std::collections::BTreeMap;

use crate::oauth::ScopeSet;
use crate::oauth::dialect::{Grant, TokenType};
use crate::sensitive::Sensitive;
use crate::share::names::{NameKey, TokenIdentity, TokenName};
use crate::token::Credential;
use crate::token::credential::{Binding, ClientIdSource};

/// The name of a token in the store; `None` if it cannot be made, which does not happen with text.
///
/// The client secret is no part of it, and neither is what only changes how the token is requested or used:
/// replicas may see a new secret, or a new configuration, at different times.
pub(super) fn token_name(
    key: &NameKey,
    credential: &Credential,
    scopes: &ScopeSet,
    client_id: &Sensitive,
    username: Option<&Sensitive>,
) -> Option<TokenName> {
    let token_url = credential.source.to_string();
    let parameters = parameters(credential, username);
    let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in &parameters {
        by_name.entry(name).or_default().push(value);
    }
    let sent = credential.dialect.send_scope;
    let identity = TokenIdentity {
        token_url: &token_url,
        client_id: client_id.expose(),
        client_auth: credential.auth.name(),
        grant: match &credential.dialect.grant {
            Grant::ClientCredentials => "client_credentials",
            Grant::JwtBearer(_) => "jwt_bearer",
            Grant::TokenExchange(_) => "token_exchange",
            Grant::Password => "password",
        },
        scopes: scopes.iter().map(|scope| scope.as_str()).filter(|_| sent).collect(),
        parameters: by_name,
    };
    TokenName::new(key, &identity).ok()
}

/// The other parts of a token request that determine the token.
fn parameters(credential: &Credential, username: Option<&Sensitive>) -> Vec<(String, String)> {
    let dialect = &credential.dialect;
    let mut found = dialect.extra_parameters.clone();
    found.extend(dialect.resources.iter().map(|uri| ("resource".to_owned(), uri.clone())));
    let mut add = |name: &str, value: &str| found.push((format!("/{name}"), value.to_owned()));
    for (name, value) in &dialect.extra_headers {
        add(&format!("header/{name}"), &String::from_utf8_lossy(value.as_bytes()));
    }
    if dialect.token_type == TokenType::Dpop {
        add("token_type", "DPoP");
    }
    if credential.binding == Binding::Certificate {
        add("bound", "certificate");
    }
    if let Some(username) = username {
        add("username", username.expose());
    }
    if let Grant::JwtBearer(assertion) = &dialect.grant {
        let texts = [
            ("issuer", &assertion.issuer),
            ("subject", &assertion.subject),
            ("audience", &assertion.audience),
        ];
        for (name, text) in texts {
            add(&format!("assertion/{name}"), text.as_deref().unwrap_or_default());
        }
        for (name, value) in &assertion.claims {
            add(&format!("claim/{name}"), &value.to_string());
        }
    }
    if let Some(via) = &credential.via {
        add("via/source", &via.credential.source.to_string());
        add("via/scopes", &via.scopes.to_wire());
        if let ClientIdSource::Text(id) = &via.credential.client_id {
            add("via/client_id", id.expose());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::TokenEndpoint;
    use crate::token::credential::{RefreshPolicy, TokenSource};
    use crate::token::testing::credential;

    fn name(credential: &Credential, scopes: &str) -> TokenName {
        let key = "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=";
        let key = NameKey::new(&Sensitive::new(key)).unwrap();
        let scopes = ScopeSet::parse(scopes).unwrap();
        token_name(&key, credential, &scopes, &Sensitive::new("erp"), None).unwrap()
    }

    #[test]
    fn a_name_has_all_that_determines_the_token_and_nothing_else() {
        let base = credential(RefreshPolicy::default());
        let changed = |change: fn(&mut Credential)| {
            let mut other = base.clone();
            change(&mut other);
            name(&other, "a b") != name(&base, "b a")
        };
        assert!(changed(|one| {
            let other = TokenEndpoint::parse("https://other.example/token").unwrap();
            one.source = TokenSource::Endpoint(other);
        }));
        assert!(changed(|one| one.dialect.resources.push("https://api.example".into())));
        assert!(changed(|one| one.dialect.extra_parameters.push(("a".into(), "b".into()))));
        assert!(changed(|one| one.dialect.grant = Grant::JwtBearer(Box::default())));
        assert!(changed(|one| one.binding = Binding::Certificate));
        assert!(!changed(|one| one.name = "another".into()));
        assert!(!changed(|one| one.policy.refresh_at = 0.5));
        assert!(!changed(|one| one.client_secret = None));
        assert_ne!(name(&base, "a"), name(&base, "a b"));
        let unsent = |credential: &Credential| {
            let mut other = credential.clone();
            other.dialect.send_scope = false;
            name(&other, "a")
        };
        assert_ne!(unsent(&base), name(&base, "a"));
    }
}
