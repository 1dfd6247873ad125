//! Durations as Go writes and reads them (`1h2m3.5s`, `100ms`), which both Tempo and Jaeger speak.
//!
//! Source: the documentation of `time.Duration.String` and `time.ParseDuration`.

const NANOS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Days and weeks, which Prometheus knows and Go does not.
const LONG_NANOS: [(&str, u64); 3] =
    [("d", 86_400_000_000_000), ("w", 604_800_000_000_000), ("y", 31_536_000_000_000_000)];

/// Reads a duration, not negative, in nanoseconds. `None` when it is not one or passes 584 years.
pub(crate) fn parse(text: &str) -> Option<u64> {
    match text {
        "0" => Some(0),
        _ => parse_parts(text, &[&NANOS]),
    }
}

/// Reads a duration as Prometheus does: also `d`, `w`, `y`.
pub(crate) fn parse_prometheus(text: &str) -> Option<u64> {
    match text {
        "0" => Some(0),
        _ => parse_parts(text, &[&NANOS, &LONG_NANOS]),
    }
}

fn parse_parts(text: &str, units: &[&[(&str, u64)]]) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = units.iter().copied().flatten().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(scaled(number, scale)?)?;
        rest = tail;
    }
    Some(total)
}

/// `number` (digits with at most one point) times `scale`, the fraction cut.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // 18 digits are finer than a nanosecond of the largest unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let numerator: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = u128::from(numerator) * u128::from(scale) / 10u128.pow(fraction.len() as u32);
    whole.checked_mul(scale)?.checked_add(u64::try_from(part).ok()?)
}

/// Writes a duration as Go's `%v` does: `1h0m0.5s`, `1.5ms`, `0s`.
pub(crate) fn format(nanos: u64) -> String {
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}\u{b5}s", decimal(nanos, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 6)),
        _ => format_seconds(nanos),
    }
}

/// As [`format()`], with a sign.
pub(crate) fn format_signed(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    format!("{sign}{}", format(nanos.unsigned_abs()))
}

fn format_seconds(nanos: u64) -> String {
    let minutes = nanos / 60_000_000_000;
    let seconds = decimal(nanos % 60_000_000_000, 9);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / 10^places`, without trailing zeros.
fn decimal(value: u64, places: u32) -> String {
    let unit = 10u64.pow(places);
    let fraction = value % unit;
    if fraction == 0 {
        return (value / unit).to_string();
    }
    let digits = format!("{fraction:0width$}", width = places as usize);
    format!("{}.{}", value / unit, digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("1ms", 1_000_000),
            ("1.5s", 1_500_000_000),
            ("100us", 100_000),
            ("100\u{b5}s", 100_000),
            ("1h2m3s", 3_723_000_000_000),
            ("0", 0),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("0.0000000015h", 5400),
        ] {
            assert_eq!(parse(text), Some(nanos), "{text}");
        }
        for text in ["", "1", "s", ".s", "1.2.3s", "1d", "-1s", "1 s", "99999999999h", "1ms x"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse_prometheus("2d"), Some(172_800_000_000_000));
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5\u{b5}s"),
            (2_000_000, "2ms"),
            (1_100_000_000, "1.1s"),
            (60_000_000_000, "1m0s"),
            (3_600_500_000_000, "1h0m0.5s"),
        ] {
            assert_eq!(format(nanos), text);
        }
        assert_eq!(format_signed(-1_500_000), "-1.5ms");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos in any::<u64>()) {
            prop_assert_eq!(parse(&format(nanos)), Some(nanos));
        }
    }
}
