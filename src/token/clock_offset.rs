//! The difference of this machine's clock from a server's.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::DATE;

/// The difference of this machine's clock from a server's, whose `Date` (RFC 9110 section 6.6.1) counts
/// whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockOffset {
    /// Our clock is behind by this much.
    Behind(Duration),
    /// Our clock is ahead by this much.
    Ahead(Duration),
}

impl ClockOffset {
    /// The difference by the `Date` of an answer; `None` if it has none that can be read.
    pub(super) fn of(headers: &HeaderMap, now: SystemTime) -> Option<Self> {
        let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
        Some(match date.duration_since(now) {
            Ok(behind) => Self::Behind(behind),
            Err(ahead) => Self::Ahead(ahead.duration()),
        })
    }

    /// The absolute value.
    #[must_use]
    pub fn abs(self) -> Duration {
        match self {
            Self::Behind(apart) | Self::Ahead(apart) => apart,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_date_of_an_answer_is_compared() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let answer =
            |date: &'static str| HeaderMap::from_iter([(DATE, HeaderValue::from_static(date))]);
        let epoch = answer("Thu, 01 Jan 1970 00:01:40 GMT");
        assert_eq!(
            ClockOffset::of(&epoch, at(40)),
            Some(ClockOffset::Behind(Duration::from_secs(60)))
        );
        assert_eq!(
            ClockOffset::of(&epoch, at(130)),
            Some(ClockOffset::Ahead(Duration::from_secs(30)))
        );
        assert_eq!(ClockOffset::of(&answer("yesterday"), at(0)), None);
        assert_eq!(ClockOffset::of(&HeaderMap::new(), at(0)), None);
    }
}
