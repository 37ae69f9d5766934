//! Wall-clock time as text.

use std::time::{Duration, UNIX_EPOCH};

/// A time in the format of HTTP dates (RFC 9110, section 5.6.7), from milliseconds since 1970.
pub(crate) fn http_date(millis: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(millis))
}
