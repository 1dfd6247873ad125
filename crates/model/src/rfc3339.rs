//! Times as RFC 3339 has them (section 5.6): `2026-01-02T15:04:05.678Z`.

use crate::UnixNano;

const SECOND: i64 = 1_000_000_000;

/// Reads a time with upper-case letters, up to nine digits of a second and any offset. `None` for others,
/// for times before 1970 and after 2262.
pub fn parse(text: &str) -> Option<UnixNano> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !separators.iter().all(|(at, expected)| text.as_bytes().get(*at) == Some(expected)) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone_at = 19 + text.get(19..)?.find(['Z', '+', '-'])?;
    let nanos = match text[19..zone_at].strip_prefix('.') {
        None if zone_at == 19 => 0,
        Some(digits) if (1..=9).contains(&digits.len()) => format!("{digits:0<9}").parse().ok()?,
        _ => return None,
    };
    let offset_minutes = match &text[zone_at..] {
        "Z" => 0,
        zone if zone.len() == 6 && zone.as_bytes()[3] == b':' => {
            let minutes = number(zone_at + 1..zone_at + 3)? * 60 + number(zone_at + 4..zone_at + 6)?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
        _ => return None,
    };
    let minutes = (days_since_1970(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    let nanos = (minutes * 60 + second).checked_mul(SECOND)?.checked_add(nanos)?;
    u64::try_from(nanos).ok().map(UnixNano)
}

/// Writes a time to the millisecond, in UTC.
pub fn format(time: UnixNano) -> String {
    let seconds = time.0 / SECOND as u64;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date((days).cast_signed());
    let millis = time.0 / 1_000_000 % 1000;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// From 1 March of the year 0, where the day that leap years add comes last, to 1970.
const DAYS_TO_1970: i64 = 719_468;
/// Days of 400 years.
const ERA: i64 = 146_097;

/// Days of the Gregorian calendar. The year is taken to begin in March: then the first five months have 153
/// days, and so do the next five.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - DAYS_TO_1970
}

/// Year, month and day of a day.
fn date(days_since_1970: i64) -> (i64, i64, i64) {
    let days = days_since_1970 + DAYS_TO_1970;
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year_of_era = (day - day / 1460 + day / 36_524 - day / (ERA - 1)) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read() {
        let nanos = |text| parse(text).map(|time| time.0);
        assert_eq!(nanos("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(nanos("2023-11-14T22:13:20Z"), Some(1_700_000_000_000_000_000));
        assert_eq!(nanos("2023-11-14T23:43:20.5+01:30"), Some(1_700_000_000_500_000_000));
        assert_eq!(nanos("2024-02-29T00:00:00Z"), Some(1_709_164_800_000_000_000));
        for text in ["", "2023-11-14", "2023-11-14 22:13:20Z", "2023-13-14T22:13:20Z", "1969-12-31T23:59:59Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("2023-11-14T22:13:20"), None);
        assert_eq!(parse("2023-11-14T22:13:20.1234567890Z"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0..9_200_000_000_000_u64) {
            let time = UnixNano(millis * 1_000_000);
            prop_assert_eq!(parse(&format(time)), Some(time));
        }

        #[test]
        fn no_text_breaks_the_reader(text in "[0-9T:Z.+-]{0,30}|.{0,30}") {
            let _ = parse(&text);
        }
    }
}
