//! Parameters of a query route: read from the URL and from nowhere else.
//!
//! The first of several parameters with one name wins, except where a route reads all of them; an
//! empty value is an absent one (contracts of Tempo and Jaeger agree).

use std::str::FromStr;

use crate::error::ApiError;

/// The parameters of one request, in the order sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// Reads `application/x-www-form-urlencoded` text; malformed escapes stay as they are.
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (percent_decode(name, Plus::IsSpace), percent_decode(value, Plus::IsSpace))
            })
            .collect();
        Self { pairs }
    }

    /// What a message asks for, under the names that a URL has for it. Empty texts are absent, as there.
    pub(crate) fn of_message<const N: usize>(fields: [(&str, String); N]) -> Self {
        Self { pairs: fields.map(|(name, value)| (name.to_owned(), value)).into() }
    }

    /// The first value of that name, unless it is empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let first = self.pairs.iter().find(|(key, _)| key == name);
        first.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value of that name that is not empty.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let values = self.pairs.iter().filter(move |(key, _)| key == name);
        values.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All pairs, in the order sent.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The first value of that name as a number or the like.
    pub(crate) fn parsed<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(err) => Err(ApiError::invalid(format!("invalid {name} {text:?}: {err}"))),
        }
    }

    /// The first value of that name as Go reads booleans; absent is `false`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some(text) => Err(ApiError::invalid(format!("invalid {name} {text:?}: expected true or false"))),
        }
    }
}

/// What a plus sign means: a space in a query, itself in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plus {
    IsSpace,
    IsPlus,
}

/// Undoes percent-encoding. What is not an escape stays; what is not UTF-8 becomes U+FFFD.
pub(crate) fn percent_decode(text: &str, plus: Plus) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let (byte, next) = match (first, tail) {
            (b'%', [high, low, next @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, next),
                _ => (b'%', tail),
            },
            (b'+', _) if plus == Plus::IsSpace => (b' ', tail),
            _ => (*first, tail),
        };
        bytes.push(byte);
        rest = next;
    }
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(err) => String::from_utf8_lossy(err.as_bytes()).into_owned(),
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_text_survives_its_encoding(text in ".*") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(percent_decode(&encoded, Plus::IsPlus), text.as_str());
            let _ = Params::parse(Some(&text));
        }
    }

    #[test]
    fn the_first_value_wins_and_an_empty_one_is_absent() {
        let params = Params::parse(Some("a=1&a=2&b=&c&q=%7B%20.x%3D%22a+b%22%7D&tag=x:1&tag=y:2"));
        assert_eq!(params.get("a"), Some("1"));
        assert_eq!((params.get("b"), params.get("c"), params.get("d")), (None, None, None));
        assert_eq!(params.get("q"), Some("{ .x=\"a b\"}"));
        assert_eq!(params.all("tag").collect::<Vec<_>>(), ["x:1", "y:2"]);
    }

    #[test]
    fn escapes_that_are_none_stay() {
        assert_eq!(percent_decode("100%&%zz%2", Plus::IsSpace), "100%&%zz%2");
        assert_eq!(percent_decode("a+b%2Fc%C3%A9", Plus::IsPlus), "a+b/c\u{e9}");
        assert_eq!(percent_decode("%ff", Plus::IsPlus), "\u{fffd}");
    }

    #[test]
    fn bad_values_name_the_parameter() {
        let params = Params::parse(Some("limit=ten&raw=maybe&pretty=T"));
        assert_eq!(
            params.parsed::<u32>("limit").unwrap_err().message,
            "invalid limit \"ten\": invalid digit found in string"
        );
        assert!(params.flag("raw").is_err());
        assert_eq!((params.flag("pretty"), params.flag("none")), (Ok(true), Ok(false)));
    }
}
