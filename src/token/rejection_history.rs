//! `RejectionHistory`: the tokens that upstreams rejected, so that a rejected token is renewed, but not
//! without end. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Number of rejected tokens within one life that shows that another instance revokes ours.
const CONTENDED: usize = 3;
/// Pause before the next renewal of a rejected token, once the client is contended.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// The rejected tokens of one cell.
#[derive(Debug, Default)]
pub(super) struct RejectionHistory {
    /// The times of the rejections within the last life, one for each token.
    times: VecDeque<Instant>,
    /// The last rejected generation; 0: none.
    generation: u64,
    /// The last generation that the token server issued again; 0: none.
    same_token_generation: u64,
    cooling_until: Option<Instant>,
}

/// The reaction to a rejected token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RejectionResponse {
    /// Renew the token now.
    Renew,
    /// The rejection was reported already.
    Known,
    /// Renew the token at this time: another instance revokes ours.
    Contended(Instant),
}

impl RejectionHistory {
    /// Records that an upstream rejected the token of a generation; tokens live for `life`.
    pub(super) fn record(
        &mut self,
        generation: u64,
        now: Instant,
        life: Duration,
    ) -> RejectionResponse {
        if generation == self.generation {
            return RejectionResponse::Known;
        }
        // An equal token that the server issued earlier says nothing: only one that it issues after
        // the rejection shows that it has no newer one.
        (self.generation, self.same_token_generation) = (generation, 0);
        self.times.retain(|time| *time + life > now);
        self.times.push_back(now);
        if self.times.len() < CONTENDED {
            return RejectionResponse::Renew;
        }
        while self.times.len() > CONTENDED {
            self.times.pop_front();
        }
        let until = now + COOL_DOWN;
        self.cooling_until = Some(until);
        RejectionResponse::Contended(until)
    }

    /// Tells whether the token of a generation was rejected.
    pub(super) fn is_rejected(&self, generation: u64) -> bool {
        self.generation == generation
    }

    /// Records that the token server issued the token of a generation again.
    pub(super) fn same_token_again(&mut self, generation: u64) {
        self.same_token_generation = generation;
    }

    /// The rejected generation that the token server issued again; 0: none.
    pub(super) fn same_token_generation(&self) -> u64 {
        if self.is_rejected(self.same_token_generation) { self.same_token_generation } else { 0 }
    }

    /// The end of the pause in which no rejected token is renewed.
    pub(super) fn cooling_until(&self) -> Option<Instant> {
        self.cooling_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn three_refused_tokens_within_one_life_are_contended() {
        let (mut rejections, start, life) =
            (RejectionHistory::default(), Instant::now(), COOL_DOWN * 4);
        let at = |seconds| start + Duration::from_secs(seconds);
        for (generation, second, expected) in [
            (1, 0, RejectionResponse::Renew),
            (1, 1, RejectionResponse::Known),
            (2, 10, RejectionResponse::Renew),
            (2, 10, RejectionResponse::Known),
            (3, 20, RejectionResponse::Contended(at(50))),
            (3, 21, RejectionResponse::Known),
            (4, 60, RejectionResponse::Contended(at(90))),
            // All but the last were more than a life ago.
            (5, 160, RejectionResponse::Renew),
        ] {
            assert_eq!(
                rejections.record(generation, at(second), life),
                expected,
                "{generation} {second}"
            );
        }
        assert!(rejections.is_rejected(5) && !rejections.is_rejected(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_given_again_counts_only_if_it_was_refused() {
        let mut rejections = RejectionHistory::default();
        rejections.same_token_again(1);
        assert_eq!(rejections.same_token_generation(), 0);
        rejections.record(1, Instant::now(), COOL_DOWN);
        assert_eq!(rejections.same_token_generation(), 0, "the server has not been asked since");
        rejections.same_token_again(1);
        assert_eq!(rejections.same_token_generation(), 1);
    }
}
