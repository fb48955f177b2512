//! The usable life of a token, from the expiry that its server states.
//!
//! Life counts from the moment the token request was *sent*: the server cannot have started it
//! earlier, so our end never lies behind the server's.

use std::time::{Duration, SystemTime};

use super::token_response::IssuedToken;

/// Longest life that is trusted.
pub const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Largest difference between relative and absolute expiry that counts as agreement.
const TOLERANCE: Duration = Duration::from_secs(60);
/// `Date` counts whole seconds, so it may lie this much before the request was sent.
const DATE_RESOLUTION: Duration = Duration::from_secs(1);

/// The usable life of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Time from the sending of the request; zero for a token that has ended already.
    pub life: Duration,
    /// The difference between the two stated expiries where it exceeds 60 s; the relative one counts.
    pub disagreement: Option<Duration>,
}

/// Computes the life of a token from its answer and the times of sending and receipt; `default` is for
/// an answer without expiry.
pub fn lifetime(
    issued: &IssuedToken,
    sent: SystemTime,
    received: SystemTime,
    default: Duration,
) -> Lifetime {
    let absolute = issued.expires_at.map(|end| left(end, issued.date, sent, received));
    match (issued.expires_in, absolute) {
        (None, None) => settled(default, None),
        (Some(relative), None) => settled(relative, None),
        (None, Some(absolute)) => settled(absolute.unwrap_or_default(), None),
        (Some(relative), Some(Ok(absolute))) => reconcile(relative, absolute),
        // An expiry in the past proves a wrong clock, so that the two never count as agreeing.
        (Some(relative), Some(Err(past))) => settled(relative, Some(relative.saturating_add(past))),
    }
}

fn settled(life: Duration, disagreement: Option<Duration>) -> Lifetime {
    let disagreement = disagreement.filter(|by| *by > TOLERANCE);
    Lifetime { life: life.min(MAX_LIFE), disagreement }
}

/// The earlier of both. If they differ so much that one must be wrong, the relative one, because it
/// does not depend on a clock.
fn reconcile(relative: Duration, absolute: Duration) -> Lifetime {
    let apart = relative.abs_diff(absolute);
    let life = if apart > TOLERANCE { relative } else { relative.min(absolute) };
    settled(life, Some(apart))
}

/// The time from `sent` to an absolute expiry; `Err` holds the age of an expiry in the past.
///
/// A `Date` within the call means that the clocks agree, and ours, which is finer, is used. Otherwise
/// the server's own clock is the reference.
fn left(
    end: SystemTime,
    date: Option<SystemTime>,
    sent: SystemTime,
    received: SystemTime,
) -> Result<Duration, Duration> {
    let start = match date {
        Some(date) if !within(date, sent, received) => date,
        _ => sent,
    };
    end.duration_since(start).map_err(|error| error.duration())
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
            expires_at: expires_at.map(at),
            refresh_token: None,
            scope: None,
            date: date.map(at),
        }
    }

    #[test]
    fn table() {
        let day = 86_400;
        // expires_in, expires_at, Date -> life, disagreement; the call took two seconds.
        for (expires_in, expires_at, date, life, disagreement) in [
            (None, None, None, 300, None),
            (Some(3600), None, None, 3600, None),
            (Some(30 * day), None, None, day, None),
            (None, Some(SENT + 600), None, 600, None),
            (None, Some(SENT + 30 * day), None, day, None),
            // The earlier of both.
            (Some(3600), Some(SENT + 3590), None, 3590, None),
            (Some(3600), Some(SENT + 3660), None, 3600, None),
            // More than a minute apart: the relative one wins.
            (Some(3600), Some(SENT + 3661), None, 3600, Some(61)),
            (Some(3600), Some(SENT + 100), None, 3600, Some(3500)),
            (Some(3600), Some(SENT - 100), None, 3600, Some(3700)),
            (Some(10), Some(SENT - 10), None, 10, None),
            // A server clock that is an hour off is corrected by Date, either way.
            (Some(3600), Some(SENT + 3595 + 3600), Some(SENT + 3600), 3595, None),
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
            let expected = Lifetime { life: secs(life), disagreement: disagreement.map(secs) };
            assert_eq!(found, expected, "{expires_in:?} {expires_at:?} {date:?}");
        }
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
