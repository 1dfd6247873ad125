//! The `tags` parameter of a legacy search: logfmt, `k=v k2="v 2"`.

/// Why a text is not logfmt. Positions count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogfmtError {
    /// A value begins with a quote that does not end.
    #[error("logfmt syntax error at position {0}: the quoted value does not end")]
    Unterminated(usize),
    /// Something other than a key or a space.
    #[error("logfmt syntax error at position {0}: unexpected {1:?}")]
    Unexpected(usize, char),
    /// The same key twice: a trace cannot have both values, so it is a mistake.
    #[error("logfmt syntax error at position {0}: duplicate key {1}")]
    Duplicate(usize, String),
}

/// The pairs, in the order written. A key without a value has an empty one.
pub(crate) fn parse(text: &str) -> Result<Vec<(String, String)>, LogfmtError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut chars = text.chars().enumerate().map(|(at, c)| (at + 1, c)).peekable();
    while let Some(&(at, first)) = chars.peek() {
        if first <= ' ' {
            chars.next();
            continue;
        }
        let mut key = String::new();
        while let Some((_, c)) = chars.next_if(|(_, c)| *c > ' ' && !matches!(c, '=' | '"')) {
            key.push(c);
        }
        if key.is_empty() {
            return Err(LogfmtError::Unexpected(at, first));
        }
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(LogfmtError::Duplicate(at, key));
        }
        let value = match chars.peek() {
            Some((_, '=')) => {
                chars.next();
                value(&mut chars)?
            }
            Some(&(at, '"')) => return Err(LogfmtError::Unexpected(at, '"')),
            _ => String::new(),
        };
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn value(chars: &mut std::iter::Peekable<impl Iterator<Item = (usize, char)>>) -> Result<String, LogfmtError> {
    let mut value = String::new();
    let Some(&(opened_at, first)) = chars.peek() else { return Ok(value) };
    if first != '"' {
        while let Some((at, c)) = chars.next_if(|(_, c)| *c > ' ') {
            if matches!(c, '=' | '"') {
                return Err(LogfmtError::Unexpected(at, c));
            }
            value.push(c);
        }
        return Ok(value);
    }
    chars.next();
    while let Some((_, c)) = chars.next() {
        match c {
            '"' => return Ok(value),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, escaped)) => value.push(escaped),
                None => return Err(LogfmtError::Unterminated(opened_at)),
            },
            c => value.push(c),
        }
    }
    Err(LogfmtError::Unterminated(opened_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_quoted_values_survive(text in ".*", value in ".*") {
            let _ = parse(&text);
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(parse(&format!("k=\"{quoted}\"")), Ok(vec![("k".to_owned(), value)]));
        }
    }

    fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
        parse(text).map_err(|err| err.to_string())
    }

    #[test]
    fn keys_values_and_quotes_are_read() {
        let expected = [("service.name", "shop"), ("name", "GET /a \"b\""), ("empty", ""), ("flag", "")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        assert_eq!(pairs(r#" service.name=shop  name="GET /a \"b\"" empty= flag"#), Ok(expected));
        assert_eq!(pairs("  "), Ok(vec![]));
    }

    #[test]
    fn mistakes_name_their_position() {
        assert_eq!(pairs("a=1 a=2"), Err("logfmt syntax error at position 5: duplicate key a".into()));
        assert_eq!(pairs("a=\"x"), Err("logfmt syntax error at position 3: the quoted value does not end".into()));
        assert_eq!(pairs("=x"), Err("logfmt syntax error at position 1: unexpected '='".into()));
        assert_eq!(pairs("a=b=c"), Err("logfmt syntax error at position 4: unexpected '='".into()));
    }
}
