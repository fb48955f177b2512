//! `RedisStore`: the store of shared tokens in Redis or Valkey, by one connection over a stream of `net`.
//!
//! [`address`] and [`options`] say where; `connecting` keeps the connection, which is never made by an
//! operation; `session` is one connection, `bounded` its stream; `sentinel` finds the master; `cluster`
//! follows redirections; `scripts` and `reply` are the protocol on the wire; `failure` explains errors;
//! `announcer` passes messages on; [`probe`] tests all of it.

pub mod address;
mod announcer;
mod bounded;
mod cluster;
mod connecting;
mod failure;
pub mod options;
pub mod probe;
mod reply;
mod scripts;
mod sentinel;
mod session;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, cmd};
use tokio::sync::{broadcast, watch};
use tokio_util::task::AbortOnDropHandle;

use self::announcer::{Announcer, HANDOVER};
use self::cluster::Cluster;
use self::connecting::{Connecting, Link};
use self::scripts::{Scripts, StoreScript};
use self::session::{CommandError, Limit, Session};
use super::metrics::{Outcome, ShareMetrics, StoreOperation};
use super::names::TokenName;
use super::protocol::{AcquireReply, PublishReply};
use super::store::{Acquire, Announcement, Operation, StoreError, TokenStore};

pub use self::address::ServerAddress;
pub use self::options::{Login, Sentinels, Servers, StoreOptions};

/// Redirections that one operation follows.
const MAX_REDIRECTIONS: usize = 5;

/// The time from PUBLISH to the last replica.
const ANNOUNCEMENT_TIME: Duration = Duration::from_millis(30);

/// The store. It keeps its connection until it is dropped.
pub struct RedisStore {
    options: Arc<StoreOptions>,
    scripts: Scripts,
    announcer: Announcer,
    link: watch::Receiver<Link>,
    reached: watch::Receiver<bool>,
    cluster: Cluster,
    metrics: ShareMetrics,
    _connecting: AbortOnDropHandle<()>,
}

impl RedisStore {
    /// Starts a store in the current tokio runtime. It connects in the background.
    pub fn start(options: StoreOptions, metrics: ShareMetrics) -> Self {
        let options = Arc::new(options);
        let announcer = Announcer::new(&options.key_prefix);
        let (to_link, link) = watch::channel(Link::Connecting);
        let (to_reached, reached) = watch::channel(false);
        metrics.follow(reached.clone());
        let connecting =
            Connecting::new(Arc::clone(&options), announcer.clone(), to_link, to_reached);
        let connecting = AbortOnDropHandle::new(tokio::spawn(connecting.run()));
        let cluster = Cluster::new(Arc::clone(&options));
        let scripts = Scripts::default();
        Self {
            options,
            scripts,
            announcer,
            link,
            reached,
            cluster,
            metrics,
            _connecting: connecting,
        }
    }

    /// The session that the connection task keeps. Only the first attempt is waited for.
    async fn session(&self, limit: Limit) -> Result<Session, StoreError> {
        let mut link = self.link.clone();
        let known = link.wait_for(|link| !matches!(link, Link::Connecting));
        let known = match limit.bound(known).await {
            Some(Ok(known)) => known.clone(),
            Some(Err(_)) => {
                Link::Down(StoreError::Unreachable("this process is ending".to_owned()))
            }
            None => Link::Connecting,
        };
        match known {
            Link::Up(session) => Ok(session),
            Link::Down(error) => Err(error),
            Link::Connecting => {
                let limit = limit.duration();
                Err(StoreError::Unreachable(format!("there was no connection within {limit:?}")))
            }
        }
    }

    /// Runs a script on the keys of a token: first the state, then, if the script uses it, the token.
    async fn run(
        &self,
        command: &str,
        name: &TokenName,
        script: &StoreScript,
        arguments: Arguments<'_>,
    ) -> Result<redis::Value, StoreError> {
        let limit = Limit::of(self.options.operation_timeout);
        let mut elsewhere = None;
        let mut asking = false;
        let mut by_text = false;
        for _ in 0..=MAX_REDIRECTIONS {
            let session = match elsewhere.take() {
                Some(session) => session,
                None => match self.cluster.known(name).await {
                    Some(session) => session,
                    None => self.session(limit).await?,
                },
            };
            let eval = self.eval(name, script, by_text, arguments);
            let sent = match asking {
                true => session.send_asking(command, &eval, limit).await,
                false => session.send(command, &eval, limit).await,
            };
            match sent {
                Ok(value) => return Ok(value),
                Err(CommandError::NoScript) if !by_text => {
                    by_text = true;
                    elsewhere = Some(session);
                }
                Err(CommandError::Elsewhere { ask, address }) if self.cluster.is_used() => {
                    asking = ask;
                    elsewhere = Some(self.cluster.follow(name, address, ask, limit).await?);
                }
                Err(error) => {
                    self.cluster.forget(name).await;
                    return Err(error.into());
                }
            }
        }
        Err(StoreError::Unreachable(format!(
            "the nodes of the cluster redirected {command} {MAX_REDIRECTIONS} times"
        )))
    }

    /// The command that runs a script by its name, or with its text, which the server keeps then.
    fn eval(
        &self,
        name: &TokenName,
        script: &StoreScript,
        by_text: bool,
        arguments: Arguments<'_>,
    ) -> Cmd {
        let prefix = &self.options.key_prefix;
        let mut eval = match by_text {
            true => cmd("EVAL").arg(script.text).to_owned(),
            false => cmd("EVALSHA").arg(&script.sha1).to_owned(),
        };
        match script.uses_token {
            true => eval.arg(2).arg(name.state_key(prefix)).arg(name.token_key(prefix)),
            false => eval.arg(1).arg(name.state_key(prefix)),
        };
        for argument in arguments {
            eval.arg(*argument);
        }
        eval
    }

    /// Lets the keys of a token end at once.
    async fn drop_keys(&self, name: &TokenName) -> Result<(), StoreError> {
        self.run("drop", name, &self.scripts.drop, &[]).await.map(drop)
    }
}

/// The arguments of a script.
type Arguments<'a> = &'a [&'a [u8]];

impl TokenStore for RedisStore {
    fn acquire<'a>(&'a self, name: &'a TokenName, ask: Acquire<'a>) -> Operation<'a, AcquireReply> {
        Box::pin(self.metrics.counted(StoreOperation::Acquire, Outcome::of_acquired, async move {
            let generation = ask.generation.to_string();
            let lease = milliseconds(ask.lead.unwrap_or_default());
            let budget = ask.budget.to_string();
            let lead = if ask.lead.is_some() { "lead" } else { "look" };
            let arguments =
                [ask.owner, &generation, ask.token_owner, &lease, lead, ask.secret, &budget];
            let arguments = arguments.map(str::as_bytes);
            reply::acquired(self.run("acquire", name, &self.scripts.acquire, &arguments).await?)
        }))
    }

    fn renew<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        epoch: u64,
        lease: Duration,
    ) -> Operation<'a, bool> {
        Box::pin(self.metrics.counted(StoreOperation::Renew, Outcome::of_lease, async move {
            let (epoch, lease) = (epoch.to_string(), milliseconds(lease));
            let arguments = [owner, &epoch, &lease].map(str::as_bytes);
            reply::kept(self.run("renew", name, &self.scripts.renew, &arguments).await?, "renewed")
        }))
    }

    fn publish<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        epoch: u64,
        sealed: &'a [u8],
        life_left: Duration,
    ) -> Operation<'a, PublishReply> {
        Box::pin(self.metrics.counted(StoreOperation::Publish, Outcome::of_published, async move {
            let (epoch, life) = (epoch.to_string(), milliseconds(life_left));
            let channel = name.channel(&self.options.key_prefix);
            let arguments =
                [owner.as_bytes(), epoch.as_bytes(), sealed, life.as_bytes(), channel.as_bytes()];
            reply::published(self.run("publish", name, &self.scripts.publish, &arguments).await?)
        }))
    }

    fn fail<'a>(
        &'a self,
        name: &'a TokenName,
        owner: &'a str,
        wait: Duration,
        refused: Option<&'a str>,
    ) -> Operation<'a, bool> {
        Box::pin(self.metrics.counted(StoreOperation::Fail, Outcome::of_lease, async move {
            let wait = milliseconds(wait);
            let arguments = [owner, &wait, refused.unwrap_or_default()].map(str::as_bytes);
            reply::kept(self.run("fail", name, &self.scripts.fail, &arguments).await?, "failed")
        }))
    }

    fn announce_handover<'a>(&'a self, name: &'a TokenName) -> Operation<'a, ()> {
        Box::pin(self.metrics.counted(StoreOperation::Handover, |()| Outcome::Ok, async move {
            let limit = Limit::of(self.options.operation_timeout);
            let session = self.session(limit).await?;
            let channel = name.channel(&self.options.key_prefix);
            let publish = cmd("PUBLISH").arg(channel).arg(HANDOVER).to_owned();
            session.send("PUBLISH", &publish, limit).await.map(drop).map_err(StoreError::from)
        }))
    }

    fn announcement_time(&self) -> Duration {
        ANNOUNCEMENT_TIME
    }

    fn announcements(&self, name: &TokenName) -> broadcast::Receiver<Announcement> {
        self.announcer.subscribe(name)
    }

    fn reached(&self) -> watch::Receiver<bool> {
        self.reached.clone()
    }
}

/// Whole milliseconds, at least one: the server takes no life of zero.
fn milliseconds(duration: Duration) -> String {
    duration.as_millis().max(1).to_string()
}
