//! The values that settings have: how each is written, read and shown.
//!
//! Every setting arrives as text, whether from a flag, a variable or a YAML scalar, so that one
//! reader decides what `64MiB` or `168h` means.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use spoor_model::TenantId;

/// A value of a setting.
pub(crate) trait Value: Sized {
    /// What a reader of the reference sees: `duration`, `size`, ...
    const KIND: &'static str;

    /// Reads the text. The error completes the sentence "`text` ...".
    fn read(text: &str) -> Result<Self, String>;

    /// Writes what [`Self::read`] reads back.
    fn show(&self) -> String;
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// As a length in memory.
    ///
    /// # Panics
    /// When it does not fit, which needs a 32-bit machine: Spoor supports none.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).expect("sizes are 64 bits")
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SIZE_UNITS[..3].iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit));
        match binary {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Splits `12.5MiB` into its number and its unit.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

impl Value for ByteSize {
    const KIND: &'static str = "size";

    fn read(text: &str) -> Result<Self, String> {
        let bad = || "is not a size, such as 64MiB, 1.5GiB, 500KB or a number of bytes".to_owned();
        let (number, unit) = split_number(text.trim());
        let unit = unit.trim();
        if unit.is_empty() {
            return number.parse().map(Self).map_err(|_| bad());
        }
        let known = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let (_, unit_bytes) = known.ok_or_else(bad)?;
        let number: f64 = number.parse().map_err(|_| bad())?;
        let bytes = number * *unit_bytes as f64;
        // Above 2^53 a float skips whole bytes; no setting comes near.
        if bytes >= (1u64 << 53) as f64 { Err(bad()) } else { Ok(Self(bytes.round() as u64)) }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

const TIME_UNITS: [(&str, u64); 8] = [
    ("w", 604_800_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Value for Duration {
    const KIND: &'static str = "duration";

    /// Reads `168h`, `1h30m`, `1.5s` (as Go has it), `7d`, `2w` (as Prometheus has it) and `0`.
    fn read(text: &str) -> Result<Self, String> {
        let bad = || "is not a duration, such as 168h, 7d, 1h30m or 500ms".to_owned();
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        let mut nanos = 0.0;
        while !rest.is_empty() {
            let (number, unit_and_rest) = split_number(rest);
            let unit_end = unit_and_rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(unit_and_rest.len());
            let (unit, after) = unit_and_rest.split_at(unit_end);
            let (_, unit_nanos) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
            nanos += number.parse::<f64>().map_err(|_| bad())? * *unit_nanos as f64;
            rest = after;
        }
        // 250 years; beyond it nanoseconds since 1970 overflow.
        let is_sane = !text.trim().is_empty() && nanos < 8e18;
        if is_sane { Ok(Self::from_nanos(nanos.round() as u64)) } else { Err(bad()) }
    }

    fn show(&self) -> String {
        if self.is_zero() {
            return "0".to_owned();
        }
        let mut nanos = u64::try_from(self.as_nanos()).unwrap_or(u64::MAX);
        // Hours are the largest: people write retention as 168h.
        let mut text = String::new();
        for (name, unit) in &TIME_UNITS[2..] {
            if nanos >= *unit {
                text += &format!("{}{name}", nanos / unit);
                nanos %= unit;
            }
        }
        text
    }
}

impl Value for bool {
    const KIND: &'static str = "true or false";

    fn read(text: &str) -> Result<Self, String> {
        match text.trim() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("is not true or false".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u16 {
    const KIND: &'static str = "port";

    fn read(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| "is not a port (0 to 65535; 0 takes any free one)".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for usize {
    const KIND: &'static str = "count";

    fn read(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| "is not a whole number".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const KIND: &'static str = "text";

    fn read(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err("is empty".to_owned()),
            text => Ok(text.to_owned()),
        }
    }

    fn show(&self) -> String {
        self.clone()
    }
}

/// A text that need not be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OptionalText(pub String);

impl Value for OptionalText {
    const KIND: &'static str = "text";

    fn read(text: &str) -> Result<Self, String> {
        Ok(Self(text.trim().to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "path";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("is empty".to_owned()) } else { Ok(Self::from(text)) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// A path that need not be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OptionalPath(pub Option<PathBuf>);

impl Value for OptionalPath {
    const KIND: &'static str = "path";

    fn read(text: &str) -> Result<Self, String> {
        Ok(Self((!text.is_empty()).then(|| PathBuf::from(text))))
    }

    fn show(&self) -> String {
        self.0.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

/// What stands before every path of a URL: nothing, or `/like/this`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(pub String);

impl Value for BasePath {
    const KIND: &'static str = "URL path";

    fn read(text: &str) -> Result<Self, String> {
        let is_good = |segment: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain)
        };
        match text.trim() {
            "" => Ok(Self::default()),
            path if path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_good)) => {
                Ok(Self(path.to_owned()))
            }
            _ => Err("is not a path, such as /jaeger: it begins with a slash and does not end with one".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Comma-separated in flags and variables; in YAML also a list.
impl Value for Vec<String> {
    const KIND: &'static str = "list";

    fn read(text: &str) -> Result<Self, String> {
        Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    fn show(&self) -> String {
        self.join(",")
    }
}

/// A duration for some tenants.
pub type ByTenant = BTreeMap<TenantId, Duration>;

/// `team-a=24h,team-b=720h`; in YAML also a map, or a list of such texts.
impl Value for ByTenant {
    const KIND: &'static str = "list of tenant=duration";

    fn read(text: &str) -> Result<Self, String> {
        let one = |item: &str| -> Result<_, String> {
            let (tenant, duration) = item.split_once('=').ok_or("is not a list such as team-a=24h,team-b=720h")?;
            let tenant = TenantId::parse(tenant.trim()).map_err(|err| format!("names a tenant badly: {err}"))?;
            Ok((tenant, Duration::read(duration)?))
        };
        let mut durations = Self::new();
        for item in Vec::<String>::read(text)? {
            let (tenant, duration) = one(&item)?;
            if durations.insert(tenant, duration).is_some() {
                // A slip here deletes spans: nobody guesses which was meant.
                return Err(format!("names a tenant twice, last in {item}"));
            }
        }
        Ok(durations)
    }

    fn show(&self) -> String {
        let items: Vec<String> =
            self.iter().map(|(tenant, duration)| format!("{tenant}={}", duration.show())).collect();
        items.join(",")
    }
}

/// `auto`, or a value: for what follows from other settings unless it is given.
impl<T: Value> Value for Option<T> {
    const KIND: &'static str = T::KIND;

    fn read(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" => Ok(None),
            text => T::read(text).map(Some).map_err(|reason| format!("{reason}, and not `auto`")),
        }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "auto".to_owned(), T::show)
    }
}

/// When an export is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalSync {
    /// Before it is acknowledged.
    Always,
    /// At most this long after it is acknowledged.
    Interval(Duration),
    /// When the system pleases.
    Never,
}

impl Value for WalSync {
    const KIND: &'static str = "always, interval:<duration> or never";

    fn read(text: &str) -> Result<Self, String> {
        match text.trim() {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            text => match text.strip_prefix("interval:").map(Duration::read) {
                Some(Ok(interval)) if !interval.is_zero() => Ok(Self::Interval(interval)),
                _ => Err("is not always, never or interval:<duration>, such as interval:1s".to_owned()),
            },
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Always => "always".to_owned(),
            Self::Interval(interval) => format!("interval:{}", interval.show()),
            Self::Never => "never".to_owned(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Value for LogFormat {
    const KIND: &'static str = "text or json";

    fn read(text: &str) -> Result<Self, String> {
        match text.trim() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("is not text or json".to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Json => "json".to_owned(),
        }
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what needs a person.
    Error,
    /// And what may soon.
    Warn,
    /// And what the process does.
    Info,
    /// And why.
    Debug,
}

impl Value for LogLevel {
    const KIND: &'static str = "error, warn, info or debug";

    fn read(text: &str) -> Result<Self, String> {
        match text.trim() {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            _ => Err("is not error, warn, info or debug".to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Error => "error".to_owned(),
            Self::Warn => "warn".to_owned(),
            Self::Info => "info".to_owned(),
            Self::Debug => "debug".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<T: Value>(text: &str) -> Result<String, String> {
        T::read(text).map(|value| value.show())
    }

    #[test]
    fn sizes_have_units_and_come_back_in_the_largest_that_is_exact() {
        for (text, expected) in [
            ("512MiB", "512MiB"),
            ("1024 KiB", "1MiB"),
            ("1.5gib", "1536MiB"),
            ("16MB", "15625KiB"),
            ("1000", "1000"),
            ("0", "0"),
        ] {
            assert_eq!(shown::<ByteSize>(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "MiB", "-1", "12XB", "1e3", "99999999999TiB"] {
            assert!(ByteSize::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_go_and_prometheus_write_them() {
        for (text, expected) in [
            ("168h", "168h"),
            ("7d", "168h"),
            ("1w", "168h"),
            ("90m", "1h30m"),
            ("1h30m", "1h30m"),
            ("1.5s", "1s500ms"),
            ("250us", "250us"),
            ("0", "0"),
        ] {
            assert_eq!(shown::<Duration>(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "5", "h", "1y", "-1h", "1h-", "1..5s", "999999w"] {
            assert!(Duration::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tenants_have_durations() {
        assert_eq!(shown::<ByTenant>("b = 7d, a=90m").as_deref(), Ok("a=1h30m,b=168h"));
        assert_eq!(shown::<ByTenant>("").as_deref(), Ok(""));
        for text in ["a", "a=soon", "a/b=1h", "=1h", "a=1h,a=1000h", "a=1h, b=2h, a=1h"] {
            assert!(ByTenant::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wal_sync_has_three_forms() {
        assert_eq!(WalSync::read("interval:1s"), Ok(WalSync::Interval(Duration::from_secs(1))));
        assert_eq!(shown::<WalSync>("always").as_deref(), Ok("always"));
        assert!(WalSync::read("interval:0").is_err() && WalSync::read("sometimes").is_err());
    }
}
