//! From text to tokens with places.
//!
//! Attribute names decide the shape of this lexer: after a scope's dot a name runs until white
//! space or one of a few operators, so `.a-b`, `.a/b` and `.a+1` are names, and parts of it may be
//! quoted. Everything else is Go's scanner: its numbers, its strings, its comments.

use std::sync::Arc;

use spoor_model::scan::AttrScope;

use crate::ast::{Attribute, Pos, Static};
use crate::number;

/// Why a text is not a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse error at {pos}: {message}")]
pub struct ParseError {
    /// Where.
    pub pos: Pos,
    /// What was found, and what was expected.
    pub message: String,
}

/// One token and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) pos: Pos,
    pub(crate) kind: TokenKind,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TokenKind {
    /// Keywords too: the parser knows where they mean something.
    Ident(String),
    Attribute(Attribute),
    /// Text, number or duration.
    Static(Static),
    /// Operator or bracket.
    Symbol(&'static str),
    End,
}

/// Longest first, so that the first that fits is the right one.
const SYMBOLS: [&str; 35] = [
    "!>>", "!<<", "&>>", "&<<", "&&", "||", "=~", "!=", "!~", "!<", "!>", ">=", ">>", "<=", "<<", "&>", "&<", "&~",
    "=", "<", ">", "~", "!", "+", "-", "*", "/", "%", "^", "(", ")", "{", "}", ",", "|",
];

/// Splits a text; the last token is [`TokenKind::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, ParseError> {
    let mut lexer = Lexer { rest: text, pos: Pos { line: 1, column: 1 } };
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next()?;
        let is_end = token.kind == TokenKind::End;
        tokens.push(token);
        if is_end {
            return Ok(tokens);
        }
    }
}

/// The tokens before the first mistake, then [`TokenKind::End`].
pub(crate) fn tokens_before_error(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: text, pos: Pos { line: 1, column: 1 } };
    let mut tokens: Vec<Token> = Vec::new();
    while let Ok(token) = lexer.next()
        && token.kind != TokenKind::End
    {
        tokens.push(token);
    }
    tokens.push(Token { pos: lexer.pos, kind: TokenKind::End });
    tokens
}

/// Whether an attribute's name ends before this character, unless it is quoted.
pub(crate) fn ends_attribute_name(c: char) -> bool {
    c.is_whitespace() || "{}()=~!<>&|^,".contains(c)
}

fn is_ident_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

struct Lexer<'a> {
    rest: &'a str,
    pos: Pos,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Result<Token, ParseError> {
        self.skip_blank()?;
        let pos = self.pos;
        let kind = match self.rest.chars().next() {
            None => TokenKind::End,
            Some('"') => TokenKind::Static(Static::Str(self.quoted_text()?)),
            Some('`') => TokenKind::Static(Static::Str(self.raw_text()?)),
            Some(c) if c.is_ascii_digit() => TokenKind::Static(self.number()?),
            Some('.') if self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) => TokenKind::Static(self.number()?),
            Some('.') => {
                self.take(1);
                TokenKind::Attribute(Attribute::Named(AttrScope::Any, self.attribute_name()?))
            }
            Some(c) if is_ident_start(c) => self.ident_or_attribute()?,
            Some(_) => TokenKind::Symbol(self.symbol()?),
        };
        Ok(Token { pos, kind })
    }

    /// Moves over `len` bytes and returns them.
    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(len);
        for c in taken.chars() {
            match c {
                '\n' => self.pos = Pos { line: self.pos.line + 1, column: 1 },
                _ => self.pos.column += 1,
            }
        }
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let len = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        self.take(len)
    }

    fn error<T>(&self, pos: Pos, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError { pos, message: message.into() })
    }

    fn skip_blank(&mut self) -> Result<(), ParseError> {
        loop {
            self.take_while(char::is_whitespace);
            if self.rest.starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if self.rest.starts_with("/*") {
                match self.rest.find("*/") {
                    Some(end) => self.take(end + 2),
                    None => return self.error(self.pos, "comment not terminated"),
                };
            } else {
                return Ok(());
            }
        }
    }

    fn symbol(&mut self) -> Result<&'static str, ParseError> {
        match SYMBOLS.iter().find(|symbol| self.rest.starts_with(**symbol)) {
            Some(symbol) => {
                self.take(symbol.len());
                Ok(symbol)
            }
            None => {
                let found = self.rest.chars().next().unwrap_or_default();
                self.error(self.pos, format!("unexpected character {found:?}"))
            }
        }
    }

    /// An identifier; with a dot behind a scope's name, an attribute; with a colon behind it, a
    /// scoped intrinsic, which stays one identifier (`span:name`).
    fn ident_or_attribute(&mut self) -> Result<TokenKind, ParseError> {
        let ident = self.take_while(|c| c.is_alphanumeric() || c == '_');
        let is_scoped_intrinsic = matches!(ident, "span" | "trace" | "event" | "link" | "instrumentation");
        if is_scoped_intrinsic && self.rest.starts_with(':') {
            self.take(1);
            let name = self.take_while(|c| c.is_alphanumeric() || c == '_');
            return Ok(TokenKind::Ident(format!("{ident}:{name}")));
        }
        if !self.rest.starts_with('.') {
            return Ok(TokenKind::Ident(ident.to_owned()));
        }
        if ident == "parent" {
            self.take(1);
            let scope = ["span", "resource"]
                .into_iter()
                .find(|scope| self.rest.strip_prefix(scope).is_some_and(|after| after.starts_with('.')));
            let scope = match scope {
                Some(scope) => {
                    self.take(scope.len() + 1);
                    attr_scope(scope).expect("both are scopes")
                }
                None => AttrScope::Any,
            };
            return Ok(TokenKind::Attribute(Attribute::OfParent(scope, self.attribute_name()?)));
        }
        match attr_scope(ident) {
            Some(scope) => {
                self.take(1);
                Ok(TokenKind::Attribute(Attribute::Named(scope, self.attribute_name()?)))
            }
            None => Ok(TokenKind::Ident(ident.to_owned())),
        }
    }

    fn attribute_name(&mut self) -> Result<Arc<str>, ParseError> {
        let start = self.pos;
        let mut name = String::new();
        loop {
            name.push_str(self.take_while(|c| c != '"' && !ends_attribute_name(c)));
            if !self.rest.starts_with('"') {
                break;
            }
            self.quoted_part(&mut name)?;
        }
        if name.is_empty() {
            return self.error(start, "expected an attribute name after the dot");
        }
        Ok(name.into())
    }

    fn quoted_part(&mut self, name: &mut String) -> Result<(), ParseError> {
        let start = self.pos;
        self.take(1);
        loop {
            name.push_str(self.take_while(|c| c != '"' && c != '\\'));
            let pos = self.pos;
            let mut ahead = self.rest.chars();
            match (ahead.next(), ahead.next()) {
                (Some('"'), _) => {
                    self.take(1);
                    return Ok(());
                }
                (Some('\\'), Some(escaped @ ('"' | '\\'))) => {
                    self.take(2);
                    name.push(escaped);
                }
                (Some(_), Some(_)) => return self.error(pos, "invalid escape sequence"),
                _ => return self.error(start, "attribute name: quote not terminated"),
            }
        }
    }

    fn raw_text(&mut self) -> Result<Arc<str>, ParseError> {
        let start = self.pos;
        self.take(1);
        match self.rest.find('`') {
            Some(end) => {
                let text = self.take(end).replace('\r', "");
                self.take(1);
                Ok(text.into())
            }
            None => self.error(start, "string not terminated"),
        }
    }

    fn quoted_text(&mut self) -> Result<Arc<str>, ParseError> {
        let start = self.pos;
        self.take(1);
        let mut bytes = Vec::new();
        loop {
            bytes.extend_from_slice(self.take_while(|c| !matches!(c, '"' | '\\' | '\n')).as_bytes());
            match self.rest.bytes().next() {
                Some(b'"') => {
                    self.take(1);
                    break;
                }
                Some(b'\\') => self.escape(&mut bytes)?,
                _ => return self.error(start, "string not terminated"),
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => self.error(start, "string is not valid UTF-8"),
        }
    }

    /// Go's escapes.
    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), ParseError> {
        let pos = self.pos;
        self.take(1);
        let Some(kind) = self.rest.chars().next() else {
            return self.error(pos, "string not terminated");
        };
        let simple = match kind {
            'a' => Some(0x07),
            'b' => Some(0x08),
            'f' => Some(0x0c),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(0x0b),
            '\\' | '"' => Some(kind as u8),
            _ => None,
        };
        if let Some(byte) = simple {
            self.take(1);
            bytes.push(byte);
            return Ok(());
        }
        let (skip, len, radix) = match kind {
            'x' => (1, 2, 16),
            'u' => (1, 4, 16),
            'U' => (1, 8, 16),
            '0'..='7' => (0, 3, 8),
            _ => return self.error(pos, "invalid escape sequence"),
        };
        let code = self.rest.get(skip..skip + len).and_then(|digits| u32::from_str_radix(digits, radix).ok());
        let written = match (kind, code) {
            ('u' | 'U', Some(code)) => char::from_u32(code).map(|c| bytes.extend_from_slice(c.to_string().as_bytes())),
            (_, Some(code)) => u8::try_from(code).ok().map(|byte| bytes.push(byte)),
            (_, None) => None,
        };
        match written {
            Some(()) => {
                self.take(skip + len);
                Ok(())
            }
            None => self.error(pos, "invalid escape sequence"),
        }
    }

    /// Digits, letters and dots that hang together: a number, or a duration when letters follow.
    fn number(&mut self) -> Result<Static, ParseError> {
        let belongs = |c: char| c.is_alphanumeric() || c == '.' || c == '_';
        let mut len = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let mantissa = self.rest[..len].strip_suffix(['e', 'E']);
        let is_exponent_open = mantissa.is_some_and(|m| m.chars().all(|c| c.is_ascii_digit() || c == '.'));
        let after = &self.rest.as_bytes()[len..];
        if is_exponent_open && after.len() > 1 && matches!(after[0], b'+' | b'-') && after[1].is_ascii_digit() {
            let tail = &self.rest[len + 1..];
            len += 1 + tail.find(|c| !belongs(c)).unwrap_or(tail.len());
        }
        let pos = self.pos;
        let text = self.take(len);
        number::parse(text).or_else(|message| self.error(pos, message))
    }
}

fn attr_scope(text: &str) -> Option<AttrScope> {
    match text {
        "span" => Some(AttrScope::Span),
        "resource" => Some(AttrScope::Resource),
        "event" => Some(AttrScope::Event),
        "link" => Some(AttrScope::Link),
        "instrumentation" => Some(AttrScope::Instrumentation),
        _ => None,
    }
}
