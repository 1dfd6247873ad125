//! From tokens to a [`Query`], by precedence climbing.
//!
//! Outside braces the same symbols mean different things for spansets (`{..} > {..}`), numbers
//! (`count() > 3`) and series (`(.. | rate()) > 3`), and a parenthesis may open any of the three. So
//! operands are parsed into an [`Item`] that knows which of them it is, and [`Parser::combine`]
//! decides by both sides what an operator between them is.
//!
//! Precedence, loosest first, all left-associative but the last: `|`; `&&` and `||` (one level!);
//! comparisons and structural operators; `+ -` and the sign; `!`; `* / %`; `^`.

use spoor_model::scan::AttrScope;

use crate::ast::{
    Aggregate, Attribute, BinaryOp, Body, Expr, Hint, MetricsExpr, Node, Pipeline, Pos, Quantifier, Query, Relation,
    ScalarExpr, SecondStage, SpansetExpr, SpansetKind, SpansetOp, Stage, StageKind, Static,
};
use crate::fold;
use crate::lexer::{self, ParseError, Token, TokenKind};
use crate::suggest;

mod field;
mod metrics;

/// How deep expressions may nest, and how many operators may stand outside braces. Bounds the stack
/// of everything that walks a query.
pub const NESTING_MAX: usize = 256;

/// Reads a query.
pub fn parse(text: &str) -> Result<Query, ParseError> {
    parse_tokens(lexer::tokens(text)?)
}

/// Reads a query that is split already; the last token is [`TokenKind::End`].
pub(crate) fn parse_tokens(tokens: Vec<Token>) -> Result<Query, ParseError> {
    let mut parser = Parser { tokens, at: 0, depth: 0, item_operators: 0, regex_count: 0 };
    let body = match parser.pipeline()? {
        Piped::Search(pipeline) => Body::Search(pipeline),
        Piped::Metrics(metrics) => Body::Metrics(metrics),
        Piped::Scalar(_) => return parser.unexpected("a comparison"),
    };
    let mut hints = Vec::new();
    while parser.eat_ident("with") {
        hints = parser.hints()?;
    }
    match parser.peek() {
        TokenKind::End => Ok(Query { body, hints }),
        _ => parser.unexpected("the end of the query"),
    }
}

/// How many regular expressions a query may have: each may take 1 MB once it is compiled.
pub const REGEXES_MAX: usize = 100;

pub(crate) struct Parser {
    tokens: Vec<Token>,
    /// Index of the next token; the last token is `End` and is never passed.
    at: usize,
    depth: usize,
    item_operators: usize,
    regex_count: usize,
}

/// What stands between operators outside braces.
enum Item {
    Spanset(SpansetExpr),
    Scalar(ScalarExpr),
    ScalarFilter {
        op: BinaryOp,
        left: ScalarExpr,
        right: ScalarExpr,
    },
    /// In parentheses.
    Metrics(MetricsExpr),
}

/// What stands between parentheses, or is the whole query.
enum Piped {
    Search(Pipeline),
    Metrics(MetricsExpr),
    Scalar(ScalarExpr),
}

impl Parser {
    pub(crate) fn new(text: &str) -> Result<Self, ParseError> {
        Ok(Self { tokens: lexer::tokens(text)?, at: 0, depth: 0, item_operators: 0, regex_count: 0 })
    }

    fn peek(&self) -> &TokenKind {
        &self.tokens[self.at].kind
    }

    fn pos(&self) -> Pos {
        self.tokens[self.at].pos
    }

    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn symbol(&self) -> Option<&'static str> {
        match self.peek() {
            TokenKind::Symbol(symbol) => Some(symbol),
            _ => None,
        }
    }

    fn ident(&self) -> Option<&str> {
        match self.peek() {
            TokenKind::Ident(ident) => Some(ident),
            _ => None,
        }
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let is_next = self.symbol() == Some(symbol);
        if is_next {
            self.advance();
        }
        is_next
    }

    fn eat_ident(&mut self, ident: &str) -> bool {
        let is_next = self.ident() == Some(ident);
        if is_next {
            self.advance();
        }
        is_next
    }

    fn expect(&mut self, symbol: &str) -> Result<(), ParseError> {
        match self.eat(symbol) {
            true => Ok(()),
            false => self.unexpected(&format!("{symbol:?}")),
        }
    }

    fn error_at<T>(&self, pos: Pos, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError { pos, message: message.into() })
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T, ParseError> {
        let found = match self.peek() {
            TokenKind::Ident(ident) => format!("{ident:?}"),
            TokenKind::Attribute(attribute) => format!("attribute {attribute}"),
            TokenKind::Static(value) => value.to_string(),
            TokenKind::Symbol(symbol) => format!("{symbol:?}"),
            TokenKind::End => "end of query".to_owned(),
        };
        self.error_at(self.pos(), format!("unexpected {found}, expected {expected}"))
    }

    /// A word that means nothing here, with the one that was perhaps meant.
    fn unknown<T>(&self, pos: Pos, ident: &str, candidates: &[&str]) -> Result<T, ParseError> {
        // `app.user.id` reads as a word and an attribute that touches it.
        let touching = Pos { column: pos.column + ident.chars().count() as u32, ..pos };
        let attribute = self.tokens.iter().find(|token| token.pos == touching).and_then(|token| match &token.kind {
            TokenKind::Attribute(Attribute::Named(AttrScope::Any, name)) => Some(name),
            _ => None,
        });
        let hint = match (attribute, suggest::nearest(ident, candidates.iter().copied())) {
            (Some(name), _) => format!("; attributes begin with a dot or a scope: .{ident}.{name}"),
            (None, Some(nearest)) => format!(", did you mean {nearest}?"),
            (None, None) => String::new(),
        };
        self.error_at(pos, format!("unknown identifier: {ident}{hint}"))
    }

    /// Runs `parse` one level deeper.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        if self.depth >= NESTING_MAX {
            return self.error_at(self.pos(), format!("nested deeper than {NESTING_MAX} levels"));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    /// `stage | stage | ...`, or a metrics query, or a number when nothing else follows.
    fn pipeline(&mut self) -> Result<Piped, ParseError> {
        let mut stages = Vec::new();
        loop {
            let pos = self.pos();
            if !stages.is_empty()
                && let Some(function) = self.metrics_function()?
            {
                let by = self.metrics_grouping()?;
                return self.second_stages(MetricsExpr::Aggregate { pos, pipeline: Pipeline { stages }, function, by });
            }
            let kind = match self.keyword_stage(!stages.is_empty())? {
                Some(kind) => kind,
                None => match self.items(0)? {
                    Item::Spanset(spanset) => StageKind::Spanset(spanset),
                    Item::ScalarFilter { op, left, right } => StageKind::ScalarFilter { op, left, right },
                    Item::Scalar(scalar) if stages.is_empty() && self.symbol() == Some(")") => {
                        return Ok(Piped::Scalar(scalar));
                    }
                    Item::Scalar(_) => return self.unexpected("a comparison"),
                    Item::Metrics(metrics) if stages.is_empty() => return self.second_stages(metrics),
                    Item::Metrics(_) => return self.error_at(pos, "a metrics query cannot be a stage of a pipeline"),
                },
            };
            stages.push(Stage { pos, kind });
            if !self.eat("|") {
                return Ok(Piped::Search(Pipeline { stages }));
            }
        }
    }

    /// `by(..)`, `select(..)`, and after the first stage `coalesce()`.
    fn keyword_stage(&mut self, may_coalesce: bool) -> Result<Option<StageKind>, ParseError> {
        if self.eat_ident("by") {
            self.expect("(")?;
            let expr = self.field_expr(0)?;
            self.expect(")")?;
            return Ok(Some(StageKind::By(expr)));
        }
        if may_coalesce && self.eat_ident("coalesce") {
            self.expect("(")?;
            self.expect(")")?;
            return Ok(Some(StageKind::Coalesce));
        }
        if self.eat_ident("select") {
            self.expect("(")?;
            let attributes = self.attribute_list()?;
            return Ok(Some(StageKind::Select(attributes)));
        }
        Ok(None)
    }

    /// Operands and the operators between them, as long as these bind at least as tightly as `min`.
    fn items(&mut self, min: u8) -> Result<Item, ParseError> {
        let mut left = self.nested(Self::item)?;
        while let Some(symbol) = self.symbol() {
            let Some((_, right_min)) = item_precedence(symbol).filter(|(precedence, _)| *precedence >= min) else {
                break;
            };
            let pos = self.pos();
            self.item_operators += 1;
            if self.item_operators > NESTING_MAX {
                return self.error_at(pos, format!("more than {NESTING_MAX} operators between spansets"));
            }
            self.advance();
            let right = self.nested(|parser| parser.items(right_min))?;
            left = self.combine(pos, symbol, left, right)?;
        }
        Ok(left)
    }

    fn item(&mut self) -> Result<Item, ParseError> {
        let pos = self.pos();
        if self.eat("{") {
            let expr = self.braced()?;
            return Ok(Item::Spanset(SpansetExpr { pos, kind: SpansetKind::Filter(expr) }));
        }
        if self.eat("(") {
            let inner = self.pipeline()?;
            self.expect(")")?;
            return Ok(match inner {
                Piped::Scalar(scalar) => Item::Scalar(scalar),
                Piped::Metrics(metrics) => Item::Metrics(metrics),
                Piped::Search(pipeline) => Item::Spanset(parenthesised(pos, pipeline)),
            });
        }
        if self.eat("-") {
            return match self.items(SIGN_OPERAND)? {
                Item::Scalar(ScalarExpr::Static(value)) => match fold::negated(&value) {
                    Some(value) => Ok(Item::Scalar(ScalarExpr::Static(value))),
                    None => self.error_at(pos, format!("cannot negate {value}")),
                },
                // The sign stands before all that is multiplied, and so before its first number.
                Item::Metrics(series) => match negated(series) {
                    Some(series) => Ok(Item::Metrics(series)),
                    None => self.error_at(pos, "only a number can be negated here"),
                },
                _ => self.error_at(pos, "only a number can be negated here"),
            };
        }
        if let Some(value) = self.number() {
            return Ok(Item::Scalar(ScalarExpr::Static(value)));
        }
        if let Some(aggregate) = self.ident().and_then(aggregate) {
            self.advance();
            self.expect("(")?;
            let of = match aggregate {
                Aggregate::Count => None,
                _ => Some(Box::new(self.field_expr(0)?)),
            };
            self.expect(")")?;
            return Ok(Item::Scalar(ScalarExpr::Aggregate(aggregate, of)));
        }
        match self.ident() {
            Some(ident) if !WORDS.contains(&ident) => self.unknown(pos, ident, &[STAGES, metrics::FUNCTIONS].concat()),
            _ => self.unexpected("a spanset filter like \"{ }\""),
        }
    }

    /// What stands between braces, the opening one being eaten.
    fn braced(&mut self) -> Result<Expr, ParseError> {
        let pos = self.pos();
        if self.eat("}") {
            return Ok(Expr::new(pos, Node::Static(Static::Bool(true))));
        }
        let expr = self.field_expr(0)?;
        self.expect("}")?;
        Ok(expr)
    }

    /// Gives an operator between two items its meaning.
    fn combine(&self, pos: Pos, symbol: &str, left: Item, right: Item) -> Result<Item, ParseError> {
        let names = (left.noun(), right.noun());
        match (left, right, BinaryOp::from_symbol(symbol)) {
            (Item::Spanset(left), Item::Spanset(right), _) => match spanset_op(symbol) {
                Some(op) => {
                    let pos = left.pos;
                    let kind = SpansetKind::Binary { op, left: Box::new(left), right: Box::new(right) };
                    Ok(Item::Spanset(SpansetExpr { pos, kind }))
                }
                None => self.error_at(pos, format!("{symbol:?} cannot stand between spansets")),
            },
            (Item::Scalar(left), Item::Scalar(right), Some(op)) if op.is_arithmetic() => {
                scalar_arithmetic(op, left, right).map(Item::Scalar).or_else(|message| self.error_at(pos, message))
            }
            (Item::Scalar(ScalarExpr::Static(_)), Item::Scalar(ScalarExpr::Static(_)), _) => {
                self.error_at(pos, "a comparison of constants does not look at spans")
            }
            (Item::Scalar(left), Item::Scalar(right), Some(op)) if !op.is_regex() => {
                Ok(Item::ScalarFilter { op, left, right })
            }
            (Item::Metrics(input), Item::Scalar(ScalarExpr::Static(value)), Some(op))
                if !op.is_arithmetic() && !op.is_regex() =>
            {
                let stage = SecondStage::Compare(op, value);
                Ok(Item::Metrics(MetricsExpr::SecondStage { pos, input: Box::new(input), stage }))
            }
            (left, right, Some(op @ (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div))) => {
                match (left.into_series(), right.into_series()) {
                    (Some(left), Some(right)) => {
                        Ok(Item::Metrics(MetricsExpr::Binary { op, left: Box::new(left), right: Box::new(right) }))
                    }
                    _ => self.error_at(pos, format!("{symbol:?} cannot stand between {} and {}", names.0, names.1)),
                }
            }
            _ => self.error_at(pos, format!("{symbol:?} cannot stand between {} and {}", names.0, names.1)),
        }
    }

    /// A number as a token, or `minInt`, `maxInt`.
    fn number(&mut self) -> Option<Static> {
        let value = match self.peek() {
            TokenKind::Static(value @ (Static::Int(_) | Static::Float(_) | Static::Duration(_))) => value.clone(),
            TokenKind::Ident(ident) if ident == "minInt" => Static::Int(i64::MIN),
            TokenKind::Ident(ident) if ident == "maxInt" => Static::Int(i64::MAX),
            _ => return None,
        };
        self.advance();
        Some(value)
    }

    /// `(name=value, ...)`, `with` being eaten.
    fn hints(&mut self) -> Result<Vec<Hint>, ParseError> {
        self.expect("(")?;
        let mut hints = Vec::new();
        loop {
            let Some(name) = self.ident().map(str::to_owned) else {
                return self.unexpected("the name of a hint");
            };
            self.advance();
            self.expect("=")?;
            let value = self.constant()?;
            hints.push(Hint { name, value });
            if !self.eat(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(hints)
    }

    /// A constant, perhaps with a sign.
    fn constant(&mut self) -> Result<Static, ParseError> {
        let pos = self.pos();
        match self.field_expr(SIGN_OPERAND)?.node {
            Node::Static(value) => Ok(value),
            _ => self.error_at(pos, "expected a constant"),
        }
    }
}

/// Words that stand where spansets do.
const STAGES: &[&str] = &["by", "coalesce", "select", "count", "avg", "max", "min", "sum", "with", "topk", "bottomk"];
/// Words that mean something, though not wherever they stand.
const WORDS: [&str; 17] = [
    "by", "coalesce", "select", "count", "avg", "max", "min", "sum", "with", "topk", "bottomk", "rate", "compare",
    "nil", "true", "false", "parent",
];

/// The operand of a sign may hold what binds tighter than `+` and `-`: `-2 ^ 2` is `-(2 ^ 2)`.
const SIGN_OPERAND: u8 = 5;

/// `number * series` and the like with the number's sign changed; `None` for what begins with no number.
fn negated(series: MetricsExpr) -> Option<MetricsExpr> {
    match series {
        MetricsExpr::Constant(value) => fold::negated(&value).map(MetricsExpr::Constant),
        MetricsExpr::Binary { op: op @ (BinaryOp::Mul | BinaryOp::Div), left, right } => {
            Some(MetricsExpr::Binary { op, left: Box::new(negated(*left)?), right })
        }
        _ => None,
    }
}

/// The precedence of an operator outside braces, and the least one that its right side may have.
fn item_precedence(symbol: &str) -> Option<(u8, u8)> {
    match symbol {
        "&&" | "||" => Some((2, 3)),
        "+" | "-" => Some((4, 5)),
        "*" | "/" | "%" => Some((6, 7)),
        "^" => Some((7, 7)),
        _ if BinaryOp::from_symbol(symbol).is_some() || spanset_op(symbol).is_some() => Some((3, 4)),
        _ => None,
    }
}

fn spanset_op(symbol: &str) -> Option<SpansetOp> {
    let (quantifier, relation) = match symbol {
        "&&" => return Some(SpansetOp::And),
        "||" => return Some(SpansetOp::Or),
        _ => match symbol.as_bytes()[0] {
            b'!' => (Quantifier::Negated, &symbol[1..]),
            b'&' => (Quantifier::Union, &symbol[1..]),
            _ => (Quantifier::Plain, symbol),
        },
    };
    let relation = match relation {
        ">" => Relation::Child,
        "<" => Relation::Parent,
        ">>" => Relation::Descendant,
        "<<" => Relation::Ancestor,
        "~" => Relation::Sibling,
        _ => return None,
    };
    Some(SpansetOp::Structural(relation, quantifier))
}

fn aggregate(ident: &str) -> Option<Aggregate> {
    match ident {
        "count" => Some(Aggregate::Count),
        "max" => Some(Aggregate::Max),
        "min" => Some(Aggregate::Min),
        "avg" => Some(Aggregate::Avg),
        "sum" => Some(Aggregate::Sum),
        _ => None,
    }
}

/// `({..})` is `{..}`; anything else between parentheses stays a pipeline.
fn parenthesised(pos: Pos, mut pipeline: Pipeline) -> SpansetExpr {
    match pipeline.stages.pop() {
        Some(Stage { kind: StageKind::Spanset(spanset), .. }) if pipeline.stages.is_empty() => spanset,
        last => {
            pipeline.stages.extend(last);
            SpansetExpr { pos, kind: SpansetKind::Pipeline(pipeline) }
        }
    }
}

fn scalar_arithmetic(op: BinaryOp, left: ScalarExpr, right: ScalarExpr) -> Result<ScalarExpr, String> {
    match (&left, &right) {
        (ScalarExpr::Static(a), ScalarExpr::Static(b)) => fold::arithmetic(op, a, b).map(ScalarExpr::Static),
        _ => Ok(ScalarExpr::Binary { op, left: Box::new(left), right: Box::new(right) }),
    }
}

impl Item {
    fn noun(&self) -> &'static str {
        match self {
            Self::Spanset(_) => "a spanset",
            Self::Scalar(_) => "a number",
            Self::ScalarFilter { .. } => "a comparison",
            Self::Metrics(_) => "a metrics query",
        }
    }

    fn into_series(self) -> Option<MetricsExpr> {
        match self {
            Self::Metrics(metrics) => Some(metrics),
            Self::Scalar(ScalarExpr::Static(value)) => Some(MetricsExpr::Constant(value)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
