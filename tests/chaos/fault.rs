//! What a bank does with a request, drawn by seed, request and arrival, so that the oracle knows it
//! without being told.

/// What a bank does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A whole answer.
    None,
    /// The same in chunks.
    Chunked,
    /// The same after a few milliseconds.
    Slow,
    /// The same after many informational ones.
    Informed,
    /// The same, and bytes after it that look like an answer to the next request.
    Poisoned,
    /// The same, and then the end of the connection, announced or not.
    Closing { announced: bool },
    /// The same before the body of the request is read.
    Early,
    /// The same, and a reset while the request may still be under way.
    EarlyReset,
    /// A whole answer of failure.
    Failure,
    /// The token is refused.
    Challenge,
    /// The token lacks a scope.
    Scope,
    /// Half the answer's body.
    Half { chunked: bool, reset: bool },
    /// Half the answer's body, and silence.
    Stalled,
    /// The end of the connection in place of an answer, after the head of the request or after all of
    /// it.
    Ended { early: bool, reset: bool },
    /// Half a head.
    HalfHead,
    /// No HTTP.
    Garbage,
    /// A head whose body may end in two places.
    Ambiguous,
    /// A switch of protocols.
    Upgrade,
    /// More fields than anybody needs.
    Headers,
    /// Nothing.
    Silence,
}

/// What an app must be told of a fault, if it was the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The bank's whole answer.
    Whole(u16),
    /// An answer that is seen not to be whole.
    Cut,
    /// That the exchange broke off.
    Broken,
    /// That it took too long.
    Late,
    /// It never arrived.
    Lost,
    /// Any of these but the last two, as the race may end.
    Any(u16),
}

impl Fault {
    /// What the bank does at this arrival of a request, from 1.
    pub fn drawn(seed: u64, id: usize, arrival: u8) -> Self {
        let mixed =
            seed ^ (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(arrival) << 56;
        let mut dice = fastrand::Rng::with_seed(mixed);
        let (flip, other) = (dice.bool(), dice.bool());
        match dice.u32(0..2000) {
            0..60 => Self::Slow,
            60..100 => Self::Informed,
            100..140 => Self::Poisoned,
            140..200 => Self::Closing { announced: flip },
            200..240 => Self::Early,
            240..260 => Self::EarlyReset,
            260..320 => Self::Failure,
            320..330 => Self::Challenge,
            330..350 => Self::Scope,
            350..410 => Self::Half { chunked: flip, reset: other },
            410..411 => Self::Stalled,
            411..511 => Self::Ended { early: flip, reset: other },
            511..531 => Self::HalfHead,
            531..551 => Self::Garbage,
            551..571 => Self::Ambiguous,
            571..591 => Self::Upgrade,
            591..611 => Self::Headers,
            611..612 => Self::Silence,
            612..1000 => Self::Chunked,
            _ => Self::None,
        }
    }

    /// What becomes of the request.
    pub fn fate(self) -> Fate {
        match self {
            Self::None
            | Self::Chunked
            | Self::Slow
            | Self::Informed
            | Self::Poisoned
            | Self::Closing { .. }
            | Self::Early => Fate::Whole(200),
            Self::EarlyReset => Fate::Any(200),
            Self::Failure => Fate::Whole(503),
            Self::Challenge => Fate::Whole(401),
            Self::Scope => Fate::Whole(403),
            Self::Half { .. } | Self::Stalled => Fate::Cut,
            Self::Ended { .. }
            | Self::HalfHead
            | Self::Garbage
            | Self::Ambiguous
            | Self::Upgrade
            | Self::Headers => Fate::Broken,
            Self::Silence => Fate::Late,
        }
    }
}
