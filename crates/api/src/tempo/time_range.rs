//! The time that a query of Tempo's is about: `start` and `end`, or `since`, or neither.
//!
//! Neither means all that is kept, up to now: Spoor hides nothing (Tempo looks at fifteen minutes and
//! leaves out the newest half minute; see `DEVIATIONS.md`).

use spoor_model::{TimeRange, UnixNano, rfc3339};

use crate::error::ApiError;
use crate::go_duration;
use crate::params::Params;

const SECOND: u64 = 1_000_000_000;

/// How a time may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// Whole seconds since the epoch.
    Seconds,
    /// Also nanoseconds (more than ten digits), seconds with a fraction, and RFC 3339.
    Any,
}

/// Reads the range. Both ends belong to it; `end` covers the whole second that it names, so that a
/// search up to "now" finds what came in during the current second.
pub(crate) fn from_params(params: &Params, times: Times, now: UnixNano) -> Result<TimeRange, ApiError> {
    if let Some(since) = since(params)? {
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

/// How long a metrics query without `start` and `since` looks back.
const METRICS_SINCE: u64 = 3600 * SECOND;

/// Reads the range of a metrics query: `end` is now unless given, `start` lies `since` (an hour) before that.
///
/// A past range is exactly what was asked. But a second that is not over yet is covered up to now: clients
/// that write whole seconds and ask "until now" see what has just come in.
pub(crate) fn of_metrics(params: &Params, now: UnixNano) -> Result<TimeRange, ApiError> {
    let start = params.get("start").map(|text| instant("start", text, Times::Any)).transpose()?;
    let end = params.get("end").map(|text| instant("end", text, Times::Any)).transpose()?;
    let since = since(params)?.unwrap_or(METRICS_SINCE);
    let end = match end {
        None => now.0,
        Some((end, covers)) if end <= now.0 && now.0 - end <= covers => now.0,
        Some((end, _)) => end,
    };
    let start = start.map_or_else(|| end.min(now.0).saturating_sub(since), |(start, _)| start);
    if start >= end {
        return Err(ApiError::invalid("invalid end: it must be after start"));
    }
    Ok(TimeRange { start: UnixNano(start), end: UnixNano(end) })
}

/// `since` in nanoseconds.
fn since(params: &Params) -> Result<Option<u64>, ApiError> {
    let Some(text) = params.get("since") else { return Ok(None) };
    match go_duration::parse_prometheus(text) {
        Some(since) => Ok(Some(since)),
        None => Err(ApiError::invalid(format!("invalid since {text:?}: not a duration such as 1h"))),
    }
}

/// A time as metrics and tags take it: seconds or nanoseconds since 1970, seconds with a fraction, RFC 3339.
pub fn parse_time(text: &str) -> Option<UnixNano> {
    instant("", text, Times::Any).ok().map(|(nanos, _)| UnixNano(nanos))
}

/// An instant in nanoseconds, and how many more its notation covers.
fn instant(name: &str, text: &str, times: Times) -> Result<(u64, u64), ApiError> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let instant = match times {
        Times::Seconds if is_number => {
            text.parse::<u32>().ok().map(|seconds| (u64::from(seconds) * SECOND, SECOND - 1))
        }
        Times::Seconds => None,
        Times::Any if is_number && text.len() <= 10 => {
            text.parse::<u64>().ok().map(|seconds| (seconds * SECOND, SECOND - 1))
        }
        Times::Any if is_number => text.parse().ok().map(|nanos| (nanos, 0)),
        Times::Any => match text.parse::<f64>() {
            Ok(seconds) => {
                (seconds.is_finite() && (0.0..1.8e10).contains(&seconds)).then_some(((seconds * 1e9) as u64, 0))
            }
            Err(_) => rfc3339::parse(text).map(|time| (time.0, 0)),
        },
    };
    instant.ok_or_else(|| {
        let expected = match times {
            Times::Seconds => "seconds since 1970",
            Times::Any => "seconds or nanoseconds since 1970, or a time such as 2026-01-02T15:04:05Z",
        };
        ApiError::invalid(format!("invalid {name} {text:?}: expected {expected}"))
    })
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
        assert_eq!(range("start=1.5&end=1700000000000000000", Times::Any), Ok((1_500_000_000, NOW.0 - 5)));
    }

    #[test]
    fn metrics_end_now_and_reach_back_an_hour_unless_told_otherwise() {
        let metrics = |query: &str| {
            let range = of_metrics(&Params::parse(Some(query)), NOW).map_err(|err| err.message)?;
            Ok::<_, String>((range.start.0, range.end.0))
        };
        let hour = 3600 * SECOND;
        assert_eq!(metrics(""), Ok((NOW.0 - hour, NOW.0)));
        assert_eq!(metrics("since=2m"), Ok((NOW.0 - 120 * SECOND, NOW.0)));
        assert_eq!(metrics("start=100&end=200"), Ok((100 * SECOND, 200 * SECOND)));
        assert_eq!(metrics("start=100&end=1700000000"), Ok((100 * SECOND, NOW.0)), "this second is not over");
        assert_eq!(metrics("start=100&end=1700000060").unwrap().1, 1_700_000_060 * SECOND);
        assert_eq!(metrics("end=10000").unwrap(), (6400 * SECOND, 10_000 * SECOND));
        assert_eq!(metrics("start=1&end=50000000000"), Ok((SECOND, 50 * SECOND)));
        assert!(metrics("start=5&end=5").is_err());
    }

    #[test]
    fn odd_times_are_refused() {
        for query in ["start=1", "end=1", "start=2&end=2", "start=3&end=2", "start=a&end=2", "start=1.5&end=2"] {
            assert!(range(query, Times::Seconds).is_err(), "{query}");
        }
        assert!(range("start=1&end=4294967296", Times::Seconds).is_err());
        assert!(range("since=yesterday", Times::Seconds).is_err());
        assert!(range("start=NaN&end=9", Times::Any).is_err());
    }
}
