//! Lines of a corpus file, and the words on them.

use spoor_model::{KeyValue, SpanId, TraceId, Value};

/// A line that says something, with what continues it.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: usize,
    /// Without the spaces around it.
    pub(super) text: String,
}

/// The lines of a file that are neither blank nor comments.
#[derive(Debug)]
pub(super) struct Lines {
    lines: Vec<Line>,
    next: usize,
}

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        let mut lines: Vec<Line> = Vec::new();
        let mut is_continued = false;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            let (said, continues) = line.strip_suffix(" \\").map_or((line, false), |said| (said, true));
            match lines.last_mut() {
                Some(last) if is_continued => last.text = format!("{} {}", last.text, said),
                _ if said.is_empty() || said.starts_with('#') => continue,
                _ => lines.push(Line { number: index + 1, text: said.to_owned() }),
            }
            is_continued = continues;
        }
        Self { lines, next: 0 }
    }

    pub(super) fn peek(&self) -> Option<&Line> {
        self.lines.get(self.next)
    }

    pub(super) fn next_line(&mut self) -> Option<Line> {
        let line = self.peek().cloned()?;
        self.next += 1;
        Some(line)
    }
}

/// Reads one line from left to right.
#[derive(Debug)]
pub(super) struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { rest: text.trim() }
    }

    pub(super) fn is_end(&mut self) -> bool {
        self.skip_spaces();
        self.rest.is_empty()
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Eats the mark, when it is next.
    pub(super) fn eat(&mut self, mark: char) -> bool {
        self.skip_spaces();
        match self.rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    pub(super) fn is_next(&mut self, mark: char) -> bool {
        self.skip_spaces();
        self.rest.starts_with(mark)
    }

    pub(super) fn expect(&mut self, mark: char) -> Result<(), String> {
        match self.eat(mark) {
            true => Ok(()),
            false => Err(format!("expected {mark:?} before {:?}", self.rest)),
        }
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// Up to a space or one of the marks.
    pub(super) fn word(&mut self, marks: &str) -> &'a str {
        self.skip_spaces();
        let ends = |c: char| c.is_whitespace() || marks.contains(c);
        self.take(self.rest.find(ends).unwrap_or(self.rest.len()))
    }

    /// Up to the `=` or `(` that ends a key, quotes kept as they are. `=` between parentheses or
    /// quotes belongs to the key when `is_expression`.
    fn key_as_written(&mut self, is_expression: bool) -> Result<&'a str, String> {
        self.skip_spaces();
        let (mut depth, mut is_quoted, mut is_escaped) = (0, false, false);
        for (place, c) in self.rest.char_indices() {
            match c {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                _ if is_quoted => {}
                '(' if is_expression => depth += 1,
                ')' if is_expression => depth -= 1,
                '=' | '(' if depth == 0 => return Ok(self.take(place)),
                _ => {}
            }
        }
        Err(format!("expected a key and = before {:?}", self.rest))
    }

    /// A key as queries and labels spell it, and the `=`.
    pub(super) fn label_key(&mut self) -> Result<String, String> {
        let key = self.key_as_written(true)?.trim().to_owned();
        self.expect('=')?;
        Ok(key)
    }

    /// A key with quotes taken away, and the `=`.
    pub(super) fn plain_key(&mut self) -> Result<String, String> {
        let key = self.key()?;
        self.expect('=')?;
        Ok(key)
    }

    /// A key with quotes taken away, up to its `=` or `(`.
    pub(super) fn key(&mut self) -> Result<String, String> {
        let written = self.key_as_written(false)?;
        let mut key = String::new();
        let mut chars = written.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => {}
                '\\' => key.extend(chars.next()),
                c => key.push(c),
            }
        }
        Ok(key)
    }

    pub(super) fn value(&mut self) -> Result<Value, String> {
        self.skip_spaces();
        if self.eat('"') {
            return self.quoted().map(Value::Str);
        }
        if self.eat('[') {
            let mut items = Vec::new();
            while !self.eat(']') {
                items.push(self.value()?);
                self.eat(',');
            }
            return Ok(Value::Array(items));
        }
        if self.eat('{') {
            let mut entries = Vec::new();
            while !self.eat('}') {
                let key = self.plain_key()?;
                entries.push(KeyValue::new(key, self.value()?));
                self.eat(',');
            }
            return Ok(Value::Map(entries));
        }
        match self.word(",[]{}()") {
            "" => Err(format!("expected a value before {:?}", self.rest)),
            word => Ok(bare(word)),
        }
    }

    /// What follows the opening quote.
    fn quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((place, c)) = chars.next() {
            match c {
                '"' => {
                    self.take(place + 1);
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, other)) => text.push(other),
                    None => break,
                },
                c => text.push(c),
            }
        }
        Err("a quote that does not end".to_owned())
    }

    /// `1.5s`, `10ms`, `1m30s`, `-5ns`, in nanoseconds.
    pub(super) fn duration(&mut self) -> Result<i64, String> {
        let word = self.word(")");
        duration(word).ok_or_else(|| format!("{word:?} is no duration"))
    }

    /// 1 to 32 hex digits.
    pub(super) fn trace_id(&mut self) -> Result<TraceId, String> {
        let word = self.word(":)");
        TraceId::from_hex(word).map_err(|error| format!("trace {word:?}: {error}"))
    }

    /// 1 to 16 hex digits.
    pub(super) fn span_id(&mut self) -> Result<SpanId, String> {
        let word = self.word("[|{)");
        SpanId::from_hex(word).map_err(|error| format!("span {word:?}: {error}"))
    }
}

/// What a word without quotes means.
fn bare(word: &str) -> Value {
    if let Some(hex) = word.strip_prefix("0x") {
        let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
        return Value::Bytes(digits.chunks(2).map(|two| two.iter().fold(0, |byte, digit| byte << 4 | digit)).collect());
    }
    let is_number = word.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.');
    match word {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if !is_number => Value::Str(word.to_owned()),
        _ => match (word.parse(), word.parse()) {
            (Ok(int), _) => Value::Int(int),
            (_, Ok(float)) => Value::Double(float),
            _ => Value::Str(word.to_owned()),
        },
    }
}

/// Go's form: numbers with units.
fn duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, i128); 7] = [
        ("ns", 1),
        ("us", 1_000),
        ("\u{b5}s", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let (sign, mut rest) = text.strip_prefix('-').map_or((1, text), |positive| (-1, positive));
    let mut nanos = 0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        nanos += digits * size / 10i128.pow(fraction.len() as u32);
        rest = after;
    }
    (!text.is_empty()).then(|| i64::try_from(sign * nanos).ok())?
}
