//! The time as `Date` says it (RFC 9110 section 5.6.7), worked out once a second.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;

/// The second that was last written, and its text.
type Latest = (Duration, String);

thread_local! {
    static LATEST: RefCell<Latest> = RefCell::default();
}

/// Writes the field with the time of now.
pub fn write(out: &mut BytesMut) {
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = Duration::from_secs(since.as_secs());
    LATEST.with_borrow_mut(|(written, text)| {
        if *written != second || text.is_empty() {
            *written = second;
            *text = format!("date: {}\r\n", httpdate::HttpDate::from(now));
        }
        out.extend_from_slice(text.as_bytes());
    });
}
