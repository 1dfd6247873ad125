//! The time that a query of Tempo's is about: `start` and `end`, or `since`, or neither.
//!
//! Neither means all that is kept, up to now: Spoor hides nothing (Tempo looks at fifteen minutes and
//! leaves out the newest half minute; see `DEVIATIONS.md`).

use spoor_model::{TimeRange, UnixNano};

use crate::error::ApiError;
use crate::go_duration;
use crate::params::Params;

const SECOND: u64 = 1_000_000_000;

/// How a time may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// Whole seconds since the epoch.
    Seconds,
    /// Also nanoseconds (more than ten digits) and seconds with a fraction.
    SecondsOrNanos,
}

/// Reads the range. Both ends belong to it; `end` covers the whole second that it names, so that a
/// search up to "now" finds what came in during the current second.
pub(crate) fn from_params(params: &Params, times: Times, now: UnixNano) -> Result<TimeRange, ApiError> {
    if let Some(text) = params.get("since") {
        let since = go_duration::parse_prometheus(text)
            .ok_or_else(|| ApiError::invalid(format!("invalid since {text:?}: not a duration such as 1h")))?;
        return Ok(TimeRange { start: UnixNano(now.0.saturating_sub(since)), end: now });
    }
    let start = params.get("start").map(|text| instant("start", text, times)).transpose()?;
    let end = params.get("end").map(|text| instant("end", text, times)).transpose()?;
    match (start, end) {
        // Clients that write numbers without looking send zeros for "not given".
        (None, None) | (Some((0, _)), Some((0, _))) => Ok(TimeRange::ALL),
        (Some((start, _)), Some((end, end_covers))) if start < end => {
            Ok(TimeRange { start: UnixNano(start), end: UnixNano(end.saturating_add(end_covers)) })
        }
        (Some(_), Some(_)) => Err(ApiError::invalid("invalid end: it must be after start")),
        _ => Err(ApiError::invalid("start and end must be given together")),
    }
}

/// An instant in nanoseconds, and how many more its notation covers.
fn instant(name: &str, text: &str, times: Times) -> Result<(u64, u64), ApiError> {
    let invalid = || {
        let expected = match times {
            Times::Seconds => "seconds since 1970",
            Times::SecondsOrNanos => "seconds or nanoseconds since 1970",
        };
        ApiError::invalid(format!("invalid {name} {text:?}: expected {expected}"))
    };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match times {
        Times::Seconds if is_number => {
            let seconds: u32 = text.parse().map_err(|_| invalid())?;
            Ok((u64::from(seconds) * SECOND, SECOND - 1))
        }
        Times::SecondsOrNanos if is_number && text.len() <= 10 => {
            let seconds: u64 = text.parse().map_err(|_| invalid())?;
            Ok((seconds * SECOND, SECOND - 1))
        }
        Times::SecondsOrNanos if is_number => Ok((text.parse().map_err(|_| invalid())?, 0)),
        Times::SecondsOrNanos => {
            let seconds: f64 = text.parse().map_err(|_| invalid())?;
            if !seconds.is_finite() || seconds < 0.0 {
                return Err(invalid());
            }
            Ok(((seconds * 1e9) as u64, 0))
        }
        Times::Seconds => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNano = UnixNano(1_700_000_000 * SECOND + 5);

    fn range(query: &str, times: Times) -> Result<(u64, u64), String> {
        let range = from_params(&Params::parse(Some(query)), times, NOW).map_err(|err| err.message)?;
        Ok((range.start.0, range.end.0))
    }

    #[test]
    fn without_times_everything_is_asked() {
        assert_eq!(range("start=&end=", Times::Seconds), Ok((0, u64::MAX)));
        assert_eq!(range("start=0&end=0", Times::Seconds), Ok((0, u64::MAX)));
    }

    #[test]
    fn the_end_covers_its_whole_second_and_since_ends_now() {
        assert_eq!(range("start=10&end=20", Times::Seconds), Ok((10 * SECOND, 21 * SECOND - 1)));
        assert_eq!(range("since=1h&start=3", Times::Seconds), Ok((NOW.0 - 3600 * SECOND, NOW.0)));
        assert_eq!(range("start=1.5&end=1700000000000000000", Times::SecondsOrNanos), Ok((1_500_000_000, NOW.0 - 5)));
    }

    #[test]
    fn odd_times_are_refused() {
        for query in ["start=1", "end=1", "start=2&end=2", "start=3&end=2", "start=a&end=2", "start=1.5&end=2"] {
            assert!(range(query, Times::Seconds).is_err(), "{query}");
        }
        assert!(range("start=1&end=4294967296", Times::Seconds).is_err());
        assert!(range("since=yesterday", Times::Seconds).is_err());
        assert!(range("start=NaN&end=9", Times::SecondsOrNanos).is_err());
    }
}
