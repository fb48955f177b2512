//! Pure: what upstreams said against our tokens, so that a refused token is renewed, but not without
//! end. Time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// So many refused tokens within one life mean that somebody else revokes ours.
const CONTENDED: usize = 3;
/// Pause before another renewal for a refused token, once it is contended.
const COOL_DOWN: Duration = Duration::from_secs(30);

/// What was said against the tokens of one cell.
#[derive(Debug, Default)]
pub(super) struct RejectionHistory {
    /// When tokens were refused, one entry for each, within the last life.
    times: VecDeque<Instant>,
    /// The last generation that was refused.
    generation: u64,
    /// The last generation for which the server had nothing newer.
    same_token_generation: u64,
    cooling_until: Option<Instant>,
}

/// What follows from a token's having been refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RejectionResponse {
    /// It is renewed now.
    First,
    /// It was known already.
    Again,
    /// It is renewed then: somebody else revokes ours.
    Contended(Instant),
}

impl RejectionHistory {
    /// The token of this generation was refused; tokens live for `life`.
    pub(super) fn add(
        &mut self,
        generation: u64,
        now: Instant,
        life: Duration,
    ) -> RejectionResponse {
        if generation == self.generation {
            return RejectionResponse::Again;
        }
        // Whatever the server gave before, it has not heard of the refusal yet.
        (self.generation, self.same_token_generation) = (generation, 0);
        self.times.retain(|time| *time + life > now);
        self.times.push_back(now);
        if self.times.len() < CONTENDED {
            return RejectionResponse::First;
        }
        while self.times.len() > CONTENDED {
            self.times.pop_front();
        }
        let until = now + COOL_DOWN;
        self.cooling_until = Some(until);
        RejectionResponse::Contended(until)
    }

    /// Whether the token of this generation was refused.
    pub(super) fn is_rejected(&self, generation: u64) -> bool {
        self.generation == generation
    }

    /// The server gave the token of this generation once more.
    pub(super) fn same_token_again(&mut self, generation: u64) {
        self.same_token_generation = generation;
    }

    /// The last generation for which the server had nothing newer, if it was refused; else 0.
    pub(super) fn same_token_generation(&self) -> u64 {
        if self.is_rejected(self.same_token_generation) { self.same_token_generation } else { 0 }
    }

    /// Before this no token is renewed for having been refused.
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
            (1, 0, RejectionResponse::First),
            (1, 1, RejectionResponse::Again),
            (2, 10, RejectionResponse::First),
            (2, 10, RejectionResponse::Again),
            (3, 20, RejectionResponse::Contended(at(50))),
            (3, 21, RejectionResponse::Again),
            (4, 60, RejectionResponse::Contended(at(90))),
            // All but the last were more than a life ago.
            (5, 160, RejectionResponse::First),
        ] {
            assert_eq!(
                rejections.add(generation, at(second), life),
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
        rejections.add(1, Instant::now(), COOL_DOWN);
        assert_eq!(rejections.same_token_generation(), 0, "the server has not been asked since");
        rejections.same_token_again(1);
        assert_eq!(rejections.same_token_generation(), 1);
    }
}
