//! Numbers and times in JSON values, as token servers write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

/// Largest absolute time in seconds; a greater number is milliseconds. It lies beyond the year 5000.
const MAX_EPOCH_SECONDS: u64 = 100_000_000_000;
/// Longest duration that is read, a hundred years, so that sums cannot overflow.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// A time: seconds or milliseconds since 1970, an HTTP date, or an ISO 8601 date.
pub(super) fn time(value: &Value) -> Option<SystemTime> {
    match whole_number(value) {
        Some(0) => None,
        Some(number) => UNIX_EPOCH.checked_add(since_epoch(number)),
        None => date_time(value.as_str()?.trim_ascii()),
    }
}

fn since_epoch(number: u64) -> Duration {
    let since = if number > MAX_EPOCH_SECONDS {
        Duration::from_millis(number)
    } else {
        Duration::from_secs(number)
    };
    since.min(MAX_DURATION * 2)
}

/// An HTTP date (RFC 9110 section 5.6.7), the date of a mail (RFC 5322 section 3.3), or an ISO 8601
/// date and time, which is UTC unless it states an offset.
pub(super) fn date_time(text: &str) -> Option<SystemTime> {
    if let Ok(time) = httpdate::parse_http_date(text) {
        return Some(time);
    }
    let with_offset = || text.parse::<Timestamp>().ok();
    let mail = || jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    with_offset().or_else(mail).or_else(|| utc(text)).map(SystemTime::from)
}

/// A date and time without an offset.
fn utc(text: &str) -> Option<Timestamp> {
    let bare =
        text.strip_suffix("UTC").or_else(|| text.strip_suffix("GMT")).unwrap_or(text).trim_end();
    // A zone in brackets would be skipped, and its offset with it.
    let time = bare.parse::<DateTime>().ok().filter(|_| !bare.contains('['))?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// A number that is not negative, written as a number or as a string; a fraction is cut off.
pub(super) fn whole_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| whole_float(number.as_f64()?)),
        Value::String(text) => {
            let text = text.trim_ascii();
            let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            text.parse().ok().or_else(|| whole_float(text.parse().ok().filter(|_| numeric)?))
        }
        _ => None,
    }
}

fn whole_float(number: f64) -> Option<u64> {
    // The cast saturates, and what is that large is capped by all callers.
    (number.is_finite() && number >= 0.0).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", at(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", at(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", at(784_111_777)),
            ("Sun, 06 Nov 1994 09:49:37 +0100", at(784_111_777)),
            ("1994-11-06T08:49:37Z", at(784_111_777)),
            ("1994-11-06T09:49:37+01:00", at(784_111_777)),
            ("1994-11-06T09:49:37+0100", at(784_111_777)),
            ("1994-11-06t08:49:37z", at(784_111_777)),
            ("1994-11-06 08:49:37", at(784_111_777)),
            ("1994-11-06 08:49:37 UTC", at(784_111_777)),
            ("1994-11-06T08:49:37", at(784_111_777)),
            ("19941106T084937Z", at(784_111_777)),
            ("1994-11-06", at(784_080_000)),
            ("2027-01-15T08:00:00[Europe/Berlin]", None),
            ("2027-13-15", None),
            ("15.01.2027", None),
            ("", None),
        ] {
            assert_eq!(date_time(text), expected, "{text}");
        }
        let fraction = date_time("1994-11-06T08:49:37.500Z").unwrap();
        assert_eq!(Some(fraction), at(784_111_777).map(|time| time + Duration::from_millis(500)));
    }
}
