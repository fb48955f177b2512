//! The usable life of a token, from the expiry that its server states.
//!
//! Life counts from the moment the token request was *sent*: the server cannot have started it
//! earlier, so our end never lies behind the server's.

use std::time::{Duration, SystemTime};

use super::token_response::{IssuedToken, StatedExpiry};

/// Longest life that is trusted.
pub const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);
/// An absolute expiry that is later than the relative one by more than this is taken for a mistake.
const MAX_DIFFERENCE: Duration = Duration::from_secs(24 * 3600);
/// `Date` counts whole seconds, so it may lie this much before the request was sent.
const DATE_RESOLUTION: Duration = Duration::from_secs(1);

/// The usable life of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Time from the sending of the request; zero for a token that has ended already.
    pub life: Duration,
    /// The reason why the absolute expiry does not count beside the relative one.
    pub ignored: Option<IgnoredExpiry>,
}

/// The reason why an absolute expiry does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IgnoredExpiry {
    /// It was past already.
    Past,
    /// It is more than 24 hours later than the relative one.
    TooLate,
    /// It is neither a number nor a date.
    Unreadable,
}

impl IgnoredExpiry {
    /// The reason as a word for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Past => "past",
            Self::TooLate => "too_late",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Computes the life of a token from its answer and the times of sending and receipt; `default` is for
/// an answer without expiry.
///
/// Of two expiries the earlier counts: a server may issue the same token again with its whole validity
/// beside the time of its real end. An absolute expiry that cannot be right does not count.
pub fn lifetime(
    issued: &IssuedToken,
    sent: SystemTime,
    received: SystemTime,
    default: Duration,
) -> Lifetime {
    let absolute = issued.expires_at.map(|expiry| match expiry {
        StatedExpiry::At(end) => left(end, issued.date, sent, received).ok_or(IgnoredExpiry::Past),
        StatedExpiry::Unreadable => Err(IgnoredExpiry::Unreadable),
    });
    let (life, ignored) = match (issued.expires_in, absolute) {
        (None, None) => (default, None),
        (None, Some(absolute)) => (absolute.unwrap_or_default(), None),
        (Some(relative), None) => (relative, None),
        (Some(relative), Some(Err(reason))) => (relative, Some(reason)),
        (Some(relative), Some(Ok(absolute))) => {
            let too_late = absolute > relative.saturating_add(MAX_DIFFERENCE);
            (relative.min(absolute), too_late.then_some(IgnoredExpiry::TooLate))
        }
    };
    Lifetime { life: life.min(MAX_LIFE), ignored }
}

/// The time from `sent` to an absolute expiry; `None` for one that is past.
///
/// A `Date` within the call means that the clocks agree, and ours, which is finer, is used. Otherwise
/// the server's own clock is the reference.
fn left(
    end: SystemTime,
    date: Option<SystemTime>,
    sent: SystemTime,
    received: SystemTime,
) -> Option<Duration> {
    let start = match date {
        Some(date) if !within(date, sent, received) => date,
        _ => sent,
    };
    end.duration_since(start).ok().filter(|left| !left.is_zero())
}

fn within(date: SystemTime, sent: SystemTime, received: SystemTime) -> bool {
    let earliest = sent.checked_sub(DATE_RESOLUTION).unwrap_or(sent);
    earliest <= date && date <= received
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;
    use crate::sensitive::Sensitive;

    const SENT: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn token(expires_in: Option<u64>, expires_at: Option<u64>, date: Option<u64>) -> IssuedToken {
        IssuedToken {
            access_token: Sensitive::new("x"),
            expires_in: expires_in.map(secs),
            expires_at: expires_at.map(|expiry| StatedExpiry::At(at(expiry))),
            refresh_token: None,
            scope: None,
            date: date.map(at),
        }
    }

    #[test]
    fn table() {
        let day = 86_400;
        let (past, late) = (Some(IgnoredExpiry::Past), Some(IgnoredExpiry::TooLate));
        // expires_in, expires_at, Date -> life, reason; the call took two seconds.
        for (expires_in, expires_at, date, life, ignored) in [
            (None, None, None, 300, None),
            (Some(3600), None, None, 3600, None),
            (Some(30 * day), None, None, day, None),
            (None, Some(SENT + 600), None, 600, None),
            (None, Some(SENT + 30 * day), None, day, None),
            // The earlier of both, however far they are apart.
            (Some(3600), Some(SENT + 3590), None, 3590, None),
            (Some(3600), Some(SENT + 3660), None, 3600, None),
            (Some(3600), Some(SENT + 100), None, 100, None),
            (Some(3600), Some(SENT + 1), None, 1, None),
            (Some(3600), Some(SENT + 7200), None, 3600, None),
            (Some(30 * day), Some(SENT + 600), None, 600, None),
            // Past, or more than a day later: the relative one counts.
            (Some(3600), Some(SENT - 100), None, 3600, past),
            (Some(3600), Some(SENT), None, 3600, past),
            (Some(3600), Some(SENT + 3600 + day), None, 3600, None),
            (Some(3600), Some(SENT + 3601 + day), None, 3600, late),
            // A server clock that is an hour off is corrected by Date, either way.
            (Some(3600), Some(SENT + 3595 + 3600), Some(SENT + 3600), 3595, None),
            (Some(3600), Some(SENT + 60 - 3600), Some(SENT - 3600), 60, None),
            (Some(3600), Some(SENT + 60), Some(SENT + 3600), 3600, past),
            (None, Some(SENT + 600 - 3600), Some(SENT - 3600), 600, None),
            // Date within the call: the clocks agree, and the absolute end is taken as it is.
            (None, Some(SENT + 600), Some(SENT + 2), 600, None),
            (None, Some(SENT + 600), Some(SENT - 1), 600, None),
            // Ended before it began.
            (None, Some(SENT - 1), None, 0, None),
            // Both beyond a day, and equal.
            (Some(30 * day), Some(SENT + 30 * day), None, day, None),
        ] {
            let found =
                lifetime(&token(expires_in, expires_at, date), at(SENT), at(SENT + 2), secs(300));
            let expected = Lifetime { life: secs(life), ignored };
            assert_eq!(found, expected, "{expires_in:?} {expires_at:?} {date:?}");
        }
        let mut unreadable = token(Some(3600), None, None);
        unreadable.expires_at = Some(StatedExpiry::Unreadable);
        let found = lifetime(&unreadable, at(SENT), at(SENT + 2), secs(300));
        let ignored = Some(IgnoredExpiry::Unreadable);
        assert_eq!(found, Lifetime { life: secs(3600), ignored });
    }

    proptest! {
        #[test]
        fn never_longer_than_stated_nor_than_a_day(
            expires_in in prop::option::of(1u64..u64::MAX / 2),
            expires_at in prop::option::of(0u64..1 << 40),
            date in prop::option::of(0u64..1 << 40),
            sent in 0u64..1 << 40,
            took in 0u64..100,
        ) {
            let issued = token(expires_in, expires_at, date);
            let found = lifetime(&issued, at(sent), at(sent + took), secs(300));
            prop_assert!(found.life <= MAX_LIFE);
            prop_assert!(expires_in.is_none_or(|stated| found.life <= secs(stated)));
        }
    }
}
