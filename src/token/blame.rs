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
pub(super) struct Blames {
    /// When tokens were refused, one entry for each, within the last life.
    times: VecDeque<Instant>,
    /// The last generation that was refused.
    generation: u64,
    /// The last generation for which the server had nothing newer.
    unrenewed: u64,
    cooling_until: Option<Instant>,
}

/// What follows from a token's having been refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// It is renewed now.
    First,
    /// It was known already.
    Again,
    /// It is renewed then: somebody else revokes ours.
    Contended(Instant),
}

impl Blames {
    /// The token of this generation was refused; tokens live for `life`.
    pub(super) fn add(&mut self, generation: u64, now: Instant, life: Duration) -> Blame {
        if generation == self.generation {
            return Blame::Again;
        }
        // Whatever the server gave before, it has not heard of the refusal yet.
        (self.generation, self.unrenewed) = (generation, 0);
        self.times.retain(|time| *time + life > now);
        self.times.push_back(now);
        if self.times.len() < CONTENDED {
            return Blame::First;
        }
        while self.times.len() > CONTENDED {
            self.times.pop_front();
        }
        let until = now + COOL_DOWN;
        self.cooling_until = Some(until);
        Blame::Contended(until)
    }

    /// Whether the token of this generation was refused.
    pub(super) fn blames(&self, generation: u64) -> bool {
        self.generation == generation
    }

    /// The server gave the token of this generation once more.
    pub(super) fn unrenewed(&mut self, generation: u64) {
        self.unrenewed = generation;
    }

    /// The last generation for which the server had nothing newer, if it was refused; else 0.
    pub(super) fn unrenewed_generation(&self) -> u64 {
        if self.blames(self.unrenewed) { self.unrenewed } else { 0 }
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
        let (mut blames, start, life) = (Blames::default(), Instant::now(), COOL_DOWN * 4);
        let at = |seconds| start + Duration::from_secs(seconds);
        for (generation, second, expected) in [
            (1, 0, Blame::First),
            (1, 1, Blame::Again),
            (2, 10, Blame::First),
            (2, 10, Blame::Again),
            (3, 20, Blame::Contended(at(50))),
            (3, 21, Blame::Again),
            (4, 60, Blame::Contended(at(90))),
            // All but the last were more than a life ago.
            (5, 160, Blame::First),
        ] {
            assert_eq!(blames.add(generation, at(second), life), expected, "{generation} {second}");
        }
        assert!(blames.blames(5) && !blames.blames(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_given_again_counts_only_if_it_was_refused() {
        let mut blames = Blames::default();
        blames.unrenewed(1);
        assert_eq!(blames.unrenewed_generation(), 0);
        blames.add(1, Instant::now(), COOL_DOWN);
        assert_eq!(blames.unrenewed_generation(), 0, "the server has not been asked since");
        blames.unrenewed(1);
        assert_eq!(blames.unrenewed_generation(), 1);
    }
}
