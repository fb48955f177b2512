//! The token that is held for a Vault server: one login for all secrets, renewed before it ends.

use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::error::{SecretError, SecretFault};
use super::transport::StoreClient;
use super::vault::{VaultLogin, VaultSecret, VaultSettings, displayed};
use super::vault_api::{VaultApi, VaultToken};
use super::vault_fault::VaultFault;
use crate::sensitive::Sensitive;

/// Time for the login and the secret together.
const LIMIT: Duration = Duration::from_secs(10);
/// Shortest time between two renewals of a token.
const SHORTEST_RENEWAL: Duration = Duration::from_secs(1);
/// Time after which a renewal is tried again while Vault cannot be reached.
const RETRY: Duration = Duration::from_secs(10);

/// A server as a configuration names it: its settings, the way to it, and the token that is held for it.
pub(super) trait VaultAccess: Send + Sync + 'static {
    fn settings(&self) -> &VaultSettings;

    /// A client with the certificates that the files of the configuration hold now.
    fn client(&self) -> StoreClient;

    /// Reads the secret of the login.
    fn login_secret(
        &self,
    ) -> Pin<Box<dyn Future<Output = Result<Sensitive, SecretError>> + Send + '_>>;

    fn session(&self) -> &VaultSession;
}

/// The token that is held for a server, if any. Two sessions are equal: they are no part of a
/// configuration.
#[derive(Default)]
pub struct VaultSession(Mutex<Option<HeldToken>>);

/// A token and the task that renews it.
struct HeldToken {
    value: Sensitive,
    /// `None` for a token that does not expire.
    ends: Option<Instant>,
    renewal: Option<AbortHandle>,
}

impl Drop for HeldToken {
    fn drop(&mut self) {
        // The task renews this token and no other.
        if let Some(task) = &self.renewal {
            task.abort();
        }
    }
}

/// Reads a secret, with the token that is held or with a new one.
pub(super) async fn read<S: VaultAccess>(
    secret: &VaultSecret,
    server: &Arc<S>,
) -> Result<Sensitive, SecretFault> {
    let found = tokio::time::timeout(LIMIT, fetch(secret, server));
    found.await.unwrap_or(Err(SecretFault::TimedOut(LIMIT)))
}

async fn fetch<S: VaultAccess>(
    secret: &VaultSecret,
    server: &Arc<S>,
) -> Result<Sensitive, SecretFault> {
    let api = VaultApi { settings: server.settings(), client: server.client() };
    let token = token(server, &api).await?;
    if let Some(value) = api.read(secret, &token).await? {
        return Ok(value);
    }
    // Vault answers alike to a dead token and to one whose policies do not allow the reading.
    let path = displayed(&secret.api_path()).to_owned();
    let denied = || SecretFault::Vault(VaultFault::Denied { path });
    if api.look_up(&token).await?.is_some() {
        return Err(denied());
    }
    forget(&**server, &token).await;
    if server.settings().login == VaultLogin::Token {
        return Err(VaultFault::TokenRefused.into());
    }
    let token = self::token(server, &api).await?;
    api.read(secret, &token).await?.ok_or_else(denied)
}

/// The token that is held, or that of a new login. Callers who need a login wait for one.
async fn token<S: VaultAccess>(
    server: &Arc<S>,
    api: &VaultApi<'_>,
) -> Result<Sensitive, SecretFault> {
    let mut held = server.session().0.lock().await;
    let usable = held.as_ref().filter(|held| held.ends.is_none_or(|ends| Instant::now() < ends));
    // The source of a token is read each time, because another program may have put a new one there.
    let stated = match (usable, server.settings().login == VaultLogin::Token) {
        (Some(held), false) => return Ok(held.value.clone()),
        (_, _) => server.login_secret().await,
    };
    let secret = stated.map_err(|error| VaultFault::LoginSecret(error.to_string()))?;
    if let Some(held) = usable.filter(|held| held.value == secret) {
        return Ok(held.value.clone());
    }
    let token = api.log_in(&secret).await?;
    *held = Some(hold(server, token.clone()));
    Ok(token.value)
}

fn hold<S: VaultAccess>(server: &Arc<S>, token: VaultToken) -> HeldToken {
    let expires = !token.lease.remaining.is_zero();
    let ends = expires.then(|| Instant::now() + token.lease.remaining);
    let value = token.value.clone();
    // The task must not keep alive a server that a new configuration has replaced.
    let task = expires.then(|| tokio::spawn(keep(Arc::downgrade(server), token)));
    HeldToken { value, ends, renewal: task.map(|task| task.abort_handle()) }
}

/// Renews a token at two thirds of its remaining life, until Vault no longer extends it: then the next
/// reading logs in again.
async fn keep<S: VaultAccess>(server: Weak<S>, token: VaultToken) {
    let VaultToken { value, mut lease } = token;
    let granted = lease.remaining;
    let mut ends = Instant::now() + lease.remaining;
    let mut pause = lease.remaining * 2 / 3;
    loop {
        sleep(pause.max(SHORTEST_RENEWAL)).await;
        let Some(server) = server.upgrade() else { return };
        // A lease that is cut short is near the longest life that Vault allows for the token.
        let renewed = match lease.renewable && lease.remaining >= granted / 2 {
            true => {
                let api = VaultApi { settings: server.settings(), client: server.client() };
                api.renew(&value).await
            }
            false => Ok(None),
        };
        match renewed {
            Ok(Some(renewed)) => {
                lease = renewed;
                ends = Instant::now() + lease.remaining;
                pause = lease.remaining * 2 / 3;
                if !extend(&*server, &value, ends).await {
                    return;
                }
            }
            // Vault may be back before the token ends.
            Err(_) if Instant::now() < ends => pause = RETRY.min(ends - Instant::now()),
            _ => return give_up(&*server, &value).await,
        }
    }
}

/// Notes the new end of a token; false if another one is held by now.
async fn extend(server: &impl VaultAccess, token: &Sensitive, ends: Instant) -> bool {
    let mut held = server.session().0.lock().await;
    let ours = held.as_mut().filter(|held| held.value == *token);
    ours.map(|held| held.ends = Some(ends)).is_some()
}

async fn give_up(server: &impl VaultAccess, token: &Sensitive) {
    match server.settings().login {
        // It is used to its end, because there is no login that brings another one.
        VaultLogin::Token => tracing::warn!(
            "the token of [vault] cannot be renewed and ends soon; put a new one into its source"
        ),
        _ => forget(server, token).await,
    }
}

/// Forgets a token, unless another one is held by now.
async fn forget(server: &impl VaultAccess, token: &Sensitive) {
    let mut held = server.session().0.lock().await;
    if held.as_ref().is_some_and(|held| held.value == *token) {
        *held = None;
    }
}

impl PartialEq for VaultSession {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for VaultSession {}

impl Hash for VaultSession {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl fmt::Debug for VaultSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VaultSession")
    }
}
