//! What a refresher does about the other replicas that hold the same token: it asks the store before a token
//! request, and adopts their tokens (feature `redis`).

use super::sharing::CallReport;
use super::state::Refresher;
use crate::token::fetch::Fetch;

#[cfg(feature = "share")]
mod replicas {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use tokio::time::Instant;

    use super::super::sharing::{Shared, Sharing};
    use super::{CallReport, Fetch, Refresher};
    use crate::clock::Moment;
    use crate::oauth::ScopeSet;
    use crate::token::schedule::MAX_BACKOFF_ON_DEMAND;
    use crate::token::sharing::renewal::{AdoptedToken, Answer, SharedRenewal};
    use crate::token::token_cell::{STORE_UNUSABLE, UnavailableReason};

    impl<F: Fetch> Refresher<F> {
        /// The same refresher, of a token that other replicas hold too.
        pub(in crate::token) fn sharing(mut self, renewal: Option<SharedRenewal>) -> Self {
            self.sharing = Sharing(renewal.map(|renewal| Shared { renewal, proof: None }));
            self
        }

        /// Does what the news of other replicas ask for.
        pub(crate) async fn follow(&mut self) {
            let Some(shared) = &mut self.sharing.0 else { return };
            if shared.renewal.take_handover() {
                self.close_held();
            }
            let Some(shared) = &mut self.sharing.0 else { return };
            if shared.renewal.look_due() {
                // A lazy token that nothing uses is not looked for.
                if self.schedule.next().is_none() {
                    return shared.renewal.forget();
                }
                if let Some(token) = shared.renewal.look(shared.proof.as_ref()).await {
                    self.adopt(token);
                }
            }
            if self.sharing.0.as_mut().is_some_and(|shared| shared.renewal.handover_ended()) {
                self.end_handover();
            }
        }

        /// Closes the held token, which the token request of another replica is about to revoke.
        fn close_held(&mut self) {
            let Some(held) = self.writer.held() else { return };
            let Some(in_flight) = &held.in_flight else { return };
            in_flight.close();
            self.log.handing_over(in_flight.count());
            self.update_status(|status| status.handing_over = true);
            self.publish_state();
        }

        /// Asks the store whether this replica sends the token request.
        pub(crate) async fn may_request(&mut self) -> bool {
            let Some(shared) = &mut self.sharing.0 else { return true };
            let began = Instant::now();
            match self.fetch.proof().await {
                Ok(proof) => {
                    let answer = shared.renewal.ask(&proof).await;
                    shared.proof = Some(proof);
                    match answer {
                        Answer::Request => return true,
                        Answer::Adopt(token) => self.adopt(*token),
                        Answer::Wait => self.waits_for_store(),
                    }
                }
                // Without its secret this replica must not lead: the others would wait for it.
                Err(error) => self.on_failed(&error, None, began.elapsed()),
            }
            false
        }

        /// No token is requested, because the store cannot be used and another replica may hold a live one.
        fn waits_for_store(&mut self) {
            let trouble =
                self.sharing.0.as_ref().and_then(|shared| shared.renewal.status().trouble);
            let Some(trouble) = trouble.filter(|_| !self.holds_usable()) else { return };
            self.not_asked(STORE_UNUSABLE, trouble, None);
        }

        /// Uses the token of another replica.
        fn adopt(&mut self, adopted: AdoptedToken) {
            let AdoptedToken { token, sent, life, owner, generation } = adopted;
            let Some(shared) = &self.sharing.0 else { return };
            let share = shared.renewal.renewal_share(false);
            let proof = shared.proof.as_ref();
            let (identity, prover) = proof
                .map(|proof| (proof.identity.clone(), proof.prover.clone()))
                .unwrap_or_default();
            let Some(bearer) = self.bearer(&token.access_token, sent, life) else { return };
            let granted = token.scope.as_deref().and_then(|scope| ScopeSet::parse(scope).ok());
            let bearer = bearer.granting(granted).bound_to(identity).bound_to_key(prover);
            // The server issued the held token again: it keeps its number, so that requests that wait for a
            // newer one learn that there is none.
            let same = self.writer.held().filter(|held| held.header() == bearer.header());
            let bearer = match same {
                Some(held) => {
                    self.rejections.same_token_again(held.generation());
                    bearer.numbered(held.generation())
                }
                None => bearer,
            };
            let missing = self.missing_scopes(&bearer);
            self.schedule.renew_at(sent.mono + life.mul_f64(share), bearer.usable_until.mono);
            self.refresh_token = token.refresh_token;
            self.reason = UnavailableReason::Pending;
            (self.life, self.generation, self.in_doubt) = (life, bearer.generation(), 0);
            self.log.adopted(&bearer, &owner, generation);
            self.update_status(|status| {
                (status.attempted, status.missing_scopes) = (true, missing);
                status.last_success = Some(SystemTime::now());
                let due = life.mul_f64(share);
                (status.life, status.renewal) = (Some(life), Some(due));
                (status.failing_since, status.failures) = (None, 0);
                (status.last_error, status.error_text, status.error_hint) = (None, None, None);
                status.rate_limited_until = None;
            });
            self.writer.publish(Arc::new(bearer));
            self.end_handover();
        }

        /// Lets other replicas close the held token too, before the token request revokes it.
        pub(crate) async fn announce_handover(&mut self) {
            if !self.credential.policy.one_live_token {
                return;
            }
            let Some(shared) = &mut self.sharing.0 else { return };
            if let Some(time) = shared.renewal.announce_handover().await {
                tokio::time::sleep(time).await;
            }
        }

        /// Tells the store of a token request.
        pub(crate) async fn report(&mut self, report: CallReport) {
            // First, so that no request waits for the store.
            self.publish_state();
            let wait = self.common_wait();
            let Some(shared) = &mut self.sharing.0 else { return };
            match report {
                CallReport::None => {}
                CallReport::Issued(token, sent) => shared.renewal.publish(token, sent).await,
                CallReport::Failed(refused) => {
                    let refused = shared.proof.as_ref().filter(|_| refused);
                    shared.renewal.fail(wait, refused).await;
                }
            }
        }

        /// The time for which no replica tries again after a failure.
        fn common_wait(&self) -> Duration {
            let now = Instant::now();
            let left = |time: Option<Instant>| {
                time.map_or(Duration::ZERO, |time| time.saturating_duration_since(now))
            };
            let wait = left(self.schedule.next());
            let usable = self.writer.held().is_some_and(|held| held.is_usable(Moment::now()));
            // Requests of other replicas find no token either: none of them waits longer than for its own
            // call.
            let wait = if usable { wait } else { wait.min(MAX_BACKOFF_ON_DEMAND) };
            wait.max(left(self.schedule.blocked_until()))
        }
    }
}

/// There are none.
#[cfg(not(feature = "share"))]
#[expect(clippy::unused_async, reason = "the same methods as with other replicas")]
impl<F: Fetch> Refresher<F> {
    pub(crate) async fn follow(&mut self) {}

    pub(crate) async fn may_request(&mut self) -> bool {
        true
    }

    pub(crate) async fn announce_handover(&mut self) {}

    pub(crate) async fn report(&mut self, _: CallReport) {}
}
