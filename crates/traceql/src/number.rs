//! Numbers and durations: `3`, `1.5`, `1e3`, `1h30m`, `1.5s`, `100us`.

use crate::ast::Static;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000 * MICRO;
const SECOND: u64 = 1_000 * MILLI;
const DAY: u64 = 24 * 3600 * SECOND;

/// Prometheus' units, in the only order in which it takes them, each at most once.
const PROMETHEUS_UNITS: [(&str, u64); 7] = [
    ("y", 365 * DAY),
    ("w", 7 * DAY),
    ("d", DAY),
    ("h", 3600 * SECOND),
    ("m", 60 * SECOND),
    ("s", SECOND),
    ("ms", MILLI),
];

/// Go's units. The micro sign has two code points.
const GO_UNITS: [(&str, u64); 8] = [
    ("h", 3600 * SECOND),
    ("m", 60 * SECOND),
    ("s", SECOND),
    ("ms", MILLI),
    ("us", MICRO),
    ("\u{b5}s", MICRO),
    ("\u{3bc}s", MICRO),
    ("ns", 1),
];

/// Reads a token that starts with a digit, or with a dot and a digit.
pub(crate) fn parse(text: &str) -> Result<Static, String> {
    if text.bytes().all(|c| c.is_ascii_digit()) {
        return match text.parse() {
            Ok(int) => Ok(Static::Int(int)),
            Err(_) => Err(format!("integer {text} does not fit in 64 bits")),
        };
    }
    let is_float = text.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'.' | b'e' | b'E' | b'+' | b'-'));
    if is_float
        && let Ok(float) = text.parse::<f64>()
        && float.is_finite()
    {
        return Ok(Static::Float(float));
    }
    match prometheus_duration(text).or_else(|| go_duration(text)) {
        Some(nanos) => Ok(Static::Duration(nanos)),
        None => Err(format!("{text} is neither a number nor a duration")),
    }
}

/// A number and the unit behind it, taken off the front.
fn leading_part(text: &str) -> Option<(&str, &str, &str)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(unit_at);
    let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_len);
    Some((number, unit, rest))
}

fn prometheus_duration(text: &str) -> Option<i64> {
    let mut units = PROMETHEUS_UNITS.iter();
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, unit, after) = leading_part(rest)?;
        let (_, nanos) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*nanos)?)?;
        rest = after;
    }
    i64::try_from(total).ok()
}

fn go_duration(text: &str) -> Option<i64> {
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, unit, after) = leading_part(rest)?;
        let (_, nanos) = GO_UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(*nanos)?)?.checked_add(fraction_nanos(fraction, *nanos)?)?;
        rest = after;
    }
    i64::try_from(total).ok()
}

/// `0.fraction` of `nanos`, exact and rounded down; digits beyond the 18th do not count.
fn fraction_nanos(fraction: &str, nanos: u64) -> Option<u64> {
    const SCALE: u128 = 10_u128.pow(18);
    let mut digit_value = u128::from(nanos) * SCALE;
    let mut sum: u128 = 0;
    for digit in fraction.chars() {
        digit_value /= 10;
        sum += u128::from(digit.to_digit(10)?) * digit_value;
    }
    u64::try_from(sum / SCALE).ok()
}

/// Go's way to write a duration: `1h30m0s`, `1.5s`, `250ms`, `0s`.
pub(crate) fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < SECOND {
        let (unit, size) = match nanos {
            0..MICRO => ("ns", 1),
            MICRO..MILLI => ("\u{b5}s", MICRO),
            _ => ("ms", MILLI),
        };
        return format!("{sign}{}{unit}", decimal(nanos, size));
    }
    let (hours, minutes) = (nanos / (3600 * SECOND), nanos / (60 * SECOND) % 60);
    let seconds = decimal(nanos % (60 * SECOND), SECOND);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / size` with as many decimals as it needs; `size` is a power of ten.
fn decimal(value: u64, size: u64) -> String {
    let fraction = value % size;
    if fraction == 0 {
        return (value / size).to_string();
    }
    let width = size.ilog10() as usize;
    format!("{}.{}", value / size, format!("{fraction:0width$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let got = match parse(text) {
            Ok(Static::Duration(nanos)) => format!("{nanos}ns = {}", format_duration(nanos)),
            Ok(value) => format!("{value:?}"),
            Err(message) => message,
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn numbers_are_integers_floats_or_durations() {
        check("0", "Int(0)");
        check("007", "Int(7)");
        check("9223372036854775807", "Int(9223372036854775807)");
        check("9223372036854775808", "integer 9223372036854775808 does not fit in 64 bits");
        check("1.5", "Float(1.5)");
        check(".5", "Float(0.5)");
        check("1.", "Float(1.0)");
        check("1e3", "Float(1000.0)");
        check("1e-3", "Float(0.001)");
        check("1e999", "1e999 is neither a number nor a duration");
        check("0x10", "0x10 is neither a number nor a duration");
        check("1_000", "1_000 is neither a number nor a duration");
    }

    #[test]
    fn durations_are_those_of_prometheus_and_of_go() {
        check("5ns", "5ns = 5ns");
        check("100us", "100000ns = 100\u{b5}s");
        check("3\u{b5}s", "3000ns = 3\u{b5}s");
        check("1.5s", "1500000000ns = 1.5s");
        check("1h30m", "5400000000000ns = 1h30m0s");
        check("2d", "172800000000000ns = 48h0m0s");
        check("1y", "31536000000000000ns = 8760h0m0s");
        check("1m1h", "3660000000000ns = 1h1m0s");
        check("1d1.5s", "1d1.5s is neither a number nor a duration");
        check("1.123456789123s", "1123456789ns = 1.123456789s");
        check("300y", "300y is neither a number nor a duration");
        check("5parsecs", "5parsecs is neither a number nor a duration");
    }
}
