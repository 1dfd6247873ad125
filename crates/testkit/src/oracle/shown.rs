//! What search results list for each span: whatever the query looks at.

use spoor_model::Value;
use spoor_traceql::Query;
use spoor_traceql::ast::{
    Attribute, Body, Expr, Intrinsic, Node, Pipeline, ScalarExpr, SpansetExpr, SpansetKind, StageKind,
};

use super::view::View;

/// Whether the span's name is filled.
pub(super) fn shows_name(query: &Query) -> bool {
    looked_at(query).contains(&Attribute::Intrinsic(Intrinsic::Name))
}

/// `(name without scope, value)` of what the query looks at and the span has, each once.
pub(super) fn attributes(query: &Query, view: &View, row: usize) -> Vec<(String, Value)> {
    let mut shown = Vec::new();
    for attribute in looked_at(query) {
        let name = match &attribute {
            Attribute::Named(_, name) => name.to_string(),
            Attribute::Intrinsic(intrinsic) if !is_never_listed(*intrinsic) => intrinsic.text().to_owned(),
            _ => continue,
        };
        let value = view.at(row).value(&attribute);
        let pair = (name, value.to_value());
        if !value.is_nil() && !shown.contains(&pair) {
            shown.push(pair);
        }
    }
    shown
}

/// These have places of their own in an answer.
fn is_never_listed(intrinsic: Intrinsic) -> bool {
    matches!(
        intrinsic,
        Intrinsic::Name
            | Intrinsic::Duration
            | Intrinsic::TraceDuration
            | Intrinsic::RootName
            | Intrinsic::RootServiceName
            | Intrinsic::TraceId
            | Intrinsic::SpanId
    )
}

fn looked_at(query: &Query) -> Vec<Attribute> {
    let mut all = Vec::new();
    if let Body::Search(pipeline) = &query.body {
        in_pipeline(pipeline, &mut all);
    }
    all
}

fn in_pipeline(pipeline: &Pipeline, all: &mut Vec<Attribute>) {
    for stage in &pipeline.stages {
        match &stage.kind {
            StageKind::Spanset(expr) => in_spanset(expr, all),
            StageKind::ScalarFilter { left, right, .. } => {
                in_scalar(left, all);
                in_scalar(right, all);
            }
            StageKind::By(expr) => in_expr(expr, all),
            StageKind::Coalesce => {}
            StageKind::Select(attributes) => all.extend(attributes.iter().cloned()),
        }
    }
}

fn in_spanset(expr: &SpansetExpr, all: &mut Vec<Attribute>) {
    match &expr.kind {
        SpansetKind::Filter(expr) => in_expr(expr, all),
        SpansetKind::Pipeline(pipeline) => in_pipeline(pipeline, all),
        SpansetKind::Binary { left, right, .. } => {
            in_spanset(left, all);
            in_spanset(right, all);
        }
    }
}

fn in_scalar(expr: &ScalarExpr, all: &mut Vec<Attribute>) {
    match expr {
        ScalarExpr::Static(_) | ScalarExpr::Aggregate(_, None) => {}
        ScalarExpr::Aggregate(_, Some(of)) => in_expr(of, all),
        ScalarExpr::Binary { left, right, .. } => {
            in_scalar(left, all);
            in_scalar(right, all);
        }
    }
}

fn in_expr(expr: &Expr, all: &mut Vec<Attribute>) {
    match &expr.node {
        Node::Static(_) => {}
        Node::Attribute(attribute) => all.push(attribute.clone()),
        Node::Not(operand) | Node::Minus(operand) => in_expr(operand, all),
        Node::And(operands) | Node::Or(operands) => operands.iter().for_each(|operand| in_expr(operand, all)),
        Node::Binary { left, right, .. } => {
            in_expr(left, all);
            in_expr(right, all);
        }
    }
}
