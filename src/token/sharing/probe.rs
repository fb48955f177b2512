//! [`find`]: the shared token of a credential as the store holds it now, for `check --live`.

use std::time::Duration;

use super::identity::token_name;
use super::shared_store::SharedStore;
use crate::oauth::ScopeSet;
use crate::oauth::dialect::GrantParameter;
use crate::share::protocol::AcquireReply;
use crate::share::sealing::{SealedPlace, Unreadable};
use crate::share::store::Acquire;
use crate::token::Credential;
use crate::token::client_secret::read_client;

/// A token in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundToken {
    /// Its generation.
    pub generation: u64,
    /// The rest of its life.
    pub life_left: Duration,
    /// The key that opened it, or the reason why none did.
    pub opened: Result<OpenedToken, Unreadable>,
}

/// A token that the keys of the configuration opened. Its texts are those of a replica: a store that makes up
/// others has no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedToken {
    /// The replica that published it.
    pub owner: String,
    /// The id of the key that sealed it.
    pub key_id: String,
}

/// Finds the token of a credential; `None` if the store holds none.
///
/// # Errors
/// A sentence on what cannot be read or reached.
pub async fn find(
    shared: &SharedStore,
    credential: &Credential,
    scopes: &ScopeSet,
) -> Result<Option<FoundToken>, String> {
    let keys = shared.keys().await.map_err(|error| error.to_string())?;
    let client = read_client(credential, None).await.map_err(|error| error.to_string())?;
    let mut parameters = client.grant_parameters.iter();
    let username = parameters.find(|(name, _)| *name == GrantParameter::Username);
    let username = username.map(|(_, value)| value);
    let name = token_name(&keys.names, credential, scopes, &client.id, username);
    let name = name.ok_or("the token cannot be named")?;
    let looks =
        Acquire { owner: "", generation: 0, token_owner: "", lead: None, secret: "", budget: 0 };
    let reply = shared.store.acquire(&name, looks).await.map_err(|error| error.to_string())?;
    let AcquireReply::Token(value) = reply else { return Ok(None) };
    let place = SealedPlace {
        prefix: &shared.rules.key_prefix,
        name: &name,
        generation: value.generation,
        owner: &value.owner,
    };
    let opened = keys.values.open(&value.sealed, place).map(|_| OpenedToken {
        owner: value.owner.clone(),
        key_id: keys.values.key_id(&value.sealed).unwrap_or_default().to_owned(),
    });
    Ok(Some(FoundToken { generation: value.generation, life_left: value.life_left, opened }))
}
