//! Values with a unit: "30s", "8MiB", "80%". Errors are fixed words that do not repeat the text.

use std::ops::Bound;
use std::time::Duration;

/// The range of times of which zero would mean that nothing ever succeeds.
pub(crate) const POSITIVE: (Bound<Duration>, Bound<Duration>) =
    (Bound::Excluded(Duration::ZERO), Bound::Unbounded);

/// Reads "250ms", "30s", "5m", "1h 30m".
///
/// # Errors
/// Without a unit, negative, or longer than a year.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    let wrong =
        "a duration needs a number and a unit, such as \"250ms\", \"30s\", \"5m\" or \"1h\"";
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong);
    }
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| wrong)?;
    let duration = Duration::try_from(parsed).map_err(|_| wrong)?;
    if duration > Duration::from_secs(366 * 86_400) {
        return Err("a duration of more than a year is taken for a mistake");
    }
    Ok(duration)
}

/// Reads "64KiB", "16MiB", "1GB", "512B".
///
/// # Errors
/// Without a unit, or no size at all.
pub fn size(text: &str) -> Result<u64, &'static str> {
    let wrong = "a size needs a number and a unit, such as \"512B\", \"64KiB\" or \"16MiB\"";
    let starts = text.starts_with(|c: char| c.is_ascii_digit());
    if !starts || !text.ends_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(wrong);
    }
    text.parse::<bytesize::ByteSize>().map(|size| size.as_u64()).map_err(|_| wrong)
}

/// Writes a duration as [`duration`] reads it.
pub(super) fn written_duration(time: Duration) -> String {
    let signed = jiff::SignedDuration::try_from(time).unwrap_or(jiff::SignedDuration::MAX);
    format!("{signed:#}")
}

/// Writes a number of bytes in MiB or KiB if that is a whole number, else in B. [`size`] reads it back.
pub(super) fn written_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 2] = [(1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = |unit: &&(u64, &str)| bytes >= unit.0 && bytes.is_multiple_of(unit.0);
    match UNITS.iter().find(whole) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// Reads "80%" as 0.8.
///
/// # Errors
/// Without a percent sign, or outside 0 to 100.
pub fn share(text: &str) -> Result<f64, &'static str> {
    let wrong = "a share is written in percent, such as \"80%\"";
    let number: f64 = text.strip_suffix('%').ok_or(wrong)?.trim_end().parse().map_err(|_| wrong)?;
    if (0.0..=100.0).contains(&number) { Ok(number / 100.0) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(duration(text).ok(), millis.map(Duration::from_millis), "{text:?}");
        };
        check("250ms", Some(250));
        check("30s", Some(30_000));
        check("5m", Some(300_000));
        check("1h 30m", Some(5_400_000));
        check("0s", Some(0));
        check("30", None);
        check("-5s", None);
        check("5 s ago", None);
        check("", None);
        check("99999h", None);
        check("soon", None);
    }

    #[test]
    fn sizes_have_units() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(size(text).ok(), bytes, "{text:?}");
        check("512B", Some(512));
        check("64KiB", Some(65_536));
        check("16 MiB", Some(16_777_216));
        check("1MB", Some(1_000_000));
        check("16", None);
        check("-1KiB", None);
        check("MiB", None);
        check("", None);
    }

    #[test]
    fn sizes_are_written_as_they_are_read() {
        let check = |bytes: u64, expected: &str| {
            assert_eq!(written_size(bytes), expected);
            assert_eq!(size(expected).ok(), Some(bytes));
        };
        check(0, "0B");
        check(512, "512B");
        check(1024, "1KiB");
        check(65_534, "65534B");
        check(1 << 20, "1MiB");
        check((1 << 20) + 1024, "1025KiB");
    }

    #[test]
    fn shares_are_percent() {
        let check =
            |text: &str, share_: Option<f64>| assert_eq!(share(text).ok(), share_, "{text:?}");
        check("80%", Some(0.8));
        check("0%", Some(0.0));
        check("0.8", None);
        check("101%", None);
        check("NaN%", None);
        check("", None);
    }
}
