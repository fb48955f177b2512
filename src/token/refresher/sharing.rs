//! `Sharing`: the other replicas that hold the same token, as the refresher sees them.
//!
//! A build without the feature `redis` knows none of them.

#[cfg(feature = "share")]
pub(super) use replicas::{CallReport, Shared, Sharing};

#[cfg(not(feature = "share"))]
pub(super) use alone::{CallReport, Sharing};

#[cfg(feature = "share")]
mod replicas {
    use std::sync::{Mutex, PoisonError};

    use tokio::time::Instant;

    use crate::oauth::ScopeSet;
    use crate::sensitive::Sensitive;
    use crate::share::shared_token::SharedToken;
    use crate::token::fetch::{FetchError, Fetched, ReplicaProof};
    use crate::token::sharing::renewal::{LeaseGuard, SharedRenewal};
    use crate::token::status::TokenStatus;

    /// The other replicas, for a token that is shared.
    #[derive(Default)]
    pub(crate) struct Sharing(pub(crate) Option<Shared>);

    pub(crate) struct Shared {
        pub(crate) renewal: SharedRenewal,
        /// What this replica proved itself with when it last asked.
        pub(crate) proof: Option<ReplicaProof>,
    }

    /// What the store learns of a token request.
    pub(crate) enum CallReport {
        /// The token is not shared.
        None,
        /// A token was issued, whose request was sent at this time.
        Issued(SharedToken, Instant),
        /// There is none; `true` if the client secret was refused.
        Failed(bool),
    }

    impl Sharing {
        /// Waits until another replica announces something. Cancel safe.
        pub(crate) async fn news(&mut self) {
            match &mut self.0 {
                Some(shared) => shared.renewal.news().await,
                None => std::future::pending().await,
            }
        }

        pub(crate) fn next_wake(&self) -> Option<Instant> {
            self.0.as_ref().map(|shared| shared.renewal.next_wake())
        }

        /// The time before which the store is not asked for the lead.
        pub(crate) fn ask_at(&self, next: Instant) -> Instant {
            self.0.as_ref().map_or(next, |shared| shared.renewal.ask_at())
        }

        pub(crate) fn ask_now(&mut self) {
            self.0.iter_mut().for_each(|shared| shared.renewal.ask_now());
        }

        /// Notes that an upstream has rejected the held token; `contended` if it is the third one within one
        /// life.
        pub(crate) fn on_rejected(&mut self, contended: bool) {
            self.0.iter_mut().for_each(|shared| shared.renewal.on_rejected(contended));
        }

        /// Forgets the held token, which was dropped because nothing uses it.
        pub(crate) fn forget(&mut self) {
            self.0.iter_mut().for_each(|shared| shared.renewal.forget());
        }

        pub(crate) fn keep_lease(&self) -> Option<LeaseGuard> {
            self.0.as_ref().map(|shared| shared.renewal.keep_lease())
        }

        /// The fingerprint of a token that all replicas log; `None` for one that is not shared.
        pub(crate) fn fingerprint(&self, token: &Sensitive) -> Option<String> {
            self.0.as_ref().and_then(|shared| shared.renewal.fingerprint(token))
        }

        /// The share of its life after which the leader renews a token; `None` for one that is not shared.
        pub(crate) fn renewal_share(&self) -> Option<f64> {
            self.0.as_ref().map(|shared| shared.renewal.renewal_share(true))
        }

        /// The time before which no replica may renew.
        pub(crate) fn blocked_until(&self) -> Option<Instant> {
            self.0.as_ref().and_then(|shared| shared.renewal.blocked_until())
        }

        pub(crate) fn show(&self, status: &Mutex<TokenStatus>) {
            if let Some(shared) = &self.0 {
                let status = &mut status.lock().unwrap_or_else(PoisonError::into_inner);
                status.share = Some(shared.renewal.status());
            }
        }

        /// The report of a token request. `sent` is the refresh token that went with it, which stays valid if
        /// the answer brings no other.
        pub(crate) fn report_of(
            &self,
            outcome: &Result<Fetched, FetchError>,
            sent: Option<&Sensitive>,
        ) -> CallReport {
            if self.0.is_none() {
                return CallReport::None;
            }
            match outcome {
                Ok(fetched) => CallReport::Issued(shared_token(fetched, sent), fetched.sent.mono),
                Err(error) => CallReport::Failed(error.refused_secret().is_some()),
            }
        }
    }

    /// A token as other replicas get it.
    fn shared_token(fetched: &Fetched, sent: Option<&Sensitive>) -> SharedToken {
        let Fetched { issued, lifetime, identity, .. } = fetched;
        SharedToken {
            access_token: issued.access_token.clone(),
            token_type: if fetched.prover.is_some() { "DPoP" } else { "Bearer" }.to_owned(),
            scope: issued.scope.as_ref().map(ScopeSet::to_wire),
            life_ms: u64::try_from(lifetime.life.as_millis()).unwrap_or(u64::MAX),
            refresh_token: issued.refresh_token.as_ref().or(sent).cloned(),
            certificate_thumbprint: identity.as_ref().map(|known| known.thumbprint().to_owned()),
        }
    }
}

#[cfg(not(feature = "share"))]
mod alone {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use crate::sensitive::Sensitive;
    use crate::token::fetch::{FetchError, Fetched};
    use crate::token::status::TokenStatus;

    /// No other replica.
    #[derive(Default)]
    pub(crate) struct Sharing(());

    /// The lease of no lead.
    pub(crate) struct NoLease;

    /// No report.
    pub(crate) struct CallReport;

    #[expect(clippy::unused_self, reason = "the same methods as with other replicas")]
    impl Sharing {
        pub(crate) async fn news(&mut self) {
            std::future::pending().await
        }

        pub(crate) fn next_wake(&self) -> Option<Instant> {
            None
        }

        pub(crate) fn ask_at(&self, next: Instant) -> Instant {
            next
        }

        pub(crate) fn ask_now(&mut self) {}

        pub(crate) fn on_rejected(&mut self, _: bool) {}

        pub(crate) fn forget(&mut self) {}

        pub(crate) fn keep_lease(&self) -> NoLease {
            NoLease
        }

        pub(crate) fn fingerprint(&self, _: &Sensitive) -> Option<String> {
            None
        }

        pub(crate) fn renewal_share(&self) -> Option<f64> {
            None
        }

        pub(crate) fn blocked_until(&self) -> Option<Instant> {
            None
        }

        pub(crate) fn show(&self, _: &Mutex<TokenStatus>) {}

        pub(crate) fn report_of(
            &self,
            _: &Result<Fetched, FetchError>,
            _: Option<&Sensitive>,
        ) -> CallReport {
            CallReport
        }
    }
}
