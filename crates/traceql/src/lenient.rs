//! Filters of which the end is still being typed: what editors send while they ask for names and values.
//!
//! ```text
//!   { span.a = "x" && span.b =     -->     { span.a = "x" && true }
//!     kept            no value yet
//! ```
//!
//! A text that is a query is taken as it is. Of any other, the tokens before the first mistake are mended:
//! a comparison without its right side becomes `true`, so does a missing operand of `&&` and `||`, open
//! brackets are closed, and whatever follows the first `|` is dropped. If that is no query either, there
//! is no filter. So the outcome may hold for more spans than its author wants, never for fewer: of spansets that are
//! joined or related, the spans of both sides count, since either may be where the author types.

use spoor_model::scan::AttrScope;

use crate::ast::{
    Attribute, Body, Expr, MetricsExpr, Node, Pipeline, Pos, Quantifier, Query, SpansetExpr, SpansetKind, SpansetOp,
    Stage, StageKind, Static,
};
use crate::check::check;
use crate::lexer::{self, Token, TokenKind};
use crate::parser;

/// Spanset filters, made of what could be read: one, or several that are related.
#[derive(Debug, Clone, PartialEq)]
pub struct LenientFilter {
    spanset: SpansetExpr,
}

/// Reads the filter of the first spanset of a query, finished or not. `None` when there is nothing to
/// filter by: the text cannot be mended, its types do not agree, or every span satisfies it.
pub fn lenient_filter(text: &str) -> Option<LenientFilter> {
    let query = parser::parse(text).or_else(|_| parser::parse_tokens(mended(lexer::tokens_before_error(text)))).ok()?;
    check(&query).ok()?;
    LenientFilter::of(first_filter(&query)?)
}

impl LenientFilter {
    fn of(spanset: SpansetExpr) -> Option<Self> {
        (!has_all(&spanset)).then_some(Self { spanset })
    }

    /// The filter as a query of one stage.
    pub fn query(&self) -> Query {
        let stage = Stage { pos: self.spanset.pos, kind: StageKind::Spanset(self.spanset.clone()) };
        Query { body: Body::Search(Pipeline { stages: vec![stage] }), hints: Vec::new() }
    }

    /// The filter without what looks at attributes of any scope (`.a`): their conditions hold. `None` when
    /// nothing is left to filter by.
    pub fn scoped(&self) -> Option<Self> {
        Self::of(scoped_spanset(&self.spanset))
    }
}

fn is_comparison(token: &TokenKind) -> bool {
    matches!(token, TokenKind::Symbol("=" | "!=" | "<" | "<=" | ">" | ">=" | "=~" | "!~"))
}

fn is_join(token: &TokenKind) -> bool {
    matches!(token, TokenKind::Symbol("&&" | "||"))
}

fn ends_operand(token: &TokenKind) -> bool {
    is_join(token) || matches!(token, TokenKind::Symbol("}" | ")") | TokenKind::End)
}

/// The tokens with everything that is missing.
fn mended(tokens: Vec<Token>) -> Vec<Token> {
    let end = tokens.iter().position(|token| token.kind == TokenKind::Symbol("|")).unwrap_or(tokens.len() - 1);
    let end_pos = tokens[end].pos;
    let kind_at = |at: usize| if at < end { &tokens[at].kind } else { &TokenKind::End };
    let holds = || TokenKind::Ident("true".to_owned());
    let mut whole: Vec<Token> = Vec::with_capacity(end + 8);
    let mut open: Vec<&'static str> = Vec::new();
    let mut at = 0;
    while at < end {
        let Token { pos, kind } = &tokens[at];
        let is_operand = matches!(kind, TokenKind::Attribute(_) | TokenKind::Ident(_));
        if is_operand && is_comparison(kind_at(at + 1)) && ends_operand(kind_at(at + 2)) {
            whole.push(Token { pos: *pos, kind: holds() });
            at += 2;
            continue;
        }
        match kind {
            TokenKind::Symbol("{") => open.push("}"),
            TokenKind::Symbol("(") => open.push(")"),
            TokenKind::Symbol("}" | ")") => _ = open.pop(),
            _ => {}
        }
        whole.push(Token { pos: *pos, kind: kind.clone() });
        // Between spansets a missing operand is a filter that is still to come.
        if is_join(kind) && ends_operand(kind_at(at + 1)) {
            let operand =
                if open.is_empty() { vec![TokenKind::Symbol("{"), TokenKind::Symbol("}")] } else { vec![holds()] };
            whole.extend(operand.into_iter().map(|kind| Token { pos: *pos, kind }));
        }
        at += 1;
    }
    let closing = open.into_iter().rev().map(TokenKind::Symbol).chain([TokenKind::End]);
    whole.extend(closing.map(|kind| Token { pos: end_pos, kind }));
    whole
}

/// What the spans of the first spanset satisfy.
fn first_filter(query: &Query) -> Option<SpansetExpr> {
    match &query.body {
        Body::Search(pipeline) => filter_of_pipeline(pipeline),
        Body::Metrics(metrics) => filter_of_metrics(metrics),
    }
}

fn filter_of_metrics(metrics: &MetricsExpr) -> Option<SpansetExpr> {
    match metrics {
        MetricsExpr::Aggregate { pipeline, .. } => filter_of_pipeline(pipeline),
        MetricsExpr::SecondStage { input, .. } => filter_of_metrics(input),
        MetricsExpr::Constant(_) | MetricsExpr::Binary { .. } => None,
    }
}

fn filter_of_pipeline(pipeline: &Pipeline) -> Option<SpansetExpr> {
    match &pipeline.stages.first()?.kind {
        StageKind::Spanset(spanset) => filter_of_spanset(spanset),
        _ => None,
    }
}

fn filter_of_spanset(spanset: &SpansetExpr) -> Option<SpansetExpr> {
    match &spanset.kind {
        SpansetKind::Filter(_) => Some(spanset.clone()),
        SpansetKind::Pipeline(pipeline) => filter_of_pipeline(pipeline),
        SpansetKind::Binary { op, left, right } => {
            let op = match op {
                SpansetOp::Structural(relation, Quantifier::Plain | Quantifier::Union) => {
                    SpansetOp::Structural(*relation, Quantifier::Union)
                }
                // Spans of the left side need nothing of the right one, to be where it is typed.
                SpansetOp::Structural(_, Quantifier::Negated) | SpansetOp::And | SpansetOp::Or => SpansetOp::Or,
            };
            Some(joined(spanset.pos, op, filter_of_spanset(left)?, filter_of_spanset(right)?))
        }
    }
}

fn joined(pos: Pos, op: SpansetOp, left: SpansetExpr, right: SpansetExpr) -> SpansetExpr {
    let kind = match (op, left.kind, right.kind) {
        // One filter is decided span by span.
        (SpansetOp::Or, SpansetKind::Filter(left), SpansetKind::Filter(right)) => {
            SpansetKind::Filter(Expr::new(pos, Node::Or(vec![left, right])))
        }
        (op, left_kind, right_kind) => SpansetKind::Binary {
            op,
            left: Box::new(SpansetExpr { pos: left.pos, kind: left_kind }),
            right: Box::new(SpansetExpr { pos: right.pos, kind: right_kind }),
        },
    };
    SpansetExpr { pos, kind }
}

/// Whether every span is in a filter's spanset, as far as can be told without looking.
fn has_all(spanset: &SpansetExpr) -> bool {
    match &spanset.kind {
        SpansetKind::Filter(expr) => is_true(expr),
        SpansetKind::Binary { op: SpansetOp::Or, left, right } => has_all(left) || has_all(right),
        SpansetKind::Binary { .. } | SpansetKind::Pipeline(_) => false,
    }
}

fn is_true(expr: &Expr) -> bool {
    match &expr.node {
        Node::Static(value) => *value == Static::Bool(true),
        Node::And(operands) => operands.iter().all(is_true),
        Node::Or(operands) => operands.iter().any(is_true),
        _ => false,
    }
}

fn scoped_spanset(spanset: &SpansetExpr) -> SpansetExpr {
    let pos = spanset.pos;
    match &spanset.kind {
        SpansetKind::Filter(expr) => SpansetExpr { pos, kind: SpansetKind::Filter(scoped(expr)) },
        SpansetKind::Binary { op, left, right } => joined(pos, *op, scoped_spanset(left), scoped_spanset(right)),
        SpansetKind::Pipeline(_) => spanset.clone(),
    }
}

fn scoped(expr: &Expr) -> Expr {
    match &expr.node {
        Node::And(operands) => Expr::new(expr.pos, Node::And(operands.iter().map(scoped).collect())),
        Node::Or(operands) => Expr::new(expr.pos, Node::Or(operands.iter().map(scoped).collect())),
        _ if looks_at_any_scope(expr) => Expr::new(expr.pos, Node::Static(Static::Bool(true))),
        _ => expr.clone(),
    }
}

fn looks_at_any_scope(expr: &Expr) -> bool {
    match &expr.node {
        Node::Static(_) => false,
        Node::Attribute(attribute) => {
            matches!(attribute, Attribute::Named(AttrScope::Any, _) | Attribute::OfParent(AttrScope::Any, _))
        }
        Node::Not(operand) | Node::Minus(operand) => looks_at_any_scope(operand),
        Node::And(operands) | Node::Or(operands) => operands.iter().any(looks_at_any_scope),
        Node::Binary { left, right, .. } => looks_at_any_scope(left) || looks_at_any_scope(right),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(filter: Option<LenientFilter>) -> String {
        filter.map_or_else(|| "no filter".to_owned(), |filter| filter.query().to_string())
    }

    fn check(text: &str, expect: &str) {
        let expected =
            if expect == "no filter" { expect.to_owned() } else { parser::parse(expect).unwrap().to_string() };
        assert_eq!(shown(lenient_filter(text)), expected, "{text}");
    }

    #[test]
    fn what_is_finished_is_taken_as_it_is() {
        check("{ span.a = 1 }", "{ span.a = 1 }");
        check("{ span.a = 1 } | rate() by (resource.b)", "{ span.a = 1 }");
        check("{ span.a = 1 } | select(.x)", "{ span.a = 1 }");
        check("{ span.a = 1 } && { span.b = 2 }", "{ span.a = 1 || span.b = 2 }");
        check("{ span.a = 1 } !>> { span.b = 2 }", "{ span.a = 1 || span.b = 2 }");
        check("{ span.a = 1 } >> { span.b = 2 }", "{ span.a = 1 } &>> { span.b = 2 }");
        check("({ span.a = 1 } | count() > 2) < { span.b = 2 } | rate()", "{ span.a = 1 } &< { span.b = 2 }");
        check("{ span.a = 1 } ~ {} && { span.b = 2 }", "{ span.a = 1 } &~ {} || { span.b = 2 }");
        check("{}", "no filter");
        check("{ true || span.a = 1 }", "no filter");
        check("{ true && true }", "no filter");
    }

    #[test]
    fn what_is_unfinished_is_mended() {
        for (text, expect) in [
            ("{ span.foo = ", "no filter"),
            ("{ span.foo = }", "no filter"),
            ("{ span.a = \"x\" && span.b = }", "{ span.a = \"x\" && true }"),
            ("{ span.a = \"x\" && span.b = ", "{ span.a = \"x\" && true }"),
            ("{ span.b >= && span.a = \"x\"", "{ true && span.a = \"x\" }"),
            ("{ (span.b = || status = ) && span.a = \"x\"", "{ (true || true) && span.a = \"x\" }"),
            ("{ span.a = \"x\" && ", "{ span.a = \"x\" && true }"),
            ("{ span.a = \"x\" && span.", "{ span.a = \"x\" && true }"),
            ("{ span.a = \"x\" && span.b = \"unfini", "{ span.a = \"x\" && true }"),
            ("{ span.a = \"x\" } | rate() by(", "{ span.a = \"x\" }"),
            ("{ span.a = \"x\" && span.b = } | ra", "{ span.a = \"x\" && true }"),
            ("{ span.a = \"x\" } && ", "no filter"),
            ("{ span.a = \"x\" } >> { span.b = ", "{ span.a = \"x\" } &>> { true }"),
        ] {
            check(text, expect);
        }
    }

    #[test]
    fn what_cannot_be_used_is_no_filter() {
        for text in [
            "",
            "span.a = 1",
            "{ span.a + }",
            "{ duration = \"x\" }",
            "{ span.a = ( }",
            "}}",
            "| rate()",
            "({ span.a = 1 } | rate()) / ({} | rate())",
        ] {
            check(text, "no filter");
        }
    }

    #[test]
    fn conditions_on_any_scope_may_be_left_out() {
        let scoped = |text: &str| shown(lenient_filter(text).unwrap().scoped());
        assert_eq!(scoped("{ .a = 1 }"), "no filter");
        assert_eq!(scoped("{ .a = 1 || span.b = 1 }"), "no filter");
        assert_eq!(scoped("{ .a = 1 && span.b = 1 }"), shown(lenient_filter("{ true && span.b = 1 }")));
        assert_eq!(scoped("{ .a = 1 } > { span.b = 1 }"), shown(lenient_filter("{ true } > { span.b = 1 }")));
        assert_eq!(scoped("{ !(.a = 1) && span.b = 1 }"), shown(lenient_filter("{ true && span.b = 1 }")));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in r#"([{}()|&=.<>"a ]|&&|span\.|status){0,24}"#) {
            if let Some(filter) = lenient_filter(&text) {
                prop_assert!(parser::parse(&filter.query().to_string()).is_ok());
            }
        }
    }
}
